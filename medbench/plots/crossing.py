"""Where lines cross: time against the number of tokens, and below it where one contender becomes the faster one."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from .look import figure, logarithmic, need, style

SAID = {"always": "faster wherever it could be told", "never": "nowhere faster", "several": "crosses more than once",
        "undecided": "not told apart", "gains": "", "loses": ""}


def crossover(table, found=None, axes=None, *, reference: str = "softmax"):
    """Time over the reference's against the number of tokens, both logarithmic, and the crossovers in a strip below.

    Args: `table` columns `model`, `at` (tokens), `ratio`, `ratio_low`, `ratio_high` and `reason` (a ratio that is NaN,
    and why: the line ends with a cross, and the legend says at which size and why); `found` columns `model`, `value`,
    `low`, `high`, `closed_form` (tokens) and `outcome`, one row a contender: filled markers are measured, with their
    intervals, open ones are where multiply-adds cross; `axes` two Axes, by default of a new figure.
    Returns: the two Axes, or one without `found`.
    """
    table = need(table, "model", "at", "ratio", "reason")
    table = table[table.model != reference]
    need(table, "model")
    names = list(dict.fromkeys(table.model))
    if axes is None:
        axes = figure(1 if found is None else 2, 1, width=7, height=4 if found is None else 4.4 + 0.26 * len(names))[1]
    upper, lowest = np.atleast_1d(axes)[[0, -1]]
    upper.axhline(1, color="black", linewidth=1)
    ends = {}
    for place, name in enumerate(names):
        ends[name] = _line(upper, table[table.model == name].sort_values("at"), name, place)
    logarithmic(upper, "y")
    upper.set(ylabel=f"time over {_label(reference)}'s (1)", title=f"below the line: faster than {_label(reference)}")
    if found is not None:
        found = need(found, "model", "value", "low", "high", "closed_form", "outcome").set_index("model")
        found = found.astype(dict.fromkeys(("value", "low", "high", "closed_form"), float))
        _strip(lowest, found, names, table["at"])
    for ax in {upper, lowest}:
        _tokens(ax, table["at"], None if found is None else found.closed_form)
    _name_ends(upper, {name: end for name, end in ends.items() if end}, names)
    _why_ended(upper, lowest, table, reference)
    return upper if found is None else axes


def _label(name: str) -> str:
    return style(name).label.replace("_", " ")


def _line(ax: Axes, part, name: str, place: int):
    """One contender's line with its intervals, a cross where it ended early. Returns: its last point, None without."""
    look, timed = style(name, place), part.dropna(subset=["ratio"])
    if timed.empty:
        return None
    bounds = {"ratio_low", "ratio_high"} <= set(timed.columns)
    ends = np.stack([timed.ratio - timed.ratio_low, timed.ratio_high - timed.ratio]) if bounds else None
    ax.errorbar(timed["at"], timed.ratio, yerr=None if ends is None else np.nan_to_num(ends.astype(float)).clip(min=0),
                color=look.color, marker=look.marker, linestyle=look.linestyle, markersize=5, capsize=2, linewidth=1.4)
    last, out = timed.iloc[-1], part[part.ratio.isna() & (part["at"] > timed["at"].max())]
    if len(out):
        ax.plot(last["at"], last.ratio, "x", color="black", markersize=10, markeredgewidth=1.3)
    return last["at"], last.ratio


def _why_ended(upper: Axes, lowest: Axes, table, reference: str) -> None:
    """Below the figure, what a cross means: who was left out first at which size, and why."""
    said = {}
    for name, part in table[table.ratio.isna()].sort_values("at").groupby("model", sort=False):
        size, reason = part["at"].iloc[0], part.reason.iloc[0].split(", too")[0]
        of_reference = reason.startswith(f"{reference}: ")
        who = _label(reference if of_reference else name)
        said[f"{who} at {size:,}: {reason.removeprefix(f'{reference}: ')}"] = None
    if said:
        marks = [upper.plot([], [], "x", color="black", markersize=8, label=words)[0] for words in said]
        lowest.legend(handles=marks, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.2), frameon=False,
                      title="where a line ends", title_fontsize=8, alignment="left")


def _name_ends(ax: Axes, ends: dict, names: list[str]) -> None:
    """Each line's name behind its last point, moved apart where they would touch."""
    if not ends:
        return
    right = max(at for at, _ in ends.values())
    low, high = np.log(ax.get_ylim())
    gap, height = 0.062 * (high - low), -np.inf
    for name in sorted(ends, key=lambda name: ends[name][1]):
        at, value = ends[name]
        height = max(np.log(value), height + gap) if at == right else np.log(value)
        ax.annotate(_label(name), (at, value), xytext=(right * 1.25, np.exp(height)), fontsize=8, va="center",
                    color=style(name, names.index(name)).color, annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6})


def _strip(ax: Axes, found, names: list[str], sizes) -> None:
    """A row for each contender: filled where time crosses, with its interval, open where multiply-adds do."""
    for place, name in enumerate(names):
        if name not in found.index:
            continue
        row, look = found.loc[name], style(name, place)
        if np.isfinite(row.value):
            ax.plot([row.low, row.high], [place, place], color=look.color, linewidth=3, alpha=0.5)
            ax.plot(row.value, place, look.marker, color=look.color, markersize=8)
        elif SAID[row.outcome]:
            ax.text(sizes.max(), place, SAID[row.outcome], fontsize=7, va="center", ha="right", color="black")
        if np.isfinite(row.closed_form):
            ax.plot(row.closed_form, place, look.marker, color=look.color, markersize=9, markerfacecolor="none",
                    markeredgewidth=1.5)
    ax.set_yticks(range(len(names)), [_label(name) for name in names])
    ax.set(ylim=(len(names) - 0.5, -0.5),
           title="where they cross. filled: time, with its 95 % interval; open: multiply-adds")


def _tokens(ax: Axes, sizes, others=None) -> None:
    """A logarithmic axis with the measured sizes as its ticks, wide enough for `others` too."""
    least = sizes.min() if others is None or others.isna().all() else min(sizes.min(), others.min())
    ax.set_xscale("log")
    ax.set_xlim(least / 1.3, sizes.max() * 1.3)
    ax.set_xticks(sorted({*sizes, *(2**power for power in range(3, 6) if 2**power >= least)}))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="x", labelsize=8)
    ax.set_xlabel("number of tokens $N$")
    ax.grid(axis="both", alpha=0.2)
