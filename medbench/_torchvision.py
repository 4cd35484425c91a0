"""Let timm be imported beside a CPU build of torch.

torchvision's wheel on the registry is built for CUDA. Beside a CPU build of torch its compiled operators do not
load, and `import torchvision`, hence `import timm`, dies with "operator torchvision::nms does not exist": its
Python files attach shape functions to two operators that nobody declared. Declaring them cures it. Nothing here
computes them; medbench uses neither.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def operators_load() -> bool:
    """Whether torchvision's compiled operators load beside this torch. True where torchvision is not installed."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return True
    for library in sorted(Path(package.origin).parent.glob("_C*.*")):
        if library.suffix not in (".so", ".pyd", ".dll", ".dylib"):
            continue
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
    return True


def declare_missing_operators() -> torch.library.Library | None:
    """Declare `torchvision::nms` and `qnms` where the compiled ones do not load; the caller keeps the result alive."""
    if operators_load():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    return library


DECLARED = declare_missing_operators()
