r"""From rounds to verdicts: medians, ratios to the reference, the noise floor of the A/A control.

What lives here, top to bottom: `judged`, from the quiet rounds to one `Timing` a model; `judge`, the verdict on one
interval.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .comparison import PERCENTILES, Round, Timing
from .timing import events_note, median_interval, resampled, samples_needed

MIN_ROUNDS = 5               # quiet rounds below which there is no verdict
MIN_FLOOR = 0.01             # a difference of 1 % is a tie even where the A/A control is closer

Interval = tuple[float, float, float]


def judged(timings: dict[str, Timing], done: list[Round], reference: str, again: str, seed: int,
           confidence: float) -> tuple[dict[str, Timing], Interval, float]:
    """Medians, ratios and verdicts from the quiet rounds, or from all of them, without a verdict, if too few are.

    Args: `timings` so far, those with a `reason` stay as they are; `done`: all rounds; `again`: the second name of the
        reference; `seed` of the resampling; `confidence` of all intervals.
    Returns: the timings, the control (ratio, low, high) and the noise floor.
    """
    quiet = [r for r in done if not r.load.disturbed]
    why = None if len(quiet) >= MIN_ROUNDS else (f"{len(quiet)} of {len(done)} rounds were quiet and {MIN_ROUNDS} are "
                                                 f"needed; give it more time on a quieter machine")
    used = done if why else quiet
    draws = resampled([r.process for r in used], seed)
    names = [name for name in used[0].order if name == again or not timings[name].reason]
    values = {name: np.array([max(r.value(name), 1e-12) for r in used]) for name in names}

    def ratio(name: str) -> Interval:
        logs = np.log(values[name] / values[reference])
        return tuple(math.exp(v) for v in median_interval(logs, draws, confidence))
    control = ratio(again)
    floor = max(MIN_FLOOR, *(math.exp(abs(math.log(bound))) - 1 for bound in control[1:]))
    for name in set(names) - {again}:
        middle, low, high = ratio(name)
        verdict = "reference" if name == reference else "inconclusive" if why else judge(low, high, floor)
        medians = dict(zip(("median", "low", "high"), median_interval(values[name], draws, confidence)))
        timings[name] = dataclasses.replace(timings[name], **medians, **_calls(name, used, done), ratio=middle,
                                            ratio_low=low, ratio_high=high, verdict=verdict, reason=why,
                                            confidence=confidence)
    return timings, control, floor


def _calls(name: str, used: list[Round], done: list[Round]) -> dict:
    """What single calls say: their number, all of them raw, percentiles, and events against the outer clock."""
    samples = [call for r in used for call in r.seconds_of(name)]
    both = [pair for r in done for pair in r.calls[name]]
    agree = float(np.median([events / max(outer, 1e-12) for events, outer in both]))
    return {"n": len(samples), "samples": tuple(call for r in done for call in r.seconds_of(name)),
            "percentiles": {p: float(np.percentile(samples, p)) for p in PERCENTILES
                            if len(samples) >= samples_needed(p)},
            "events_over_clock": agree, "note": events_note(agree, float(np.median([outer for _, outer in both])))}


def judge(low: float, high: float, floor: float) -> str:
    """The verdict on a ratio whose interval is (`low`, `high`), where differences up to `floor` are noise."""
    if high < 1 / (1 + floor):
        return "faster"
    if low > 1 + floor:
        return "slower"
    return "tie" if 1 / (1 + floor) <= low and high <= 1 + floor else "inconclusive"
