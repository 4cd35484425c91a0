"""What chapter 10 shows of the long runs: scores over seeds, planned comparisons, calibration, learning curves.

What lives here, top to bottom: `over_seeds`, which reads the records of one campaign; `Seeds`, those records: its
tables and pictures.

Models are compared on the seeds that all of them have. Where no training is recorded it says "not run", and where some
are, how many seeds are there: there is no interval and no verdict before all are.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import plots, results
from ..config import CONTROL
from ..metrics import ERROR, FLOOR
from ..training import SELECTION
from .campaigns import CAMPAIGNS, RATES, REFERENCE, SAME, TUNED, Campaign, as_text, rate_of
from .tables import ABSENT, of_one_device, with_interval

NOT_RUN = "not run"
CALLED = {SAME: "the recipe's rate", TUNED: "its own rate"}
SPREAD = {SAME: "seeds", TUNED: "seeds, own rate"}
SCORE = "balanced_accuracy"
READ = ["chapter", "name", "seed", "quantity", "value", "low", "high", "n", "text", "model", "first", "verdict",
        "images", "seeds", "rates", "caveats"]


def over_seeds(name: str, device="auto") -> Seeds:
    """The records of a campaign: of this device if it has any, else of the one that has most.

    Args: `name`: one of `campaigns.CAMPAIGNS`; `device`: the chapter's, as for `machine.device_name`.
    """
    campaign, table = CAMPAIGNS[name], results.load()
    table = table[table.chapter == campaign.chapter]
    table = of_one_device(table, device) if len(table) else table
    return Seeds(campaign, table.reindex(columns=READ))


@dataclass(frozen=True)
class Seeds:
    """The records of one campaign, as rows of `results.load()`; none where it was not run."""

    campaign: Campaign
    rows: pd.DataFrame

    @functools.cached_property
    def by_name(self) -> dict[str, pd.Series]:
        """Records without a seed, by name."""
        return {row["name"]: row for _, row in self.rows[self.rows.seed.isna()].iterrows()}

    def runs(self, recipe: str, name: str, quantity: str = SCORE) -> pd.DataFrame:
        """The records of a model's runs, one a seed."""
        own = self.rows["name"] == self._called(recipe, name, quantity)
        return self.rows[own & self.rows.seed.notna()]

    def _called(self, recipe: str, name: str, quantity: str = SCORE) -> str:
        """The name of such records; those at a model's own rate are named after the rate."""
        of = self._own(name) or TUNED if recipe == TUNED else recipe
        return f"{self.campaign.data}.{of}.{name}.{quantity}"

    def _own(self, name: str) -> str | None:
        """The name of a model's own rate; `None` where it is not chosen yet."""
        row = self.by_name.get(f"{self.campaign.data}.{TUNED}.{name}.rate_factor")
        return None if row is None else rate_of(row["value"])

    def _multiple(self, name: str) -> str:
        """That rate as a multiple of the recipe's, in words."""
        return NOT_RUN if (own := self._own(name)) is None else f"x {RATES[own]:g}"

    def common(self, recipe: str = SAME) -> list[int]:
        """The seeds with which all models were trained."""
        found = [self._trained_with.get(self._called(recipe, name), set()) for name in self.campaign.models]
        return sorted(set.intersection(*found))

    @functools.cached_property
    def _trained_with(self) -> dict[str, set[int]]:
        """The seeds of each record that is of a run, by its name."""
        runs = self.rows[self.rows.seed.notna()]
        return {name: set(seeds.astype(int)) for name, seeds in runs.groupby("name").seed}

    def state(self, recipe: str = SAME) -> str:
        """What to say where a number is missing: how many seeds are there, or the command that nobody has run."""
        if len(self.rows) and (done := len(self.common(recipe))):
            return f"{done} of {len(self.campaign.seeds)} seeds"
        return NOT_RUN

    @property
    def left(self) -> str:
        """The same with the command that goes on."""
        return f"{self.state()}: python -m medbench campaign {self.campaign.name}"

    def _waiting(self) -> pd.DataFrame:
        """In place of a table of which there is no number yet."""
        return pd.DataFrame({NOT_RUN: {"to run it": f"python -m medbench campaign {self.campaign.name}"}})

    # ----------------------------------------------------------------------------------------- scores over seeds
    def page(self) -> pd.DataFrame:
        """A row a model, the best first: balanced accuracy, the mean over seeds with its 95 % interval, the lowest and
        the highest seed, the same for its own learning rate, and that rate as a multiple of the recipe's."""
        if not len(self.rows):
            return self._waiting()
        lines, order = {}, {}
        for name in self.campaign.models:
            line = lines.setdefault(name, {})
            for recipe in self._recipes():
                seeds = self._of_common(recipe, name)
                line[CALLED[recipe]] = self._mean(recipe, name)
                line[SPREAD[recipe]] = f"{seeds.min():.3f}\u2013{seeds.max():.3f}" if len(seeds) > 1 else ABSENT
            if TUNED in self._recipes():
                line["its rate"] = self._multiple(name)
            order[name] = self._of_common(SAME, name).mean()
        return pd.DataFrame(lines).T.loc[sorted(order, key=lambda name: -np.nan_to_num(order[name], nan=-1.0))]

    def _recipes(self) -> tuple[str, ...]:
        """The recipe's rate, and the models' own where any is chosen."""
        return (SAME, TUNED) if any(self._own(name) for name in self.campaign.models) else (SAME,)

    def _of_common(self, recipe: str, name: str, quantity: str = SCORE) -> pd.Series:
        """A model's values, one for each seed that all models have."""
        found = self.runs(recipe, name, quantity)
        return found[found.seed.isin(self.common(recipe))].value

    def _mean(self, recipe: str, name: str) -> str:
        row = self.by_name.get(f"{self.campaign.data}.{recipe}.{name}.mean.{SCORE}")
        if row is not None and self._whole(row, recipe):
            return with_interval(row["value"], row["low"], row["high"], 3)
        found = self._of_common(recipe, name)
        return f"{found.mean():.3f} ({self.state(recipe)})" if len(found) else NOT_RUN

    def tries(self) -> pd.DataFrame:
        """How the rates were chosen: a row a model with its mean AUROC on validation at each rate, over the seeds that
        chose; its standard deviation over all seeds at the recipe's rate, to judge the differences by; the choice, and
        what it brought in balanced accuracy on the test set, over the seeds that are there."""
        if TUNED not in self._recipes():
            return self._waiting()
        lines = {}
        for name in self.campaign.models:
            line = {f"x {RATES[rate]:g}": self._tried(rate, name) for rate in sorted(RATES, key=RATES.get)}
            of_seeds = self.runs(SAME, name, SELECTION).value
            gain = 100 * (self._of_common(TUNED, name).mean() - self._of_common(SAME, name).mean())
            brought = NOT_RUN if np.isnan(gain) else ABSENT if self._own(name) == SAME else f"{gain:+.1f}"
            lines[name] = line | {"over seeds": f"{of_seeds.std():.3f}" if len(of_seeds) > 1 else ABSENT,
                                  "chosen": self._multiple(name), "brought (points)": brought}
        return pd.DataFrame(lines).T

    def _tried(self, rate: str, name: str) -> str:
        """The mean AUROC on validation of the seeds that choose among rates, where all of them are there."""
        seeds = self.campaign.seeds[:self.campaign.tuned]
        found = self.runs(rate, name, SELECTION)
        found = found[found.seed.isin(seeds)].value
        return NOT_RUN if len(found) < len(seeds) else "diverged" if found.isna().any() else f"{found.mean():.3f}"

    def comparisons(self, recipe: str = SAME, kind: str = "planned") -> pd.DataFrame:
        """The planned comparisons for `plots.forest`: percentage points with interval and verdict."""
        these = self.rows[(self.rows.quantity == f"{SCORE}_difference") & self.rows.seed.isna()
                          & self.rows["name"].str.startswith(f"{self.campaign.data}.{kind}.{recipe}.")
                          & self._whole(self.rows, recipe)]
        return these.assign(model=these["first"])[["model", "value", "low", "high", "verdict"]].reset_index(drop=True)

    def verdicts(self) -> pd.DataFrame:
        """A row for each planned comparison, and the last for softmax against the control: the difference in percentage
        points with its 95 % interval and its verdict, for each recipe."""
        if not len(self.rows):
            return self._waiting()
        asked = {f"{name} - softmax": ("planned", name) for name in self.campaign.models
                 if name not in (REFERENCE, CONTROL)} | {f"{REFERENCE} - {CONTROL}": ("control", REFERENCE)}
        return pd.DataFrame({CALLED[recipe]: {row: self._verdict(recipe, *of) for row, of in asked.items()}
                             for recipe in self._recipes()})

    def planned(self, name: str, recipe: str = SAME, kind: str = "planned") -> pd.Series | None:
        """The record of a planned comparison; `None` until all seeds are in it, at the rates that are chosen."""
        row = self.by_name.get(f"{self.campaign.data}.{kind}.{recipe}.{name}.{SCORE}_difference")
        return row if row is not None and self._whole(row, recipe) else None

    def _verdict(self, recipe: str, kind: str, name: str) -> str:
        row = self.planned(name, recipe, kind)
        if row is None:
            return self.state(recipe)
        return f"{with_interval(row['value'], row['low'], row['high'], 1)} {row['verdict']}"

    def _whole(self, rows, recipe: str):
        """Whether means and comparisons are over all seeds of the campaign, and of the rates that are chosen now."""
        return (rows["seeds"] >= len(self.campaign.seeds)) & self._current(rows, recipe)

    def _current(self, rows, recipe: str):
        """Whether they are of the rates that are chosen now."""
        rates = as_text({name: self._own(name) or SAME for name in self.campaign.models})
        return (rows["rates"] == rates) | (recipe == SAME)

    def limits(self) -> list[str]:
        """The smallest difference that would be found, in a sentence for each recipe."""
        found = {recipe: self.by_name.get(f"{self.campaign.data}.planned.{recipe}.detectable_difference")
                 for recipe in self._recipes()}
        said = [f"{CALLED[recipe][0].upper()}{CALLED[recipe][1:]}: {row['text']}" for recipe, row in found.items()
                if row is not None and self._current(row, recipe)]
        return said or [self.left]

    def forest(self, recipe: str = SAME, kind: str = "planned"):
        """The planned comparisons as a picture, with the zone of equivalence."""
        table = self.comparisons(recipe, kind)
        return plots.forest(table, margin=2, xlabel="balanced accuracy minus that of softmax (percentage points)") \
            if len(table) else self._nothing()

    # ----------------------------------------------------------------------------------------- other pages
    def calibration(self, recipe: str = SAME) -> pd.DataFrame:
        """A row a model: the calibration error on the test set before and after one temperature, each with what chance
        alone would give; means over seeds."""
        if not len(self.rows):
            return self._waiting()
        lines = {}
        for name in self.campaign.models:
            columns = {"error": ERROR, "its floor": FLOOR, "with a temperature": f"{ERROR}.tempered",
                       "floor then": f"{FLOOR}.tempered", "temperature": "temperature"}
            found = {called: self._of_common(recipe, name, quantity) for called, quantity in columns.items()}
            lines[name] = {called: f"{values.mean():.4f}" if len(values) else NOT_RUN
                           for called, values in found.items()} | {"seeds": len(found["error"])}
        return pd.DataFrame(lines).T

    def choices(self) -> pd.DataFrame:
        """A row for each way to treat rare classes: each model's balanced accuracy of each seed with which all models
        were trained so, and over these its mean calibration error before and after one temperature."""
        if not len(self.rows):
            return self._waiting()
        lines = {}
        for choice, _ in self.campaign.choices:
            line = lines.setdefault(choice.replace("_", " "), {"seeds": len(self.common(choice))})
            for name in self.campaign.models:
                scores = self._of_common(choice, name)
                errors = [self._of_common(choice, name, quantity).mean() for quantity in (ERROR, f"{ERROR}.tempered")]
                line[name] = ", ".join(f"{score:.3f}" for score in scores) or NOT_RUN
                line[f"{name}, error"] = NOT_RUN if np.isnan(errors).any() else \
                    " \u2192 ".join(f"{error:.4f}" for error in errors)
        return pd.DataFrame(lines).T

    def sizes(self) -> pd.DataFrame:
        """The learning curves as a table: a row a model, a column a number of different training images, and what the
        last step to more images brought, in percentage points."""
        these = self._points()
        if not len(these):
            return self._waiting()
        table = these.pivot_table(index="model", columns="images", values="value", aggfunc="mean", sort=True)
        shown = table.map(lambda value: ABSENT if np.isnan(value) else f"{value:.3f}")
        shown.columns = [f"{int(size):,}" for size in table.columns]
        if table.shape[1] > 1:
            shown["last step (points)"] = [f"{100 * gain:+.1f}" for gain in table.iloc[:, -1] - table.iloc[:, -2]]
        return shown.loc[[name for name in self.campaign.models if name in shown.index]].rename_axis(
            index=None, columns="images")

    def _points(self) -> pd.DataFrame:
        """The scores of runs, one a model, seed and size."""
        return self.rows[(self.rows.quantity == SCORE) & self.rows.seed.notna() & self.rows.model.notna()]

    def curve(self):
        """The learning curves as a picture: balanced accuracy against the number of different training images."""
        these = self._points()
        if not len(these):
            return self._nothing()
        these = these.astype({"images": int}).rename(columns={"low": "value_low", "high": "value_high"})
        ax = plots.curves(these, "images", "value", xlabel="different training images", ylabel="balanced accuracy (1)")
        ax.set_xscale("log")
        sizes = sorted(set(these.images.astype(int)))
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        ax.minorticks_off()
        return ax

    def _nothing(self):
        _, ax = plots.figure(height=1.2)
        ax.text(0.5, 0.5, self.left, ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return ax
