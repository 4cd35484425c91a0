r"""The bootstrap: images or whole patients drawn anew, and how far what it spreads can be trusted.

What lives here, top to bottom: `resamples`; `Patients`, of how many a split has images, and what follows for intervals;
`ends` of an interval, `no_nearer` than they can be; `far_side`, a p.

Symbols: n images, k classes, R resamples, G patients of the class that has fewest.
"""

from __future__ import annotations

import math

import numpy as np

from .scoring import LIMITS

CHUNK = 100                                                            # resamples held in memory at once
ENOUGH = 0.9                                          # the share of resamples that have to have a value
FEW = 10                                              # patients of a class, below which results carry a caveat


def resamples(labels: np.ndarray, count: int, seed: int, groups: np.ndarray | None = None):
    """How often each image is drawn, (R, n) float32 in chunks.

    Without `groups` every class keeps its number of images. With them (n,) whole groups are drawn, as many as there
    are: the images of a patient are alike, and an interval that took them for independent would be too narrow (Field &
    Welsh 2007, J. R. Stat. Soc. B 69, 369-390). Classes then have as many images as their patients bring.
    """
    rng = np.random.default_rng(seed)
    strata = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    of_image = None if groups is None else np.unique(groups, return_inverse=True)[1]
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        if of_image is not None:
            yield _drawn(rng, size, of_image.max() + 1)[:, of_image]
            continue
        drawn = np.zeros((size, len(labels)), np.float32)
        for stratum in strata:
            drawn[:, stratum] = _drawn(rng, size, len(stratum))
        yield drawn


def _drawn(rng, count: int, n: int) -> np.ndarray:
    """How often each of n things is among n draws with replacement, (count, n) float32."""
    picks = rng.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
    return np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape).astype(np.float32)


class Patients:
    r"""Of how many patients (groups) each class has images; where a split names none, how many images, whose spread is
    taken as it is.

    What few patients spread says little of what others would. So what the bootstrap finds is stretched about the value
    by $t_{G-1} / z$ at 97.5 %, as Student's distribution is wider than the normal one where a spread is known from G
    values (Cameron, Gelbach & Miller 2008, Rev. Econ. Stat. 90, 414-427, on few groups). A class by itself has a G of
    its own. One patient, or one image, spreads nothing, and there is no interval; nor is there where fewer than 90 % of
    the resamples have a value, since the others drew no image of some class.
    """

    def __init__(self, split):
        groups, labels = getattr(split, "groups", None), np.asarray(split.labels)
        self.known, self.classes = groups is not None, tuple(split.classes)
        self.given = tuple(getattr(split, "caveats", ()))
        k = len(self.classes)
        of_image = np.unique(groups, return_inverse=True)[1] if self.known else np.arange(len(labels))
        label, group = np.unique(np.stack([labels, of_image]), axis=1)                # each class of each patient once
        alone = np.bincount(group)[group] == 1                                        # patients of a single class
        self.own = np.bincount(label, minlength=k)
        self.others = group.max() + 1 - np.bincount(label[alone], minlength=k)
        self.fewest = int(self.own[self.own > 0].min())
        self.rare = f"class {', '.join(key for key, G in zip(self.classes, self.own) if G == self.fewest)}"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What has to be said of every score on the split: its own caveats, and that some class has few patients."""
        few = self.fewest < FEW
        return (*self.given, *((f"{self._only(self.fewest, self.rare)}: intervals are uncertain",) if few else ()))

    def spread(self, drawn: np.ndarray, value, c: int | None = None) -> tuple[np.ndarray, str | None]:
        """What other patients could have given for a score, from its `value` (...) and what resamples `drawn` (R, ...)
        gave: the same, stretched; and, where that would say nothing, NaN and the reason. `c`: the class, if of one, and
        how it is told from all others."""
        from scipy.stats import norm, t
        G, whose = self._behind(c)
        if G < 2:
            return np.full_like(drawn, np.nan), self._only(G, whose)
        if not self.known:
            return drawn, None
        share = float(np.mean(~np.isnan(drawn), axis=0).min())
        if share < ENOUGH:
            return np.full_like(drawn, np.nan), f"{1 - share:.0%} of the resamples have no value, with {G} patients " \
                                                f"of {whose}"
        return value + (drawn - value) * (t.ppf(0.975, G - 1) / norm.ppf(0.975)), None

    def least(self, classes: np.ndarray) -> float:
        r"""The standard deviation that a difference of two balanced accuracies has at the least:
        $\sqrt{\sum_c p_c (1 - p_c)/G_c}\,/k$ with $p_c = 1/(G_c + 2)$ over `classes` (a mask (k,)), as if the models
        differed in about one of the G_c patients of each, or one image where no patients are named.

        Models that agree on all spread nothing, and of few patients that is little evidence: in the next they may
        differ.
        """
        G = self.own[classes & (self.own > 0)].astype(np.float64)
        p = 1 / (G + 2)
        return float(np.sqrt((p * (1 - p) / G).sum()) / len(self.classes))

    def _behind(self, c: int | None) -> tuple[int, str]:
        """How many patients a score rests on, and of which class they are."""
        if c is None:
            return self.fewest, self.rare
        return min((int(self.own[c]), f"class {self.classes[c]}"),
                   (int(self.others[c]), f"classes other than {self.classes[c]}"))

    def _only(self, G: int, whose: str) -> str:
        return f"only {G} {'patient' if self.known else 'image'}{'s' * (G != 1)} of {whose}"


def ends(drawn: np.ndarray, shares=(2.5, 97.5)) -> tuple[float, ...]:
    """Percentiles of what resamples gave (R,); NaN where none has a value."""
    if np.isnan(drawn).all():
        return (math.nan,) * len(shares)
    return tuple(float(np.nanpercentile(drawn, share)) for share in shares)


def no_nearer(found, difference: float, least: float, shares=(2.5, 97.5)) -> tuple[float, ...]:
    """Percentiles that were found for a difference (NaN where none were), moved out to where a least standard deviation
    has them."""
    from scipy.stats import norm
    far = difference + norm.ppf(np.array(shares) / 100) * least
    return tuple(float((np.minimum if share < 50 else np.maximum)(*pair)) for share, *pair in zip(shares, found, far))


def within(name: str, low: float, high: float, difference: bool = False) -> tuple[float, float]:
    """An interval's ends, no further than a score can go, or the difference of two scores."""
    least, most = LIMITS.get(name, (0, 1))
    least, most = (least - most, most - least) if difference else (least, most)
    return tuple(float(np.clip(end, least, most)) for end in (low, high))


def far_side(drawn: np.ndarray) -> np.ndarray:
    """Two-sided p that a difference is 0, from its resampled values (R, ...): twice the share on the far side of 0.

    Resamples without a value, since a class has no image in them, are left out.
    """
    below, above = (drawn <= 0).sum(0), (drawn >= 0).sum(0)
    return np.minimum(1.0, 2 * (1 + np.minimum(below, above)) / ((~np.isnan(drawn)).sum(0) + 1))
