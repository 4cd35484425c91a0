"""The book: what a chapter's second cell calls.

A chapter starts with

    import medbench as mb
    from medbench.book import start
    book = start("05_performer", globals())

and then has `book.profile`, `book.device`, `book.seed` and `book.results`. What chapters show lives in modules beside
this one, which they import. Executing and rendering them (`runner`, `execute`, `assemble`, `stamps`) is no chapter's
part.
"""

from __future__ import annotations

import ast
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import config, machine
from ..checks import one_of

PARAMETERS = ("profile", "device", "seed")
SMOKE_RESULTS = machine.ROOT / "_build" / "smoke" / "results"


@dataclass(frozen=True)
class Chapter:
    """What a chapter works with: its sizes, its device, its seed and the file for its records."""

    name: str
    profile: config.Profile
    device: Any
    seed: int

    @functools.cached_property
    def results(self) -> Path:
        """The file to pass as `to=` of `mb.results.record`; it starts empty when it is first asked for."""
        from .. import results
        to = results.here(self.name, self.device)
        results.begin(to, self.profile.name)
        return to


def start(name: str, namespace: dict[str, Any]) -> Chapter:
    """Check a chapter's parameters before any work.

    Args:
        name: the chapter's file name without its ending, such as `"05_performer"`.
        namespace: the notebook's `globals()`, where papermill puts parameters, also those nobody asked for.
    Returns:
        The chapter, with its profile, device, seed and the place of its records.
    Raises:
        ValueError: an unknown parameter, profile or device, or a seed that is no whole number.
        RuntimeError: `device="cuda"` without a GPU.
    """
    for given in _given(namespace):
        one_of(f"parameter of {name}", given, PARAMETERS)
    missing = [p for p in PARAMETERS if p not in namespace]
    if missing:
        raise ValueError(f"{name} has no parameter {', '.join(missing)}; run its first code cell, which sets them")
    profile, device, seed = (namespace[p] for p in PARAMETERS)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed is {seed!r}; wanted a whole number from 0 on, such as -p seed 1")
    chapter = Chapter(name, config.profile(profile), machine.resolve_device(device), seed)
    _keep_smoke_apart(chapter.profile.name)
    _show_whole_cells()
    return chapter


def _given(namespace: dict[str, Any]) -> list[str]:
    """Names that papermill's injected cell sets; outside IPython, every plain value of the namespace."""
    cells = namespace.get("In")
    if isinstance(cells, list):
        injected = [c for c in cells if isinstance(c, str) and c.lstrip().startswith("# Parameters")]
        nodes = [node for cell in injected for node in ast.parse(cell).body if isinstance(node, ast.Assign)]
        return [target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)]
    plain = (str, int, float, list, dict, tuple, type(None))
    return [n for n, value in namespace.items() if not n.startswith("_") and isinstance(value, plain)]


def _show_whole_cells() -> None:
    """Let tables wrap long text; pandas would cut it off after 50 characters."""
    import pandas as pd
    pd.set_option("display.max_colwidth", None)


def _keep_smoke_apart(profile: str) -> None:
    """Records of a smoke run go beside those of the book, never among them, unless a folder was asked for."""
    if profile == "smoke":
        os.environ.setdefault("MEDBENCH_RESULTS", str(SMOKE_RESULTS))
    elif os.environ.get("MEDBENCH_RESULTS") == str(SMOKE_RESULTS):
        del os.environ["MEDBENCH_RESULTS"]
