"""The models at full size: how they are trained, and their page, which shows what any machine recorded.

What lives here, top to bottom: `LARGE`, the campaigns; `Line`, one model at both sizes; `beside`, which makes them from
records; `said`, what stands out in words; `markdown`, both as the directive `{fullsize}` puts them into the page.

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


# --------------------------------------------------------------------------------------------- one model
@dataclass(frozen=True)
class Line:
    """A model at both sizes.

    `small`: its mean over seeds with interval, in words; `seeds`: its lowest and highest run, `None` without records;
    `large`: the record of its one run at full size, a row of `results.load()`; `core_hours` that this took; its
    `best_epoch` on validation.
    """

    model: str
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
            return [self.model, self.small, span, NOT_RUN, ABSENT]
        score = with_interval(self.large.value, self.large.low, self.large.high, 3)
        return [self.model, self.small, span, score, f"{self.core_hours:.1f}"]


def beside(table, large: Campaign, small: Campaign) -> list[Line]:
    """A line for each model of a campaign of one seed, beside the campaign of the small models.

    Args: `table`: rows of `results.load()`. Of a model that several machines trained, the run counts of the machine
        that has most; the small models are those of one machine, as in chapter 10.
    """
    runs = table[(table.chapter == large.chapter) & (table.seed == large.seeds[0])]
    order = runs.device.value_counts().index
    of_small = table[table.chapter == small.chapter]
    seeds = Seeds(small, (of_one_device(of_small) if len(of_small) else of_small).reindex(columns=READ))
    page, several = seeds.page() if len(seeds.rows) else None, len(seeds.common()) > 1

    def line(model: str) -> Line:
        mean = NOT_RUN if page is None else page.loc[model, CALLED[SAME]]
        values, prefix = seeds.runs(SAME, model).value, f"{large.data}.{SAME}.{model}"
        spread = (values.min(), values.max()) if several else None
        for device in order:
            found = runs[runs.device == device].set_index("name")
            if f"{prefix}.{SCORE}" in found.index:
                seconds, best = (found.value[f"{prefix}.{name}"] for name in ("training_cpu_seconds", "best_epoch"))
                return Line(model, mean, spread, found.loc[f"{prefix}.{SCORE}"], seconds / 3600, int(best))
        return Line(model, mean, spread)
    return [line(model) for model in large.models]


# --------------------------------------------------------------------------------------------- in words
BEYOND = {"above": "scored above all small runs of the same model",
          "within": "scored within the range of the small runs", "below": "scored below all small runs"}


def said(lines: list[Line], campaign: Campaign) -> list[str]:
    """What stands out, a sentence each: who scored beyond the small runs, how and where they were trained, who was
    perhaps still learning, what holds for the data, what is missing."""
    found = {line.model: line for line in lines if line.large is not None}
    left = [line.model for line in lines if line.large is None]
    command = f"python -m medbench campaign {campaign.name}"
    if not found:
        return [f"None of them was trained yet: `{command}`."]
    compared = {model: line.where for model, line in found.items() if line.where}
    first = next(iter(found.values())).large
    places = {model: f"on `{line.large.device}` in {line.large.precision}" for model, line in found.items()}
    words = [f"At full size, {in_words(compared, BEYOND)}."] if compared else []
    words.append(f"One run each, {int(first.epochs)} times over {int(first.images):,} images: "
                 f"{in_words(places, {place: place for place in places.values()})}.")
    late = [model for model, line in found.items() if line.best_epoch == line.large.epochs]
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
