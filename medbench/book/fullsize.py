"""The models at full size: how they are trained, and their page, which shows what any machine recorded.

What lives here, top to bottom: `LARGE`, the campaigns; `Line`, one run at full size beside the small ones; `beside`,
which makes them from records; `said`, what stands out in words; `markdown`, both as the directive `{fullsize}` puts
them into the page.

The page is made while the book is rendered. So a run shows as soon as its records are there, without a chapter being
executed again, and the runs of one campaign may come from several machines.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import MODELS, PROFILES
from .campaigns import CAMPAIGNS, SAME, Campaign
from .real import MRI, RealSet
from .seeds import CALLED, NOT_RUN, READ, SCORE, Seeds
from .tables import ABSENT, in_words, of_one_device, with_interval


# --------------------------------------------------------------------------------------------- what is trained
def _large(name: str, chapter: str, of: RealSet | None) -> Campaign:
    """One seed of each model, on as many images as the small ones see: half an hour to an hour and more on two cores.
    """
    seen = {name: getattr(PROFILES["laptop"], name) for name in ("num_train", "num_val", "epochs")}
    return Campaign(name, chapter, "paper", of, MODELS, seeds=(0,), tuned=0, changes=tuple(seen.items()))


LARGE = {c.name: c for c in (_large("paper-mri", "15_paper_mri", MRI),
                             _large("paper-phantom", "15_paper_phantom", None))}
BESIDE = {"paper-mri": CAMPAIGNS["small-mri"], "paper-phantom": CAMPAIGNS["small-phantom"]}


# --------------------------------------------------------------------------------------------- one run
@dataclass(frozen=True)
class Line:
    """A run at full size beside the small ones of the same model.

    `name`: the model's, with the machine's where several trained it; `small`: the mean over seeds with interval, in
    words; `seeds`: the lowest and highest small run, `None` before all seeds of all models are there; `large`: the
    record of the run at full size, a row of `results.load()`, `None` before there is one; `core_hours` that this took;
    its `best_epoch` on validation.
    """

    name: str
    small: str
    seeds: tuple[float, float] | None
    large: object | None = None
    core_hours: float | None = None
    best_epoch: int | None = None

    @property
    def where(self) -> str | None:
        """`above`, `within` or `below` all small runs of the same model; `None` where either size is not recorded."""
        if self.large is None or self.seeds is None:
            return None
        low, high = self.seeds
        return "above" if self.large.value > high else "below" if self.large.value < low else "within"

    def cells(self) -> list[str]:
        """The line of the table."""
        span = ABSENT if self.seeds is None else "\u2013".join(f"{score:.3f}" for score in self.seeds)
        if self.large is None:
            return [self.name, self.small, span, NOT_RUN, ABSENT]
        score = with_interval(self.large.value, self.large.low, self.large.high, 3)
        return [self.name, self.small, span, score, f"{self.core_hours:.1f}"]


def beside(table, large: Campaign, small: Campaign) -> list[Line]:
    """The lines of a campaign of one seed, beside the campaign of the small models: one for each machine that trained a
    model, and one for a model that none did.

    Args: `table`: rows of `results.load()`. The small models are those of one machine, as in chapter 10.
    """
    of_large = table[(table.chapter == large.chapter) & (table.seed == large.seeds[0])]
    runs = {device: rows.set_index("name") for device, rows in of_large.groupby("device")}
    of_small = table[table.chapter == small.chapter]
    seeds = Seeds(small, (of_one_device(of_small) if len(of_small) else of_small).reindex(columns=READ))
    page, whole = seeds.page() if len(seeds.rows) else None, set(small.seeds) <= set(seeds.common())

    def of(model: str) -> list[Line]:
        mean = NOT_RUN if page is None else page.loc[model, CALLED[SAME]]
        values, prefix = seeds.runs(SAME, model).value, f"{large.data}.{SAME}.{model}"
        spread = (values.min(), values.max()) if whole else None
        found = {device: rows for device, rows in runs.items() if f"{prefix}.{SCORE}" in rows.index}
        lines = []
        for device, rows in found.items():
            seconds, best = (rows.value[f"{prefix}.{name}"] for name in ("training_cpu_seconds", "best_epoch"))
            name = model if len(found) == 1 else f"{model} ({device})"
            lines.append(Line(name, mean, spread, rows.loc[f"{prefix}.{SCORE}"], seconds / 3600, int(best)))
        return lines or [Line(model, mean, spread)]
    return [line for model in large.models for line in of(model)]


# --------------------------------------------------------------------------------------------- in words
BEYOND = {"above": "scored above all small runs of the same model",
          "within": "scored within the range of the small runs", "below": "scored below all small runs"}


def said(lines: list[Line], campaign: Campaign) -> list[str]:
    """What stands out, a sentence each: who scored beyond the small runs, how and where they were trained, who was
    perhaps still learning, what holds for the data, what is missing."""
    found = {line.name: line for line in lines if line.large is not None}
    left = [line.name for line in lines if line.large is None]
    command = f"python -m medbench campaign {campaign.name}"
    if not found:
        return [f"None of them was trained yet: `{command}`."]
    compared = {name: line.where for name, line in found.items() if line.where}
    first = next(iter(found.values())).large
    places = {name: f"on `{line.large.device}` in {line.large.precision}" for name, line in found.items()}
    words = [f"At full size, {in_words(compared, BEYOND)}."] if compared else []
    words.append(f"One run each, {int(first.epochs)} times over {int(first.images):,} images: "
                 f"{in_words(places, {place: place for place in places.values()})}.")
    late = [name for name, line in found.items() if line.best_epoch == line.large.epochs]
    words += [f"The last epoch was the best, so it was perhaps too early to stop: {', '.join(late)}."] if late else []
    caveats = first.get("caveats")
    words += [f"About these data: {'; '.join(caveats)}."] if isinstance(caveats, list) else []
    words += [f"Not run yet: {', '.join(left)} (`{command}`)."] if left else []
    return words


def markdown(lines: list[Line], campaign: Campaign) -> list[str]:
    """Table and words as MyST Markdown."""
    head = ["model", "small: mean over seeds", "small: its runs", "full size: one run", "core hours"]
    cells = [[cell.replace(" ", "\u00a0") for cell in line.cells()] for line in lines]      # an interval is not broken
    rows = [head, ["---"] * len(head), *cells]
    return [*(f"| {' | '.join(row)} |" for row in rows), "", *(f"- {words}" for words in said(lines, campaign))]
