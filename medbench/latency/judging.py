r"""From rounds to verdicts: medians, ratios to the reference, the noise floor of the A/A control.

What lives here, top to bottom: `again`, the control's name; `judged`, from the quiet rounds to one `Timing` a model;
`paired`, one ratio; `judge`, the verdict on its interval.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .comparison import PERCENTILES, Round, Timing, enough, quiet, used
from .timing import CONFIDENCE, events_note, fewest_rounds, median_interval, resampled, samples_needed

MIN_FLOOR = 0.01             # a difference of 1 % is a tie even where the A/A control is closer

Interval = tuple[float, float, float]


def again(reference: str) -> str:
    """The name under which the reference takes part a second time."""
    return f"{reference} (again)"


def judged(timings: dict[str, Timing], done: list[Round], reference: str, seed: int,
           confidence: float) -> tuple[dict[str, Timing], Interval, float]:
    """Medians, ratios and verdicts from the quiet rounds, or from all of them, without a verdict, if too few are.

    Args: `timings` so far, those with a `reason` stay as they are; `done`: all rounds, in which the reference takes
        part twice; `seed` of the resampling; `confidence` of all intervals.
    Returns: the timings, the control (ratio, low, high) and the noise floor.
    """
    taken = used(done, confidence)
    why = None if enough(done, confidence) else (
        f"{len(quiet(done))} of {len(done)} rounds were quiet and {fewest_rounds(confidence)} are needed; give it more "
        f"time on a quieter machine")
    draws = resampled([r.process for r in taken], seed)
    names = [name for name in taken[0].order if name != again(reference) and not timings[name].reason]
    timings, control = dict(timings), paired(taken, again(reference), reference, draws, confidence)
    floor = max(MIN_FLOOR, *(math.exp(abs(math.log(bound))) - 1 for bound in control[1:]))
    for name in names:
        middle, low, high = paired(taken, name, reference, draws, confidence)
        verdict = "reference" if name == reference else "inconclusive" if why else judge(low, high, floor)
        values = np.array([r.value(name) for r in taken])
        medians = dict(zip(("median", "low", "high"), median_interval(values, draws, confidence)))
        timings[name] = dataclasses.replace(timings[name], **medians, **_calls(name, taken, done), ratio=middle,
                                            ratio_low=low, ratio_high=high, verdict=verdict, reason=why,
                                            confidence=confidence)
    return timings, control, floor


def _calls(name: str, taken: list[Round], done: list[Round]) -> dict:
    """What single calls say: their number, all of them raw, percentiles, and events against the outer clock."""
    samples = [call for r in taken for call in r.seconds_of(name)]
    both = [pair for r in done for pair in r.calls[name]]
    agree = float(np.median([events / max(outer, 1e-12) for events, outer in both]))
    return {"n": len(samples), "samples": tuple(call for r in done for call in r.seconds_of(name)),
            "percentiles": {p: float(np.percentile(samples, p)) for p in PERCENTILES
                            if len(samples) >= samples_needed(p)},
            "events_over_clock": agree, "note": events_note(agree, float(np.median([outer for _, outer in both])))}


def paired(rounds: list[Round], name: str, reference: str, draws: np.ndarray,
           confidence: float = CONFIDENCE) -> Interval:
    """The median over rounds of one model's time over another's, with its interval.

    Args: `draws` from `timing.resampled` of these rounds' processes.
    """
    logs = [math.log(max(r.value(name), 1e-12) / max(r.value(reference), 1e-12)) for r in rounds]
    return tuple(math.exp(v) for v in median_interval(np.array(logs), draws, confidence))


def judge(low: float, high: float, floor: float) -> str:
    """The verdict on a ratio whose interval is (`low`, `high`), where differences up to `floor` are noise."""
    if high < 1 / (1 + floor):
        return "faster"
    if low > 1 + floor:
        return "slower"
    return "tie" if 1 / (1 + floor) <= low and high <= 1 + floor else "inconclusive"
