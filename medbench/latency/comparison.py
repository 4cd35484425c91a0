"""What `latency.compare` returns: one `Timing` a model, every `Round` raw, and the `Comparison` that holds both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ..checks import one_of
from ..rows import finding
from .timing import CONFIDENCE, Disturbance, fewest_rounds, milliseconds, samples_needed, suffix_of

VERDICTS = ("reference", "faster", "slower", "tie", "inconclusive")
PERCENTILES = (90, 95, 99)
FEW = 40                     # raw times that are kept of a model where a file holds hundreds of them


def thinned(samples, most: int = FEW):
    """At most `most` of these values, evenly spaced."""
    return samples[::-(-len(samples) // most) or 1]


@dataclass(frozen=True)
class Timing:
    """One model. Times in seconds for one batch; `low`, `high` bound the interval of the median.

    `ratio` is its time over the reference's, paired within rounds. `percentiles` holds those that the number of calls
    allows. `samples` are all calls of all rounds, disturbed ones too, and `n` those that the numbers come from.
    `error` is the largest deviation from float64 as a share of the largest output. A median of None has its `reason`.
    `first_call` is the very first one; `warm` whether the model's times had settled; `events_over_clock` compares a
    GPU's own times with the outer clock, and `note` says so where they disagree. `confidence` is that of all intervals.
    """

    name: str
    batch: int
    dtype: str
    runtime: str
    first_call: float | None = None
    error: float | None = None
    median: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    verdict: str = "inconclusive"
    reason: str | None = None
    percentiles: dict[int, float] = field(default_factory=dict)
    warm: bool = False
    events_over_clock: float | None = None
    n: int = 0
    samples: tuple[float, ...] = field(default=(), repr=False)
    note: str | None = None
    confidence: float = CONFIDENCE

    def thinned(self) -> Timing:
        """The same with at most `FEW` raw times; what was computed from all of them stays."""
        return dataclasses.replace(self, samples=thinned(self.samples))

    def rows(self) -> list[dict]:
        """Latency (ms), percentiles, first call, images a second, ratio and verdict; suffix such as `b16`."""
        ms = milliseconds
        more = {"reason": self.reason or "not timed"} if self.median is None else {}
        rows = [{"quantity": "latency", "value": ms(self.median), "unit": "ms", "low": ms(self.low),
                 "high": ms(self.high), "n": self.n, "samples": [ms(s) for s in self.samples], **more},
                {"quantity": "throughput", "value": self.median and self.batch / self.median, "unit": "images/s",
                 "low": self.high and self.batch / self.high, "high": self.low and self.batch / self.low, **more},
                {"quantity": "latency_ratio", "value": self.ratio, "unit": "1", "low": self.ratio_low,
                 "high": self.ratio_high, **more},
                {"quantity": "first_call", "value": ms(self.first_call), "unit": "ms",
                 **({} if self.first_call is not None else {"reason": self.reason or "not timed"})},
                {"quantity": "output_error", "value": self.error, "unit": "1",
                 **({} if self.error is not None else {"reason": self.reason})},
                finding(self.verdict, "verdict", reason=self.reason)]
        for p in PERCENTILES:
            why = f"p{p} needs {samples_needed(p)} calls, there are {self.n}"
            rows.append({"quantity": f"latency_p{p}", "value": ms(self.percentiles.get(p)), "unit": "ms",
                         **({} if p in self.percentiles else {"reason": why if self.median else more["reason"]})})
        context = {"batch": self.batch, "dtype": self.dtype, "runtime": self.runtime, "warm": self.warm,
                   "events_over_clock": self.events_over_clock, "confidence": self.confidence,
                   **({} if self.note is None else {"note": self.note})}
        return [row | {"suffix": suffix_of(self.batch, self.dtype), "context": context} for row in rows]


@dataclass(frozen=True)
class Round:
    """One turn of all models: in which order, how long in all, how much others disturbed it; for every call its seconds
    and those of the outer clock (the same but on a GPU); the number of the process that it ran in."""

    order: tuple[str, ...]
    seconds: float
    load: Disturbance
    calls: dict[str, list[tuple[float, float]]] = field(repr=False)
    process: int = 0

    def seconds_of(self, name: str) -> list[float]:
        """Seconds of each of this model's calls."""
        return [seconds for seconds, _ in self.calls[name]]

    def value(self, name: str) -> float:
        """The median of this model's calls in this round."""
        return float(np.median(self.seconds_of(name)))


def quiet(rounds: Iterable[Round]) -> list[Round]:
    """Those of the rounds during which nobody else used the processors."""
    return [r for r in rounds if not r.load.disturbed]


def enough(rounds: Iterable[Round], confidence: float = CONFIDENCE) -> bool:
    """Whether so many of the rounds were quiet that there can be a verdict."""
    return len(quiet(rounds)) >= fewest_rounds(confidence)


def used(rounds: Iterable[Round], confidence: float = CONFIDENCE) -> list[Round]:
    """Those of the rounds that medians and ratios come from: the quiet ones; all, where too few for a verdict are."""
    rounds = list(rounds)
    return quiet(rounds) if enough(rounds, confidence) else rounds


@dataclass(frozen=True)
class Comparison:
    """All models timed side by side: `comparison["window"]` is a `Timing`; `rounds` holds everything raw.

    `control` (low, high) is the ratio of the reference to itself, `floor` the largest difference that it makes look
    real. `stopped` says why the rounds ended: "rounds", "precise", "seconds" or "disturbed". `before` and `after`:
    load, pressure and clocks of the machine around the run, from `machine.state`. `seed`: of input, orders, intervals.
    """

    timings: dict[str, Timing]
    reference: str
    control: tuple[float, float, float]
    floor: float
    rounds: tuple[Round, ...] = field(repr=False)
    stopped: str
    seconds: float
    threads: int
    device: str
    processes: int = 1
    confidence: float = CONFIDENCE
    before: dict | None = None
    after: dict | None = None
    seed: int = 0

    def __getitem__(self, name: str) -> Timing:
        one_of("model", name, tuple(self.timings))
        return self.timings[name]

    def __iter__(self):
        return iter(self.timings)

    def __len__(self) -> int:
        return len(self.timings)

    @property
    def quiet(self) -> list[Round]:
        """Rounds during which nobody else used the processors."""
        return quiet(self.rounds)

    @property
    def used(self) -> list[Round]:
        """Rounds that medians and ratios come from: the quiet ones; all, where too few for a verdict are."""
        return used(self.rounds, self.confidence)

    @property
    def judged(self) -> bool:
        """Whether enough rounds were quiet for verdicts."""
        return enough(self.rounds, self.confidence)

    @property
    def disturbed(self) -> int:
        """How many rounds others used the processors in."""
        return len(self.rounds) - len(self.quiet)

    @property
    def text(self) -> str:
        """What may be concluded, in a few sentences."""
        found = {v: [t.name for t in self.timings.values() if t.verdict == v] for v in VERDICTS[1:]}
        parts = [f"{v} than {self.reference}: {', '.join(found[v])}" for v in ("faster", "slower") if found[v]]
        parts += [f"tied with it: {', '.join(found['tie'])}"] if found["tie"] else []
        parts += [f"inconclusive: {', '.join(found['inconclusive'])}"] if found["inconclusive"] else []
        load = f"{self.disturbed} of {len(self.rounds)} rounds were disturbed" if any(
            r.load.known for r in self.rounds) else "whether others used the processors is not known on this system"
        noise = f"The noise floor is {self.floor:.1%}; {load}."
        first = "; ".join(parts)
        return f"{first[:1].upper()}{first[1:]}. {noise}" if first else noise

    def frame(self):
        """DataFrame, one row a model, times in ms."""
        import pandas as pd
        columns = {"median": "latency_ms", "low": "latency_ms_low", "high": "latency_ms_high",
                   "first_call": "first_call_ms"}
        rows = []
        for t in self.timings.values():
            row = {"model": t.name, "batch": t.batch, "dtype": t.dtype, "runtime": t.runtime}
            seconds = {column: getattr(t, key) for key, column in columns.items()}
            row |= {column: milliseconds(value) for column, value in seconds.items()}
            rows.append(row | {"ratio": t.ratio, "ratio_low": t.ratio_low, "ratio_high": t.ratio_high,
                               "verdict": t.verdict, "calls": t.n})
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        return self.frame().to_html(index=False)

    def rows(self) -> list[dict]:
        """Every model's rows, the model in the suffix; and of the run: control, floor, rounds, the sentence."""
        rows = [row | {"model": name, "suffix": f"{name}.{row['suffix']}"}
                for name, t in self.timings.items() for row in t.rows()]
        first = next(iter(self.timings.values()))
        suffix = suffix_of(first.batch, first.dtype)
        context = {"batch": first.batch, "dtype": first.dtype, "threads": self.threads, "stopped": self.stopped,
                   "reference": self.reference, "processes": self.processes, "confidence": self.confidence,
                   "input_seed": self.seed, "input_format": "contiguous"}
        middle, low, high = self.control
        known = {} if math.isfinite(middle) else {"reason": "no round was timed"}
        run = [{"quantity": "control_ratio", "value": middle, "unit": "1", "low": low, "high": high, **known},
               {"quantity": "noise_floor", "value": self.floor, "unit": "1", **known},
               {"quantity": "rounds", "value": len(self.rounds), "unit": "1", "context": self._by_round()},
               {"quantity": "disturbed_rounds", "value": self.disturbed, "unit": "1", "n": len(self.rounds)},
               {"quantity": "protocol_seconds", "value": self.seconds, "unit": "s"},
               finding(self.text)]
        return rows + [row | {"suffix": suffix, "context": context | row.get("context", {})} for row in run]

    def _by_round(self) -> dict:
        """What each round ran under, in columns, and the machine before and after."""
        return {"by_round": {"seconds": [r.seconds for r in self.rounds],
                             "pressure": [r.load.pressure for r in self.rounds],
                             "steal": [r.load.steal for r in self.rounds],
                             "disturbed": [r.load.disturbed for r in self.rounds],
                             "process": [r.process for r in self.rounds]},
                "machine_before": self.before, "machine_after": self.after}
