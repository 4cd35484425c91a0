"""The arithmetic of the scores: each statistic computed for many resamples of the same images at once.

What lives here, top to bottom: the names of the scores; `Task`, one model's logits on one split with all that stays the
same in every resample; log-odds, curves, agreement. `metrics` holds what users call.

Symbols: n images, k classes, R resamples, `counts` (R, n): how often each resample drew each image.
"""

from __future__ import annotations

import math

import numpy as np

BINS = 15
PER_CLASS = ("sensitivity", "specificity", "auroc", "auprc")
PRIOR_DEPENDENT = ("macro_auprc", "top1", "top5", "mcc", "kappa", "brier", "calibration_error", "majority_top1")
OVERALL = ("balanced_accuracy", "macro_auroc", *PRIOR_DEPENDENT)
LIMITS = {"mcc": (-1, 1), "kappa": (-1, 1), "brier": (0, 2)}                    # all other scores lie between 0 and 1


class Task:
    """One model on one split: what stays the same in every resample."""

    def __init__(self, logits, split, prior=None):
        logits = np.asarray(logits, dtype=np.float64)
        self.labels, self.classes = np.asarray(split.labels), tuple(split.classes)
        self.n, self.k = len(self.labels), len(self.classes)
        if logits.shape != (self.n, self.k) or not self.n:
            raise ValueError(f"logits have shape {logits.shape}; wanted {(self.n, self.k)}: one row an image of the "
                             f"split, one column a class")
        if not np.isfinite(logits).all():
            raise ValueError(f"{np.sum(~np.isfinite(logits).all(1))} of {self.n} rows of logits hold NaN or infinity; "
                             f"the model diverged or its input did")
        present = np.bincount(self.labels, minlength=self.k)
        self.absent = [key for key, count in zip(self.classes, present) if not count]
        balanced = logits - np.log(_frequencies(split.prior if prior is None else prior, self.k))
        self.reweighted = split.population is not None
        target = split.population if self.reweighted else split.prior
        frequent = balanced + np.log(_frequencies(target, self.k))
        restored = np.asarray(target) / np.maximum(present, 1) * self.n
        self.class_weights = restored if self.reweighted else np.ones(self.k)
        self.weights = self.class_weights[self.labels]
        self.decided, self.answered = balanced.argmax(1), frequent.argmax(1)
        self.rank = (frequent > np.take_along_axis(frequent, self.labels[:, None], 1)).sum(1)
        self.odds = _log_odds(balanced)
        self.probabilities = np.exp(frequent - np.logaddexp.reduce(frequent, axis=1, keepdims=True))
        self.majority = max(range(self.k), key=lambda c: (target[c], present[c]))   # of equally frequent, most images
        self.truth = np.arange(self.k) == self.labels[:, None]
        self.orders = [_order(self.odds[:, c]) for c in range(self.k)]

    def why(self, name: str, value: float, key: str | None = None) -> str | None:
        """The reason for a NaN."""
        if not math.isnan(value):
            return None
        if name == "top5":
            return f"top-5 of {self.k} classes says nothing"
        if key in self.absent or (key is None and self.absent):
            return f"no image of class {', '.join(self.absent) if key is None else key} in the split"
        return "all images, or all decisions, are of one class"

    def statistics(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Every score for R resamples; `counts` (R, n) says how often each image was drawn.

        Returns: name -> (R,) for `OVERALL` without the calibration error, (R, k) for `PER_CLASS`.
        """
        weighted = counts * self.weights.astype(counts.dtype)
        total = weighted.sum(1)
        found = self._decisions(counts) | self._ranking(counts, weighted)
        found["macro_auroc"], found["macro_auprc"] = found["auroc"].mean(1), found["auprc"].mean(1)
        found["balanced_accuracy"] = found["sensitivity"].mean(1)
        found["top1"] = weighted @ (self.answered == self.labels) / total
        found["top5"] = weighted @ (self.rank < 5) / total if self.k > 5 else np.full(len(counts), np.nan)
        found["majority_top1"] = weighted @ (self.labels == self.majority) / total
        found["brier"] = weighted @ ((self.probabilities - self.truth) ** 2).sum(1) / total
        found["mcc"], found["kappa"] = _agreement(self.confusion(self.answered, weighted))
        unknown = found.keys() & set(PRIOR_DEPENDENT) if self.absent and self.reweighted else ()
        return found | dict.fromkeys(unknown, np.full(len(counts), np.nan))

    def statistic(self, quantity: str, counts: np.ndarray) -> np.ndarray:
        """One of `OVERALL` (R,); balanced accuracy without the others, which take a hundred times as long."""
        if quantity == "balanced_accuracy":
            return self._decisions(counts)["sensitivity"].mean(1)
        if quantity == "calibration_error":
            return self.calibration_error(counts)
        return self.statistics(counts)[quantity]

    def confusion(self, decided: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(R, k, k): row the true class, column the decided one."""
        columns = (np.arange(self.k) == decided[:, None]).astype(counts.dtype)
        rows = [counts[:, self.labels == c] @ columns[self.labels == c] for c in range(self.k)]
        return np.stack(rows, axis=1)

    def worth(self, groups: np.ndarray) -> dict[str, np.ndarray]:
        r"""How many independent images would tell as much of each class as these, which are alike within their groups.

        $n' = (z/t_{G+1})^2\,n/d$ and at most n, z and t at 97.5 % (Korn & Graubard 1998, Surv. Methodol. 24, 193-201).
        The design effect is $d = N v/p(1-p)$ with $v = \frac{G+2}{G+1}\sum_g (x_g - p\,n_g)^2/N^2$, over G groups, of
        which $x_g$ of $n_g$ images are right, and two more of $m = \sum n_g^2/n$ images, one wholly right and one
        wholly wrong; N and p are of all G + 2. Without these two, groups that are all right would tell nothing of d,
        and a first error too much: they are the two successes and two failures of Agresti & Coull 1998 (Am. Stat. 52,
        119-126), one of each as a group. A single group counts as one image.

        Args: `groups` (n,). Returns: `sensitivity` and `specificity`, n' of each class (k,), 0 where there is no image;
            `groups`, how many have images of the class (k,).
        """
        of_image = np.unique(groups, return_inverse=True)[1]
        found = {name: np.zeros(self.k) for name in ("groups", "sensitivity", "specificity")}
        for c in range(self.k):
            own, called = self.labels == c, self.decided == c
            found["groups"][c] = len(np.unique(of_image[own]))
            for name, these, right in (("sensitivity", own, called), ("specificity", ~own, ~called)):
                sizes = np.bincount(of_image[these])
                hits = np.bincount(of_image[these], right[these])[sizes > 0]
                found[name][c] = _worth(hits, sizes[sizes > 0])
        return found

    def agrees(self, other: Task) -> np.ndarray:
        """The classes on whose images both models decide alike, all of them: a mask (k,)."""
        return np.bincount(self.labels, self.decided != other.decided, minlength=self.k) == 0

    def _decisions(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Sensitivity: of a class, the share found. Specificity: of all other images, the share not called it."""
        table = self.confusion(self.decided, counts).astype(np.float64)
        right, true, called = np.diagonal(table, axis1=1, axis2=2), table.sum(2), table.sum(1)
        others = table.sum((1, 2))[:, None] - true
        return {"sensitivity": _ratio(right, true), "specificity": _ratio(others - (called - right), others)}

    def _ranking(self, counts: np.ndarray, weighted: np.ndarray) -> dict[str, np.ndarray]:
        """One class against the rest: AUROC on the images as they are, average precision on the weighted ones."""
        auroc, auprc = np.empty((2, len(counts), self.k))
        for c, (order, ends) in enumerate(self.orders):
            positive = self.truth[order, c]
            hits, false = _curve(counts[:, order], positive, ends)
            gained = np.diff(hits, prepend=0)
            area = (np.diff(false, prepend=0) * (hits - gained / 2)).sum(1)
            auroc[:, c] = _ratio(area, hits[:, -1].astype(np.float64) * false[:, -1])
            if self.reweighted:
                hits, false = _curve(weighted[:, order], positive, ends)
                gained = np.diff(hits, prepend=0)
            auprc[:, c] = _ratio((gained * hits / np.maximum(hits + false, 1e-30)).sum(1), hits[:, -1])
        return {"auroc": auroc, "auprc": auprc}

    def calibration_error(self, counts: np.ndarray) -> np.ndarray:
        """The mean gap between probability and frequency, for R resamples (R,)."""
        if self.absent and self.reweighted:
            return np.full(len(counts), np.nan)
        weighted = counts * self.weights.astype(counts.dtype)
        return self._calibration(weighted, self.labels) / weighted.sum(1)

    def calibration_floor(self, draws: int, seed: int) -> np.ndarray:
        r"""The calibration error of a model that is calibrated, on as many images (draws,); above 0 by chance.

        The images keep their probabilities and get labels drawn from them, for the class frequencies of this split
        (Broecker & Smith 2007, Weather and Forecasting 22, 651-661). NaN where the error itself is undefined.
        """
        if self.absent and self.reweighted:
            return np.full(draws, np.nan)
        rng = np.random.default_rng(seed)
        here = np.cumsum(self.probabilities / self.class_weights, axis=1)
        edges = here[:, :-1] / here[:, -1:]
        labels = (rng.random((draws, self.n, 1)) > edges).sum(2)                             # (draws, n)
        weighted = self.class_weights[labels]
        return self._calibration(weighted, labels) / weighted.sum(1)

    def _calibration(self, weighted: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Sum over bins of |probability - frequency| x weight, mean over classes; `weighted` (R, n), `labels` (n,) or
        (R, n)."""
        error = np.zeros(len(weighted))
        for c in range(self.k):
            p = self.probabilities[:, c]
            bins = np.arange(BINS) == np.minimum((p * BINS).astype(int), BINS - 1)[:, None]
            gaps = weighted * (p - (labels == c)).astype(weighted.dtype)
            error += np.abs(gaps @ bins.astype(weighted.dtype)).sum(1) / self.k
        return error


def _frequencies(prior, k: int) -> np.ndarray:
    """Class frequencies as an array (k,); zero or a wrong number of them is refused."""
    prior = np.asarray(prior, dtype=np.float64)
    if prior.shape != (k,) or not (prior > 0).all():
        raise ValueError(f"prior is {prior.tolist()}; wanted {k} positive class frequencies, one a class")
    return prior / prior.sum()


def _log_odds(scores: np.ndarray) -> np.ndarray:
    """log p_c / (1 - p_c): orders images as the probability does, without its rounding to 0 and 1."""
    rest = [np.logaddexp.reduce(np.delete(scores, c, axis=1), axis=1) for c in range(scores.shape[1])]
    return scores - np.stack(rest, axis=1)


def _order(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images from the highest score to the lowest, and the last place of every group of equal scores."""
    order = np.argsort(-score, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)


def _curve(counts: np.ndarray, positive: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits and false alarms (R, groups) when everything down to a group's end is called positive."""
    return np.cumsum(counts * positive, axis=1)[:, ends], np.cumsum(counts * ~positive, axis=1)[:, ends]


def _agreement(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matthews' correlation (Gorodkin 2004) and Cohen's kappa of confusion matrices (R, k, k)."""
    table = table.astype(np.float64) / table.sum((1, 2), keepdims=True)
    right, true, called = np.trace(table, axis1=1, axis2=2), table.sum(2), table.sum(1)
    chance = (true * called).sum(1)
    spread = (1 - (true**2).sum(1)) * (1 - (called**2).sum(1))           # rounding leaves 1e-17 of nothing, or less
    mcc = _ratio(right - chance, np.sqrt(np.where(spread > 1e-12, spread, 0)))
    return mcc, _ratio(right - chance, 1 - chance)


def _worth(hits: np.ndarray, sizes: np.ndarray) -> float:
    """Independent images that tell as much as groups of `sizes` images (G,) of which `hits` are right; see `Task`."""
    from scipy.stats import norm, t
    G, n = len(sizes), sizes.sum()
    if G < 2:
        return float(G)
    m = (sizes**2).sum() / n
    hits, sizes = np.append(hits, (0, m)), np.append(sizes, (m, m))
    N, p = sizes.sum(), hits.sum() / sizes.sum()
    v = (G + 2) / (G + 1) * ((hits - p * sizes) ** 2).sum() / N**2
    effect = v / (p * (1 - p) / N)
    return float(min(n, n / effect * (norm.ppf(0.975) / t.ppf(0.975, G + 1)) ** 2))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where nothing is below."""
    return np.where(below > 1e-12, above / np.where(below > 1e-12, below, 1), np.nan)
