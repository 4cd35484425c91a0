"""Several models over several seeds: which comparisons are planned, how they are recorded, and their table.

What lives here, top to bottom: `compare`; `means`, `rows` and `sentences` of what it found; `record`.

The control, which mixes nothing, is no rival of the others. It has a comparison of its own, so that Holm's correction
asks no more of theirs.
"""

from __future__ import annotations

import math

from . import planned, results
from .config import CONTROL
from .planned import Family, Mean
from .rows import caveat_column

PLANNED, AGAINST_NOTHING = "planned", "control"


def compare(runs: dict[str, list], split, *, reference: str, priors: dict | None = None,
            bootstrap: int = 4000) -> dict[str, Family]:
    """Each model against the reference, `planned`; and the reference against the control, `control`.

    Args: as `planned.compare`. Returns: those of the two families that have a comparison.
    """
    more = {"priors": priors, "bootstrap": bootstrap}
    rivals = [name for name in runs if name not in (reference, CONTROL)]
    found = {}
    if rivals:
        found[PLANNED] = planned.compare(runs, split, reference=reference, models=rivals, **more)
    if CONTROL in runs and reference != CONTROL:
        found[AGAINST_NOTHING] = planned.compare(runs, split, reference=CONTROL, models=[reference], **more)
    return found


def means(families: dict[str, Family]) -> dict[str, Mean]:
    """Each model's score over seeds, by its name."""
    return {mean.name: mean for family in families.values() for mean in family.scores}


def sentences(families: dict[str, Family]) -> list[str]:
    """What the planned comparisons would find, and the verdicts in words."""
    first = next(iter(families.values()))
    return [first.sentence, *(c.sentence for family in families.values() for c in family.comparisons)]


def rows(families: dict[str, Family], more: dict[str, dict] | None = None) -> list[dict]:
    """One row a model, the highest mean first: the mean over seeds, and the difference to the model that it is compared
    with (`against`), in percentage points, beside the one that would be found four times in five; `more`: further
    columns of each model."""
    against = {c.first: (c, family.detectable[c.first]) for family in families.values() for c in family.comparisons}
    found = []
    for mean in sorted(means(families).values(), key=lambda mean: -mean.value):
        of = mean.quantity
        row = {"model": mean.name, "seeds": len(mean.values), of: mean.value, f"{of}_low": mean.low,
               f"{of}_high": mean.high} | dict.fromkeys(("against", "difference_points", "p", "verdict",
                                                         "detectable_points"))
        if mean.name in against:
            one, least = against[mean.name]
            row |= {"against": one.second, "difference_points": 100 * one.difference,
                    "difference_points_low": 100 * one.low, "difference_points_high": 100 * one.high,
                    "p": None if one.reason else one.p, "verdict": one.verdict,
                    "detectable_points": None if math.isinf(least) else least}
        found.append(row | (more or {}).get(mean.name, {}) | caveat_column(mean.caveats))
    return found


def record(families: dict[str, Family], data: str, *, to, recipe: str = "", images: int | None = None,
           **about) -> None:
    """Record means, comparisons and what would be found, under the data's name and perhaps that of a recipe."""
    about |= {"data": data, "recipe": recipe} if recipe else {"data": data}

    def called(*parts):
        return ".".join(part for part in (data, *parts) if part)
    for name, mean in means(families).items():
        results.record(called(recipe, name, "mean"), mean, to=to, **({"images": images} if images else {}), **about)
    for kind, family in families.items():
        for comparison in family.comparisons:
            results.record(called(kind, recipe, comparison.first), comparison, to=to, **about)
    if PLANNED in families:
        results.record(called(PLANNED, recipe), families[PLANNED], to=to, **about)
