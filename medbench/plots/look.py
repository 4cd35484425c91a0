"""How a model looks, how a number is named, and the small parts that every figure is made of."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter


@dataclass(frozen=True)
class Style:
    """How one model is drawn, everywhere: colour, marker and line, so that any one of the three is enough."""

    label: str
    color: str
    marker: str
    linestyle: object

    def line(self) -> dict:
        """Keywords for `Axes.plot`."""
        return {"label": self.label, "color": self.color, "marker": self.marker, "linestyle": self.linestyle,
                "markersize": 5}


STYLE: dict[str, Style] = {
    "softmax": Style("softmax", "#000000", "o", "-"),
    "linformer": Style("Linformer", "#b35900", "s", "--"),
    "performer": Style("Performer", "#3d9be0", "^", "-."),
    "fastformer": Style("Fastformer", "#00704f", "D", ":"),
    "xca": Style("XCA", "#c25a96", "v", (0, (6, 1, 1, 1, 1, 1))),
    "window": Style("window", "#10449e", "P", (0, (3, 1, 1, 1))),
    "resnet50": Style("ResNet", "#d1341f", "X", (0, (8, 3))),
    "none": Style("none (control)", "#777777", "*", (0, (1, 3))),
}
_OTHERS = (("#444444", "h", (0, (10, 2))), ("#9a5b00", "<", (0, (5, 2))), ("#3f7f86", ">", (0, (4, 1, 1, 1))),
           ("#7a3b69", "p", (0, (1, 1))))
_UNITS = {"images_per_s": "images/s", "flop_per_s": "FLOP/s", "byte_per_s": "byte/s", "ms": "ms", "s": "s", "j": "J",
          "mac": "MAC", "macs": "MAC", "gmacs": "GMAC", "mmacs": "MMAC", "flop": "FLOP", "flops": "FLOP",
          "byte": "byte", "mib": "MiB", "param": "parameters", "points": "percentage points"}
_PAPER = {"figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white", "text.color": "black",
          "axes.edgecolor": "black", "axes.labelcolor": "black", "xtick.color": "black", "ytick.color": "black",
          "font.size": 10, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
          "figure.dpi": 110}


def style(name: str, place: int = 0) -> Style:
    """The style of a model; any other name gets one of four spare styles by its `place` in the figure."""
    return STYLE.get(name) or Style(str(name), *_OTHERS[place % len(_OTHERS)])


def label(name: str, unit: str | None = None) -> str:
    """`latency_ms` -> "latency (ms)"; `label("macro_auroc", "1")` -> "macro AUROC"."""
    if unit is None:
        for ending, found in _UNITS.items():
            if name == ending or name.endswith(f"_{ending}"):
                name, unit = name.removesuffix(ending).rstrip("_") or "cost", found
                break
    unit = {"percentage point": "percentage points"}.get(unit, unit)
    known = {"auroc": "AUROC", "auprc": "AUPRC", "macs": "MACs", "mcc": "MCC", "flops": "FLOPs", "num": "number of",
             "val": "validation"}
    text = " ".join(known.get(word, word) for word in name.split("_"))
    return text if unit in (None, "1", "") else f"{text} ({unit})"


def figure(rows: int = 1, columns: int = 1, width: float = 6.4, height: float = 3.6):
    """A new figure with an opaque background: (Figure, array of Axes, or the one Axes). Sizes in inches."""
    with plt.rc_context(_PAPER):
        made = plt.subplots(rows, columns, figsize=(width, height), layout="constrained")
        interactive = plt.isinteractive()      # a notebook sets it while it makes its first figure; rc_context takes it
    matplotlib.interactive(interactive)        # back, and no later figure would show
    return made


def axes_or_new(ax: Axes | None, width: float = 6.4, height: float = 3.6) -> Axes:
    """The Axes given, or those of a new figure of that size in inches."""
    return ax if ax is not None else figure(width=width, height=height)[1]


def need(table, *columns: str):
    """Refuse a table that is empty or lacks a column, naming what it has."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"the table lacks {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    if not len(table):
        raise ValueError("the table has no rows to draw; run the chapter that records them, or widen the selection")
    return table


def whiskers(table) -> np.ndarray | None:
    """Distances to `low` and `high` as `Axes.errorbar` wants them; 0 where a row has no interval."""
    if "low" not in table or "high" not in table:
        return None
    ends = np.stack([table.value - table.low, table.high - table.value]).astype(float)
    return np.nan_to_num(ends).clip(min=0)


def logarithmic(ax: Axes, *axes: str) -> None:
    """Make `"x"`, `"y"` or both logarithmic, with plain numbers at 1, 2 and 5 instead of powers."""
    for which in axes:
        getattr(ax, f"set_{which}scale")("log")
        axis = getattr(ax, f"{which}axis")
        low, high = sorted(getattr(ax, f"get_{which}lim")())
        if high / low < 1e3:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def picture(ax: Axes, image, title: str | None = None, **kwargs) -> Axes:
    """One image without ticks; grey unless said otherwise."""
    image = np.asarray(image)
    image = image.transpose(1, 2, 0) if image.ndim == 3 and image.shape[0] in (1, 3) else image
    ax.imshow(image.squeeze(), **{"cmap": "gray", **kwargs})
    ax.set(xticks=[], yticks=[])
    ax.set_title(title or "", fontsize=8)
    return ax


def outline(ax: Axes, mask) -> None:
    """The edge of a mask as a line with a dark rim, to be seen on light and dark alike."""
    if mask is not None and np.any(np.asarray(mask)):
        ax.contour(np.asarray(mask, float), [0.5], colors="black", linewidths=2.2)
        ax.contour(np.asarray(mask, float), [0.5], colors="#ffd24d", linewidths=1.0)
