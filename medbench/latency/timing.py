r"""The parts of a fair timing: how a call is timed, whether the machine was quiet, and what a few samples allow to say.

What lives here, top to bottom: timers for the CPU and for CUDA, on Python's own `timeit`; `read_load` and the quiet
gate; `prepared`, which puts models and torch into the state in which they are timed and back; statistics over rounds.

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
from timeit import Timer

import numpy as np
import torch
from torch import Tensor

PRESSURE_LIMIT = 0.10        # share of a round in which some task waited for a processor
STEAL_LIMIT = 0.05           # share of processor time that the hypervisor gave to others
CONFIDENCE = 0.95
RESAMPLES = 2000
FEWEST_PROCESSES = 5         # from which on whole processes are resampled
EVENTS_BAND = (0.80, 1.05)   # events over outer clock: a launch and a wait, some 10 us, lie outside the events
EVENTS_FROM = 100e-6         # seconds; in a shorter call those 10 us weigh too much to tell


# --------------------------------------------------------------------------------------------- one call
class CpuTimer:
    """Seconds that one call takes by the clock, with Python's `timeit`, which keeps the garbage collector away.

    One call before the timed ones does not count: after another model, weights have to come back into the caches.
    torch's own timer makes two of those for each timed call, too many where a call takes a second.
    """

    statement = "run(x)"

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock = clock

    def series(self, run: Callable[[Tensor], Tensor], x: Tensor, calls: int) -> list[tuple[float, float]]:
        """So many timed calls, one after the other: (seconds, seconds by the outer clock); on the CPU the same."""
        timer = Timer(self.statement, timer=self.clock, globals={"run": run, "x": x})
        return [(seconds, seconds) for seconds in timer.repeat(1 + calls, number=1)[1:]]

    def first(self, run: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, Tensor]:
        """(seconds, output) of a call with none before it."""
        start = self.clock()
        output = run(x)
        return self.clock() - start, output


class CudaTimer(CpuTimer):
    """Seconds between two events on the GPU, and by the clock around them: who does not wait times the launch alone."""

    statement = "before.record(); run(x); after.record()"

    def __init__(self, clock: Callable[[], float] = time.perf_counter, device: torch.device | None = None):
        def waiting() -> float:
            torch.cuda.synchronize(device)
            return clock()
        super().__init__(waiting)

    def series(self, run: Callable[[Tensor], Tensor], x: Tensor, calls: int) -> list[tuple[float, float]]:
        """So many times (seconds between the events, seconds by the outer clock); the two must nearly agree."""
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        timer = Timer(self.statement, timer=self.clock,
                      globals={"run": run, "x": x, "before": before, "after": after})
        found = []
        for _ in range(1 + calls):
            outer = timer.timeit(1)
            found.append((before.elapsed_time(after) / 1000, outer))
        return found[1:]


def timer_for(device: torch.device, clock: Callable[[], float]) -> CpuTimer:
    """The timer that waits for the work of that device."""
    return CudaTimer(clock, device) if device.type == "cuda" else CpuTimer(clock)


def events_note(ratio: float | None, seconds: float) -> str | None:
    """What is wrong where the GPU's own times and the outer clock disagree: `ratio` of the first to the second."""
    low, high = EVENTS_BAND
    if ratio is None or seconds < EVENTS_FROM or low <= ratio <= high:
        return None
    return (f"the GPU's events say {ratio:.2f} times what the outer clock says; wanted {low:g} to {high:g}, so part of "
            f"this time is not the model's, or runs on another stream")


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
    def known(self) -> bool:
        """Whether the kernel told either share."""
        return self.pressure is not None or self.steal is not None

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
    """Evaluation mode, no autograd, modules on `device`, which events and graphs take for the current one too, so many
    threads; afterwards everything as it was."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    places = [(module, next((t.device for t in (*module.parameters(), *module.buffers())), device))
              for module in modules]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for module in modules:
            module.eval().to(device)
        with torch.inference_mode(), torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
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

    $n \ge \ln 0.05 / \ln p$: 29 for p90, 59 for p95, 299 for p99.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(percentile / 100))


def fewest_rounds(confidence: float = CONFIDENCE) -> int:
    r"""Fewest rounds from which the median has an interval of that confidence at all, for below there is no verdict.

    The widest interval that n values give, from the least to the largest, holds the median with $1 - 2^{1-n}$: 6 rounds
    for 95 %, 8 for 99 %.
    """
    return math.ceil(1 - math.log2(1 - confidence))


def resampled_rounds(rounds: int, seed: int) -> np.ndarray:
    """Indices (RESAMPLES, rounds) of a moving-block bootstrap: neighbouring rounds stay together, as drift does.

    Blocks are about the cube root of `rounds` long. Source: Kuensch 1989, Annals of Statistics 17(3).
    """
    return _blocks(np.random.default_rng(seed), rounds, rounds, RESAMPLES)


def _blocks(rng: np.random.Generator, rounds: int, wanted: int, times: int) -> np.ndarray:
    """Indices (times, wanted) into `rounds` rounds, drawn as blocks of neighbours."""
    length = max(1, round(rounds ** (1 / 3)))
    starts = rng.integers(0, rounds - length + 1, (times, math.ceil(wanted / length)))
    return (starts[:, :, None] + np.arange(length)).reshape(times, -1)[:, :wanted]


def resampled(processes: list[int], seed: int) -> np.ndarray:
    """Indices (RESAMPLES, about as many as rounds) that keep together what belongs together.

    From five processes on, whole processes are drawn and then blocks of rounds within each; below that, processes stay
    as they are and blocks are drawn within each: too few to say how processes differ.

    Args: `processes`: of each round, the process that it ran in. seed: of the draws.
    Source: Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time", ISMM.
    """
    rng, labels = np.random.default_rng(seed), np.asarray(processes)
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(places) == 1:
        return resampled_rounds(len(labels), seed)
    if len(places) < FEWEST_PROCESSES:
        return np.concatenate([own[_blocks(rng, len(own), len(own), RESAMPLES)] for own in places], axis=1)
    each = math.ceil(len(labels) / len(places))
    chosen = rng.integers(0, len(places), (RESAMPLES, len(places)))
    return np.stack([np.concatenate([places[p][_blocks(rng, len(places[p]), each, 1)[0]] for p in row])
                     for row in chosen])


def median_interval(values: np.ndarray, draws: np.ndarray,
                    confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Median of one value a round, and its interval over resampled rounds."""
    low, high = np.quantile(np.median(values[draws], axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.median(values)), float(low), float(high)


def milliseconds(seconds: float | None) -> float | None:
    """The same in ms; None stays None."""
    return None if seconds is None else 1000 * seconds


def suffix_of(batch: int, dtype: str) -> str:
    """What tells records of other batches and types apart: `b1`, `b16.bfloat16`."""
    return f"b{batch}" + ("" if dtype == "float32" else f".{dtype}")
