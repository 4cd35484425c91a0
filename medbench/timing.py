r"""The parts of a fair timing: how a call is timed, whether the machine was quiet, and what a few samples allow to say.

What lives here, top to bottom: timers for the CPU and for CUDA; `read_load` and the quiet gate; `prepared`, which puts
models and torch into the state in which they are timed and back; statistics over rounds.

Clock and load are passed in, so that a test can play a slow model or a busy machine.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PRESSURE_LIMIT = 0.10        # share of a round in which some task waited for a processor
STEAL_LIMIT = 0.05           # share of processor time that the hypervisor gave to others
CONFIDENCE = 0.95
RESAMPLES = 2000


# --------------------------------------------------------------------------------------------- one call
class CpuTimer:
    """Seconds that one call takes by the clock."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock = clock

    def __call__(self, run: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, float]:
        """(seconds, seconds by the outer clock), here the same."""
        start = self.clock()
        run(x)
        taken = self.clock() - start
        return taken, taken


class CudaTimer:
    """Seconds between two events on the GPU, and by the clock around them: who does not wait times the launch alone."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock = clock
        self.before, self.after = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def __call__(self, run: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, float]:
        """(seconds between the events, seconds by the outer clock); they must nearly agree."""
        torch.cuda.synchronize(x.device)
        start = self.clock()
        self.before.record()
        run(x)
        self.after.record()
        torch.cuda.synchronize(x.device)
        return self.before.elapsed_time(self.after) / 1000, self.clock() - start


def timer_for(device: torch.device, clock: Callable[[], float]) -> CpuTimer | CudaTimer:
    """The timer that waits for the work of that device."""
    return CudaTimer(clock) if device.type == "cuda" else CpuTimer(clock)


# --------------------------------------------------------------------------------------------- the quiet gate
@dataclass(frozen=True)
class Load:
    """Counters of the machine at one moment, in seconds; None where the kernel does not offer them.

    stalled: time in which some task waited for a processor (`/proc/pressure/cpu`). steal: processor time that the
    hypervisor gave to others, summed over the processors (`/proc/stat`).
    """

    stalled: float | None = None
    steal: float | None = None


def read_load() -> Load:
    """The counters now; a few microseconds."""
    waited = re.search(r"^some .*total=(\d+)", _read("/proc/pressure/cpu"), re.MULTILINE)
    ticks = re.search(r"^cpu +(\d+(?: \d+)+)", _read("/proc/stat"), re.MULTILINE)
    ticks = [int(t) for t in ticks.group(1).split()] if ticks else []
    return Load(stalled=int(waited.group(1)) / 1e6 if waited else None,
                steal=ticks[7] / os.sysconf("SC_CLK_TCK") if len(ticks) > 7 else None)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


@dataclass(frozen=True)
class Disturbance:
    """Shares of one stretch of time that others took; None where it cannot be known."""

    pressure: float | None
    steal: float | None

    @property
    def disturbed(self) -> bool:
        """Whether either share is over its limit."""
        return (self.pressure or 0) > PRESSURE_LIMIT or (self.steal or 0) > STEAL_LIMIT


def between(before: Load, after: Load, seconds: float) -> Disturbance:
    """What happened between two readings that lie `seconds` apart."""
    def share(a, b, of):
        return None if a is None or b is None or of <= 0 else (b - a) / of
    return Disturbance(share(before.stalled, after.stalled, seconds),
                       share(before.steal, after.steal, seconds * (os.cpu_count() or 1)))


# --------------------------------------------------------------------------------------------- the state to time in
@contextlib.contextmanager
def prepared(modules: list[torch.nn.Module], device: torch.device, threads: int):
    """Evaluation mode, no autograd, modules on `device`, so many threads; afterwards everything as it was."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    places = [(module, next((t.device for t in (*module.parameters(), *module.buffers())), device))
              for module in modules]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for module in modules:
            module.eval().to(device)
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        for module, place in places:
            module.to(place)
        for part, training in modes:
            part.training = training


# --------------------------------------------------------------------------------------------- statistics
def samples_needed(percentile: float) -> int:
    r"""Fewest samples from which a percentile may be read: with 95 % confidence one of them lies beyond it.

    $n \\ge \\ln 0.05 / \\ln p$: 29 for p90, 59 for p95, 299 for p99.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(percentile / 100))


def resampled_rounds(rounds: int, seed: int) -> np.ndarray:
    """Indices (RESAMPLES, rounds) of a moving-block bootstrap: neighbouring rounds stay together, as drift does.

    Blocks are about the cube root of `rounds` long. Source: Kuensch 1989, Annals of Statistics 17(3).
    """
    length = max(1, round(rounds ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, rounds - length + 1, (RESAMPLES, math.ceil(rounds / length)))
    return (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :rounds]


def median_interval(values: np.ndarray, draws: np.ndarray) -> tuple[float, float, float]:
    """Median of one value a round, and the 95 % interval of it over resampled rounds."""
    low, high = np.quantile(np.median(values[draws], axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(np.median(values)), float(low), float(high)


def suffix_of(batch: int, dtype: str) -> str:
    """What tells records of other batches and types apart: `b1`, `b16.bfloat16`."""
    return f"b{batch}" + ("" if dtype == "float32" else f".{dtype}")
