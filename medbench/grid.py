"""Many trainings: on this machine side by side, or on a cluster through Ray; what is finished is not done again.

What lives here, top to bottom: `Job`, one training and how it stands; `train`, which does all of them; `work`, what
happens where a training runs. `places` has where that is: processes of this machine, or tasks of a Ray cluster.

Only what lies in the runs' folders counts, and each is named by the fingerprint of all that its training depends on. So
whatever is killed, a training, a node or the grid itself, the same grid goes on where it was: finished runs are passed
over, broken-off ones go on from their last state, failed ones are tried again, though not for ever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from . import checkpoint, places, recipe, saliency, training
from .board import Board
from .config import DataConfig
from .data import CLOSED, Data, load_data
from .experiment import Experiment
from .files import read_json, write_json
from .loop import IMAGES
from .models import build_model

TRIES = 3                              # how often a run may fail before it is given up
FAILURES = "failures.json"             # in a run's folder: why it failed, each time
EXPERIMENT = "experiment.json"         # in a run's folder: the data that it saw
LOGITS = "test.safetensors"            # in a run's folder: its answers on the test set
POLL = 2.0                             # seconds between two looks at the runs


# --------------------------------------------------------------------------------------------- one training
@dataclass(eq=False)
class Job:
    """One training of a grid.

    `state`: `waiting`, `running`, `finished`, `loaded` (it was finished before) or `failed`. `failures`: why it failed,
    each time, in earlier grids too. `logits` (n, k) on the test set, where the grid was asked for them. `before`:
    what the file of the run said when the grid began: where the run is damaged, that it is finished says nothing.
    """

    experiment: Experiment
    folder: Path
    images: int
    label: str = ""
    state: str = "waiting"
    failures: list[str] = field(default_factory=list)
    logits: np.ndarray | None = None
    reached: int = 0
    before: dict | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.experiment.model.name

    @property
    def column(self) -> str:
        """What tells it from others of its model."""
        return self.label or f"seed {self.experiment.training.seed}"

    @property
    def title(self) -> str:
        """Both, for a sentence."""
        return f"{self.name}, {self.column}"

    @property
    def size(self) -> int:
        """How much there is to do: images to be seen."""
        return self.images * self.experiment.training.epochs

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, for good or bad."""
        return self.state in ("finished", "loaded", "failed")

    @property
    def begun(self) -> bool:
        """Whether it has kept a state, which it does before its first step; a cluster may let it wait."""
        return checkpoint.has_state(self.folder)

    def share(self) -> float:
        """How much of it is done, from 0 to 1, by its last checkpoint; a finished run has none any more."""
        told = read_json(self.folder / "run.json") or {}
        if self.state in ("finished", "loaded") or (told.get("finished") and told != self.before):
            return 1.0
        done = checkpoint.last_step(self.folder) * self.experiment.training.batch_size
        return min(1.0, done / self.size)


# --------------------------------------------------------------------------------------------- all of them
def train(experiments: list[Experiment], place: places.Place | None = None, *, labels: list[str] | None = None,
          logits: bool = False, tries: int = TRIES, again: bool = False, show: bool = True,
          each: Callable[[Job], None] | None = None) -> list[Job]:
    """Train every experiment that is not finished; one that fails does not stop the others.

    Args:
        place: where they run; by default `places.Here`, with room for those that take the most threads.
        labels: what to call each beside its model's name.
        logits: also let each finished model see the test set.
        tries: how often one may fail, over all grids. A kill counts only where no checkpoint was gained since the
            start; what would end the same each time, such as a loss that is no number, is not tried twice.
        again: forget earlier failures.
        show: a live table in the terminal.
        each: called with every job that is over.
    Returns: one `Job` an experiment, in their order.
    Raises: ValueError: an experiment cannot be built; RuntimeError: no such place.
    """
    place = place or min(map(places.Here, dict.fromkeys(e.training for e in experiments)), key=lambda here: here.room)
    opened = {config: load_data(config) for config in dict.fromkeys(e.data for e in experiments)}
    jobs = [_job(e, opened[e.data], place, tries, again) for e in experiments]
    for job, label in zip(jobs, labels or ()):
        job.label = label
    with place, Board(jobs, show) as board:
        for job in jobs:
            if each and job.over and not _lacks(job, logits):
                each(job)
        waiting, running = [job for job in jobs if not job.over or _lacks(job, logits)], 0
        while waiting or running:
            while waiting and running < place.room:
                job = waiting.pop(0)
                if job.state == "waiting":
                    job.state, job.reached = "running", checkpoint.last_step(job.folder)
                place.start(job, job.experiment, logits)
                running += 1
            for job, answer in place.ended(POLL):
                running -= 1
                if _settle(job, answer, tries, place.patience):
                    waiting.append(job)
                elif each:
                    each(job)
            board.update()
    return jobs


def _job(experiment: Experiment, data: Data, place: places.Place, tries: int, again: bool) -> Job:
    """The training and how it stands now."""
    experiment = experiment.replace(training=place.resolve(experiment.training))
    folder = training.run_folder(build_model(experiment.model), data, experiment.training)
    if again:
        (folder / FAILURES).unlink(missing_ok=True)
    job = Job(experiment, folder, len(data.train), failures=(read_json(folder / FAILURES) or {}).get("failures", []),
              before=read_json(folder / "run.json"))
    if done := checkpoint.load_run(folder):
        if not (folder / EXPERIMENT).exists():               # killed between the two
            note(experiment, data, folder)
        job.state, job.logits = "loaded", known(folder, done[0]["digests"])
    elif len(job.failures) >= tries:
        job.state = "failed"
    return job


def _lacks(job: Job, logits: bool) -> bool:
    """Whether a finished run still has to see the test set."""
    return logits and job.state == "loaded" and job.logits is None


def _settle(job: Job, answer: places.Answer, tries: int, patience: float = 0.0) -> bool:
    """Note how a start of a job ended; whether it has to be started again."""
    if answer.reason is None and not checkpoint.load_run(job.folder, patience):
        answer = places.Answer(f"it ended, but {str(job.folder)!r} holds no finished run; is MEDBENCH_CACHE one folder "
                               f"that every node sees?", final=True)
    if answer.reason is None:
        job.logits = answer.logits
        job.state = "loaded" if job.state == "loaded" else "finished"
        return False
    gained = checkpoint.last_step(job.folder) != job.reached      # less than before: what was there was damaged
    job.state = "waiting"
    if not (answer.killed and gained):
        job.failures.append(answer.reason)
        job.failures += [answer.reason] * (tries - len(job.failures)) if answer.final else []
        write_json(job.folder / FAILURES, {"failures": job.failures})
    if len(job.failures) >= tries:
        job.state = "failed"
    return not job.over


# --------------------------------------------------------------------------------------------- where it runs
def work(experiment: Experiment, logits: bool) -> np.ndarray | None:
    """One training, or what is left of it; the run stays in its folder. Returns: logits on the test set, if wanted."""
    data = load_data(experiment.data)
    run = fit(experiment, data, progress=False)
    return answers(run, data) if logits else None


def answers(run: training.Run, data: Data) -> np.ndarray:
    """A run's logits (n, k) on its own test set, computed once and kept beside its weights."""
    found = known(run.directory, run.digests)
    if found is None:
        with recipe.threads(run.training.threads):
            found = training.predict(run.model, data.test, batch_size=min(IMAGES, run.micro_batch or IMAGES))
        noted = checkpoint.write_tensors(run.directory / LOGITS, {"logits": torch.from_numpy(found)})
        write_json((run.directory / LOGITS).with_suffix(".json"), {"sha256": noted, "weights": run.digests})
    return found


def known(folder: Path, digests: dict) -> np.ndarray | None:
    """The logits that `answers` kept for the run with these digests."""
    noted = read_json((folder / LOGITS).with_suffix(".json")) or {}
    kept = checkpoint.read_tensors(folder / LOGITS, noted["sha256"]) if noted.get("weights") == digests else None
    return kept and kept["logits"].numpy()


def fit(experiment: Experiment, data: Data, progress: bool = True, workers: int = 0) -> training.Run:
    """`training.fit` of an experiment, which is noted beside the run."""
    run = training.fit(build_model(experiment.model), data, experiment.training, progress=progress, workers=workers)
    note(experiment, data, run.directory)
    return run


def note(experiment: Experiment, data: Data, folder: Path) -> None:
    """Write beside a run which data it saw, so that it can be scored by its name, unless that stands there.

    Two sources may hold the same images, and are the same run; but one of them may tell of patients. The first counts
    for as long as it holds these images.
    """
    kept, told = read_json(folder / EXPERIMENT) or {}, dataclasses.asdict(experiment)
    if "mean_grey" not in kept or kept["data"] != told["data"] and not _holds(kept["data"], data.fingerprint):
        write_json(folder / EXPERIMENT, told | {"mean_grey": saliency.mean_grey(data.train.images)})


def _holds(noted: dict, images: str) -> bool:
    """Whether a source still has the images with that fingerprint."""
    try:
        return load_data(DataConfig(**noted), show=False).fingerprint == images
    except (*CLOSED, TypeError):
        return False
