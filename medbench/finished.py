"""Finished runs as `evaluate` finds them, by name and without their weights.

What lives here, top to bottom: `Finished`; how runs are named, one by one or in tables; which runs can be compared or
recorded together. What they are scored on: `tested.py`.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from . import grid, training
from .checks import one_of
from .commands import data_source, run_folder
from .config import DataConfig, ModelConfig, TrainingConfig
from .experiment import Experiment
from .files import read_json
from .results import source_slug

OWN = ("name", "options")                                                    # of each model
ANYWHERE = ("seed", "device", "threads", "processes", "micro_batch")         # in which runs of one model may differ


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished run, without its weights.

    `info`: what its file says. `noted`: the data of its training, `None` where it does not say. `data`: those that it
    is scored on.
    """

    folder: Path
    info: dict
    noted: DataConfig | None
    data: DataConfig

    @cached_property
    def experiment(self) -> Experiment:
        """What it was, on the data that it is scored on."""
        return Experiment(ModelConfig(**self.info["model"]), self.data, TrainingConfig(**self.info["training"]))

    @property
    def model(self) -> str:
        """The model's name."""
        return self.info["model"]["name"]

    @property
    def seed(self) -> int:
        """Of weights and training."""
        return self.info["training"]["seed"]

    @property
    def prior(self) -> np.ndarray:
        """Class frequencies behind its logits (k,)."""
        return np.array(self.info["prior"])

    @property
    def head(self) -> dict:
        """The columns that tell which run a row is of."""
        return {"model": self.model, "seed": self.seed, "run": self.folder.name}

    @property
    def key(self) -> tuple:
        """Runs that share it are scored on the same `Images`."""
        return self.data, self.noted, self.info["data"], tuple(self.info["classes"]), tuple(self.info["prior"])

    def settings(self, part: str) -> dict[str, str]:
        """Of the `model` or its `training` all but what may differ between the runs of one model."""
        return {name: str(value) for name, value in self.info[part].items() if name not in ANYWHERE}


def run_names(given: list[str]) -> list[str]:
    """Names of runs, those in tables among them: CSV files with a column `run`, as `grid` and `train` print them."""
    found = []
    for name in given:
        if Path(name).suffix.lower() != ".csv":
            found.append(name)
            continue
        if not Path(name).is_file():
            raise FileNotFoundError(f"there is no table of runs {name!r}; grid and train print one with --format csv")
        found += _in_table(name)
    if not found:
        raise ValueError(f"{', '.join(map(repr, given))} names no finished run; train one first")
    return list(dict.fromkeys(found))


def _in_table(name: str) -> list[str]:
    """The runs that a table names, but those that failed."""
    with open(name, newline="", encoding="utf-8-sig") as file:
        try:
            rows = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{name!r} is no table of runs ({error}); wanted UTF-8 text with commas, as grid and "
                             f"train print it with --format csv") from error
    if not rows or "run" not in rows[0]:
        raise ValueError(f"{name!r} has no rows with a column 'run'; wanted a table of runs, as grid and train print "
                         f"one with --format csv (images are named with --data)")
    done = {line: row["run"] for line, row in enumerate(rows, 2) if row.get("state") != "failed"}
    if empty := [line for line, run in done.items() if not run]:
        raise ValueError(f"{name!r}, line {empty[0]}, names no run; wanted one in the column 'run', or leave the line "
                         f"out")
    if len(done) < len(rows):
        print(f"{name}: {len(rows) - len(done)} of {len(rows)} trainings failed and are left out", file=sys.stderr)
    return list(done.values())


def by_name(name: str, source: str | None, subset: str, every: bool) -> Finished:
    """A run by its name, on the data of its training or on others, of which perhaps `every` image counts."""
    folder = run_folder(name).resolve()
    info, note = training.noted(folder), read_json(folder / grid.EXPERIMENT)
    noted = DataConfig(**note["data"]) if note else None
    if source is None:
        if noted is None:
            raise ValueError(f"run {folder.name} does not say which data it was trained on; name them with --data")
        return Finished(folder, info, noted, noted)
    source = data_source(source)
    if noted and source == noted.source and subset in ("", noted.subset):
        if every:
            raise seen(folder.name, source)
        return Finished(folder, info, noted, noted)
    shape = {"img_size": info["model"]["img_size"][0], "in_chans": info["model"]["in_chans"]}
    return Finished(folder, info, noted, (noted or DataConfig(**shape)).replace(source=source, subset=subset))


def seen(name: str, source: str) -> ValueError:
    """The error where every image of a run's own data is asked for."""
    return ValueError(f"run {name} was trained on {source!r}; --every-image is for images that it never saw: leave it "
                      f"out")


# --------------------------------------------------------------------------------------------- what can be compared
def refuse_unlike(runs: list[Finished], reference: str) -> None:
    """Raises ValueError where runs differ in more than their model, its recipe and its seed, or where seeds lack."""
    models = {run.model: [other for other in runs if other.model == run.model] for run in runs}
    one_of("compare", reference, tuple(models))
    if len(models) < 2:
        raise ValueError(f"all {len(runs)} runs are of {reference}; wanted runs of at least two models")
    for what, of in (("data", lambda run: run.info["data"]), ("classes", lambda run: str(run.info["classes"])),
                     ("preset", lambda run: run.info["model"]["preset"])):
        kinds = {of(run): run for run in reversed(runs)}     # of each kind the first run
        if len(kinds) > 1:
            named = "; ".join(f"{sum(of(run) == kind for run in runs)} are like {first.model}, seed {first.seed} "
                              f"({first.folder.name})" for kind, first in reversed(kinds.items()))
            raise ValueError(f"the runs differ in {what}: {named}; compare runs of one grid")
    for name, own in models.items():
        if apart := [*_apart(own, "model"), *_apart(own, "training")]:
            raise ValueError(f"the runs of {name} differ in {'; '.join(apart)}; a model's runs may differ in their "
                             f"seed alone: name those of one setting")
        for seed in {run.seed for run in own}:
            if len(same := [run.folder.name for run in own if run.seed == seed]) > 1:
                raise ValueError(f"{name} has {len(same)} runs with seed {seed} ({', '.join(same)}); name one of them")
    seeds = {name: {run.seed for run in own} for name, own in models.items()}
    every = set.union(*seeds.values())
    if lacking := [f"{name} has no run with seed {', '.join(map(str, sorted(every - own)))}"
                   for name, own in seeds.items() if every - own]:
        raise ValueError(f"the seeds do not match: {'; '.join(lacking)}; train these, or leave the others' out")


def told_apart(runs: list[Finished]) -> list[str]:
    """A sentence for each number of the models' shape and recipe in which they differ."""
    return [f"The models differ in {said}." for part in ("model", "training") for said in _apart(runs, part, OWN)]


def refuse_one_name(runs: list[Finished]) -> None:
    """Raises ValueError where two runs would be recorded under one name."""
    first: dict[tuple, Finished] = {}
    for run in runs:
        name = run.model, run.seed, source_slug(run.data.source, run.data.subset)
        if (other := first.setdefault(name, run)) is not run:
            raise ValueError(f"runs {other.folder.name} and {run.folder.name} are both {run.model} with seed "
                             f"{run.seed}, and would be recorded under one name; record them one by one, in files of "
                             f"their own")


def _apart(runs: list[Finished], part: str, but: tuple[str, ...] = ()) -> list[str]:
    """The settings of a `part`, `but` for some, in which runs differ, with their values."""
    settings = [{name: value for name, value in run.settings(part).items() if name not in but} for run in runs]
    values = {name: list(dict.fromkeys(one[name] for one in settings)) for name in settings[0]}
    return [f"{name} ({', '.join(found)})" for name, found in values.items() if len(found) > 1]
