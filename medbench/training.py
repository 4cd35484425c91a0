"""`fit`: one recipe for every model.

What lives here, top to bottom: `Run`; `fit`, where it keeps a run, its checks; `noted` and `load_run`. `loop` has the
steps, `recipe` their parts, `checkpoint` the files; `predict` and `evaluate` are those of `inference`.

The recipe: AdamW, linear warm-up and cosine, clipped gradients, flips and shifts, bf16 where that is faster. The order
of images, their augmentation and dropout depend on (seed, epoch, step) alone, so a run that was broken off, by a kill
or a power cut too, continues to the very same weights on the same machine, given the same number of threads. The
weights of the best epoch on validation are kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import checkpoint, distributed, recipe
from .config import ModelConfig, TrainingConfig, fingerprint
from .data import Data
from .files import cache_dir, read_json
from .inference import evaluate, predict
from .loop import SELECTION, Loop, validation_scores

__all__ = ["RECIPE_VERSION", "SELECTION", "Run", "evaluate", "fit", "load_run", "predict", "run_folder",
           "validation_scores"]

RECIPE_VERSION = 6                 # raise it when a change to the code changes what is trained


@dataclass
class Run:
    """A trained model and how it came about.

    `prior` (k,): class frequencies behind its logits. `history`: one dict an epoch. `loaded`: it was trained before.
    `images`: the fingerprint of the data. `recipe_version`: of the code that trained it. `digests`: hashes of the last
    weights, the optimiser's last state and the order of images, by which two runs can be told to be the same.
    `caveats`: what has to be said of the data. `notes`: what happened on the way, such as a damaged checkpoint.
    """

    model: nn.Module
    fingerprint: str
    directory: Path
    training: TrainingConfig
    prior: np.ndarray
    classes: tuple[str, ...]
    history: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    samples_seen: int = 0
    loaded: bool = False
    images: str = ""
    recipe_version: int = RECIPE_VERSION
    micro_batch: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fingerprints(self) -> dict[str, str]:
        """What a record of this run carries: the run's own fingerprint, that of the images, the recipe's version."""
        return {"run": self.fingerprint, "images": self.images, "recipe": str(self.recipe_version)}

    def rows(self) -> list[dict]:
        """Records: time, samples and the chosen epoch."""
        about = {"context": {"threads": self.training.threads, "precision": self.training.precision}
                 | ({"micro_batch": self.micro_batch} if self.micro_batch else {})
                 | ({"caveats": list(self.caveats)} if self.caveats else {})}
        return [{"quantity": "training_seconds", "value": self.seconds, "unit": "s", **about},
                {"quantity": "training_cpu_seconds", "value": self.cpu_seconds, "unit": "s", **about},
                {"quantity": "training_rate", "value": self.samples_seen / self.seconds, "unit": "images/s", **about},
                {"quantity": "samples_seen", "value": self.samples_seen, "unit": "1"},
                {"quantity": "epochs", "value": len(self.history), "unit": "1"},
                {"quantity": "best_epoch", "value": self.best_epoch, "unit": "1"}]


# --------------------------------------------------------------------------------------------- fit
def fit(model: nn.Module, data: Data, training: TrainingConfig, *, cache=None, progress: bool = True,
        workers: int = 0) -> Run:
    """Train a model by the recipe, go on where a broken-off run stopped, or load what is finished.

    Args:
        model: any module from (B, C, H, W) to logits (B, k); trained in place, and left with the chosen weights.
        data: from `load_data`; `train` is learnt from, `val` chooses the epoch, `test` is not touched.
        training: the recipe's numbers.
        cache: folder for runs and checkpoints in place of the default one.
        progress: a bar with loss, rate and time left in the terminal.
        workers: processes that prepare batches ahead; any number gives the same run.
    Returns: `Run`.
    Raises:
        ValueError: model and data do not fit. RuntimeError: `cuda` without a GPU, or another number of processes than
        was asked for. OSError: a checkpoint could not be written; the one before is whole. FloatingPointError: the loss
        became NaN or infinite; `failure.json` in the run's folder tells where, and nothing is kept as finished.
    """
    config = recipe.resolve(training)
    _check(model, data)
    world = distributed.world(config)
    folder = run_folder(model, data, config, cache)
    model.decision_prior = recipe.prior_behind(config, data.prior)
    run = Run(model, folder.name, folder, config, model.decision_prior, data.classes, images=data.fingerprint,
              caveats=data.caveats)
    done = checkpoint.load_run(folder)                       # needs no lock, so a cache which may only be read will do
    run.loaded = not world.total(torch.tensor(float(done is None)))
    if not run.loaded:
        with world.alone_in(folder):
            done = checkpoint.load_run(folder)
            run.loaded = done is not None
            world.agree("run", (folder.name, "finished" if run.loaded else "not finished"))
            if not run.loaded:
                gpus = [world.device] if world.device.type == "cuda" else []
                notes = checkpoint.reopen(folder, world.patience) if world.main else []
                with recipe.threads(config.threads), torch.random.fork_rng(gpus), _as_given(model, world):
                    Loop(model, data, config, folder, world, workers, progress, notes).train(_about(run))
    done = done or checkpoint.load_run(folder, world.patience)
    if done is None:
        raise RuntimeError(f"the run that just ended cannot be read from {str(folder)!r}; is MEDBENCH_CACHE one folder "
                           f"that every node sees, and is its disk whole?")
    model.to(world.device)
    return _filled(run, *done)


@contextlib.contextmanager
def _as_given(model: nn.Module, world: distributed.World):
    """A training that is broken off leaves the model as it was given: the same call then goes on with the same run."""
    given = {name: t.detach().to("cpu", copy=True) for name, t in model.state_dict().items()}
    try:
        yield
    except BaseException:
        world.unwrap(model)
        model.load_state_dict(given)
        raise


def run_folder(model: nn.Module, data: Data, training: TrainingConfig, cache=None) -> Path:
    """Where `fit` keeps this run, named by the fingerprint of all that it depends on; the model is one not yet trained.
    """
    key = fingerprint(RECIPE_VERSION, _identity(model), data.fingerprint, recipe.resolve(training))
    return cache_dir(cache) / "runs" / key


def _about(run: Run) -> dict:
    """What a finished run's file says besides what the loop counted."""
    return {"fingerprint": run.fingerprint, "recipe_version": RECIPE_VERSION, "classes": run.classes,
            "model": _description(run.model), "training": dataclasses.asdict(run.training), "data": run.images,
            "prior": run.prior.tolist(), "caveats": list(run.caveats)}


def _filled(run: Run, info: dict, weights: dict) -> Run:
    """The run with what its folder tells."""
    run.model.load_state_dict(weights)
    run.model.eval()
    for name in ("history", "best_epoch", "seconds", "cpu_seconds", "samples_seen", "recipe_version", "micro_batch",
                 "digests"):
        setattr(run, name, info[name])
    run.notes = tuple(info["notes"])
    return run


def _check(model: nn.Module, data: Data) -> None:
    """Refuse a model that does not fit the data, before any work."""
    config = getattr(model, "config", None)
    size, classes = tuple(data.train.images.shape[-2:]), len(data.classes)
    if config is not None and config.num_classes != classes:
        raise ValueError(f"the model has num_classes={config.num_classes} but the data have {classes} classes "
                         f"({', '.join(data.classes)}); build it with num_classes={classes}")
    if config is not None and tuple(config.img_size) != size:
        raise ValueError(f"the model was built for images of {config.img_size} but the data have {size}; build it with "
                         f"img_size={size} or load the data with img_size={config.img_size[0]}")


def _description(model: nn.Module) -> dict | str:
    """The model's configuration, or its printed form where it has none."""
    config = getattr(model, "config", None)
    return dataclasses.asdict(config) if config is not None else str(model)


def _identity(model: nn.Module) -> list:
    """What the model is and where it starts: its description and a hash of its first parameters.

    They are taken in the order of memory, for sums over another layout are rounded otherwise, and end elsewhere.
    """
    start = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        outer_first = sorted(range(p.dim()), key=p.stride, reverse=True)
        start.update(name.encode() + p.detach().cpu().permute(outer_first).contiguous().numpy().tobytes())
    return [_description(model), start.hexdigest()]


def noted(directory) -> dict:
    """What the file of a finished run of a medbench model says of it, without its weights; raises as `load_run`."""
    folder = Path(directory)
    checkpoint.refuse_pickle(folder)
    info = read_json(folder / "run.json")
    if info is None:
        raise FileNotFoundError(f"{str(folder)!r} has no readable run.json; wanted the folder of a finished run")
    if not info["finished"]:
        raise ValueError(f"the run in {str(folder)!r} did not finish: {info['reason']}")
    if not isinstance(info["model"], dict):
        raise ValueError(f"the run in {str(folder)!r} is of a model that medbench did not build; load its weights from "
                         f"model.safetensors")
    return info


def load_run(directory) -> Run:
    """A finished run of a medbench model, read back from its folder (`Run.directory`); the model is on the CPU.

    Raises: FileNotFoundError, ValueError: no run there, not finished, damaged, or of a model that is not medbench's.
    """
    from .models import build_model
    folder, info = Path(directory), noted(directory)
    done = checkpoint.load_run(folder)
    if done is None:
        raise ValueError(f"the weights in {str(folder)!r} are missing or damaged; delete the folder and train again")
    model = build_model(ModelConfig(**info["model"]))
    model.decision_prior = np.array(info["prior"])
    run = Run(model, info["fingerprint"], folder, TrainingConfig(**info["training"]), model.decision_prior,
              tuple(info["classes"]), loaded=True, images=info["data"],
              caveats=tuple(info["caveats"]))
    return _filled(run, *done)
