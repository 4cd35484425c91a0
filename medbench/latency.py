r"""How long models take on this device, side by side, so that differences between them can be believed.

What lives here, top to bottom: what is timed (`Candidate`); `compare`, the protocol; the gate before it, the rounds and
the verdicts after them. What comes out: `comparison.py`; the parts: `timing.py`; this device's limits: `roofline.py`.

The protocol. Every model is first compared with itself in float64: a wrong one is not timed. Then models take turns in
rounds, each round in a random order, so that what disturbs the machine disturbs all. The reference takes part twice:
how far its two series differ (A/A) is the noise floor, and a difference within it is a tie. A round during which
others used the processors is marked and repeated, never deleted. Ratios are paired within rounds; intervals resample
rounds.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .checks import in_range, one_of
from .comparison import PERCENTILES, Comparison, Round, Timing
from .machine import cores, resolve_device
from .roofline import Ceilings, Roofline, ceilings, roofline
from .timing import (
    Load,
    between,
    median_interval,
    prepared,
    read_load,
    resampled_rounds,
    samples_needed,
    timer_for,
)

__all__ = ["Candidate", "Ceilings", "Comparison", "Roofline", "Timing", "ceilings", "compare", "roofline"]

BUDGETS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1, "int8": 1e-1}   # largest error / largest output
TF32_BUDGET = 1e-2                                                                # float32 on a GPU that rounds to TF32
MIN_ROUNDS = 5               # quiet rounds below which there is no verdict
MIN_FLOOR = 0.01             # a difference of 1 % is a tie even where the A/A control is closer
WARM = 0.03                  # three windows that agree this well are warm
WINDOW_SECONDS = 0.01        # a model is called as often in a row as fills this


# --------------------------------------------------------------------------------------------- what is timed
@dataclass(frozen=True)
class Candidate:
    """One thing to time. `run` takes the input; `exact` is what it must agree with, in float64 on the CPU."""

    name: str
    run: Callable[[Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]
    dtype: str = "float32"
    runtime: str = "eager"
    module: nn.Module | None = None


# --------------------------------------------------------------------------------------------- the protocol
def compare(models: dict, input_size: tuple[int, ...], *, rounds: int = 30, seconds: float = 120.0, threads: int = 0,
            device="auto", seed: int = 0, reference: str | None = None, dtype: str = "float32", precision: float = 0.01,
            clock: Callable[[], float] = time.perf_counter, load: Callable[[], Load] = read_load) -> Comparison:
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
    Returns:
        `Comparison`, one `Timing` a model.
    Raises:
        TypeError, ValueError: no models, an unknown name or number, a reference that computes something wrong.
        RuntimeError: `cuda` without a GPU.
    """
    started = clock()
    reference = _check(models, input_size, reference, rounds, seconds, threads, dtype)
    place, threads = resolve_device(device), threads or cores()
    plan = [_candidate(name, model, place, dtype) for name, model in models.items()]
    x = torch.randn(tuple(input_size), generator=torch.Generator().manual_seed(seed))
    with prepared([c.module for c in plan if c.module is not None], place, threads):
        x, timer = x.to(place), timer_for(place, clock)
        timings = {c.name: _gate(c, x, timer) for c in plan}
        if timings[reference].reason:
            raise ValueError(f"the reference {reference!r} cannot be timed: {timings[reference].reason}")
        runs, calls = {c.name: c.run for c in plan if not timings[c.name].reason}, {}
        for name, run in runs.items():
            calls[name], warm = _warm_up(run, x, timer, 0.25 * seconds / len(runs), clock)
            timings[name] = dataclasses.replace(timings[name], warm=warm)
        again = f"{reference} (again)"
        runs[again], calls[again] = runs[reference], calls[reference]
        done, stopped = _rounds(runs, calls, x, timer, rounds, precision, started + seconds, seed, clock, load)
    timings, control, floor = _judge(timings, done, reference, again, seed)
    return Comparison(timings, reference, control, floor, tuple(done), stopped, clock() - started, threads, str(place))


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


def _candidate(name: str, model, place: torch.device, dtype: str) -> Candidate:
    """A module, run as it is or under autocast, and its float64 copy to agree with."""
    if isinstance(model, Candidate):
        return dataclasses.replace(model, name=name)

    def cast(x: Tensor) -> Tensor:
        with torch.autocast(place.type, getattr(torch, dtype)):
            return model(x)

    def exact(x: Tensor) -> Tensor:
        return copy.deepcopy(model).cpu().double()(x)

    return Candidate(name, model if dtype == "float32" else cast, exact, dtype, module=model)


# --------------------------------------------------------------------------------------------- correct before timed
def _gate(c: Candidate, x: Tensor, timer) -> Timing:
    """Time the first call and compare two images of its output with float64.

    Returns: a `Timing` with `first_call`, `error`, and a `reason` if the model may not be timed further.
    """
    outputs, few = [], x[:2].cpu()
    try:
        first, _ = timer(lambda x: outputs.append(c.run(x)), x)
    except Exception as error:
        raise ValueError(f"{c.name} does not take an input of {tuple(x.shape)}: {error}") from error
    blank = Timing(c.name, len(x), c.dtype, c.runtime, first_call=first)
    got, wanted = outputs[0][:2].double().cpu(), c.exact(few.double())
    if got.shape != wanted.shape:
        return dataclasses.replace(blank, reason=f"output is {tuple(got.shape)}, wanted {tuple(wanted.shape)}")
    if lost := int((~outputs[0].isfinite()).sum()):
        return dataclasses.replace(blank, reason=f"{lost} of {outputs[0].numel()} outputs are not finite")
    error = float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
    tf32 = x.is_cuda and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    allowed = TF32_BUDGET if c.dtype == "float32" and tf32 else BUDGETS[c.dtype]
    reason = None if error <= allowed else (f"output differs from float64 by {error:.2g} of its largest value; "
                                            f"{c.dtype} may differ by {allowed:g}")
    return dataclasses.replace(blank, error=error, reason=reason)


# --------------------------------------------------------------------------------------------- rounds
def _warm_up(run, x: Tensor, timer, seconds: float, clock) -> tuple[int, bool]:
    """Call until three windows agree within `WARM`. Returns: calls that fill a window, and whether they agreed."""
    end = clock() + seconds
    one, calls, windows = timer(run, x)[0], 1, []
    while len(windows) < 3 or max(windows[-3:]) > (1 + WARM) * min(windows[-3:]):
        calls = min(100, max(1, math.ceil(WINDOW_SECONDS / max(one, 1e-9))))
        one = float(np.median([timer(run, x)[0] for _ in range(calls)]))
        windows.append(one)
        if clock() > end:
            return calls, False
    return calls, True


def _rounds(runs, calls, x, timer, wanted, precision, deadline, seed, clock, load) -> tuple[list[Round], str]:
    """Rounds in random order until enough are quiet, intervals are narrow, or time is up. Returns: them, and why."""
    rng, done, longest = np.random.default_rng(seed), [], 0.0
    while True:
        order = tuple(rng.permutation(list(runs)).tolist())
        before, start = load(), clock()
        pairs = {}
        for name in order:
            runs[name](x)                                    # brings this model's weights back into the caches
            pairs[name] = [timer(runs[name], x) for _ in range(calls[name])]
        taken = clock() - start
        done.append(Round(order, taken, between(before, load(), taken), pairs))
        longest = max(longest, taken)
        quiet = [r for r in done if not r.load.disturbed]
        if len(quiet) >= wanted:
            return done, "rounds"
        if len(done) >= 3 * wanted:
            return done, "disturbed"
        if len(quiet) >= 10 and len(quiet) % 5 == 0 and _narrow(quiet, runs, precision, seed):
            return done, "precise"
        if clock() + longest > deadline:
            return done, "seconds"


def _narrow(rounds: list[Round], names, precision: float, seed: int) -> bool:
    """Whether each median's interval is within `precision` of it."""
    draws = resampled_rounds(len(rounds), seed)
    found = (median_interval(np.array([r.value(name) for r in rounds]), draws) for name in names)
    return all(high - low <= 2 * precision * middle for middle, low, high in found)


# --------------------------------------------------------------------------------------------- verdicts
def _judge(timings: dict, done: list[Round], reference: str, again: str, seed: int):
    """Medians, ratios and verdicts from the quiet rounds, or from all of them, without a verdict, if too few are."""
    quiet = [r for r in done if not r.load.disturbed]
    why = None if len(quiet) >= MIN_ROUNDS else (f"{len(quiet)} of {len(done)} rounds were quiet and {MIN_ROUNDS} are "
                                                 f"needed; give it more time on a quieter machine")
    used = done if why else quiet
    draws = resampled_rounds(len(used), seed)
    values = {name: np.array([max(r.value(name), 1e-12) for r in used]) for name in used[0].order}

    def ratio(name: str) -> tuple[float, float, float]:
        return tuple(math.exp(v) for v in median_interval(np.log(values[name] / values[reference]), draws))
    control = ratio(again)
    floor = max(MIN_FLOOR, *(math.exp(abs(math.log(bound))) - 1 for bound in control[1:]))
    for name in set(values) - {again}:
        middle, low, high = ratio(name)
        verdict = "reference" if name == reference else "inconclusive" if why else judge(low, high, floor)
        samples = [call for r in used for call in r.seconds_of(name)]
        medians = dict(zip(("median", "low", "high"), median_interval(values[name], draws)))
        timings[name] = dataclasses.replace(
            timings[name], **medians, ratio=middle, ratio_low=low, ratio_high=high, verdict=verdict, reason=why,
            n=len(samples), samples=tuple(call for r in done for call in r.seconds_of(name)),
            percentiles={p: float(np.percentile(samples, p)) for p in PERCENTILES if len(samples) >= samples_needed(p)},
            events_over_clock=float(np.median([a / max(b, 1e-12) for r in done for a, b in r.calls[name]])))
    return timings, control, floor


def judge(low: float, high: float, floor: float) -> str:
    """The verdict on a ratio whose interval is (`low`, `high`), where differences up to `floor` are noise."""
    if high < 1 / (1 + floor):
        return "faster"
    if low > 1 + floor:
        return "slower"
    return "tie" if 1 / (1 + floor) <= low and high <= 1 + floor else "inconclusive"
