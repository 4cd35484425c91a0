"""Exercises of chapter 12: three bad benchmarks, and the batch at which a device's roof bends."""

from __future__ import annotations

import math

from .judging import Exercise, Mistake, as_number, demand

FLAWS = {
    "synchronisation": "a GPU works on while Python goes on: wait for it before stopping the clock",
    "order": "all runs of the first model come before all of the second; interleave them",
    "percentile": "twenty samples cannot show the 99th percentile; it needs at least 299",
    "zeros": "an input of zeros may take paths that real data do not",
    "units": "milliseconds and seconds are mixed",
}
BENCHMARKS = {"A": "synchronisation", "B": "order", "C": "percentile"}


def flaws(answer) -> str:
    """The answer says for each of the benchmarks A, B and C which of five flaws it has: {"A": "...", ...}."""
    if not isinstance(answer, dict):
        raise Mistake(f"the answer is a {type(answer).__name__}; wanted a dict: {{'A': 'zeros', ...}}")
    given = {str(key).strip().upper(): str(value).strip().lower() for key, value in answer.items()}
    for name, flaw in BENCHMARKS.items():
        demand(name in given, f"benchmark {name} is missing; the answer names {', '.join(sorted(given)) or 'none'}")
        demand(given[name] in FLAWS, f"benchmark {name}: {given[name]!r} is none of the flaws; choose from "
                                     f"{', '.join(FLAWS)}")
        hint = {"A": "it runs on a GPU, and look at where the clock is read",
                "B": "what if the machine slows down half-way through?",
                "C": "count the samples that lie beyond the number it reports"}[name]
        demand(given[name] == flaw, f"benchmark {name} does not suffer from {given[name]!r}: {hint}")
    return "; ".join(f"{name}: {FLAWS[flaw]}" for name, flaw in BENCHMARKS.items())


def batch_from_roofline(answer) -> str:
    """`answer(macs, weight_bytes, image_bytes, peak, bandwidth)`: the least batch that is bound by arithmetic."""
    cases = ((1e9, 400e6, 10e6, 88e12, 1e12), (2e9, 110e6, 8e6, 150e12, 1.2e12), (1.9e9, 110e6, 2e6, 2e12, 17e9),
             (1.5e9, 110e6, 20e6, 790e12, 4.3e12))
    for macs, weights, image, peak, bandwidth in cases:
        wanted = _least_batch(2 * macs, weights, image, peak, bandwidth)
        got = as_number(answer(macs, weights, image, peak, bandwidth), "the batch")
        what = (f"with {macs:.1e} MAC and {image:.0e} bytes an image, {weights:.0e} bytes of weights, "
                f"{peak:.1e} FLOP/s and {bandwidth:.1e} byte/s")
        if got == wanted:
            continue
        demand(got != _least_batch(macs, weights, image, peak, bandwidth), f"{what} a multiply-add was counted as one "
                                                                            "FLOP; it is two")
        demand(wanted != math.inf, f"{what} no batch is bound by arithmetic, each image brings more bytes than the "
                                   "arithmetic can hide: return math.inf")
        demand(got != _least_batch(2 * macs, weights, 0, peak, bandwidth), f"{what} each image brings bytes of its own "
                                                                           "too")
        demand(got != _least_batch(2 * macs, 0, image, peak, bandwidth), f"{what} the weights are read once a batch")
        demand(got == int(got) if math.isfinite(got) else False, f"{what} the batch is {got:g}; wanted a whole number")
        demand(got != wanted - 1, f"{what} batch {got:g} is still bound by memory: round up")
        demand(False, f"{what} the least such batch is {wanted:g}, not {got:g}")
    return "the least batch at which arithmetic takes as long as memory, on four devices, one of them never"


def _least_batch(flops, weights, image, peak, bandwidth) -> float:
    gain = flops / peak - image / bandwidth
    return max(1, math.ceil(weights / bandwidth / gain - 1e-12)) if gain > 0 else math.inf


EXERCISES = {"latency.flaws": Exercise(flaws, wanted=dict),
             "latency.batch_from_roofline": Exercise(batch_from_roofline)}
