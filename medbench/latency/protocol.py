r"""The protocol: `compare`, and what it does.

What lives here, top to bottom: `compare`; the same in several processes; the gate before; the warm-up and the rounds.

Every model is first compared with itself in float64: a wrong one is not timed. Then models take turns in
rounds, each round in a random order, so that what disturbs the machine disturbs all. The reference takes part twice:
how far its two series differ (A/A) is the noise floor, and a difference within it is a tie. A round during which
others used the processors is marked and repeated, never deleted. Ratios are paired within rounds; intervals resample
rounds, and whole processes where there are several.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import in_range, one_of, whole
from ..machine import cores, resolve_device, state
from .candidates import Candidate, candidate
from .comparison import Comparison, Round, Timing, quiet
from .judging import again, judged
from .processes import fresh, packed
from .timing import CONFIDENCE, Load, between, median_interval, prepared, read_load, resampled_rounds, timer_for

BUDGETS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1, "int8": 1e-1}   # largest error / largest output
TF32_BUDGET = 1e-2                                                                # float32 on a GPU that rounds to TF32
# Three windows that agree this well are warm. Of a model of 3 ms on two cores, in the few quiet moments of a shared
# machine, 3 of 4 trials got there within 1.5 s; with windows that double after each disagreement 0 of 4, since long
# windows catch others' work. Who does not get there is timed all the same, and recorded as not warm.
WARM = 0.01
WINDOW_SECONDS = 0.01        # a model is called as often in a row as fills this
FEWEST_WARM_UP_CALLS = 3     # in a window of the warm-up, so that a single slow call does not decide


# --------------------------------------------------------------------------------------------- the protocol
@dataclass(frozen=True)
class Settings:
    """The arguments of `compare` but for the models, `device` resolved and `threads` counted."""

    input_size: tuple[int, ...]
    rounds: int
    seconds: float
    threads: int
    device: str
    seed: int
    reference: str
    dtype: str
    precision: float
    clock: Callable[[], float]
    load: Callable[[], Load]
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Part:
    """What one process measured, in `seconds` in all: timings before any verdict, its rounds, and why they ended."""

    timings: dict[str, Timing]
    rounds: list[Round]
    stopped: str
    seconds: float


def compare(models: dict, input_size: tuple[int, ...], *, rounds: int = 30, seconds: float = 120.0, threads: int = 0,
            device="auto", seed: int = 0, reference: str | None = None, dtype: str = "float32", precision: float = 0.01,
            clock: Callable[[], float] = time.perf_counter, load: Callable[[], Load] = read_load,
            processes: int = 1, confidence: float = CONFIDENCE) -> Comparison:
    """Time models side by side in interleaved rounds.

    Args:
        models: {name: module} or {name: `Candidate`}; modules come back in the mode and on the device they had.
        input_size: of the random input, (batch, channels, height, width) in pixels.
        rounds: quiet rounds at most; disturbed ones are repeated, up to three times as many in all.
        seconds: for everything; one round is always run. It also ends when every interval is within `precision`
            of its median (from 10 rounds on; 0 never ends it so).
        threads: of the CPU, 0 for all cores. device: `"auto"`, `"cpu"`, `"cuda"`. seed: of input, orders, intervals.
        reference: the model that the others are compared with; the first if not given.
        dtype: `"float32"`, or `"bfloat16"` and `"float16"` by autocast.
        clock, load: how time and the machine's load are read.
        processes: more than one splits the rounds into as many sets, each in a new process, since where memory lies
            differs from process to process; `precision` then ends nothing, and models must be plain modules.
        confidence: of all intervals.
    Returns:
        `Comparison`, one `Timing` a model.
    Raises:
        TypeError, ValueError: no models, an unknown name or number, a reference that computes something wrong, a model
            that cannot go to another process.
        RuntimeError: `cuda` without a GPU, or a process that ended by itself.
    """
    started, reference = clock(), _check(models, input_size, reference, rounds, seconds, threads, dtype)
    whole("processes", processes)
    in_range("confidence", confidence, 0.5, 0.9999)
    place, before = resolve_device(device), state(device)
    settings = Settings(tuple(input_size), rounds, seconds, threads or cores(), str(place), seed, reference, dtype,
                        precision, clock, load, confidence)
    parts = [_measure(models, settings)] if processes == 1 else _in_processes(models, settings, processes)
    done = [r for part in parts for r in part.rounds]
    timings, control, floor = judged(_together(parts), done, reference, seed, confidence)
    stopped = next(s for s in ("seconds", "disturbed", "rounds", "precise") if s in [part.stopped for part in parts])
    return Comparison(timings, reference, control, floor, tuple(done), stopped, clock() - started, settings.threads,
                      str(place), processes, confidence, before, state(device), seed)


def _check(models, input_size, reference, rounds, seconds, threads, dtype) -> str:
    """Refuse what cannot be timed; returns the name of the reference."""
    if not isinstance(models, dict) or not models:
        raise ValueError(f"models is {models!r}; wanted a dict of at least one, such as {{'softmax': model}}")
    for name, model in models.items():
        if not isinstance(model, (nn.Module, Candidate)):
            raise TypeError(f"models[{name!r}] is a {type(model).__name__}; wanted a torch.nn.Module, or a Candidate "
                            f"that also says what it must agree with")
    sizes = input_size if isinstance(input_size, (tuple, list)) else ()
    if len(sizes) < 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(f"input_size is {input_size!r}; wanted sizes, batch first, such as (1, 3, 224, 224)")
    one_of("dtype", dtype, tuple(name for name in BUDGETS if name != "int8"))   # which no autocast knows
    in_range("rounds", rounds, 1)
    in_range("seconds", seconds, 0.001)
    in_range("threads", threads, 0)
    reference = next(iter(models)) if reference is None else reference
    one_of("reference", reference, tuple(models))
    return reference


def _measure(models: dict, s: Settings, process: int = 0) -> Part:
    """Gate, warm up and time all models in this process, which is the one of that number."""
    started, place = s.clock(), torch.device(s.device)
    plan = [candidate(name, model, place, s.dtype) for name, model in models.items()]
    x = torch.randn(s.input_size, generator=torch.Generator().manual_seed(s.seed))
    with prepared([c.module for c in plan if c.module is not None], place, s.threads):
        x, timer = x.to(place), timer_for(place, s.clock)
        timings = {c.name: _gate(c, x, timer) for c in plan}
        if timings[s.reference].reason:
            raise ValueError(f"the reference {s.reference!r} cannot be timed: {timings[s.reference].reason}")
        runs, calls = {c.name: c.run for c in plan if not timings[c.name].reason}, {}
        for name, run in runs.items():
            calls[name], warm = _warm_up(run, x, timer, 0.25 * s.seconds / len(runs), s.clock)
            timings[name] = dataclasses.replace(timings[name], warm=warm)
        control = again(s.reference)
        runs[control], calls[control] = runs[s.reference], calls[s.reference]
        done, stopped = _rounds(runs, calls, x, timer, s, started + s.seconds, process)
    return Part(timings, done, stopped, s.clock() - started)


# --------------------------------------------------------------------------------------------- several processes
def _in_processes(models: dict, s: Settings, processes: int) -> list[Part]:
    """The rounds in that many sets, one after the other, each in a new process; this one waits."""
    for name, model in models.items():
        packed(f"models[{name!r}]", model)                   # says which one cannot travel, before any work
    end, starting, parts = s.clock() + s.seconds, 0.0, []
    for process in range(processes):
        rounds = len(range(process, s.rounds, processes)) or 1
        share = max((end - s.clock()) / (processes - process) - starting, 0.001)
        own = dataclasses.replace(s, rounds=rounds, seconds=share, precision=0.0)
        begun = s.clock()
        parts.append(fresh(_unpacked, packed("clock or load", (models, own, process))))
        starting = max(starting, s.clock() - begun - parts[-1].seconds)
    return parts


def _unpacked(data: bytes) -> Part:
    """`_measure` in the new process."""
    return _measure(*pickle.loads(data))


def _together(parts: list[Part]) -> dict[str, Timing]:
    """One timing a model: the first call of the first process, the worst of all else."""
    def worst(name: str) -> Timing:
        found = [part.timings[name] for part in parts]
        refused = next((t for t in found if t.reason), None)
        return refused or dataclasses.replace(found[0], error=max(t.error for t in found),
                                              warm=all(t.warm for t in found))
    return {name: worst(name) for name in parts[0].timings}


# --------------------------------------------------------------------------------------------- correct before timed
def budget(dtype: str, place: torch.device) -> float:
    """Largest error over largest output that is allowed on a device, before anything is timed there."""
    tf32 = place.type == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    return TF32_BUDGET if dtype == "float32" and tf32 else BUDGETS[dtype]


def _gate(c: Candidate, x: Tensor, timer) -> Timing:
    """Time the first call and compare two images of its output with float64.

    Returns: a `Timing` with `first_call`, `error`, and a `reason` if the model may not be timed further.
    """
    few, blank = x[:2].cpu(), Timing(c.name, len(x), c.dtype, c.runtime)
    try:
        first, output = timer.first(c.run, x)
    except torch.OutOfMemoryError as error:                  # the others go on without it
        return dataclasses.replace(blank, reason=f"out of memory: {'. '.join(str(error).split('. ')[:2])}")
    except Exception as error:
        raise ValueError(f"{c.name} does not take an input of {tuple(x.shape)}: {error}") from error
    blank = dataclasses.replace(blank, first_call=first)
    got, wanted = output[:2].double().cpu(), c.exact(few.double())
    if got.shape != wanted.shape:
        return dataclasses.replace(blank, reason=f"output is {tuple(got.shape)}, wanted {tuple(wanted.shape)}")
    if lost := int((~output.isfinite()).sum()):
        return dataclasses.replace(blank, reason=f"{lost} of {output.numel()} outputs are not finite")
    error = float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
    allowed = budget(c.dtype, x.device)
    reason = None if error <= allowed else (f"output differs from float64 by {error:.2g} of its largest value; "
                                            f"{c.dtype} may differ by {allowed:g}")
    return dataclasses.replace(blank, error=error, reason=reason)


# --------------------------------------------------------------------------------------------- rounds
def _warm_up(run, x: Tensor, timer, seconds: float, clock) -> tuple[int, bool]:
    """Call until three windows agree within `WARM`. Returns: calls that fill a window, and whether they agreed."""
    end, calls, windows = clock() + seconds, 1, []
    while len(windows) < 3 or max(windows[-3:]) > (1 + WARM) * min(windows[-3:]):
        width = max(calls, FEWEST_WARM_UP_CALLS)
        windows.append(float(np.median([taken for taken, _ in timer.series(run, x, width)])))
        calls = _calls(windows[-1])
        if clock() + (1 + width) * windows[-1] > end:
            return calls, False
    return calls, True


def _calls(seconds: float) -> int:
    """How many calls that take so long fill `WINDOW_SECONDS`."""
    return min(100, max(1, math.ceil(WINDOW_SECONDS / max(seconds, 1e-9))))


def _rounds(runs, calls, x, timer, s: Settings, deadline: float, process: int) -> tuple[list[Round], str]:
    """Rounds in random order until enough are quiet, intervals are narrow, or time is up. Returns: them, and why."""
    rng, done, longest = np.random.default_rng([s.seed, process]), [], 0.0
    while True:
        order = tuple(rng.permutation(list(runs)).tolist())
        before, start = s.load(), s.clock()
        pairs = {name: timer.series(runs[name], x, calls[name]) for name in order}
        taken = s.clock() - start
        done.append(Round(order, taken, between(before, s.load(), taken), pairs, process))
        longest = max(longest, taken)
        calm = quiet(done)
        if len(calm) >= s.rounds:
            return done, "rounds"
        if len(done) >= 3 * s.rounds:
            return done, "disturbed"
        if len(calm) >= 10 and len(calm) % 5 == 0 and _narrow(calm, runs, s):
            return done, "precise"
        if s.clock() + longest > deadline:
            return done, "seconds"


def _narrow(rounds: list[Round], names, s: Settings) -> bool:
    """Whether each median's interval is within `precision` of it."""
    draws = resampled_rounds(len(rounds), s.seed)
    found = (median_interval(np.array([r.value(name) for r in rounds]), draws, s.confidence) for name in names)
    return all(high - low <= 2 * s.precision * middle for middle, low, high in found)
