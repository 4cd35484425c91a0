r"""Planned comparisons: each mechanism against one reference, over several seeds and all test images.

What lives here, top to bottom: `Planned`, one comparison; `Mean`, one model's score; `Family`, all of them; `compare`;
scores of resampled images; the p of seeds and images together; the smallest difference that would be found.

Symbols: S seeds, n images, R resamples, $d_s$ the difference of two models' scores with seed s.

Two things are random, and each can make a winner of equal models. Another *seed* gives other weights: the exact
sign-flip test asks how many ways to choose the signs of the $d_s$ give a sum as far from 0 (Fisher 1935). Other
*images* give other scores, for all seeds alike: a bootstrap draws seeds and images together, whole patients where they
are known. A comparison's p is the larger of the two, so a difference has to stand against both (an intersection-union
test, Berger 1982, Technometrics 24, 295-300). Holm's correction (1979) then holds the chance of any false winner in the
family at about 5 %. Where patients are named and few, what they spread is stretched (`bootstrap.Patients`): of two
equal models, on two to ten patients of each class, one was then called better in 2 to 7 % of simulated cases. A single
patient makes no winner. Nor are two models equivalent because they agree on few images: a difference has a least
spread (`Patients.least`), that of all classes where equivalence is asked, and elsewhere of those in which the models
never differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .bootstrap import Patients, ends, far_side, no_nearer, resamples, within
from .checks import in_range, one_of
from .metrics import holm, refuse_undefined
from .rows import in_words, interval, with_caveats
from .scoring import OVERALL, Task

ALPHA, POWER = 0.05, 0.8
VERDICTS = ("better", "worse", "equivalent", "undecided")
MOST_EXACT = 16                # seeds up to which all 2^S signs are tried


# --------------------------------------------------------------------------------------------- what is returned
@dataclass(frozen=True, eq=False)
class Planned:
    """One model against the reference.

    `differences` (S,): the score of the first minus that of the second, seed by seed. `low`, `high`: 95 % over seeds
    and images together; `inner`: the 90 % interval that equivalence is read from. `p_seeds`, `p_images`: the two
    p-values; `p`: the larger, corrected by Holm over the `family` of so many comparisons. `margin`: within which two
    models count as equivalent. `reason`: why there is no interval, where there is none; the images then say nothing,
    and their p is 1.
    """

    first: str
    second: str
    quantity: str
    differences: np.ndarray
    low: float
    high: float
    inner: tuple[float, float]
    p_seeds: float
    p_images: float
    p: float
    margin: float
    n: int
    resamples: int
    family: int = 1
    groups: int | None = None
    caveats: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def difference(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.differences))

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the corrected p is below 5 %; else `equivalent` where the 90 % interval lies within
        the margin, which is two one-sided tests at 5 % (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15, 657-680); else
        `undecided`, as all is of a single seed."""
        if self.p < ALPHA:
            return "better" if self.difference > 0 else "worse"
        inside = len(self.differences) > 1 and -self.margin < self.inner[0] and self.inner[1] < self.margin
        return "equivalent" if inside else "undecided"

    @property
    def sentence(self) -> str:
        """The verdict in words, with the difference in percentage points."""
        stands = {"better": "is better than", "worse": "is worse than", "equivalent": "is equivalent to",
                  "undecided": "cannot be told from"}[self.verdict]
        found = (f"{100 * self.difference:+.1f} percentage points "
                 f"({in_words(100 * self.low, 100 * self.high, self.reason)}, {len(self.differences)} seeds, "
                 f"{self.n} images")
        found += ")" if self.groups is None else f" in {self.groups} groups)"
        why = {"equivalent": f", within {100 * self.margin:g} points"}.get(self.verdict, "")
        if self.verdict == "undecided" and self.too_few:
            why = f"; {self.too_few} cannot make a winner among {self.family + 1} models"
        return f"{self.first} {stands} {self.second} in {self.quantity.replace('_', ' ')}: {found}{why}."

    @property
    def too_few(self) -> str:
        """The seeds or resamples of which no difference, however large, could have been called one, as the least p that
        they allow is too large for the family; else nothing."""
        S = len(self.differences)
        if 2.0 ** (1 - S) * self.family >= ALPHA:
            return f"{S} seed{'s' * (S > 1)}"
        return f"{self.resamples} resamples" if 2 / (self.resamples + 1) * self.family >= ALPHA else ""

    def rows(self) -> list[dict]:
        """One record in percentage points, with the sentence as its text."""
        about = {"first": self.first, "second": self.second, "verdict": self.verdict, "p": self.p,
                 "p_seeds": self.p_seeds, "p_images": self.p_images, "seeds": len(self.differences),
                 "margin_points": 100 * self.margin}
        about |= dict.fromkeys(("p", "p_images")) if self.reason else {}
        row = {"quantity": f"{self.quantity}_difference", "value": 100 * self.difference,
               **interval(100 * self.low, 100 * self.high, self.reason), "unit": "percentage point", "n": self.n,
               "text": self.sentence, "samples": (100 * self.differences).tolist(), "context": about}
        return [with_caveats(row, self.caveats)]


@dataclass(frozen=True, eq=False)
class Mean:
    """One model's score, the mean over `values` (S,), with 95 % over seeds and images together."""

    name: str
    quantity: str
    values: np.ndarray
    low: float
    high: float
    n: int
    caveats: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.values))

    def rows(self) -> list[dict]:
        """One record, the seeds' own scores in `samples`."""
        row = {"quantity": self.quantity, "value": self.value, "unit": "1", "n": self.n,
               **interval(self.low, self.high, self.reason), "samples": self.values.tolist(),
               "context": {"seeds": len(self.values)}}
        return [with_caveats(row, self.caveats)]


@dataclass(frozen=True, eq=False)
class Family:
    """All planned comparisons of one data set. `spread` (m, 2): the standard deviation of each difference over seeds,
    and over resampled seeds and images together. `scores`: of each model, the reference first."""

    comparisons: tuple[Planned, ...]
    spread: np.ndarray
    scores: tuple[Mean, ...] = ()

    @cached_property
    def detectable(self) -> dict[str, float]:
        r"""Of each comparison, by the first model's name, the difference in percentage points that would be found about
        four times in five.

        The larger of what the images allow, $(z_{1-\alpha/2m} + z_{0.8})\,\sigma$, and what the seeds allow; infinite
        where the seeds, the resamples or the patients are too few for any verdict. $\alpha/m$ is Holm's strictest step.
        It is rather too large than too small: $\sigma$ is stretched and counts what differs from run to run for the
        images too.
        """
        alpha = ALPHA / len(self.comparisons)
        from scipy.stats import norm
        if self.reason:
            return {c.first: math.inf for c in self.comparisons}
        images = (norm.ppf(1 - alpha / 2) + norm.ppf(POWER)) * self.spread[:, 1]
        seeds = _detectable_by_seeds(len(self.comparisons[0].differences), alpha) * self.spread[:, 0]
        return dict(zip((c.first for c in self.comparisons), (100 * np.maximum(images, seeds)).tolist()))

    @property
    def reason(self) -> str | None:
        """Why no difference, however large, could have been called one; all are made on the same images."""
        one = self.comparisons[0]
        return one.reason or (f"only {one.too_few}" if one.too_few else None)

    @property
    def sentence(self) -> str:
        """The differences that would be found, in words: the smallest and the largest."""
        least, most = (pick(self.detectable, key=self.detectable.get) for pick in (min, max))
        if self.reason:
            return f"No difference, however large, could be called one: {self.reason}."
        found = f"{self.detectable[least]:.1f} percentage points ({least})"
        found += f" to {self.detectable[most]:.1f} ({most})" if most != least else ""
        return (f"From {found} on, a difference would be found about four times in five; smaller ones would often be "
                f"missed.")

    def rows(self) -> list[dict]:
        """What would be found of each comparison, as records, and the sentence with the largest."""
        most = max(self.detectable.values())
        rows = [{"value": value, "suffix": name} for name, value in self.detectable.items()]
        rows.append({"value": most, "text": self.sentence})
        of_all = {"quantity": "detectable_difference", "unit": "percentage point", "n": self.comparisons[0].n}
        few = {"value": None, "reason": self.reason} if self.reason else {}
        return [with_caveats(of_all | row | few, self.comparisons[0].caveats) for row in rows]


# --------------------------------------------------------------------------------------------- compare
def compare(runs: dict[str, list], split, *, reference: str = "softmax", models=None, priors: dict | None = None,
            quantity: str = "balanced_accuracy", margin: float = 0.02, bootstrap: int = 4000, seed: int = 0) -> Family:
    """Each model against the reference, paired by seed and by image.

    Args:
        runs: {model: S logits (n, k)}, the same seeds in the same order for each. split: with labels, classes, prior,
            population, and perhaps `groups` (patients) and `caveats`.
        reference: the model compared with. models: those compared; all others by default.
        priors: {model: class frequencies behind its logits}; the split's by default.
        quantity: one of `metrics.OVERALL`. margin: of equivalence, as a share: 0.02 is two percentage points.
    Returns: `Family`.
    Raises: ValueError: an unknown model or quantity, models with different numbers of runs, fewer than two models, a
        score that is undefined on this split.
    """
    one_of("reference", reference, tuple(runs))
    one_of("quantity", quantity, OVERALL)
    in_range("margin", margin, 0)
    names = [name for name in (models or runs) if name != reference]
    for name in names:
        one_of("model", name, tuple(runs))
    counts = {name: len(runs[name]) for name in (reference, *names)}
    if not names or len(set(counts.values())) > 1 or not counts[reference]:
        raise ValueError(f"runs holds {counts}; wanted at least two models with the same seeds, at least one")
    S, priors, groups = counts[reference], priors or {}, getattr(split, "groups", None)
    tasks = [[Task(logits, split, priors.get(name)) for logits in runs[name]] for name in (reference, *names)]
    refuse_undefined(quantity, [task for row in tasks for task in row])
    points, drawn = _scores(tasks, quantity, split, groups, bootstrap, seed)           # (m, S), (R, m, S)
    apart = points[1:] - points[:1]
    over_images, patients = drawn.mean(2), Patients(split)
    stretched, why = patients.spread(over_images, points.mean(1))
    overall = _seeds_too(drawn, seed + 1) + (stretched - over_images)                   # (R, m)
    means = overall[:, 1:] - overall[:, :1]
    p_seeds, p_images = np.array([sign_flip(d) for d in apart]), far_side(means)
    corrected = holm(np.maximum(p_seeds, p_images))
    n, caveats = len(split.labels), patients.caveats
    in_groups = None if groups is None else len(np.unique(groups))

    every = np.ones(len(split.classes), bool)
    least = [patients.least(np.all([one.agrees(other) for one, other in zip(row, tasks[0])], axis=0))
             for row in tasks[1:]]

    def comparison(i, name):
        low, high, *inner = ends(means[:, i], (2.5, 97.5, 5, 95))
        low, high = within(quantity, *no_nearer((low, high), apart[i].mean(), least[i]), difference=True)
        inner = no_nearer(inner, apart[i].mean(), patients.least(every), (5, 95))
        return Planned(name, reference, quantity, apart[i], low, high, inner, float(p_seeds[i]), float(p_images[i]),
                       float(corrected[i]), margin, n, len(means), len(names), in_groups, caveats, why)
    scores = tuple(Mean(name, quantity, points[i], *within(quantity, *ends(overall[:, i])), n, caveats, why)
                   for i, name in enumerate((reference, *names)))
    unknown = np.full(len(names), np.nan)
    spread = np.column_stack([apart.std(1, ddof=1) if S > 1 else unknown,
                              unknown if why else np.maximum(np.nanstd(means, axis=0), least)])
    return Family(tuple(comparison(i, name) for i, name in enumerate(names)), spread, scores)


def _scores(tasks, quantity: str, split, groups, bootstrap: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all runs on the images as they are (m, S), and on resampled ones (R, m, S)."""
    shape = len(tasks), len(tasks[0])
    flat = [task for row in tasks for task in row]

    def of(counts):
        if quantity == "balanced_accuracy":
            return balanced(counts, flat)
        return np.column_stack([task.statistic(quantity, counts) for task in flat])
    labels = np.asarray(split.labels)
    whole = of(np.ones((1, len(labels)), np.float32))
    drawn = [of(counts) for counts in resamples(labels, bootstrap, seed, groups)]
    return whole.reshape(shape), np.concatenate(drawn).reshape(-1, *shape)


def balanced(counts: np.ndarray, tasks) -> np.ndarray:
    """Balanced accuracy of several runs on R resamples (R, n) at once: (R, runs), NaN where a class is not drawn."""
    labels = tasks[0].labels
    right = np.stack([task.decided == labels for task in tasks], 1).astype(np.float32)  # (n, runs)
    shares = []
    for label in np.unique(labels):
        these = labels == label
        drawn = counts[:, these].sum(1, keepdims=True, dtype=np.float64)
        hits = (counts[:, these] @ right[these]).astype(np.float64)         # whole numbers, so exact in float32
        shares.append(np.divide(hits, drawn, where=drawn > 0, out=np.full(hits.shape, np.nan)))
    return np.mean(shares, axis=0)


# --------------------------------------------------------------------------------------------- both kinds of noise
def _seeds_too(spread: np.ndarray, seed: int) -> np.ndarray:
    r"""Scores or differences on resampled images (R, m, S), averaged over resampled seeds: (R, m).

    S - 1 of the S seeds are drawn with replacement, since the mean of S draws would vary too little, by (S - 1) / S
    (Rao & Wu 1988, J. Am. Stat. Assoc. 83, 231-241). And what the seeds add is stretched by $t_{S-1} / z$ at 97.5 %, as
    Student's distribution is wider than the normal one where a spread is known from few values.
    """
    S = spread.shape[2]
    images = spread.mean(2)                                  # over all seeds: the images' share of the noise
    if S == 1:
        return images
    from scipy.stats import norm, t
    picks = np.random.default_rng(seed).integers(S, size=(len(spread), S - 1))
    weights = np.stack([np.bincount(row, minlength=S) for row in picks]) / (S - 1)
    both = np.einsum("rms,rs->rm", spread, weights)
    return images + (both - images) * t.ppf(0.975, S - 1) / norm.ppf(0.975)


def sign_flip(differences: np.ndarray) -> float:
    """`metrics.sign_flip`, exact up to 16 seeds, from 65,536 random sign patterns beyond; 1 for a single seed."""
    from .metrics import sign_flip as exact
    if len(differences) == 1:
        return 1.0
    if len(differences) <= MOST_EXACT:
        return exact(differences)
    signs = np.random.default_rng(0).choice((-1, 1), (2**16, len(differences)))
    return float((1 + (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).sum()) / (1 + len(signs)))


def _detectable_by_seeds(S: int, alpha: float, trials: int = 4000) -> float:
    """The mean difference, in standard deviations over seeds, that the sign-flip test finds with power 0.8."""
    S = min(S, MOST_EXACT)
    signs = 1 - 2 * ((np.arange(2**S)[:, None] >> np.arange(S)) & 1)
    noise = np.random.default_rng(0).standard_normal((trials, S))

    def power(mean):
        found = []
        for d in np.array_split(noise + mean, -(-len(noise) * len(signs) // 2**24)):         # 128 MiB at a time
            sums = np.abs(d @ signs.T)
            found.append(np.mean(sums >= np.abs(d.sum(1))[:, None] - 1e-12, axis=1) < alpha)
        return np.concatenate(found).mean()
    low, high = 0.0, 20.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle) < POWER else (low, middle)
    return high
