r"""Scores class by class, with intervals that also hold for few images.

What lives here, top to bottom: `class_table`; `wilson`, its intervals.
"""

from __future__ import annotations

import math

import numpy as np


def class_table(scores):
    r"""Sensitivity and specificity of each class with Wilson's 95 % intervals, and how many images there are.

    Images of one patient tell less than as many of different ones. So where the split names groups, the intervals are
    those of as many independent images as tell as much (`scoring.Task.worth`).

    Args: `scores` from `metrics.evaluate`. Returns: DataFrame, one row a class: `support`, `groups` if there are any,
        and `sensitivity`, `specificity` with `_low` and `_high`; NaN where there is no image.
    """
    import pandas as pd
    rows, table, worth = {}, np.asarray(scores.confusion), scores.worth or {}
    for c, key in enumerate(scores.classes):
        own, others = int(table[c].sum()), int(table.sum() - table[c].sum())
        cells = {"sensitivity": (int(table[c, c]), own),
                 "specificity": (others - int(table[:, c].sum() - table[c, c]), others)}
        rows[key] = {"support": own} | ({"groups": worth["groups"][c]} if worth else {})
        for name, (hits, n) in cells.items():
            shrunk = worth[name][c] / n if worth and n else 1.0
            rows[key] |= dict(zip((name, f"{name}_low", f"{name}_high"), wilson(hits * shrunk, n * shrunk)))
    return pd.DataFrame(rows).T.astype({name: int for name in ("support", "groups")[:1 + bool(worth)]})


def wilson(hits: float, n: float) -> tuple[float, float, float]:
    r"""A share and Wilson's 95 % interval; NaN of no trials.

    $\big(\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}\big) / (1 + z^2/n)$ (Wilson 1927, J. Am. Stat.
    Assoc. 22, 209-212), which also holds for few trials and for 0 and 1; n need not be whole.
    """
    from scipy.stats import norm
    if not n:
        return math.nan, math.nan, math.nan
    p, z = hits / n, norm.ppf(0.975)
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (float((middle + sign * half) / (1 + z * z / n)) for sign in (-1, 1))
    return p, low if hits else 0.0, high if hits != n else 1.0
