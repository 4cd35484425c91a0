"""Pictures of one mechanism: who listens to whom, over which slice, at what cost."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .look import axes_or_new, figure, label, logarithmic, need, outline, picture, style


def who_mixes(mixing, ax: Axes | None = None, *, title: str | None = None, bar: str | None = None) -> Axes:
    """Which token listens to which: an N x N picture, rows are outputs and columns inputs.

    Args: `mixing` (n, N) from `mb.mixing.matrix`, or any weights; `bar` names the colour bar (none: no bar).
    """
    ax = axes_or_new(ax, 3.8, 3.4)
    shown = ax.imshow(np.asarray(mixing), cmap="cividis", vmin=0, interpolation="nearest", aspect="auto")
    ax.set(xlabel="token $j$ that goes in", ylabel="token $i$ that comes out", title=title or "")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    if bar:
        ax.figure.colorbar(shown, ax=ax, label=bar)
    return ax


def mixing_maps(image, maps: dict[str, tuple], grid_size: tuple[int, int], mask=None):
    """What single output tokens listen to, drawn over the image they come from: one panel a map, beside the bare image.

    Args: `image` (H, W); `maps` {title: (mixing matrix (N, N), output token)}, each scaled to its largest entry but the
    token's own, which often outshines all others; `grid_size` (rows, columns) of the tokens; `mask` (H, W) outlined.
    A ring marks the token asked about.
    Returns: the array of Axes.
    """
    height, width = np.asarray(image).shape[-2:]
    panels = len(maps) + 1
    fig, axes = figure(columns=panels, width=min(2.5 * panels, 9), height=min(2.5, 9 / panels) + 0.55)
    picture(axes[0], image, "the slice")
    for ax, (title, (mixing, token)) in zip(axes[1:], maps.items()):
        row = np.asarray(mixing)[token]
        picture(ax, image, title)
        top = max(np.delete(row, token).max(), 1e-30)
        shown = ax.imshow(row.reshape(grid_size) / top, cmap="magma", alpha=0.65, vmin=0, vmax=1,
                          extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
        at = ((token % grid_size[1] + 0.5) * width / grid_size[1] - 0.5,
              (token // grid_size[1] + 0.5) * height / grid_size[0] - 0.5)
        for where in (axes[0], ax):
            where.plot(*at, "o", markersize=11, markerfacecolor="none", markeredgecolor="black", markeredgewidth=3)
            where.plot(*at, "o", markersize=11, markerfacecolor="none", markeredgecolor="white", markeredgewidth=1.2)
    for ax in axes:
        outline(ax, mask)
    bar = fig.colorbar(shown, ax=list(axes), location="bottom", shrink=0.4, aspect=30)
    bar.set_label("mixing, as a share of the largest other token's (1)", fontsize=8)
    return axes


def curves(table, x: str, y: str, by: str = "model", ax: Axes | None = None, *, log: bool = False,
           xlabel: str | None = None, ylabel: str | None = None, highlight: str | None = None) -> Axes:
    """One line for each value of the column `by`: y against x (wide table), with `<y>_low`, `<y>_high` as a band.

    Args: `log` both axes logarithmic; `highlight` the line drawn thicker.
    """
    ax = axes_or_new(ax)
    for place, (name, part) in enumerate(need(table, x, y, by).groupby(by, sort=False)):
        look, part = style(name, place), part.sort_values(x)
        ax.plot(part[x], part[y], **look.line(), linewidth=2.6 if name == highlight else 1.4)
        if f"{y}_low" in part and f"{y}_high" in part:
            ax.fill_between(part[x], part[f"{y}_low"], part[f"{y}_high"], color=look.color, alpha=0.18, linewidth=0)
    ax.set(xlabel=xlabel or label(x), ylabel=ylabel or label(y))
    if log:
        logarithmic(ax, "x", "y")
    ax.legend(fontsize=8)
    return ax


def cost_curves(table, ax: Axes | None = None, *, highlight: str | None = None) -> Axes:
    """Multiply-adds of mixing against the number of tokens: lines are the closed form, markers what was counted.

    Args: `table` wide, columns `model`, `num_tokens`, `closed_form`, `counted` (MAC; counted may be missing).
    """
    ax = axes_or_new(ax)
    for place, (name, part) in enumerate(need(table, "num_tokens", "closed_form").groupby("model", sort=False)):
        look, part = style(name, place), part.sort_values("num_tokens")
        thick = 2.6 if name == highlight else 1.4
        ax.plot(part.num_tokens, part.closed_form, color=look.color, linestyle=look.linestyle, linewidth=thick)
        counted = part.counted if "counted" in part else part.closed_form * np.nan
        ax.plot(part.num_tokens, counted, look.marker, color=look.color, markersize=6)
        ax.plot([], [], **look.line())
    ax.set(xlabel="number of tokens $N$", ylabel="multiply-adds of mixing (MAC)",
           title="line: closed form, marker: counted")
    logarithmic(ax, "x", "y")
    ax.legend(fontsize=8)
    return ax
