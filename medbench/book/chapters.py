"""Which chapters there are, in which order, which records each one reads, and where everything lies.

What lives here, top to bottom: the table `CHAPTERS`; `Checkout`, the places of one checkout for one profile and device.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

from .. import config, machine
from ..checks import one_of

STUDY = "study-2022/*"
SCORES, COSTS, TIMES = "*/10_training", "*/11_cost", "*/12_latency"
CAMPAIGNS = ("*/10_seeds_*", "*/10_curves", "*/10_imbalance")
SHOWN = (STUDY, SCORES, COSTS, TIMES)

# chapter -> the result files it reads, as patterns of device/chapter; its own file of this device is never among them.
# The order is the order of execution: the mechanism chapters show what 10 to 12 record. No chapter reads those of the
# models at full size, 15_*: their page takes them in while the book is rendered.
CHAPTERS: dict[str, tuple[str, ...]] = {
    "01_data": ("*/01_check",),
    "02_backbone": (STUDY,),
    "10_training": (STUDY, SCORES, "*/10_real", "*/10_medmnist", *CAMPAIGNS),
    "11_cost": (STUDY, SCORES, COSTS),
    "12_latency": (STUDY, COSTS, "*/12_*"),
    "03_softmax": SHOWN,
    "04_linformer": SHOWN,
    "05_performer": SHOWN,
    "06_fastformer": SHOWN,
    "07_xca": SHOWN,
    "08_window": SHOWN,
    "09_resnet50": SHOWN,
    "13_saliency": (STUDY, SCORES, "*/13_saliency"),
    "14_results": (STUDY, *(f"*/{number:02d}_*" for number in range(1, 14))),
}


@dataclass(frozen=True)
class Checkout:
    """One checkout of the project, seen with one profile on one device.

    Args:
        root: the folder with `notebooks/`, `book/` and `medbench/`.
        profile, device: as for a chapter's parameters. graph: `CHAPTERS`, or another table of that shape.
    """

    root: Path = machine.ROOT
    profile: str = "laptop"
    device: str = "auto"
    graph: dict[str, tuple[str, ...]] = field(default_factory=lambda: CHAPTERS)

    def __post_init__(self):
        config.profile(self.profile)
        machine.resolve_device(self.device)

    @functools.cached_property
    def device_name(self) -> str:
        """The name under which this device's records are kept."""
        return machine.device_name(self.device)

    @property
    def build(self) -> Path:
        """Where everything is built; a smoke book is built beside the real one."""
        return self.root / "_build" / "smoke" if self.profile == "smoke" else self.root / "_build"

    @property
    def results(self) -> Path:
        """Records made here, as `<device>/<chapter>.json`."""
        return self.build / "results"

    @property
    def committed(self) -> Path:
        """The committed edition: `chapters/` and `results/` below it."""
        return self.root / "book"

    @property
    def chapters(self) -> tuple[str, ...]:
        """The chapters whose notebook exists, in the order of execution."""
        return tuple(name for name in self.graph if self.notebook(name).exists())

    @property
    def edition_device(self) -> str | None:
        """The device that the committed edition was made on; `None` before there is an edition."""
        path = self.committed / "results" / "EDITION"
        return path.read_text().strip() if path.exists() else None

    def notebook(self, name: str) -> Path:
        """The clean notebook of a chapter."""
        return self.root / "notebooks" / f"{name}.ipynb"

    def executed(self, name: str, committed: bool = False) -> Path:
        """The executed notebook of a chapter, here or in the committed edition."""
        return (self.committed if committed else self.build) / "chapters" / f"{name}.ipynb"

    def require(self, name: str) -> str:
        """The chapter's name if there is such a chapter, else an error that lists them."""
        one_of("chapter", name, self.chapters)
        return name
