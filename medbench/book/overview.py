"""The figure of the introduction and the README: `python -m medbench.book.overview` draws it anew.

One phantom slice, the large pyramid, and the one part of it that changes between models.
"""

from __future__ import annotations

from pathlib import Path

from ..machine import ROOT
from ..models import build_model
from . import mechanism, pyramid

PLACE = ROOT / "book" / "_static" / "overview.png"


def draw():
    """The figure: `mb.plots.pyramid` for the `paper` preset with the slice that every mechanism chapter shows."""
    from .. import plots
    model = build_model("softmax", preset="paper")
    image = mechanism.brain_slice(model.config.img_size[0]).images[0]
    return plots.pyramid(image, pyramid.stages(model)).figure


def main(path: Path = PLACE) -> Path:
    """Write the figure and return where it lies."""
    draw().savefig(path, dpi=150, metadata={"Software": None})
    return path


if __name__ == "__main__":
    import matplotlib
    matplotlib.use("agg")
    print(main().relative_to(ROOT))
