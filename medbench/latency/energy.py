r"""How much energy an image costs on a GPU, by the counter of the GPU itself.

What lives here, top to bottom: `Energy`, what comes out; `measure`; a window of work.

    joule per image = (counter after - counter before - idle power * seconds) / images

A CPU has no such counter that every user may read: there the figure is null, with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..checks import in_range, whole
from ..machine import energy_counter, resolve_device

IDLE_SHARE = 1 / 3           # of a window's seconds, to measure the idle power
SETTLE_SECONDS = 2.0         # a GPU needs so long to lower its clocks after work


# --------------------------------------------------------------------------------------------- what comes out
@dataclass(frozen=True)
class Energy:
    """Joules for one image above idling, the median of some windows; None with its `reason`.

    `idle_power` and `power`, with idling, in watt; `images` in all windows together; `samples`: each window's joules.
    """

    joule: float | None
    batch: int
    reason: str | None = None
    idle_power: float | None = None
    power: float | None = None
    images: int = 0
    samples: tuple[float, ...] = field(default=())

    def rows(self) -> list[dict]:
        """`energy`: joules an image; the two powers are in its context."""
        context = {"batch": self.batch, "idle_watt": self.idle_power, "watt": self.power}
        return [{"quantity": "energy", "value": self.joule, "unit": "J", "n": self.images, "suffix": f"b{self.batch}",
                 "samples": list(self.samples), "context": context, "reason": self.reason}]


# --------------------------------------------------------------------------------------------- the measurement
def measure(run: Callable[[Tensor], Tensor], x: Tensor, seconds: float = 30.0, *, windows: int = 3, device="auto",
            clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep) -> Energy:
    """Energy of one image: windows of work, less what the GPU takes when it idles.

    Args:
        run: what takes the input; a model in evaluation mode, on the GPU. x: a batch, on the GPU.
        seconds: of each window; the counter moves in steps of some tens of milliseconds, so seconds, not calls.
        windows: of work. device: where `run` works. clock, sleep: how time is read and passes.
    Returns:
        `Energy`; without a GPU, or where its counter cannot be read, the figure is None with the reason.
    Raises:
        ValueError: a number that is not allowed; RuntimeError: `cuda` without a GPU.
    """
    in_range("seconds", seconds, 0.001)
    whole("windows", windows)
    blank = energy_counter(device)
    if blank["joule"] is None:
        return Energy(None, len(x), f"no energy counter: {blank['reason']}")
    place = resolve_device(device)
    with torch.inference_mode():
        run(x)                                               # what the first call sets up is not the image's
        torch.cuda.synchronize(place)
        sleep(SETTLE_SECONDS)
        _, idle, rest = _window(lambda: sleep(seconds * IDLE_SHARE), 0.0, place, clock)
        found = [_window(lambda: run(x), seconds, place, clock) for _ in range(windows)]
    watt = idle / rest
    samples = [(joule - watt * taken) / (calls * len(x)) for calls, joule, taken in found]
    power = sum(joule for _, joule, _ in found) / sum(taken for _, _, taken in found)
    images, value = sum(calls for calls, _, _ in found) * len(x), float(np.median(samples))
    why = None if value > 0 else f"at work the GPU took {power:.1f} W and idle {watt:.1f} W; measure for longer"
    return Energy(value if value > 0 else None, len(x), why, watt, power, images, tuple(samples))


def _window(work: Callable[[], object], seconds: float, device, clock: Callable[[], float]) -> tuple[int, float, float]:
    """Work until the time is over, once at least. Returns: calls, joules by the counter, seconds."""
    before, start, calls = energy_counter(device)["joule"], clock(), 0
    while not calls or clock() - start < seconds:
        work()
        torch.cuda.synchronize(device)                       # or the queue would run on after the window
        calls += 1
    taken = clock() - start
    return calls, energy_counter(device)["joule"] - before, taken
