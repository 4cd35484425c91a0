"""medbench: efficient attention for medical images, compared fairly. The public names, and nothing else.

`import medbench as mb` needs torch, timm and numpy; a module that needs more is imported when it is first used.
For research and teaching, not for clinical use.
"""

from __future__ import annotations

import importlib

from . import _torchvision  # noqa: F401  # isort: skip  (before anything that imports timm)
from . import attention, config, models  # importing models fills timm's registry
from .config import profile
from .experiment import Experiment
from .models import build_model

__version__ = "0.1.0"

# public name -> the module that holds it; a name that equals its module's is the module itself
_LAZY = {
    "load_data": "data",
    "fit": "training",
    "predict": "training",
    "evaluate": "training",
    "baselines": "baselines",
    "cost": "cost",
    "data": "data",
    "exercises": "book.exercises",
    "latency": "latency",
    "metrics": "metrics",
    "mixing": "mixing",
    "phantom": "phantom",
    "plots": "plots",
    "results": "results",
    "saliency": "saliency",
    "training": "training",
}

__all__ = ["Experiment", "attention", "build_model", "config", "models", "profile", *_LAZY]


def __getattr__(name: str):
    """Import what a public name needs, when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"medbench has no {name!r}; it has: {', '.join(sorted(__all__))}")
    path = _LAZY[name]
    module = importlib.import_module(f".{path}", __name__)
    value = module if name == path.split(".")[-1] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
