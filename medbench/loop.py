"""The steps of a training: from wherever it stands to its end, whatever broke it off.

What lives here, top to bottom: `Loop`, its epochs, its steps, what it does when memory runs out and when a number is no
number; `Batches`, the images of the steps to come; the validation scores; what is said of a failure.

Everything a step depends on is the state that `checkpoint` keeps, and (seed, epoch, step). So a run can go on from any
state that was ever kept, and ends the same.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import checkpoint, recipe
from .config import TrainingConfig
from .data import Data, Split, to_input
from .distributed import OWN_STORE, World, end_with_parent
from .files import progress as bar
from .files import read_json, write_json
from .inference import in_chans, predict
from .scoring import Task

CHECKPOINT_SECONDS = 30.0          # from one state to the next,
CHEAP = 0.6                        # if it is written in so many; else as many times longer: it takes 2 % of the time
SELECTION = "val_macro_auroc"      # what chooses the epoch
IMAGES = 64                        # at once in validation, if memory allows
CHECK_STEPS = 20                   # how often the loss is looked at, on a device where looking means waiting
LESS = "memory.json"               # in the run's folder: how many images fit at once, where memory ran out
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory",
             "cublas_status_alloc_failed")


class Loop:
    """One training."""

    def __init__(self, model: nn.Module, data: Data, config: TrainingConfig, folder: Path, world: World,
                 workers: int = 0, progress: bool = True, notes: list[str] | None = None):
        self.model, self.data, self.config, self.folder, self.world = model, data, config, folder, world
        self.progress, self.workers = progress, workers
        self.wrapped = world.wrapped(model)
        self.labels = np.array(data.train.labels)
        self.per_epoch = -(-len(data.train) // config.batch_size)
        self.steps = self.per_epoch * config.epochs
        self.optimiser = recipe.optimiser(model, config)
        self.loss = recipe.Loss(config, data.prior, world.device)
        self.in_chans = in_chans(model, data.train)
        self.name = getattr(getattr(model, "config", None), "name", type(model).__name__)
        self.info = {"step": 0, "loss_sum": 0.0, "seconds": 0.0, "cpu_seconds": 0.0, "history": [], "best_epoch": 0,
                     "order": "", "micro_batch": config.micro_batch}
        self.at_once = -(-config.batch_size // world.size)   # images that the model was given last, in one go
        self.best: dict[str, torch.Tensor] = {}
        self.every = 1 if world.device.type == "cpu" else CHECK_STEPS
        self.notes = list(notes or ())                       # of what happened before, and then on the way
        self.writing = 0.0                                   # seconds that the last state took

    # ----------------------------------------------------------------------------------------- all of it
    def train(self, about: dict) -> None:
        """All epochs that are left; the folder then holds a finished run."""
        self.began, self.cpu_began = time.perf_counter(), time.process_time()
        prior = recipe.prior_behind(self.config, self.data.prior)
        restored = self._restore()
        stands = self.info["step"], self.info["micro_batch"]
        self.world.agree("step or micro_batch", stands)      # and wait: reading clears away what was half written
        if not restored:
            recipe.start_at_prior(self.model, prior)
            self._save(0.0)                                  # says before the work whether the folder can be written
        with bar(self.config.epochs * len(self.labels), f"training {self.name}", "img",
                 self.progress and self.world.main, self._seen()) as self.bar:
            while self.info["step"] < self.steps:
                try:
                    self._epoch(self.info["step"] // self.per_epoch, prior)
                    continue
                except (RuntimeError, MemoryError) as error:
                    self._less_memory(error)
                except _Again:
                    pass
                self.optimiser.zero_grad(set_to_none=True)   # not above: there the error still holds what was computed
                torch.cuda.empty_cache()
                self._restore()
        self._finish(about)
        self.world.unwrap(self.model)

    def _finish(self, about: dict) -> None:
        """The finished run, with hashes of where it ended."""
        self._note_time()
        digests = {"weights": checkpoint.digest(self.model.state_dict()), "order": self.info["order"],
                   "optimiser": checkpoint.digest(checkpoint.optimiser_tensors(self.optimiser))}
        if self.world.main:
            counted = {name: value for name, value in self.info.items() if name not in ("order", "loss_sum")}
            checkpoint.save_run(self.folder, self.best, {**counted, **about, "digests": digests, "notes": self.notes,
                                                         "samples_seen": len(self.labels) * self.config.epochs})
            (self.folder / LESS).unlink(missing_ok=True)

    def _seen(self) -> int:
        """Images that were seen before."""
        epochs, steps = divmod(self.info["step"], self.per_epoch)
        return epochs * len(self.labels) + steps * self.config.batch_size

    # ----------------------------------------------------------------------------------------- epochs and steps
    def _epoch(self, epoch: int, prior: np.ndarray) -> None:
        """The steps of one epoch that are left, then validation."""
        order = recipe.order(self.labels, epoch, self.config)
        first, end = self.info["step"], (epoch + 1) * self.per_epoch
        self.wrapped.train()
        total = torch.tensor(self.info["loss_sum"], dtype=torch.float64, device=self.world.device)
        batches = Batches(self, order, epoch, first)
        for step, images in zip(range(first, end), batches.ahead(end)):
            batch = batches.of(step)
            loss = self._step(step, batch, images)
            total += loss * len(batch)
            if step + 1 == end or step % self.every == 0:
                self._look(loss, total, epoch, step, batch, images)
            self.info["order"] = hashlib.sha256(self.info["order"].encode() + batch.tobytes()).hexdigest()
            self.info["step"] = step + 1
            self.bar.update(len(batch))
            if step + 1 < end and self._due() and torch.isfinite(total):
                self._save(total.item())                     # not behind the last step: its validation belongs to it
        self._validate(epoch, total.item() / len(order), prior)
        self._save(0.0)

    def _step(self, step: int, batch: np.ndarray, images: torch.Tensor) -> torch.Tensor:
        """One batch: forward, backward, clip, update; in parts where memory is short. Returns its loss."""
        torch.manual_seed(self.config.seed * 1_000_003 + step + 2**40 * self.world.rank)  # dropout and drop path
        rate = recipe.learning_rate(step, self.steps, self.config)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        everyone = torch.from_numpy(self.labels[batch]).to(self.world.device)
        labels = torch.from_numpy(self.labels[self.world.share(batch)]).to(self.world.device)
        total = self.loss.total(everyone)
        most = -(-len(batch) // self.world.size)             # of all processes: each makes as many parts
        size = self.info["micro_batch"] or most
        self.at_once = min(size, most)
        starts = range(0, most, size)
        found = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for start in starts:
            part, seen = images[start:start + size], labels[start:start + size]
            with self.world.apart(self.wrapped, last=start == starts[-1]):
                loss = self._loss(part, seen) / total
                (loss * self.world.size if self.world.size > 1 else loss).backward()   # gradients are averaged
            found += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad or float("inf"))
        found = self.world.total(torch.where(torch.isfinite(norm), found, norm.double()))
        if self.every > 1 or torch.isfinite(found):          # else the weights are left as what broke them found them
            self.optimiser.step()
        return found

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The summed loss of some images; of none, a 0 that depends on every parameter: other processes wait for it."""
        empty = not len(labels)
        if empty:
            images = torch.zeros((1, *self.data.train.images.shape[1:]), dtype=torch.uint8, device=self.world.device)
        with self._precision(), self.world.uncounted(self.model, empty):
            logits = self.wrapped(to_input(images, self.in_chans))
        return 0.0 * logits.float().sum() if empty else self.loss.sum(logits, labels)

    def _precision(self):
        """The context of a forward: matrix products in bf16 where the recipe says so."""
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    # ----------------------------------------------------------------------------------------- what goes wrong
    def _less_memory(self, error: BaseException) -> None:
        """Note for `_restore` that fewer images fit at once: those of a step are halved until they are fewer than now.
        Other errors, and one image, are raised.

        Of several processes the others wait for the sums of this one, so they all have to start again.
        """
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError))
                or any(text in str(error).lower() for text in NO_MEMORY)):
            raise error
        share, now = -(-self.config.batch_size // self.world.size), self.at_once
        if now == 1:
            raise RuntimeError(f"memory ran out with 1 image at once in each of {self.world.size} processes; use a "
                               f"smaller model or image") from error
        half = -(-min(self.info["micro_batch"] or share, share) // 2)
        while half >= now:                                   # in validation, or in the last step of an epoch
            half = -(-half // 2)
        note = (f"memory ran out at step {self.info['step'] + 1} with {now} images at once; went on with {half} at "
                f"once, of the same batch")
        write_json(self.folder / LESS, {"micro_batch": half, "notes": [*self.notes, note]})
        if self.world.size > 1:
            raise RuntimeError(f"memory ran out with {now} images at once in process {self.world.rank}; started again, "
                               f"all {self.world.size} go on with {half} at once; {OWN_STORE}=1 torchrun "
                               f"--max-restarts 9 starts them again by itself") from error

    def _look(self, loss: torch.Tensor, total: torch.Tensor, epoch: int, step: int, batch: np.ndarray,
              images: torch.Tensor) -> None:
        """Show the loss; where the epoch's `total` is no number, find the first such step, and stop with what tells
        why."""
        if torch.isfinite(total):
            self.bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            return
        if self.every > 1:                                   # it may have been any of the last steps
            self.every = 1
            raise _Again
        self._fail(epoch, step, self.data.train, batch, images, loss.item())

    def _fail(self, epoch: int, step: int, split: Split, rows: np.ndarray, images: torch.Tensor, loss: float) -> None:
        """Write `failure.json` and raise; `rows` of a split broke it, `images` are this process' share of them."""
        rate = self.optimiser.param_groups[0]["lr"]
        reason = (f"training {self.name} stopped in epoch {epoch + 1}, step {step + 1}: the loss or its gradient "
                  f"became NaN or infinite. Use a lower lr (now {self.config.lr:g}), a longer warmup or "
                  f"precision='float32'")
        self.world.unwrap(self.model)                        # each process looks for the layer alone, in its images
        with self._precision():
            looked = where_it_breaks(self.model, to_input(images, self.in_chans) if len(images) else None)
        seen = np.array([[looked["first_module_not_finite"] is not None]], np.float32)
        teller = int(self.world.gathered(seen, self.world.size).argmax())      # the first that saw it; 0 if nobody did
        if self.world.rank == teller:
            about = {"epoch": epoch + 1, "step": step + 1, "loss": str(loss), "learning_rate": rate,
                     "split": split.name, "images": np.asarray(split.indices)[rows].tolist(),
                     "positions": rows.tolist(), "process": teller}
            write_json(self.folder / "run.json", {"finished": False, "reason": reason})
            write_json(self.folder / "failure.json", about | looked)
        self.world.wait()                                    # where one process ends, torchrun ends the others
        raise FloatingPointError(f"{reason}; {str(self.folder / 'failure.json')!r} has the batch and the first layer "
                                 f"that broke")

    # ----------------------------------------------------------------------------------------- validation and states
    def _validate(self, epoch: int, loss: float, prior: np.ndarray) -> None:
        """Score the epoch on validation; keep its weights if it is the best so far."""
        val, logits = self.data.val, np.empty((0, len(self.data.classes)), np.float32)
        mine = self.world.share(np.arange(len(val)))
        if len(mine):
            part = val if len(mine) == len(val) else val.take(mine)
            self.at_once = min(IMAGES, self.info["micro_batch"] or IMAGES, len(part))
            logits = predict(self.model, part, batch_size=self.at_once, precision=self.config.precision)
        logits = self.world.gathered(logits, len(val))
        if len(broken := np.flatnonzero(~np.isfinite(logits).all(1))):
            images = torch.from_numpy(val.images[np.intersect1d(mine, broken)[:IMAGES]]).to(self.world.device)
            self._fail(epoch, self.info["step"] - 1, val, broken, images, float("nan"))
        scores = validation_scores(logits, val, prior)
        history, seen = self.info["history"], (epoch + 1) * len(self.labels)
        history.append({"epoch": epoch + 1, "samples_seen": seen, "loss": loss, **scores})
        best = max(history, key=lambda epoch: (epoch[SELECTION], epoch["epoch"]))
        if best is history[-1]:
            self.info["best_epoch"] = epoch + 1
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def _restore(self) -> bool:
        """Go on from the last whole state; whether there is one."""
        found, best, said = checkpoint.load_state(self.folder, self.model, self.optimiser)
        self.notes = list(dict.fromkeys([*(found or {}).get("notes", []), *self.notes, *said]))
        if found:
            self.info, self.best = {name: found[name] for name in self.info}, best
        if less := read_json(self.folder / LESS):            # fewer than when that state was kept
            self.info["micro_batch"] = less["micro_batch"]
            self.notes = list(dict.fromkeys([*less["notes"], *self.notes]))
        self.saved = time.perf_counter()
        return bool(found)

    def _due(self) -> bool:
        """Whether it is time to keep another state; a large model's are kept less often."""
        return time.perf_counter() - self.saved > CHECKPOINT_SECONDS * max(1.0, self.writing / CHEAP)

    def _save(self, loss_sum: float) -> None:
        """Keep the state, from the first process; all have the same."""
        self._note_time()
        self.info["loss_sum"] = loss_sum
        begun = time.perf_counter()
        if self.world.main:
            checkpoint.save_state(self.folder, self.model, self.optimiser, self.best, self.info | {"notes": self.notes})
        self.saved = time.perf_counter()
        self.writing = self.saved - begun

    def _note_time(self) -> None:
        now, cpu = time.perf_counter(), time.process_time()
        self.info["seconds"] += now - self.began
        self.info["cpu_seconds"] += cpu - self.cpu_began
        self.began, self.cpu_began = now, cpu


class _Again(Exception):
    """A step has to be looked at more closely: go back to the last state."""


# --------------------------------------------------------------------------------------------- images of the steps
class Batches(torch.utils.data.Dataset):
    """This process' images of the steps of one epoch, augmented: each depends on (seed, epoch, image) alone."""

    def __init__(self, loop: Loop, order: np.ndarray, epoch: int, first: int):
        self.images, self.config = loop.data.train.images, loop.config
        self.world, self.workers = loop.world, loop.workers
        self.order, self.epoch, self.first, self.begin = order, epoch, first, epoch * loop.per_epoch

    def of(self, step: int) -> np.ndarray:
        """The batch of a step, of all processes: positions in the training set."""
        start = (step - self.begin) * self.config.batch_size
        return self.order[start:start + self.config.batch_size]

    def __len__(self) -> int:
        return -(-len(self.order) // self.config.batch_size)

    def __getitem__(self, step: int) -> torch.Tensor:
        mine = self.world.share(self.of(step))
        images = torch.from_numpy(np.ascontiguousarray(self.images[mine]))
        return recipe.augment(images, mine, self.epoch, self.config) if len(mine) else images

    def ahead(self, end: int):
        """The images of the steps from the first to the end, on the device; prepared by `workers` if there are any."""
        loader = torch.utils.data.DataLoader(self, batch_size=None, sampler=range(self.first, end),
                                             num_workers=self.workers, worker_init_fn=end_with_parent,
                                             generator=torch.Generator(),
                                             pin_memory=self.world.device.type == "cuda")
        for images in loader:
            yield images.to(self.world.device, non_blocking=True)


# --------------------------------------------------------------------------------------------- scores and failures
def validation_scores(logits: np.ndarray, split: Split, prior: np.ndarray) -> dict[str, float]:
    """Loss, balanced accuracy and macro AUROC on validation; the last two over the classes that are there."""
    found = Task(logits, split, prior).statistics(np.ones((1, len(split))))
    z = torch.from_numpy(logits).double()
    loss = nn.functional.cross_entropy(z, torch.from_numpy(np.array(split.labels)))
    return {"val_loss": float(loss), "val_balanced_accuracy": float(np.nanmean(found["sensitivity"])),
            "val_macro_auroc": float(np.nanmean(found["auroc"]))}


def where_it_breaks(model: nn.Module, x: torch.Tensor | None) -> dict:
    """Names of weights that are not finite, and the first module whose output is not, for images x."""
    broken = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    first: list[str] = []

    def watch(name):
        def hook(module, inputs, output):
            if isinstance(output, torch.Tensor) and not torch.isfinite(output).all() and not first:
                first.append(name)
        return hook
    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            if x is not None:
                model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {"weights_not_finite": broken[:20], "first_module_not_finite": first[0] if first else None}
