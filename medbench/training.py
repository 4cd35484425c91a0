"""`fit`: one recipe for every model.

What lives here, top to bottom: `Run`; `fit` and its checks; `load_run`; the loop. `recipe` has the parts, `checkpoint`
the files; `predict` and `evaluate` are those of `inference`.

The recipe: AdamW, linear warm-up and cosine, clipped gradients, flips and shifts, bf16 where that is faster. The order
of images, their augmentation and dropout depend on (seed, epoch, step) alone, so a run that was broken off continues
to the very same weights, given the same number of threads. The weights of the best epoch on validation are kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import checkpoint, recipe
from .config import ModelConfig, TrainingConfig, fingerprint
from .data import Data, Split, to_input
from .files import cache_dir, lock, read_json, write_json
from .files import progress as bar
from .inference import evaluate, in_chans, predict
from .scoring import Task

__all__ = ["RECIPE_VERSION", "Run", "evaluate", "fit", "load_run", "predict"]

RECIPE_VERSION = 6                 # raise it when a change to the code changes what is trained
CHECKPOINT_SECONDS = 30.0
SELECTION = "val_macro_auroc"      # what chooses the epoch
CHECK_STEPS = 20                   # how often the loss is looked at


@dataclass
class Run:
    """A trained model and how it came about.

    `prior` (k,): class frequencies behind its logits. `history`: one dict an epoch. `loaded`: it was trained before.
    `images`: the fingerprint of the data. `recipe_version`: of the code that trained it.
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

    @property
    def fingerprints(self) -> dict[str, str]:
        """What a record of this run carries: the run's own fingerprint, that of the images, the recipe's version."""
        return {"run": self.fingerprint, "images": self.images, "recipe": str(self.recipe_version)}

    def rows(self) -> list[dict]:
        """Records: time, samples and the chosen epoch."""
        about = {"context": {"threads": self.training.threads, "precision": self.training.precision}}
        return [{"quantity": "training_seconds", "value": self.seconds, "unit": "s", **about},
                {"quantity": "training_cpu_seconds", "value": self.cpu_seconds, "unit": "s", **about},
                {"quantity": "training_rate", "value": self.samples_seen / self.seconds, "unit": "images/s", **about},
                {"quantity": "samples_seen", "value": self.samples_seen, "unit": "1"},
                {"quantity": "epochs", "value": len(self.history), "unit": "1"},
                {"quantity": "best_epoch", "value": self.best_epoch, "unit": "1"}]


# --------------------------------------------------------------------------------------------- fit
def fit(model: nn.Module, data: Data, training: TrainingConfig, *, cache=None, progress: bool = True) -> Run:
    """Train a model by the recipe, go on where a broken-off run stopped, or load what is finished.

    Args:
        model: any module from (B, C, H, W) to logits (B, k); trained in place, and left with the chosen weights.
        data: from `load_data`; `train` is learnt from, `val` chooses the epoch, `test` is not touched.
        training: the recipe's numbers.
        cache: folder for runs and checkpoints in place of the default one.
        progress: a bar with loss, rate and time left in the terminal.
    Returns: `Run`.
    Raises:
        ValueError: model and data do not fit; RuntimeError: `cuda` without a GPU; FloatingPointError: the loss became
        NaN or infinite (nothing is kept as finished).
    """
    config = recipe.resolve(training)
    _check(model, data)
    key = fingerprint(RECIPE_VERSION, _identity(model), data.fingerprint, config)
    folder = cache_dir(cache) / "runs" / key
    model.decision_prior = recipe.prior_behind(config, data.prior)
    with lock(folder):
        run = Run(model, key, folder, config, model.decision_prior, data.classes, images=data.fingerprint)
        done = checkpoint.load_run(folder)
        if done is None:
            gpus = [torch.device(config.device).index or 0] if config.device.startswith("cuda") else []
            with recipe.threads(config.threads), torch.random.fork_rng(gpus):
                _Loop(run, data, progress).train()
            done = checkpoint.load_run(folder)
        else:
            run.loaded = True
    model.to(config.device)
    return _filled(run, *done)


def _filled(run: Run, info: dict, weights: dict) -> Run:
    """The run with what its folder tells."""
    run.model.load_state_dict(weights)
    run.model.eval()
    for name in ("history", "best_epoch", "seconds", "cpu_seconds", "samples_seen", "recipe_version"):
        setattr(run, name, info[name])
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


def load_run(directory) -> Run:
    """A finished run of a medbench model, read back from its folder (`Run.directory`); the model is on the CPU.

    Raises: FileNotFoundError, ValueError: no run there, not finished, damaged, or of a model that is not medbench's.
    """
    from .models import build_model
    folder = Path(directory)
    note = read_json(folder / "run.json")
    if note is None:
        raise FileNotFoundError(f"{str(folder)!r} has no readable run.json; wanted the folder of a finished run")
    if not note["finished"]:
        raise ValueError(f"the run in {str(folder)!r} did not finish: {note['reason']}")
    done = checkpoint.load_run(folder)
    if done is None:
        raise ValueError(f"the weights in {str(folder)!r} are missing or damaged; delete the folder and train again")
    info = done[0]
    if not isinstance(info["model"], dict):
        raise ValueError(f"the run in {str(folder)!r} is of a model that medbench did not build; load its weights from "
                         f"model.safetensors")
    model = build_model(ModelConfig(**info["model"]))
    model.decision_prior = np.array(info["prior"])
    run = Run(model, info["fingerprint"], folder, TrainingConfig(**info["training"]), model.decision_prior,
              tuple(info["classes"]), loaded=True, images=info["data"])
    return _filled(run, *done)


def validation_scores(logits: np.ndarray, split: Split, prior: np.ndarray) -> dict[str, float]:
    """Loss, balanced accuracy and macro AUROC on validation; the last two over the classes that are there."""
    found = Task(logits, split, prior).statistics(np.ones((1, len(split))))
    z = torch.from_numpy(logits).double()
    loss = nn.functional.cross_entropy(z, torch.from_numpy(np.array(split.labels)))
    return {"val_loss": float(loss), "val_balanced_accuracy": float(np.nanmean(found["sensitivity"])),
            "val_macro_auroc": float(np.nanmean(found["auroc"]))}


# --------------------------------------------------------------------------------------------- the loop
class _Loop:
    """One training, from wherever it stands to its end."""

    def __init__(self, run: Run, data: Data, progress: bool):
        self.run, self.data, self.config, self.progress = run, data, run.training, progress
        self.device = torch.device(self.config.device)
        self.model = run.model.to(self.device)
        self.images = torch.from_numpy(np.array(data.train.images)).to(self.device)
        self.labels = torch.from_numpy(np.array(data.train.labels)).to(self.device)
        self.per_epoch = -(-len(data.train) // self.config.batch_size)
        self.steps = self.per_epoch * self.config.epochs
        self.optimiser = recipe.optimiser(self.model, self.config)
        self.loss = recipe.loss_function(self.config, data.prior, self.device)
        self.in_chans = in_chans(self.model, data.train)
        self.name = getattr(getattr(self.model, "config", None), "name", type(self.model).__name__)
        self.info = {"step": 0, "loss_sum": 0.0, "seconds": 0.0, "cpu_seconds": 0.0, "history": [], "best_epoch": 0}
        self.best: dict[str, torch.Tensor] = {}

    def train(self) -> None:
        """All epochs that are left; the folder then holds a finished run."""
        found, best = checkpoint.load_state(self.run.directory, self.model, self.optimiser)
        if not found:
            recipe.start_at_prior(self.model, self.run.prior)
        else:
            self.info, self.best = {name: found[name] for name in self.info}, best
        self.saved = self.began = time.perf_counter()
        self.cpu_began = time.process_time()
        size, done = len(self.data.train), self.info["step"]
        seen = done // self.per_epoch * size + done % self.per_epoch * self.config.batch_size
        with bar(self.config.epochs * size, f"training {self.name}", "img", self.progress, seen) as self.bar:
            while self.info["step"] < self.steps:
                self._epoch(self.info["step"] // self.per_epoch)
        about = {"fingerprint": self.run.fingerprint, "recipe_version": RECIPE_VERSION, "classes": self.data.classes,
                 "model": _description(self.model), "training": dataclasses.asdict(self.config),
                 "data": self.data.fingerprint, "prior": self.run.prior.tolist(),
                 "samples_seen": size * self.config.epochs}
        self._note_time()
        checkpoint.save_run(self.run.directory, self.best, {**self.info, **about})

    def _epoch(self, epoch: int) -> None:
        """The steps of one epoch that are left, then validation."""
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.data.train))
        self.model.train()
        total = torch.tensor(self.info["loss_sum"], dtype=torch.float64, device=self.device)
        for step in range(self.info["step"], (epoch + 1) * self.per_epoch):
            first = (step - epoch * self.per_epoch) * self.config.batch_size
            batch = order[first : first + self.config.batch_size]
            loss = self._step(step, epoch, batch)
            total += loss.detach() * len(batch)
            self.bar.update(len(batch))
            if step % CHECK_STEPS == 0 or step + 1 == (epoch + 1) * self.per_epoch:
                self._look(total, loss, epoch, step)
            self.info["step"] = step + 1
            if time.perf_counter() - self.saved > CHECKPOINT_SECONDS:
                self._look(total, loss, epoch, step)
                self._save(total.item())
        self._validate(epoch, total.item() / len(order))
        self._save(0.0)

    def _step(self, step: int, epoch: int, batch: np.ndarray) -> torch.Tensor:
        """One batch: forward, backward, clip, update."""
        torch.manual_seed(self.config.seed * 1_000_003 + step)                      # dropout and drop path
        rate = recipe.learning_rate(step, self.steps, self.config)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        where = torch.from_numpy(batch).to(self.device)
        images = to_input(recipe.augment(self.images[where], batch, epoch, self.config), self.in_chans)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            logits = self.model(images)
        loss = self.loss(logits, self.labels[where])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        self.optimiser.step()
        return loss

    def _look(self, total: torch.Tensor, loss: torch.Tensor, epoch: int, step: int) -> None:
        """Show the loss; stop where it is no number."""
        if not torch.isfinite(total):
            reason = (f"training {self.name} stopped in epoch {epoch + 1}, step {step + 1}: the loss became NaN or "
                      f"infinite. Use a lower lr (now {self.config.lr:g}), a longer warmup or precision='float32'")
            write_json(self.run.directory / "run.json", {"finished": False, "reason": reason})
            raise FloatingPointError(reason)
        self.bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)

    def _validate(self, epoch: int, loss: float) -> None:
        """Score the epoch on validation; keep its weights if it is the best so far."""
        logits = predict(self.model, self.data.val, precision=self.config.precision)
        if not np.isfinite(logits).all():
            self._look(torch.tensor(torch.nan), torch.tensor(torch.nan), epoch, self.info["step"] - 1)
        scores = validation_scores(logits, self.data.val, self.run.prior)
        history = self.info["history"]
        seen = (epoch + 1) * len(self.data.train)
        history.append({"epoch": epoch + 1, "samples_seen": seen, "loss": loss, **scores})
        best = max(history, key=lambda epoch: (epoch[SELECTION], epoch["epoch"]))
        if best is history[-1]:
            self.info["best_epoch"] = epoch + 1
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def _save(self, loss_sum: float) -> None:
        self._note_time()
        self.info["loss_sum"] = loss_sum
        checkpoint.save_state(self.run.directory, self.model, self.optimiser, self.best, self.info)
        self.saved = time.perf_counter()

    def _note_time(self) -> None:
        now, cpu = time.perf_counter(), time.process_time()
        self.info["seconds"] += now - self.began
        self.info["cpu_seconds"] += cpu - self.cpu_began
        self.began, self.cpu_began = now, cpu
