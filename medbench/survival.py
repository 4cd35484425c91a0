"""Does a training that is killed end as one that is not? `python -m medbench survive` kills it and looks.

What lives here, top to bottom: `Outcome`; `survive`; the training that is killed, small but whole: batch normalisation,
dropout, bf16 or float32, augmentation, and a checkpoint after every step, so that kills fall into writing too.

A kill is SIGKILL, at a moment drawn at random from the time that a run takes; the first one waits for a state, so that
one start at least has to go on from there. The training runs in a process of its own; what is left of it is its folder.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from . import checkpoint, loop, training
from .config import TrainingConfig
from .data import Data, Split
from .files import progress as bar
from .files import read_json, write_bytes
from .models import build_model
from .rows import finding

SETTINGS = TrainingConfig(epochs=4, batch_size=8, lr=5e-3, threads=1, device="cpu", precision="float32", shift=0.1)
TINY = dict(depths=(1, 1), embed_dims=(8, 16), num_heads=(1, 2), proj_drop=0.1, drop_path_rate=0.1)
FIRST = "first-step.txt"       # of a start, in the folder of its run
TOLD = ("digests", "sha256", "history", "best_epoch", "fingerprint")       # of a finished run, each time the same
TOO_LONG = 300.0               # seconds after which a training that was not killed counts as hung


@dataclass(frozen=True)
class Outcome:
    """What came of the kills.

    `kills` landed, in `runs` trainings; `resumed`: how many starts took a step behind the first one as their first;
    `writing`: how many kills left a half written file; `different`: runs whose result is not that of the undisturbed
    one, with what differs, and starts that did not go on from the last state.
    """

    kills: int
    runs: int
    resumed: int
    writing: int
    different: tuple[str, ...]

    @property
    def conclusion(self) -> str:
        """The outcome in a sentence."""
        said = "; ".join(self.different) or "every one ended bit-identical to the run that was not killed"
        return (f"{self.kills} kills in {self.runs} trainings, {self.writing} of them while a file was written, "
                f"{self.resumed} starts went on from a checkpoint: {said}.")

    def rows(self) -> list[dict]:
        """Records: the counts and the sentence."""
        counts = {name: getattr(self, name) for name in ("kills", "runs", "resumed", "writing")}
        counts["different"] = len(self.different)
        rows = [{"quantity": name, "value": value, "unit": "1"} for name, value in counts.items()]
        return [*rows, finding(self.conclusion)]


# --------------------------------------------------------------------------------------------- kill and look
def survive(kills: int = 50, *, seed: int = 0, model: str = "softmax", workers: int = 0,
            settings: TrainingConfig = SETTINGS, folder=None, show: bool = True) -> Outcome:
    """Kill trainings at random moments until `kills` kills have landed, and compare each end with an undisturbed one.

    Args: `model` that is trained, with `workers` and `settings` as in `training.fit`; `folder` for the runs (default: a
        temporary one, removed afterwards).
    Returns: `Outcome`.
    Raises: RuntimeError: a training failed, or did not end.
    """
    rng, place = np.random.default_rng(seed), Path(folder or tempfile.mkdtemp(prefix="medbench-survive-"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medbench.survival"])
    what = settings, model, workers
    try:
        _start(context, place / "warm", what).join()                       # the server imports torch once
        whole, seconds = _whole(context, place / "whole", what)
        landed = runs = resumed = writing = 0
        different: list[str] = []
        with bar(kills, "killing", "kill", show) as counted:
            while landed < kills:
                runs += 1
                cache = place / f"run-{runs}"
                while True:
                    limit = rng.uniform(0, seconds) if landed < kills else None
                    wanted = _last_step(cache)
                    ended = _run(context, cache, what, limit, begun=runs == 1 and landed == 0)
                    if (first := _first_step(cache)) is not None:          # not killed before its first step
                        resumed += first > 0
                        different += [f"run {runs}: began at step {first}, with a state of step {wanted}"] \
                            if first != wanted else []
                    if ended:
                        break
                    landed += 1
                    writing += bool(list(cache.glob("runs/*/.*")))
                    counted.update()
                if said := _difference(whole, _told(cache)):
                    different.append(f"run {runs}: {said}")
                shutil.rmtree(cache)
        return Outcome(landed, runs, resumed, writing, tuple(different))
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


def _whole(context, cache: Path, what: tuple) -> tuple[dict, float]:
    """What the undisturbed training tells, and its seconds."""
    began = time.perf_counter()
    _run(context, cache, what, None)
    return _told(cache), time.perf_counter() - began


def _start(context, cache: Path, what: tuple):
    process = context.Process(target=train, args=(cache, *what))
    process.start()
    return process


def _run(context, cache: Path, what: tuple, limit: float | None, begun: bool = False) -> bool:
    """Start a training and kill it after `limit` seconds, or as soon as it has `begun`: a state lies behind a step;
    whether it ended by itself before."""
    process = _start(context, cache, what)
    while begun and process.is_alive() and not _last_step(cache):
        process.join(0.005)
    process.join(TOO_LONG if limit is None else 0.0 if begun else limit)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if limit is None:
            raise RuntimeError(f"a training did not end within {TOO_LONG:g} s; look at {str(cache)!r}")
        return False
    if process.exitcode:
        raise RuntimeError(f"a training failed with exit code {process.exitcode}; its error stands above")
    return True


def _last_step(cache: Path) -> int:
    """How many steps the last state has behind it; 0 where there is none."""
    return max(map(checkpoint.last_step, cache.glob("runs/*/")), default=0)


def _first_step(cache: Path) -> int | None:
    """The first step that a start took, of the last start; `None` if it took none."""
    file = cache / FIRST
    found = int(file.read_text()) if file.exists() else None
    file.unlink(missing_ok=True)
    return found


def _told(cache: Path) -> dict:
    """What a finished run's folder tells, without times."""
    info = read_json(next(cache.glob("runs/*/run.json")))
    return {name: info[name] for name in TOLD} | {"test": (cache / "test.txt").read_text()}


def _difference(whole: dict, killed: dict) -> str:
    """What differs between two runs, in words; empty where nothing does."""
    parts = {f"digest of {name}": (value, killed["digests"].get(name)) for name, value in whole["digests"].items()}
    parts |= {name: (whole[name], killed[name]) for name in whole if name != "digests"}
    return ", ".join(name for name, (first, second) in parts.items() if first != second)


# --------------------------------------------------------------------------------------------- what is killed
def train(cache: Path, settings: TrainingConfig, model: str = "softmax", workers: int = 0) -> None:
    """One training of a tiny model on noise with a pattern, and its scores on the test set.

    Its weights lie in memory as those of a ResNet do, channels last: the optimiser's state has to lie so again.
    """
    loop.CHECKPOINT_SECONDS = 0.0
    loop.Loop._step = _noting_the_first(loop.Loop._step, cache / FIRST)
    multiprocessing.set_start_method("fork", force=True)     # a server of this process would import torch for each
    tqdm.set_lock(threading.RLock())                         # by default a semaphore, which a kill would leave behind
    data = patterns()
    shape = {} if model == "resnet50" else TINY
    made = build_model(model, "smoke", num_classes=3, img_size=32, **shape).to(memory_format=torch.channels_last)
    run = training.fit(made, data, settings, cache=cache, progress=False, workers=workers)
    with torch.inference_mode():
        logits = training.predict(run.model, data.test)
    cache.joinpath("test.txt").write_text(repr(logits.tolist()))


def _noting_the_first(step, file: Path):
    """`Loop._step`, which writes the number of the first step to a file."""
    def noting(self, number, *rest):
        if not file.exists():
            write_bytes(file, str(number).encode())
        return step(self, number, *rest)
    return noting


def patterns(sizes=(44, 15, 15), side: int = 32, classes: int = 3, seed: int = 0) -> Data:
    """Noise with a bright band whose place is the class: training, validation and test."""
    rng, splits = np.random.default_rng(seed), []
    for name, count in zip(("train", "val", "test"), sizes):
        labels = np.arange(count) % classes
        images = rng.integers(0, 120, (count, side, side), dtype=np.uint8)
        for image, label in zip(images, labels):
            image[label * side // classes:(label + 1) * side // classes] += 60
        splits.append(Split(name, images, labels, np.arange(count), tuple(f"c{c}" for c in range(classes)),
                            np.full(classes, 1 / classes)))
    return Data(*splits, fingerprint=f"patterns-{sizes}-{side}-{classes}-{seed}")
