"""Pictures of records: scores and differences with their intervals, latency, the roofline, a confusion matrix."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from .look import axes_or_new, label, logarithmic, need, style, whiskers


def scores(table, ax: Axes | None = None, *, highlight: str | None = None,
           lines: dict[str, float] | None = None) -> Axes:
    """One score of every model with its 95 % interval, best on top.

    Args: `table` long, one `quantity`, columns `model`, `value`, `low`, `high`, `unit`; several seeds of a model
    are drawn each; `highlight` the model of the chapter, drawn large and named in bold; `lines` {name: value} of
    vertical reference lines such as chance or a baseline.
    """
    table = need(table, "model", "value")
    order = list(table.groupby("model").value.mean().sort_values().index)
    ax = axes_or_new(ax, height=0.34 * len(order) + 1.3)
    for place, (_, row) in enumerate(table.iterrows()):
        look = style(row.model, place)
        ax.errorbar(row.value, order.index(row.model), xerr=whiskers(row.to_frame().T), fmt=look.marker,
                    color=look.color, markersize=9 if row.model == highlight else 6, capsize=3,
                    linewidth=2.4 if row.model == highlight else 1.2)
    for place, (name, value) in enumerate((lines or {}).items()):
        ax.axvline(value, color="#555555", linestyle=("--", ":", "-.")[place % 3], linewidth=1, label=name)
    ax.set_yticks(range(len(order)), [style(name).label for name in order])
    for name, text in zip(order, ax.get_yticklabels()):
        text.set_fontweight("bold" if name == highlight else "normal")
    ax.set_xlabel(_quantity(table))
    ax.margins(y=0.08)
    if lines:
        ax.legend(fontsize=8, loc="lower right")
    return ax


def forest(table, ax: Axes | None = None, *, margin: float | None = None, xlabel: str | None = None) -> Axes:
    """Differences with their intervals, one a row: left of zero worse, right of zero better.

    Args: `table` columns `model` (or any name), `value`, `low`, `high` and perhaps `verdict`, printed at the right;
    `margin` half the width of the shaded zone in which two models count as equivalent, in the table's unit.
    """
    table = need(table, "model", "value", "low", "high").reset_index(drop=True)
    ax = axes_or_new(ax, height=0.36 * len(table) + 1.3)
    if margin:
        ax.axvspan(-margin, margin, color="#dddddd", label=f"equivalent: within {margin:g}")
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, 1.14))
    ax.axvline(0, color="black", linewidth=1)
    for place, row in table.iterrows():
        look = style(row.model, place)
        ax.errorbar(row.value, place, xerr=whiskers(table.iloc[[place]]), fmt=look.marker, color=look.color,
                    capsize=3, markersize=7)
        if isinstance(row.get("verdict"), str):
            ax.annotate(row.verdict, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    ax.set_yticks(range(len(table)), [style(name).label for name in table.model])
    ax.set(ylim=(len(table) - 0.4, -0.6), xlabel=xlabel or _quantity(table))
    return ax


def latency(table, ax: Axes | None = None, *, xlabel: str = "latency of one batch, median (ms)") -> Axes:
    """Latency of every model on every device, with intervals, on a logarithmic axis.

    Args: `table` long, columns `model`, `device`, `value`, `low`, `high`, all of one quantity, unit and batch.
    A device has one marker and one shade; models are rows.
    """
    table = need(table, "model", "device", "value")
    models, devices = list(dict.fromkeys(table.model)), list(dict.fromkeys(table.device))
    ax = axes_or_new(ax, width=7, height=0.42 * len(models) + 1.2 + 0.18 * len(devices))
    for place, device in enumerate(devices):
        part, look = table[table.device == device], style(device, place)
        rows = [models.index(name) + 0.5 * ((place + 1) / (len(devices) + 1) - 0.5) for name in part.model]
        ax.errorbar(part.value, rows, xerr=whiskers(part), fmt=look.marker, color=look.color, capsize=2, markersize=6,
                    label=device)
    ax.set_yticks(range(len(models)), [style(name).label for name in models])
    ax.set(xlabel=xlabel, ylim=(len(models) - 0.5, -0.5))
    logarithmic(ax, "x")
    ax.grid(axis="x", which="both", alpha=0.25)
    ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0))
    return ax


def samples(table, ax: Axes | None = None, *, xlabel: str = "latency (ms)") -> Axes:
    """Every raw sample of every row as a tick, the median as a marker: what an interval hides.

    Args: `table` columns `model` and `samples` (a list of numbers a row).
    """
    table = need(table, "model", "samples").reset_index(drop=True)
    ax = axes_or_new(ax, height=0.36 * len(table) + 1.1)
    for place, row in table.iterrows():
        look, values = style(row.model, place), np.asarray(row.samples, float)
        ax.plot(values, np.full(len(values), place), "|", color=look.color, alpha=0.5, markersize=12)
        ax.plot(np.median(values), place, look.marker, color=look.color, markersize=7, markeredgecolor="white")
    ax.set_yticks(range(len(table)), [style(name).label for name in table.model])
    ax.set(xlabel=xlabel, ylim=(len(table) - 0.5, -0.5))
    return ax


def pareto(table, x: str, y: str, ax: Axes | None = None, *, log: bool = False) -> Axes:
    """What a model reaches against what it costs; the line joins the models that no other beats in both.

    Args: `table` wide, columns `model`, `x` (less is better), `y` (more is better), and perhaps `<x>_low`,
    `<x>_high`, `<y>_low`, `<y>_high`.
    """
    table = need(table, "model", x, y).dropna(subset=[x, y]).sort_values([x, y], ascending=[True, False])
    ax = axes_or_new(ax, width=6.8, height=4)
    best = table[y].cummax()
    front = table[(table[y] == best) & (best > best.shift(fill_value=-np.inf))]
    ax.step(front[x], front[y], where="post", color="#999999", linewidth=1, label="not beaten in both")
    for place, (_, row) in enumerate(table.iterrows()):
        look = style(row.model, place)
        ax.errorbar(row[x], row[y], xerr=_ends(row, x), yerr=_ends(row, y), fmt=look.marker, color=look.color,
                    capsize=2, markersize=8, label=look.label)
    ax.set(xlabel=label(x), ylabel=label(y))
    if log:
        logarithmic(ax, "x")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def time_against_macs(table, ax: Axes | None = None) -> Axes:
    """Median latency against multiply-adds, one point a model: a line through the origin if time followed them.

    Args: `table` wide, columns `model`, `gmacs`, `latency_ms`, and perhaps `latency_ms_low`, `latency_ms_high`.
    """
    table = need(table, "model", "gmacs", "latency_ms").dropna(subset=["latency_ms"])
    ax = axes_or_new(ax, width=6.8, height=4)
    for place, (_, row) in enumerate(table.iterrows()):
        look = style(row.model, place)
        ax.errorbar(row.gmacs, row.latency_ms, yerr=_ends(row, "latency_ms"), fmt=look.marker, color=look.color,
                    capsize=3, markersize=8, label=look.label)
    ax.set(xlabel="multiply-adds (GMAC)", ylabel="median latency (ms)", xlim=(0, None), ylim=(0, None))
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def roofline(table, peaks: dict[str, float], bandwidth: float, ax: Axes | None = None) -> Axes:
    """Where each model stands under this device's roof: memory bandwidth on the left, arithmetic on the right.

    Args: `table` columns `model`, `intensity` (FLOP/byte), `rate` (FLOP/s) and, where there is more than one peak,
    `dtype`: markers of the first are filled, of the others open; `peaks` {dtype: FLOP/s}; `bandwidth` in byte/s. All
    measured, in the same run. Source: Williams, Waterman and Patterson 2009, "Roofline".
    """
    table = need(table, "model", "intensity", "rate")
    ax = axes_or_new(ax, width=6.8, height=4)
    ridge = max(peaks.values()) / bandwidth
    reach = np.geomspace(min(table.intensity.min(), ridge) / 4, max(table.intensity.max(), ridge) * 4, 200)
    for place, (name, peak) in enumerate(peaks.items()):
        marks = " (open markers)" if place and "dtype" in table else ""
        ax.plot(reach, np.minimum(reach * bandwidth, peak) / 1e9, color="black", linewidth=1.5,
                linestyle=("-", "--", ":")[place % 3], label=f"roof, {name}{marks}")
    filled = next(iter(peaks))
    for place, (_, row) in enumerate(table.iterrows()):
        look, own = style(row.model, place), row.get("dtype", filled) == filled
        ax.plot(row.intensity, row.rate / 1e9, look.marker, color=look.color, markersize=8,
                markerfacecolor=look.color if own else "none", label=look.label if own else None)
    ax.set(xlabel="arithmetic intensity (FLOP/byte)", ylabel="rate (GFLOP/s)")
    logarithmic(ax, "x", "y")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def confusion(matrix, classes, ax: Axes | None = None) -> Axes:
    """Which class is taken for which: shares of each true class, counts written in the cells.

    Args: `matrix` (k, k) counts, rows true and columns predicted; `classes` k names. A class without images is left
    blank, not drawn as zero.
    """
    counts = np.asarray(matrix)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"a confusion matrix of {len(classes)} classes must be square, but received {counts.shape}")
    ax = axes_or_new(ax, width=6.4, height=5.6)
    total = counts.sum(1, keepdims=True)
    share = np.where(total > 0, counts / np.maximum(total, 1), np.nan)
    shown = ax.imshow(share, cmap="Greys", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        ax.text(column, row, str(count), ha="center", va="center", fontsize=7,
                color="white" if share[row, column] > 0.55 else "black")
    names = [str(name).replace("_", " ") for name in classes]
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.figure.colorbar(shown, ax=ax, label="share of the true class (1)", shrink=0.7)
    return ax


def _ends(row, name: str):
    """One point's distances to its interval, (2, 1), or None where it has none."""
    if f"{name}_low" not in row or f"{name}_high" not in row:
        return None
    ends = np.array([[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]], float)
    return None if np.isnan(ends).any() else ends.clip(min=0)


def _quantity(table) -> str:
    """The axis label of a long table: its one quantity and unit."""
    names = list(dict.fromkeys(table.quantity)) if "quantity" in table else ["value"]
    if len(names) > 1:
        raise ValueError(f"one axis cannot show {', '.join(names)} together; select one quantity")
    return label(names[0], next(iter(table.unit)) if "unit" in table else None)
