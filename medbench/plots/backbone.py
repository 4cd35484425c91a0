"""Pictures of the backbone: the pyramid from image to answer, and where its arithmetic goes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from .look import axes_or_new, figure, need

MIXING, REST = "#e69f00", "#c9d3dc"
PARTS = {"mixing": (MIXING, "///"), "projections": ("#56b4e9", "..."), "MLP": (REST, ""), "other": ("#ffffff", "xx")}


def pyramid(image, stages, ax: Axes | None = None) -> Axes:
    """The pyramid, drawn from what a model holds: image, grid of tokens of each stage, its blocks, the answer.

    Args: `image` (H, W); `stages` table with the columns `rows`, `columns`, `channels`, `heads`, `blocks`, one row a
    stage. Sides are drawn to scale by the square root, depths by the logarithm of the channels.
    """
    need(stages, "rows", "columns", "channels", "heads", "blocks")
    ax = ax if ax is not None else figure(width=9.2, height=3.6)[1]
    shrink = 2.4 / np.sqrt(stages["rows"].iloc[0])
    image, first = np.asarray(image).squeeze(), stages.iloc[0]
    ax.imshow(image, cmap="gray", extent=(0, 2.4, 0, 2.4), zorder=1)
    for share in np.arange(1, first["rows"]) / first["rows"]:
        ax.plot([0, 2.4], [2.4 * share] * 2, color="#ffd24d", linewidth=0.35, alpha=0.8, zorder=2)
        ax.plot([2.4 * share] * 2, [0, 2.4], color="#ffd24d", linewidth=0.35, alpha=0.8, zorder=2)
    ax.text(1.2, -0.12, f"{image.shape[-2]} x {image.shape[-1]} pixels,\n{first['rows'] * first['columns']:,} places",
            ha="center", va="top", fontsize=9)
    left = 3.0
    for place, stage in enumerate(stages.to_dict("records")):
        side = shrink * np.sqrt(stage["rows"])
        _arrow(ax, left - 0.52, left - 0.08, "stem" if place == 0 else "merge")
        depth = 0.1 * np.log2(stage["channels"] / 8)
        _box(ax, left, side, depth, stage["rows"], stage["columns"])
        middle = left + max(side, 1.0) / 2
        heads = f"{stage['heads']} head{'s' * (stage['heads'] > 1)}"
        ax.text(middle, -0.12, f"{stage['rows']} x {stage['columns']} tokens\n{stage['channels']} channels\n{heads}",
                ha="center", va="top", fontsize=9)
        _blocks(ax, middle, stage["blocks"])
        left += max(side, 1.0) + depth + 0.62
    _arrow(ax, left - 0.52, left - 0.08, "mean")
    ax.text(left, 1.2, "classifier:\none logit\na class", ha="left", va="center", fontsize=9)
    lowest = -1.16 - 0.2 * stages["blocks"].max()
    _legend(ax, lowest)
    ax.set(xlim=(-0.1, left + 1.25), ylim=(lowest - 0.4, 2.9), aspect="equal")
    ax.axis("off")
    return ax


def _box(ax: Axes, left: float, side: float, depth: float, rows: int, columns: int) -> None:
    """A block of tokens: its grid in front, its channels as depth."""
    low, right, top = 1.2 - side / 2, left + side, 1.2 + side / 2
    ends = ([(left, top), (left + depth, top + depth), (right + depth, top + depth), (right, top)],
            [(right, low), (right + depth, low + depth), (right + depth, top + depth), (right, top)])
    for corners, tone in zip(ends, ("#dfe7ee", "#b8c6d3")):
        ax.add_patch(Polygon(corners, facecolor=tone, edgecolor="black", linewidth=0.7))
    ax.add_patch(Rectangle((left, low), side, side, facecolor="#f4f7fa", edgecolor="black", linewidth=0.9))
    for share in np.arange(1, rows) / rows:
        ax.plot([left, right], [low + side * share] * 2, color="#5b6b7a", linewidth=0.3)
    for share in np.arange(1, columns) / columns:
        ax.plot([left + side * share] * 2, [low, top], color="#5b6b7a", linewidth=0.3)


def _blocks(ax: Axes, middle: float, count: int) -> None:
    """The blocks of a stage as pairs: the part that changes, and the MLP that does not."""
    for place in range(count):
        y = -1.08 - 0.2 * place
        for offset, tone, hatch in ((-0.36, *PARTS["mixing"]), (0.02, *PARTS["MLP"])):
            ax.add_patch(FancyBboxPatch((middle + offset, y), 0.34, 0.13, boxstyle="round,pad=0,rounding_size=0.03",
                                        facecolor=tone, edgecolor="black", linewidth=0.6, hatch=hatch))


def _arrow(ax: Axes, start: float, end: float, name: str) -> None:
    ax.annotate("", (end, 1.2), (start, 1.2), arrowprops={"arrowstyle": "->", "linewidth": 1.1})
    ax.text((start + end) / 2, 1.3, name, ha="center", va="bottom", fontsize=8)


def _legend(ax: Axes, y: float) -> None:
    rows = ((0, *PARTS["mixing"], "mixing of tokens: the only part that changes between models"),
            (7.9, *PARTS["MLP"], "MLP: one token at a time, the same for all"))
    for x, tone, hatch, text in rows:
        ax.add_patch(FancyBboxPatch((x, y - 0.3), 0.34, 0.16, boxstyle="round,pad=0,rounding_size=0.03", facecolor=tone,
                                    edgecolor="black", linewidth=0.6, hatch=hatch))
        ax.text(x + 0.44, y - 0.22, text, va="center", fontsize=9)


def stacked(table, x: str, parts, ax: Axes | None = None, *, xlabel: str | None = None, ylabel: str = "") -> Axes:
    """Stacked bars: for each value of the column `x`, the columns `parts` on top of each other.

    Parts are told by hatching as well as by colour; parts of at least a tenth of their bar are labelled.
    """
    ax = axes_or_new(ax)
    places, low = np.arange(len(need(table, x, *parts))), np.zeros(len(table))
    whole = table[list(parts)].sum(axis=1).to_numpy()
    for part in parts:
        tone, hatch = PARTS.get(part, (REST, ""))
        height = table[part].to_numpy(float)
        ax.bar(places, height, bottom=low, color=tone, hatch=hatch, edgecolor="black", linewidth=0.6, label=part)
        for place in places[(height >= 0.1 * whole) & (height >= 0.05 * whole.max())]:
            ax.text(place, low[place] + height[place] / 2, f"{height[place] / whole[place]:.0%}", ha="center",
                    va="center", fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85})
        low = low + height
    ax.set(xticks=places, xticklabels=[str(value) for value in table[x]], xlabel=xlabel or x, ylabel=ylabel)
    ax.legend(fontsize=8, ncols=len(parts), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return ax
