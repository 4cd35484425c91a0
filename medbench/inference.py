"""What a trained model says: logits for a split, its scores, answers for image files; and runs read back from disk.

What lives here, top to bottom: `predict`; `evaluate`; `load_run`; `predict_files`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import checkpoint, metrics
from .config import ModelConfig
from .data import Split, read_image, to_input
from .files import read_json
from .machine import resolve_device
from .metrics import Scores


def predict(model: nn.Module, images, *, batch_size: int = 64, precision: str = "float32") -> np.ndarray:
    """Logits of a model, in evaluation mode and on the device where its weights lie.

    Args: `images`: a `Split`, or uint8 images (n, H, W) or (n, C, H, W); `batch_size`: images at once, which changes
        nothing but speed; `precision`: `"bfloat16"` for autocast.
    Returns: (n, k) float32. Leaves the model in evaluation mode.
    """
    place = next(model.parameters()).device
    channels = in_chans(model, images)
    images = images.images if isinstance(images, Split) else images
    model.eval()
    found = []
    with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16"):
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(place)
            found.append(model(to_input(batch, channels)).float().cpu().numpy())
    return np.concatenate(found) if found else np.empty((0, 0), np.float32)


def in_chans(model: nn.Module, images) -> int:
    """Channels that the model takes: by its configuration, else by the split's, else 1."""
    return getattr(getattr(model, "config", None), "in_chans", getattr(images, "in_chans", 1))


def evaluate(model_or_logits, split: Split, *, prior=None, bootstrap: int = 1000, seed: int = 0) -> Scores:
    """Every score of a model, or of logits (n, k), on a split: `metrics.evaluate` after `predict`.

    Args: `prior` (k,): class frequencies behind the logits; by default those that `fit` noted on the model, else the
        split's. The rest as in `metrics.evaluate`.
    Returns: `metrics.Scores`, with 95 % intervals. Raises: ValueError as `metrics.evaluate`.
    """
    logits = model_or_logits
    if isinstance(model_or_logits, nn.Module):
        logits = predict(model_or_logits, split)
        prior = getattr(model_or_logits, "decision_prior", None) if prior is None else prior
    return metrics.evaluate(logits, split, prior=prior, bootstrap=bootstrap, seed=seed)


# --------------------------------------------------------------------------------------------- runs on disk
def load_run(directory, device: str = "auto") -> tuple[nn.Module, ModelConfig, tuple[str, ...], np.ndarray]:
    """A finished run of a medbench model, read back.

    Args: `directory`: as in `Run.directory`. Returns: (model, its configuration, class keys, the class frequencies
        behind its logits). Raises: FileNotFoundError, ValueError: no run there, not finished, or not one of ours.
    """
    from .models import build_model
    folder = Path(directory)
    note = read_json(folder / "run.json")
    if note is None:
        raise FileNotFoundError(f"{str(folder)!r} holds no finished run (no readable run.json); give the folder that "
                                f"training printed")
    if not note["finished"]:
        raise ValueError(f"the run in {str(folder)!r} did not finish: {note['reason']}")
    found = checkpoint.load_run(folder)
    if found is None:
        raise ValueError(f"the weights in {str(folder)!r} are missing or damaged; delete the folder and train again")
    info, weights = found
    if not isinstance(info["model"], dict):
        raise ValueError(f"the run in {str(folder)!r} is of a model that medbench did not build; load its weights from "
                         f"model.safetensors")
    config = ModelConfig(**info["model"])
    model = build_model(config)
    model.load_state_dict(weights)
    model.decision_prior = np.array(info["prior"])
    return model.to(resolve_device(device)).eval(), config, tuple(info["classes"]), model.decision_prior


def predict_files(directory, paths, device: str = "auto") -> list[dict]:
    """Answers of a finished run for image files: one dict an image with `path`, `label` and `p_<class>`.

    Decisions and probabilities take all classes as equally frequent (logits minus log prior). For research and
    teaching, not for clinical use. Raises: as `load_run` and `data.read_image`, before any image is classified.
    """
    model, config, classes, prior = load_run(directory, device)
    height, width = config.img_size
    if height != width:
        raise ValueError(f"the run was trained on images of {config.img_size}; files can be read as squares only")
    images = np.stack([read_image(path, height) for path in paths])
    scores = torch.from_numpy(predict(model, images) - np.log(prior)).softmax(1).numpy()
    return [{"path": str(path), "label": classes[int(row.argmax())]}
            | {f"p_{key}": float(p) for key, p in zip(classes, row)} for path, row in zip(paths, scores)]
