r"""Scores class by class, with intervals that also hold for few images.

What lives here, top to bottom: `class_table`; `wilson`, its intervals.
"""

from __future__ import annotations

import math


def class_table(scores):
    """Sensitivity and specificity of each class, and how many images there are.

    Args: `scores` from `metrics.evaluate`. Returns: DataFrame, one row a class: `support`, `groups` if there are any,
        and `sensitivity`, `specificity` with the ends of Wilson's 95 % interval, `_low` and `_high`; NaN where there is
        no image.
    """
    import pandas as pd
    rows: dict = {}
    for c, (key, support) in enumerate(scores.support.items()):
        rows[key] = {"support": support} | ({} if scores.groups is None else {"groups": scores.groups[c]})
        for name in ("sensitivity", "specificity"):
            one = scores.per_class[key][name]
            rows[key] |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    whole = ("support", "groups")[:1 if scores.groups is None else 2]
    return pd.DataFrame(rows).T.astype(dict.fromkeys(whole, int))


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
