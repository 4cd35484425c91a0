"""What a model says: `predict`, its logits for a split, and `evaluate`, its scores."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from . import metrics
from .data import Split, to_input
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
