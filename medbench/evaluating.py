"""What `evaluate` does: scores of finished runs on test images, one by one or compared over seeds.

What lives here, top to bottom: `evaluate`; the comparison; one run's answers; rows of a table. How runs are found and
what they are scored on: `finished.py`, `tested.py`.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator

import numpy as np

from . import baselines, families, finished, grid, results, tested, training
from .calibration import calibrated
from .checks import in_range
from .classwise import class_table
from .files import progress
from .finished import Finished
from .machine import resolve_device
from .metrics import ERROR, FLOOR, calibration_scores
from .rows import caveat_column
from .tested import Images

SHOWN = ("balanced_accuracy", "macro_auroc", "top1", "majority_top1")        # of the scores, in the terminal
RESAMPLES, COMPARED = 1000, 4000                   # for the intervals of a run; of comparisons, whose p is corrected


def evaluate(names: list[str], source: str | None = None, *, subset: str = "", every: bool = False,
             bootstrap: int | None = None, with_baselines: bool = False, reference: str = "", per_class: bool = False,
             calibration: bool = False, device: str = "auto", chapter: str | None = None) -> list[dict]:
    """Scores of runs on test images: a row a run, a row a run and class, or, compared with a reference, a row a model.

    Args: `names` of runs, or of tables of them; `source`, `subset`, `every`: other data than those of the training, as
        in `load_test`; `with_baselines`: also of what needs no network; `reference`: the model to compare with;
        `calibration`: also errors of the probabilities; `chapter`: the record file.
    """
    to = results.here(chapter, device) if chapter else None
    place = resolve_device(device)
    if reference and (with_baselines or per_class):
        raise ValueError("--compare is about means over seeds; leave --baselines and --per-class out")
    if source and with_baselines:
        raise ValueError("--baselines learn from the training images; leave --data out")
    if (every or subset) and not source:
        raise ValueError(f"{'--every-image' if every else '--subset'} is for other data than the run's own; name them "
                         f"with --data")
    if bootstrap is None:
        bootstrap = COMPARED if reference else RESAMPLES
    named = (finished.by_name(name, source, subset, every) for name in finished.run_names(names))
    runs = list({run.folder: run for run in named}.values())                 # one may be named twice
    if reference:
        in_range("bootstrap", bootstrap, 1)
        finished.refuse_unlike(runs, reference)
    elif to:
        finished.refuse_one_name(runs)
    images = {key: tested.images_of(one, every) for key, one in {run.key: run for run in runs}.items()}
    _say(note for opened in images.values() for note in opened.notes)
    if reference:
        return _compared(runs, images, reference, bootstrap, calibration, place, to)
    scored = []
    for run, logits, more in _answered(runs, images, calibration, place):
        test = images[run.key].test
        scores = training.evaluate(logits, test, prior=run.prior, bootstrap=bootstrap)
        if to:
            rows = [row for one in more for row in one.rows()]
            results.record(run.experiment, scores, rows, to=to)
        columns = _calibration_columns(scores.overall, *more) if calibration else {}
        scored.append((run.head, scores, columns | caveat_column(scores.caveats)))
    for (config, *_), opened in images.items() if with_baselines else ():
        for name, scores in _baselines(opened, bootstrap).items():
            if to:
                results.record(f"{results.source_slug(config.source, config.subset)}.{name}", scores, to=to)
            scored.append(({"model": name, "seed": None, "run": None}, scores, caveat_column(scores.caveats)))
    _say(f"{name} {score.lacks}: {score.reason}." for _, scores, _ in scored for name, score in scores.overall.items()
         if name in SHOWN and score.reason)
    if per_class:
        return [head | row | more for head, scores, more in scored for row in _class_rows(scores)]
    return [head | _scores_row(scores) | more for head, scores, more in scored]


def _say(sentences) -> None:
    """What a reader has to know, each sentence once, beside what is printed."""
    for sentence in dict.fromkeys(sentences):
        print(sentence, file=sys.stderr)


# --------------------------------------------------------------------------------------------- comparison
def _compared(runs, images: dict, reference: str, bootstrap: int, calibration: bool, place, to) -> list[dict]:
    """A row a model: its mean over seeds, and how it stands to the reference."""
    runs, test = sorted(runs, key=lambda run: run.seed), max(images.values(), key=lambda one: one.intact).test
    if absent := [key for key, count in test.class_counts.items() if not count]:
        raise ValueError(f"balanced accuracy needs every class, but no test image is of {', '.join(absent)}; leave "
                         f"--compare out, and say --per-class")
    logits, columns = ({run.model: [] for run in runs} for _ in range(2))
    for run, answers, more in _answered(runs, images, calibration, place):
        logits[run.model].append(answers)
        if calibration:
            plain = calibration_scores(answers, images[run.key].test, prior=run.prior)
            columns[run.model].append(_calibration_columns(plain, *more))
    found = families.compare(logits, test, reference=reference, priors={run.model: run.prior for run in runs},
                             bootstrap=bootstrap)
    if to:
        config = runs[0].data
        families.record(found, results.source_slug(config.source, config.subset), to=to,
                        preset=runs[0].info["model"]["preset"])
    _say([*finished.told_apart(runs), *families.sentences(found)])
    return families.rows(found, {name: _means(own) for name, own in columns.items()})


# --------------------------------------------------------------------------------------------- one run
def _answered(runs: list[Finished], images: dict, calibration: bool, place) -> Iterator[tuple]:
    """Each run with its logits on the test images and, for `calibration`, with what a temperature does to them, if
    there is one; weights are read one run at a time."""
    with progress(len(runs), "scoring", "run", show=len(runs) > 1) as bar:
        for run in runs:
            opened, trained = images[run.key], training.load_run(run.folder)
            trained.model.to(place)
            if opened.home and opened.intact and os.access(run.folder, os.W_OK):
                logits = grid.answers(trained, opened.own)
            else:
                logits = training.predict(trained.model, opened.test)
            more = []
            if calibration and opened.intact:
                chosen_on = training.predict(trained.model, opened.own.val)
                more.append(calibrated(chosen_on, opened.own.val, logits, opened.test, prior=run.prior))
            yield run, logits, more
            bar.update()


def _baselines(opened: Images, bootstrap: int) -> dict:
    """What needs no network: two shortcuts and the nearest neighbour."""
    data = dataclasses.replace(opened.own, test=opened.test)
    found = baselines.shortcut_scores(data, bootstrap=bootstrap)
    return found | {"nearest_neighbour": baselines.nearest_neighbour(data, bootstrap=bootstrap)}


# --------------------------------------------------------------------------------------------- rows
def _scores_row(scores) -> dict:
    """The scores that the terminal shows, each with its interval."""
    row = {"n": int(scores.confusion.sum())}
    for key in SHOWN:
        score = scores.overall[key]
        row |= {key: score.value, f"{key}_low": score.low, f"{key}_high": score.high}
    return row


def _class_rows(scores) -> list[dict]:
    """A row a class."""
    return class_table(scores).rename_axis("class").reset_index().to_dict("records")


def _calibration_columns(scores: dict, tempered=None) -> dict:
    """The calibration error and its floor, and both again with the temperature that validation asks for."""
    row = {"calibration_error": scores[ERROR].value, "calibration_floor": scores[FLOOR].value,
           "temperature": None, "tempered_error": None, "tempered_floor": None}
    if tempered:
        row |= {"temperature": tempered.temperature, "tempered_error": tempered.scores[ERROR].value,
                "tempered_floor": tempered.scores[FLOOR].value}
    return row


def _means(rows: list[dict]) -> dict:
    """Each column's mean over seeds."""
    return {name: None if rows[0][name] is None else float(np.mean([row[name] for row in rows]))
            for name in (rows[0] if rows else ())}
