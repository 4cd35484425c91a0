"""What chapter 10 shows of the long runs: scores over seeds, planned comparisons, rates, learning curves.

What lives here, top to bottom: `Seeds`, the records of one campaign and its pages; `seeds`, which reads them. What has
no record yet is shown as "not run".
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import results
from ..config import ALL_MODELS
from .campaigns import CAMPAIGNS, SAME, TUNED, Campaign
from .tables import of_one_device, with_interval

NOT_RUN = "not run"
CALLED = {SAME: "the recipe's rate", TUNED: "its own rate"}


@dataclass(frozen=True)
class Seeds:
    """The records of one campaign, as rows of `results.load()`; none where it was not run."""

    campaign: Campaign
    rows: pd.DataFrame

    @functools.cached_property
    def by_name(self) -> dict[str, pd.Series]:
        """Records without a seed, by name."""
        return {row["name"]: row for _, row in self.rows[self.rows.seed.isna()].iterrows()}

    def runs(self, recipe: str, name: str, quantity: str = "balanced_accuracy") -> pd.DataFrame:
        """The records of a model's runs, one a seed."""
        return self.rows[(self.rows["name"] == f"{self.campaign.data}.{recipe}.{name}.{quantity}")
                         & self.rows.seed.notna()]

    def page(self) -> pd.DataFrame:
        """A row a model, the best first: balanced accuracy, the mean over seeds with its 95 % interval, for each
        recipe, and the learning rate that was chosen as a multiple of the recipe's."""
        lines, order = {}, {}
        for name in self.campaign.models:
            lines[name] = {CALLED[recipe]: self._mean(recipe, name) for recipe in self._recipes()}
            if self.campaign.tuned:
                factor = self.by_name.get(f"{self.campaign.data}.{TUNED}.{name}.rate_factor")
                lines[name]["its rate"] = NOT_RUN if factor is None else f"x {factor['value']:g}"
            order[name] = self.runs(SAME, name).value.mean()
        return pd.DataFrame(lines).T.loc[sorted(order, key=lambda name: -np.nan_to_num(order[name], nan=-1.0))]

    def _recipes(self) -> tuple[str, ...]:
        return (SAME, TUNED) if self.campaign.tuned else (SAME,)

    def _mean(self, recipe: str, name: str) -> str:
        row = self.by_name.get(f"{self.campaign.data}.{recipe}.{name}.mean.balanced_accuracy")
        if row is not None and (row["seeds"] > 1 or len(self.campaign.seeds) == 1):
            return with_interval(row["value"], row["low"], row["high"], 3)
        done = self.runs(recipe, name)
        if not len(done):
            return NOT_RUN
        return f"{done.value.mean():.3f} ({len(done)} of {len(self.campaign.seeds)} seeds)"

    def comparisons(self, recipe: str = SAME, kind: str = "planned") -> pd.DataFrame:
        """The planned comparisons for `plots.forest`: percentage points with interval and verdict."""
        these = self.rows[self.rows["name"].str.startswith(f"{kind}.{recipe}.")
                          & self.rows["name"].str.endswith("_difference") & self.rows["value"].notna()
                          & self.rows["seed"].isna()]
        these = these[these["name"].str.count(r"\.") == 3]
        return these.assign(model=these["first"])[["model", "value", "low", "high", "verdict"]].reset_index(drop=True)

    def sentences(self, recipe: str = SAME, kind: str = "planned") -> list[str]:
        """What the comparisons found, each in a sentence, and the smallest difference that would be found."""
        texts = [row["text"] for name, row in self.by_name.items()
                 if name.startswith(f"{kind}.{recipe}.") and isinstance(row["text"], str)]
        return texts or [f"{self.campaign.name}, {CALLED[recipe]}: {NOT_RUN}; python -m medbench campaign "
                         f"{self.campaign.name} runs it."]

    def curve(self) -> pd.DataFrame:
        """Learning curves: a row a model and size, with the score and its interval."""
        these = self.rows[(self.rows.quantity == "balanced_accuracy") & self.rows.seed.notna()] \
            if len(self.rows) else self.rows
        wanted = ("model", "images", "seed", "value", "low", "high")
        return these[[column for column in wanted if column in these]].reset_index(drop=True)


def seeds(name: str, device="auto") -> Seeds:
    """The records of a campaign: of this device if it has any, else of the one that has most."""
    campaign = CAMPAIGNS[name]
    table = results.load()
    table = table[table.chapter == campaign.chapter] if len(table) else table
    return Seeds(campaign, of_one_device(table, device) if len(table) else
                 pd.DataFrame(columns=["name", "seed", "quantity", "value", "low", "high", "text", "first", "verdict",
                                       "model", "images", "lr"]))


def order(names) -> list[str]:
    """Models in the book's order."""
    return [name for name in ALL_MODELS if name in set(names)]
