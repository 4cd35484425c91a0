"""Figures: a table or an array in, matplotlib Axes out.

- `look`: how a model looks (`STYLE`), how a number is named (`label`), `figure`
- `backbone`: `pyramid`, `stacked`
- `mechanism`: `who_mixes`, `mixing_maps`, `curves`, `cost_curves`
- `images`: `gallery`, `failures`, `saliency_grid`
- `crossing`: `crossover`
- `records`: `scores`, `forest`, `latency`, `samples`, `pareto`, `time_against_macs`, `roofline`, `confusion`

Every figure has an opaque background and axes with units, and can be read in grey: a model is told by its marker
and its line as much as by its colour. A table is a pandas DataFrame in the columns of `mb.results.load()` (`model`,
`value`, `low`, `high`, `unit`, `device`, ...) or, where a docstring says "wide", one column a quantity with the unit
in its name (`latency_ms`). Functions draw on the Axes they are given, or on a new figure.
"""

from .backbone import pyramid, stacked
from .crossing import crossover
from .images import failures, gallery, saliency_grid
from .look import STYLE, Style, figure, label, style
from .mechanism import cost_curves, curves, mixing_maps, who_mixes
from .records import confusion, forest, latency, pareto, roofline, samples, scores, time_against_macs

__all__ = ["STYLE", "Style", "confusion", "cost_curves", "crossover", "curves", "failures", "figure", "forest",
           "gallery", "label", "latency", "mixing_maps", "pareto", "pyramid", "roofline", "saliency_grid", "samples",
           "scores", "stacked", "style", "time_against_macs", "who_mixes"]
