"""What the commands do: from checked options to rows that can be printed and recorded.

What lives here, top to bottom: names of models and runs; data; training; prediction and explanation of single images.
How runs are scored: `evaluating.py`, how things are measured: `measuring.py`. Every function checks all of its input
before it starts to work.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import os
import re
import sys
from pathlib import Path

import numpy as np

from . import checkpoint, distributed, places, results, saliency, training
from . import grid as grid_module
from .checks import one_of
from .config import ALL_MODELS, MODELS, model_config
from .data import load_data, to_input
from .experiment import Experiment, profile_of
from .export import RUNTIMES
from .files import cache_dir, read_json, write_json
from .machine import resolve_device
from .models import build_model
from .readers import fitted, medmnist, read_picture
from .rows import caveat_column

DRAWN = ("num_train", "num_val", "num_test_per_class", "prior", "difficulty", "confounding")
CAMPAIGNS = ("real-mri", "breastmnist", "small-mri", "small-phantom", "curves", "imbalance", "paper-mri",
             "paper-phantom")


# --------------------------------------------------------------------------------------------- names
def listed(given: list[str], what: str, allowed: tuple[str, ...]) -> list[str]:
    """The names in options that may hold several with commas, each once, checked; `what` they are is for the error."""
    names = [name.strip() for part in given for name in part.split(",") if name.strip()]
    for name in names:
        one_of(what, name, allowed)
    return list(dict.fromkeys(names))


def model_names(given: list[str]) -> list[str]:
    """Models in the order they were asked for, each once; `all` stands for the seven."""
    names = listed(given, "model name", (*ALL_MODELS, "all"))
    if not names:
        raise ValueError(f"--model names no model; allowed: {', '.join(ALL_MODELS)}, all")
    return list(dict.fromkeys(n for name in names for n in (MODELS if name == "all" else (name,))))


def seeds_in(text: str) -> list[int]:
    """Seeds from `0-7`, `0,2,5` or both, each once."""
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not ends or int(ends[2] or ends[1]) < int(ends[1]):
            raise ValueError(f"seeds is {text!r}; wanted numbers such as 0-7 or 0,2,5")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return list(dict.fromkeys(found))


def runtime_names(given: list[str], device: str) -> list[str]:
    """Runtimes in the order they were asked for, each once; by default all that this device can have."""
    names = listed(given, "runtime", tuple(RUNTIMES))
    kind = resolve_device(device).type
    return names or [name for name, runtime in RUNTIMES.items() if kind not in runtime.lacks]


def seconds_in(text: str) -> float:
    """Seconds from `540`, `540s`, `9m` or `1h30m`."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    if not parts or not any(parts.groups()):
        raise ValueError(f"budget is {text!r}; wanted a time such as 9m, 1h30m or 540s")
    return float(sum(int(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1))))


def run_folder(name: str) -> Path:
    """The folder of a finished run, from its path or the first letters of its name in the cache."""
    given, root = Path(name), cache_dir() / "runs"
    checkpoint.refuse_pickle(given)
    for folder in (given, root / name):
        if (folder / "run.json").is_file():
            return folder
    known = sorted(path.parent for path in root.glob("*/run.json") if (read_json(path) or {}).get("finished"))
    hits = [path for path in known if path.name.startswith(name)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        names = ", ".join(path.name for path in hits)
        raise LookupError(f"run {name!r} is the beginning of {len(hits)} names: {names}; give more letters")
    near = difflib.get_close_matches(name, [path.name for path in known], n=3, cutoff=0.4)
    have = ", ".join(near or [path.name for path in known[:10]]) or "none yet; train one first"
    raise LookupError(f"there is no finished run {name!r}; wanted its folder, or the first letters of a name: {have}")


def runs(names: list[str]) -> tuple[dict, dict]:
    """Models of finished runs by name, and what their weights are; refuses two of one name or of different sizes."""
    loaded = [training.load_run(run_folder(name)) for name in names]
    models = {run.model.config.name: run.model for run in loaded}
    sizes = {(run.model.config.in_chans, run.model.config.img_size) for run in loaded}
    if len(models) < len(loaded) or len(sizes) > 1:
        raise ValueError(f"--run names {len(loaded)} runs of {len(models)} models with {len(sizes)} input sizes; "
                         f"wanted one run a model, all of one size")
    return models, {run.model.config.name: f"trained, run {run.directory.name}" for run in loaded}


def build(names: list[str], preset: str, setting: str, num_classes: int, overrides: dict) -> dict:
    """Models by name, all checked before the first is built."""
    configs = [model_config(name, preset, setting, num_classes, **overrides) for name in names]
    return {config.name: build_model(config) for config in configs}


# --------------------------------------------------------------------------------------------- data
def data_source(source: str) -> str:
    """The source with an absolute path, where it is a path: a run's note has to hold from any folder."""
    is_name = source == "phantom" or source.startswith(medmnist.SCHEME)
    return source if is_name or not source.strip() else os.path.abspath(Path(source).expanduser())


def check_data(source: str, subset: str, near: float, out: str | None, chapter: str | None) -> list[dict]:
    """The report on a data set, row by row; all of it goes into the JSON file `out`, counts into records."""
    to = results.here(chapter) if chapter else None
    from . import audit
    report = audit.check(source, subset, near=near)
    if out:
        write_json(Path(out), report.full())
    if to:
        results.record(results.source_slug(source, subset), report.records(), to=to, near=near)
    print("\n".join([*report.notes, *(f"With every result: {caveat}." for caveat in report.caveats),
                     *(f"Training would stop: {fault}." for fault in report.faults)]), file=sys.stderr)
    return report.rows()


def _refuse_drawn(source: str, names) -> None:
    """Raises ValueError where fields that say how the phantom is drawn are given for other images."""
    if source != "phantom" and (of_phantom := [name for name in DRAWN if name in names]):
        raise ValueError(f"{', '.join(of_phantom)}: for the phantom alone, which is drawn; {source!r} has the images "
                         f"that it has. Leave it out (epochs=N sets how often each is seen)")


# --------------------------------------------------------------------------------------------- train
def train(names, preset, source, profile, seed, device, overrides, workers: int = 0) -> list[dict]:
    """Train one model after the other; one row a run."""
    resolve_device(device)
    source = data_source(source)
    _refuse_drawn(source, overrides)
    given = {"source": source, "device": device, **overrides}
    experiments = [Experiment.preset(preset, name, seed, profile, **given) for name in names]
    for experiment in experiments:
        build_model(experiment.model)                        # refuses what cannot be built before any image is drawn
    distributed.check_started(experiments[0].training.processes)
    data = load_data(experiments[0].data)
    print("\n".join(data.notes), file=sys.stderr)
    return [_train(e.on(len(data.classes), len(data.train), keep_epochs="epochs" in overrides), data, workers)
            for e in experiments]


def _train(experiment: Experiment, data, workers: int) -> dict:
    """Train one model, note beside it which data it saw, and say how it went on validation."""
    if os.environ.get("RANK", "0") == "0":
        folder = training.run_folder(build_model(experiment.model), data, experiment.training)
        step = checkpoint.last_step(folder)
        print(f"{experiment.model.name}: run {folder.name} " + (f"goes on from step {step}" if step else
              "is finished" if checkpoint.load_run(folder) else "begins"), file=sys.stderr)
    run = grid_module.fit(experiment, data, workers=workers)
    for note in run.notes:
        print(f"{experiment.model.name}: {note}", file=sys.stderr)
    best = checkpoint.chosen_epoch(vars(run))
    return {"model": experiment.model.name, "run": run.directory.name, "best_epoch": run.best_epoch,
            **{key: value for key, value in best.items() if key.startswith("val_")},
            "samples_seen": run.samples_seen, "seconds": run.seconds, "loaded": run.loaded,
            **caveat_column(data.caveats)}


def grid(names, seeds, preset, source, profile, device, overrides, vary, ray, tries, again) -> list[dict]:
    """Every model with every seed and every combination of what varies; one row a training."""
    if device != "cuda" or not ray:
        resolve_device(device)
    if overrides.get("processes", 1) != 1 or "processes" in vary:
        raise ValueError("a grid trains each run in one process; leave processes out, or start one training with "
                         "several by torchrun")
    _refuse_drawn(source, overrides | vary)
    given, size = {"source": data_source(source), "device": device, **overrides}, profile_of(preset, profile)
    experiments, labels = [], []
    for seed, *values in itertools.product(seeds, *vary.values()):
        chosen = dict(zip(vary, values))
        labels += [", ".join([f"seed {seed}", *(f"{name} {value}" for name, value in chosen.items())])] * len(names)
        experiments += [Experiment.preset(preset, name, seed, size, **(given | chosen)) for name in names]
    place = places.OnRay(experiments[0].training) if ray else None
    opened = {config: load_data(config) for config in dict.fromkeys(e.data for e in experiments)}
    print("\n".join(dict.fromkeys(note for data in opened.values() for note in data.notes)), file=sys.stderr)
    ready = [e.on(len(opened[e.data].classes), len(opened[e.data].train), keep_epochs="epochs" in (overrides | vary))
             for e in experiments]
    jobs = grid_module.train(ready, place, labels=labels, tries=tries, again=again)
    return [_grid_row(job, list(vary), opened[job.experiment.data]) for job in jobs]


def _grid_row(job, varied: list[str], data) -> dict:
    """How a training went, or why it failed."""
    fields = dataclasses.asdict(job.experiment.data) | dataclasses.asdict(job.experiment.model) \
        | dict(job.experiment.model.options) | dataclasses.asdict(job.experiment.training)
    row = {"model": job.name, "seed": job.experiment.training.seed, **{name: fields.get(name) for name in varied},
           "run": job.folder.name, "state": job.state}
    done = read_json(job.folder / "run.json") if job.state != "failed" else None
    if done:
        best = checkpoint.chosen_epoch(done)
        row |= {key: value for key, value in best.items() if key.startswith("val_")} | {"seconds": done["seconds"]}
        row |= {"notes": "; ".join(done["notes"])} if done["notes"] else {}
    return row | ({"reason": job.failures[-1]} if job.state == "failed" else {}) | caveat_column(data.caveats)


def refuse_failed(rows: list[dict]) -> None:
    """Raises RuntimeError where trainings of a grid failed."""
    failed = [row for row in rows if row["state"] == "failed"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(rows)} trainings failed, as the column reason says; the others are "
                           f"done. Mend the cause and say --again to try them once more")


def campaign(name: str, seeds: str, models: list[str], device: str, again: bool) -> list[dict]:
    """One of the long runs, by its name; with one seed also some of its models alone."""
    from .book import campaigns, fullsize, real
    one_of("campaign", name, CAMPAIGNS)
    chosen = seeds_in(seeds) if seeds else None
    once = {"real-mri": real.MRI, "breastmnist": real.BREAST}
    known = campaigns.CAMPAIGNS | fullsize.LARGE
    single = [c.name for c in known.values() if len(c.seeds) == 1]
    if models and name in once:
        raise ValueError(f"{name} trains all its models, once each, but --models names {', '.join(models)}; leave it "
                         f"out")
    if models and (name not in single or len(chosen or ()) > 1):
        raise ValueError(f"--models would train a part of {name}, whose models are compared over several seeds: all or "
                         f"none; it goes with one seed of {', '.join(single)}")
    if name not in once:
        whole = known[name]
        part = dataclasses.replace(whole, models=tuple(model_names(models))) if models else whole
        return campaigns.run(name, device=device, seeds=chosen, again=again, campaigns={name: part})
    if chosen and len(chosen) > 1:
        raise ValueError(f"{name} trains each model once, but --seeds names {len(chosen)} seeds; give one, or use "
                         f"small-mri")
    return real.record_real(once[name], seed=chosen[0] if chosen else 0, device=device)


def survive(kills: int, seed: int, name: str, workers: int, chapter: str | None) -> list[dict]:
    """Kill trainings and compare their ends; one row. Raises: RuntimeError: one of them ended otherwise."""
    from .survival import survive
    to = results.here(chapter, "cpu") if chapter else None               # where they are trained
    outcome = survive(kills, seed=seed, model=name, workers=workers)
    if to:
        results.record(f"survival.{name}", outcome, to=to)
    print(outcome.conclusion, file=sys.stderr)
    if outcome.different:
        raise RuntimeError(f"{len(outcome.different)} of {outcome.runs} trainings ended otherwise after a kill: "
                           f"{'; '.join(outcome.different)}")
    return [{"kills": outcome.kills, "trainings": outcome.runs, "resumed": outcome.resumed,
             "while_writing": outcome.writing, "different": 0}]


# --------------------------------------------------------------------------------------------- single images
def predict(name: str, paths: list[str], device: str) -> list[dict]:
    """Decisions and class probabilities of image files, as if all classes were as frequent."""
    run, images = _run_and_images(name, paths, device)
    if taken := [key for key in run.classes if key in ("path", "decision")]:
        raise ValueError(f"the model has a class called {taken[0]!r}, like a column of this table; give the class "
                         f"another name and train anew")
    balanced = training.predict(run.model, images).astype(np.float64) - np.log(run.prior)
    chance = np.exp(balanced - np.logaddexp.reduce(balanced, axis=1, keepdims=True))
    return [{"path": path, "decision": run.classes[int(row.argmax())], **dict(zip(run.classes, row.tolist()))}
            for path, row in zip(paths, chance)]


def explain(name: str, path: str, method: str, target: str | None, out: str, device: str) -> str:
    """Draw the saliency map of one image file into a PNG; returns a sentence on what was drawn."""
    from . import plots
    if Path(out).suffix.lower() != ".png":
        raise ValueError(f"--out is {out!r}; wanted a file that ends with .png")
    run, images = _run_and_images(name, [path], device)
    if target is not None:
        one_of("target", target, run.classes)
    balanced = training.predict(run.model, images) - np.log(run.prior)
    label = int(balanced.argmax()) if target is None else run.classes.index(target)
    grey = (read_json(run.directory / grid_module.EXPERIMENT) or {}).get("mean_grey")
    options = {"baseline": grey} if grey is not None and method in ("integrated_gradients", "occlusion") else {}
    maps = saliency.explain(method, run.model, to_input(images, run.model.config.in_chans), label, **options)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    axes = plots.saliency_grid(images, maps.map, titles=[run.classes[label].replace("_", " ")])
    axes[0, 0].figure.savefig(out, dpi=150, facecolor="white")
    done = "" if maps.delta is None else (f"; completeness error {abs(maps.delta[0]):.2g} of {maps.gap[0]:.3g} after "
                                          f"{maps.steps[0]} steps")
    return f"{out}: {method} for {run.classes[label]!r} by {run.model.config.name}{done}"


def _run_and_images(name: str, paths: list[str], device: str):
    """A run on its device and image files (n, side, side) uint8; files that cannot be read are named together."""
    place, run = resolve_device(device), training.load_run(run_folder(name))
    height, width = run.model.config.img_size
    if height != width:
        raise ValueError(f"run {name} takes {height} x {width} images; single files are read as squares only")
    found, broken = [], []
    for path in paths:
        try:
            picture = read_picture(path)
            if picture.blank:
                raise ValueError(f"{path!r} is blank, every pixel is {picture.grey.getextrema()[0]}")
            found.append(fitted(picture, height))
        except (ValueError, OSError) as error:
            broken.append(str(error))
    if broken:
        raise ValueError(f"{len(broken)} of {len(paths)} images cannot be read: {'; '.join(broken[:5])}")
    run.model.to(place)
    return run, np.stack(found)
