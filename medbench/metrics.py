r"""Scores with intervals, and paired comparison of two models on the same images.

What lives here, top to bottom: `Score` and `Scores`; `evaluate`; `calibration_scores`; the table of bins;
`compare`, `sign_flip`, `holm`. How images are drawn anew: `bootstrap`. Class by class: `classwise`. Comparisons over
several seeds: `planned`.

Symbols: n images, k classes, R resamples, $z$ logits (n, k), $\pi$ the class frequencies behind them.

**Two populations.** Balanced accuracy, sensitivity, specificity, AUROC and the confusion matrix speak of the images as
they are, and decisions are $\arg\max(z - \log\pi)$: every class counts the same. Top-1, top-5, MCC, kappa, AUPRC, Brier
and calibration depend on how frequent the classes are. They speak of `split.population` (for the phantom the study's
class counts): images get weights that restore those frequencies, and probabilities are softmax of
$z - \log\pi + \log\pi_{population}$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .bootstrap import Patients, ends, far_side, no_nearer, resamples, within
from .checks import one_of
from .classwise import wilson
from .rows import in_words, interval, with_caveats
from .scoring import BINS, OVERALL, PER_CLASS, Task

ERROR, FLOOR = "calibration_error", "calibration_floor"
FLOOR_DRAWS = 200


# --------------------------------------------------------------------------------------------- what is returned
@dataclass(frozen=True)
class Score:
    """A value, its 95 % interval and the number of images behind it; where the value is undefined, or the interval
    cannot be had, NaN and the reason."""

    value: float
    low: float
    high: float
    n: int
    reason: str | None = None

    @property
    def lacks(self) -> str:
        """What the reason is for, in words."""
        return "is undefined" if math.isnan(self.value) else "has no interval"

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"undefined ({self.reason})"
        if math.isnan(self.low):
            return f"{self.value:.3f}" + (f" (no interval: {self.reason})" if self.reason else "")
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def row(self, quantity: str, **more) -> dict:
        """One record: NaN becomes `None` with its reason."""
        known = not math.isnan(self.value)
        row = {"quantity": quantity, "value": self.value if known else None, "unit": "1", "n": self.n}
        return row | (interval(self.low, self.high, self.reason) if known else {"reason": self.reason}) | more


@dataclass(frozen=True)
class Scores:
    """Everything that `evaluate` finds: `overall[name]` (also `scores.name`), `per_class[key][name]`, `confusion`.

    `calibration_floor` is what a calibrated model would have for an error on these images, the mean of 200 draws with
    the middle 95 % of them: an error among them cannot be told from none.
    `confusion` (k, k) counts images: row the true class, column the decided one. `caveats`: those of the split, and
    of classes with few patients, which go into every record. `groups` (k,): of how many each class has images, where
    the split names them.
    """

    classes: tuple[str, ...]
    overall: dict[str, Score]
    per_class: dict[str, dict[str, Score]]
    confusion: np.ndarray
    caveats: tuple[str, ...] = ()
    groups: np.ndarray | None = None

    def __getattr__(self, name: str) -> Score:
        if not name.startswith("__") and name in self.overall:
            return self.overall[name]
        raise AttributeError(f"there is no score {name!r}; there are: {', '.join((*OVERALL, FLOOR))}, and per_class "
                             f"with {', '.join(PER_CLASS)}")

    @property
    def support(self) -> dict[str, int]:
        """Images of each class."""
        return dict(zip(self.classes, self.confusion.sum(1).tolist()))

    def rows(self) -> list[dict]:
        """One record a score, then one a score and class, then the confusion matrix row by row in `samples`."""
        rows = [score.row(name) for name, score in self.overall.items()]
        rows += [score.row(name, suffix=key, context={"class": key})
                 for key, scores in self.per_class.items() for name, score in scores.items()]
        about = {"rows": "true class", "columns": "decided class", "classes": list(self.classes)}
        rows.append({"quantity": "confusion", "value": int(self.confusion.sum()), "unit": "1",
                     "samples": self.confusion.ravel().tolist(), "context": about})
        return [with_caveats(row, self.caveats) for row in rows]


# --------------------------------------------------------------------------------------------- evaluate
def evaluate(logits, split, *, prior=None, bootstrap: int = 1000, seed: int = 0) -> Scores:
    """Every score of a model on a split, with 95 % intervals from a bootstrap: of images, stratified by class, or of
    whole groups (patients) where the split names them, as `bootstrap.Patients` says. Sensitivity and specificity have
    Wilson's in their place, which hold for few images too, and where all are right: from as many independent images as
    tell as much (`Task.worth`).

    Args: `logits` (n, k); `split` with `labels`, `classes`, `prior` and `population`, and perhaps `groups` and
        `caveats`; `prior` (k,): class frequencies behind the logits (default: the split's, those of training);
        `bootstrap`: resamples, 0 for none, and no intervals but Wilson's.
    Returns: `Scores`. A score that needs an absent class is NaN, and its `reason` names the class; so does that of an
        interval which too few patients leave open. The calibration error is that of `calibration_scores`.
    Raises: ValueError for logits of another shape, or logits that are not finite.
    """
    task, patients, groups = Task(logits, split, prior), Patients(split), getattr(split, "groups", None)
    point = {name: values[0] for name, values in task.statistics(np.ones((1, task.n))).items()}
    drawn = _gather(task.statistics(counts) for counts in resamples(task.labels, bootstrap, seed, groups))

    def score(name, c=None):
        key, these = (None, ...) if c is None else (task.classes[c], (..., c))
        value, low, high = float(point[name][these]), math.nan, math.nan
        why = task.why(name, value, key)
        if drawn and why is None:
            spread, why = patients.spread(drawn[name][these], value, c)
            low, high = within(name, *ends(spread)) if patients.known else ends(spread)
        return Score(value, low, high, task.n, why)

    def share(name, c):
        n, value = int(behind[name][c]), float(point[name][c])
        alike = n if worth is None else worth[name][c]
        _, low, high = wilson(value * alike, alike)
        return Score(value, low, high, n, task.why(name, value, task.classes[c]))
    support, worth = np.bincount(task.labels, minlength=task.k), None if groups is None else task.worth(groups)
    behind = {"sensitivity": support, "specificity": task.n - support}
    overall = {name: score(name) for name in OVERALL if name != ERROR} | _calibration(task, seed, bootstrap > 0)
    per_class = {key: {name: share(name, c) if name in behind else score(name, c) for name in PER_CLASS}
                 for c, key in enumerate(task.classes)}
    confusion = task.confusion(task.decided, np.ones((1, task.n)))[0].astype(int)
    return Scores(task.classes, overall, per_class, confusion, patients.caveats, worth and worth["groups"])


def calibration_scores(logits, split, *, prior=None, seed: int = 0) -> dict[str, Score]:
    """The calibration error and the floor under it, what a calibrated model would have by chance.

    The error has no interval: it adds up absolute values, so a resample's noise only ever lifts it. The floor's are the
    middle 95 % of what was drawn.

    Args: as `evaluate`. Returns: `calibration_error` and `calibration_floor`.
    """
    return _calibration(Task(logits, split, prior), seed, True)


def _calibration(task: Task, seed: int, interval: bool) -> dict[str, Score]:
    error, drawn = task.calibration_error(np.ones((1, task.n))), task.calibration_floor(FLOOR_DRAWS, seed)
    low, high = np.percentile(drawn, (2.5, 97.5)) if interval else (math.nan, math.nan)
    values = {ERROR: (float(error[0]), math.nan, math.nan), FLOOR: (float(drawn.mean()), float(low), float(high))}
    return {name: Score(*value, task.n, task.why(name, value[0])) for name, value in values.items()}


def _gather(parts) -> dict[str, np.ndarray]:
    """Statistics of all resamples, name by name."""
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def reliability(logits, split, *, prior=None):
    """How often answers are right that are given with some confidence: for a reliability diagram.

    Probabilities as in `evaluate`, for the population. Images are put into bins by the probability of the answer.

    Args: as `evaluate`. Returns: DataFrame, one row a bin that is not empty: `low`, `high`, `confidence` (mean),
        `right` (share), `weight` (share of the population), `images`; the expected calibration error of Guo et al. 2017
        (arXiv:1706.04599) is the mean of |right - confidence| by `weight`.
    """
    import pandas as pd
    task = Task(logits, split, prior)
    sure = task.probabilities.max(1)
    bins, right = np.minimum((sure * BINS).astype(int), BINS - 1), task.answered == task.labels
    rows = []
    for b in np.unique(bins):
        these, weight = bins == b, task.weights[bins == b]
        rows.append({"low": b / BINS, "high": (b + 1) / BINS, "confidence": np.average(sure[these], weights=weight),
                     "right": np.average(right[these], weights=weight), "weight": weight.sum() / task.weights.sum(),
                     "images": int(these.sum())})
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------- comparison
@dataclass(frozen=True)
class Comparison:
    """One model against another on the same images: `difference` in a score's own unit, interval, verdict; `p`, how
    often the same images drawn anew would show one as large between equal models, not corrected for other questions;
    `reason`: why there is no interval and no p."""

    first: str
    second: str
    quantity: str
    difference: float
    low: float
    high: float
    n: int
    caveats: tuple[str, ...] = ()
    p: float | None = None
    reason: str | None = None

    @property
    def verdict(self) -> str:
        """`better` or `worse` (the first than the second) where the interval leaves 0 out, else `undecided`."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "undecided"

    @property
    def sentence(self) -> str:
        """The verdict in words, with the difference in percentage points."""
        stands = {"better": "lies above", "worse": "lies below", "undecided": "cannot be told from"}[self.verdict]
        gap = f"{self.first} {stands} {self.second} in {self.quantity.replace('_', ' ')}"
        found = in_words(100 * self.low, 100 * self.high, self.reason)
        return f"{gap}: {100 * self.difference:+.1f} percentage points ({found}, {self.n} images, one run each)."

    def rows(self) -> list[dict]:
        """One record in percentage points, with the sentence as its text."""
        about = {"first": self.first, "second": self.second, "verdict": self.verdict}
        about |= {} if self.p is None else {"p": self.p}
        points = {"value": 100 * self.difference} | interval(100 * self.low, 100 * self.high, self.reason)
        row = {"quantity": f"{self.quantity}_difference", **points, "unit": "percentage point", "n": self.n,
               "text": self.sentence, "context": about}
        return [with_caveats(row, self.caveats)]


def compare(first, second, split, *, quantity: str = "balanced_accuracy", names=("first", "second"),
            priors=(None, None), bootstrap: int = 1000, seed: int = 0) -> Comparison:
    """The first model's score minus the second's, with a paired bootstrap: both see the same resampled images.

    Args: `first`, `second`: logits (n, k) on `split`; `quantity`: one of `OVERALL`; `names`: for the sentence;
        `priors`: class frequencies behind each model's logits (default: the split's).
    Returns: `Comparison`. Its interval holds for these two runs, not for other seeds. Where they agree on all images of
        a class, it is no narrower than `Patients.least` has it.
    Raises: ValueError: as `evaluate`, or for a quantity that is unknown, or undefined on this split.
    """
    one_of("quantity", quantity, OVERALL)
    tasks = [Task(logits, split, prior) for logits, prior in zip((first, second), priors)]
    refuse_undefined(quantity, tasks)

    def difference(counts):
        return tasks[0].statistic(quantity, counts) - tasks[1].statistic(quantity, counts)
    patients, point = Patients(split), float(difference(np.ones((1, tasks[0].n)))[0])
    draws = resamples(tasks[0].labels, bootstrap, seed, getattr(split, "groups", None))
    drawn = np.concatenate([difference(counts) for counts in draws], dtype=np.float64)
    spread, why = patients.spread(drawn, point)
    low, high = no_nearer(ends(spread), point, patients.least(tasks[0].agrees(tasks[1])))
    low, high = within(quantity, low, high, difference=True)
    p = None if why else float(far_side(spread))
    return Comparison(*names, quantity, point, low, high, tasks[0].n, patients.caveats, p, why)


def refuse_undefined(quantity: str, tasks) -> None:
    """Raises ValueError where a score to be compared is NaN, with the reason: there is no verdict on what is undefined.
    """
    for task in tasks:
        value = float(task.statistic(quantity, np.ones((1, task.n)))[0])
        if math.isnan(value):
            raise ValueError(f"{quantity} cannot be compared: {task.why(quantity, value)}; choose another quantity, or "
                             f"a split that has images of every class")


def sign_flip(differences) -> float:
    """Exact two-sided p that paired differences, one a seed, have mean 0: all sign patterns are as likely.

    Args: `differences` (s,), at most 20. Returns: p, at least 2 / 2^s. Source: Fisher 1935, ch. III.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or not 1 <= len(differences) <= 20:
        raise ValueError(f"differences have shape {differences.shape}; wanted between 1 and 20, one a seed")
    signs = 1 - 2 * ((np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences))) & 1)
    sums = np.abs(signs @ differences)
    return float(np.mean(sums >= abs(differences.sum()) - 1e-12))


def holm(p_values) -> np.ndarray:
    """Corrected p-values in the given order: sorted, the m of them times m, m-1, ..., never falling (Holm 1979)."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty_like(steps)
    corrected[order] = np.minimum(steps, 1)
    return corrected
