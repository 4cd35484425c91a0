r"""What points say of each other: ratios with intervals, and from which number of tokens on which one is faster.

What lives here, top to bottom: `Ratio` and `ratio`, two contenders at one size; `rows`, `summary` and `table`;
`Crossover` and `crossover`, where two lines cross as measured; `closed_form_crossover`, where their multiply-adds do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from . import latency
from .attention import ATTENTION
from .checks import one_of, whole
from .latency.timing import CONFIDENCE, median_interval, resampled_rounds, suffix_of
from .layers import WRITTEN_OUT
from .rows import finding
from .scaling import PARTS, Point, sized


# --------------------------------------------------------------------------------------------- ratios
@dataclass(frozen=True)
class Ratio:
    """One contender's time over the reference's at one size, with its 95 % interval; None with a `reason`."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = "inconclusive"
    reason: str | None = None


def log_ratios(points: Iterable[Point], name: str, at: int, reference: str = "softmax") -> np.ndarray:
    """ln of one contender's time over the reference's, round by round; empty where one of them was not timed."""
    found = {p.name: p.rounds for p in points if p.at == at and p.rounds}
    both = name in found and reference in found
    return np.log(np.divide(found[name], found[reference])) if both else np.empty(0)


def ratio(points: Iterable[Point], name: str, at: int, reference: str = "softmax") -> Ratio:
    """The ratio of one contender at one size, and the verdict on it by the step's own noise floor."""
    found = {p.name: p for p in points if p.at == at}
    logs = log_ratios(found.values(), name, at, reference)
    if not len(logs):
        own, other = found[name], found.get(reference)
        return Ratio(reason=own.reason if not own.rounds else f"{reference}: {other.reason if other else 'not timed'}")
    middle, low, high = (math.exp(v) for v in median_interval(logs, resampled_rounds(len(logs), at)))
    why = found[name].reason or found[reference].reason
    verdict = "inconclusive" if why else latency.judge(low, high, found[name].floor)
    return Ratio(middle, low, high, "reference" if name == reference else verdict, why)


def rows(points: Iterable[Point], reference: str = "softmax") -> dict[str, list[dict]]:
    """{name: rows to record} of one step: each point's own, and its ratio."""
    points, found = list(points), {}
    for p in points:
        r = ratio(points, p.name, p.at, reference)
        about = p.context | {PARTS[p.part][1]: p.at, "reference": reference, "verdict": r.verdict}
        found[p.name] = [*p.rows(), {
            "quantity": "latency_ratio", "value": r.value, "low": r.low, "high": r.high, "unit": "1",
            "reason": r.reason, "suffix": p.suffix, "model": p.name, "context": about}]
    return found


def summary(step: list[Point], reference: str = "softmax") -> str:
    """A sentence on one step."""
    found = {p.name: ratio(step, p.name, p.at, reference) for p in step}
    out = [f"{p.name} {p.reason}" for p in step if not p.rounds]
    groups = {"faster": f"faster than {reference}", "slower": f"slower than {reference}", "tie": "tied with it",
              "inconclusive": "inconclusive"}
    parts = []
    for verdict, words in groups.items():
        names = [name for name, r in found.items() if r.verdict == verdict and r.value is not None]
        parts += [f"{words}: {', '.join(names)}"] if names else []
    return f"At {sized(step[0].part, step[0].at)}: {'; '.join(parts + out) or 'nothing to compare'}."


def table(points: Iterable[Point], reference: str = "softmax"):
    """DataFrame, one row a point, sorted by size: `model`, `at`, `latency_ms`, `ratio` with intervals, `verdict`,
    `memory_byte`, `macs`, `reason`."""
    import pandas as pd
    points, lines = list(points), []
    for p in sorted(points, key=lambda p: p.at):
        r = ratio(points, p.name, p.at, reference)
        lines.append({"part": p.part, "model": p.name, "at": p.at, "latency_ms": p.latency and 1000 * p.latency,
                      "latency_ms_low": p.low and 1000 * p.low, "latency_ms_high": p.high and 1000 * p.high,
                      "ratio": r.value, "ratio_low": r.low, "ratio_high": r.high, "verdict": r.verdict,
                      "memory_byte": p.memory_byte, "macs": p.macs, "reason": p.reason or r.reason})
    return pd.DataFrame(lines)


# --------------------------------------------------------------------------------------------- where they cross
OUTCOMES = ("gains", "loses", "always", "never", "several", "undecided")


@dataclass(frozen=True)
class Crossover:
    """Where one contender becomes faster than another, as measured.

    `outcome`: "gains" and "loses", faster from `tokens` on or up to there; "always" and "never" faster within what was
    measured; "several", crosses more than once; "undecided", no difference shown at any size. `low`, `high` bound the
    95 % interval of `tokens`. `verdicts` {N: verdict}; `ended` says
    what stopped the measurement; `closed_form` is the N from which it needs fewer multiply-adds.
    """

    name: str
    reference: str
    outcome: str
    verdicts: dict[int, str]
    tokens: float | None = None
    low: float | None = None
    high: float | None = None
    ended: str | None = None
    closed_form: int | None = None
    context: dict = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The outcome in a sentence or two."""
        words = _words(self)
        more = "" if self.closed_form is None else f" It needs fewer multiply-adds from {self.closed_form:,} on."
        return f"{self.name} {words}.{more}{f' {self.ended}.' if self.ended else ''}"

    def shown(self, verdict: str) -> list[int]:
        """The sizes with that verdict."""
        return [N for N, found in self.verdicts.items() if found == verdict]

    def rows(self) -> list[dict]:
        """The measured crossover, the closed form and the sentence, to be recorded under the contender's name."""
        about = self.context | {"reference": self.reference, "outcome": self.outcome}
        measured = {"quantity": "crossover", "value": self.tokens, "low": self.low, "high": self.high, "unit": "1",
                    "reason": None if self.tokens else _words(self)}
        why = None if self.closed_form else "no such N, or nothing in closed form"
        counted = {"quantity": "crossover_closed_form", "value": self.closed_form, "unit": "1", "reason": why}
        own = suffix_of(self.context.get("batch", 1), self.context.get("dtype", "float32"))
        return [row | {"suffix": f"to_{self.reference}.{own}", "model": self.name, "context": about}
                for row in (measured, counted, finding(self.text))]


def _words(c: Crossover) -> str:
    """What the outcome says of `c.name`."""
    quick, slow = c.shown("faster"), c.shown("slower")
    all_ = f"{min(c.verdicts, default=0):,} to {max(c.verdicts, default=0):,} tokens"
    if c.outcome == "gains":
        return f"is faster than {c.reference} from {_span(c)} on"
    if c.outcome == "loses":
        return f"is faster than {c.reference} only up to {_span(c)}"
    if c.outcome == "always":
        fewest = "the fewest measured" if quick[0] == min(c.verdicts) else "at fewer no difference was shown"
        return f"is faster than {c.reference} from {quick[0]:,} tokens on, {fewest}"
    if c.outcome == "never":
        return f"is not faster than {c.reference} anywhere within {all_}; slower at {_listed(slow)}"
    if c.outcome == "several":
        return f"crosses {c.reference} more than once: faster at {_listed(quick)} tokens, slower at {_listed(slow)}"
    return f"was not told apart from {c.reference} within {all_}" if c.verdicts else \
           f"was never timed beside {c.reference}"


def _span(c: Crossover) -> str:
    return f"about {c.tokens:,.0f} tokens (95 % interval {c.low:,.0f} to {c.high:,.0f})"


def _listed(sizes: list[int]) -> str:
    return ", ".join(f"{N:,}" for N in sizes)


def crossover(points: Iterable[Point], name: str, reference: str = "softmax", *,
              closed_form: int | None = None) -> Crossover:
    r"""The number of tokens N* at which one contender's time falls below another's, on this device.

    $\ln(t/t_0)$ is joined by straight lines over $\ln N$; N* is where they pass zero. The interval resamples the
    rounds of each N; it knows of noise, not of how the curve bends between two N, and of few rounds it is too narrow
    (in simulation of 6, 12 and 30 rounds it holds N* in 8, 9 and 9 of 10 runs). A crossing counts only between sizes
    whose verdicts (interval and noise floor) say slower and faster; of several that noise makes out of one, the middle
    is taken.

    Args: `points` of one part, of any number of sizes; `closed_form` to be kept beside it.
    Returns: `Crossover`. Raises: ValueError: a contender that is not among the points.
    """
    points = list(points)
    for who, given in (("name", name), ("reference", reference)):
        one_of(who, given, tuple(dict.fromkeys(p.name for p in points)))
    sizes = [N for N in sorted({p.at for p in points}) if len(log_ratios(points, name, N, reference))]
    verdicts = {N: ratio(points, name, N, reference).verdict for N in sizes}
    decided = [v for v in verdicts.values() if v in ("faster", "slower")]
    turns = tuple(v for i, v in enumerate(decided) if i == 0 or v != decided[i - 1])
    outcome = {(): "undecided", ("faster",): "always", ("slower",): "never", ("slower", "faster"): "gains",
               ("faster", "slower"): "loses"}.get(turns, "several")
    known = Crossover(name, reference, outcome, verdicts, ended=_ended(points, name, reference),
                      closed_form=closed_form, context=_shared(points))
    if outcome not in ("gains", "loses"):
        return known
    logs = [log_ratios(points, name, N, reference) for N in sizes]
    draws = [np.median(y[resampled_rounds(len(y), N)], axis=1) for N, y in zip(sizes, logs)]
    middle = _passes_zero(np.log(sizes), np.array([[np.median(y) for y in logs]]))[0]
    found = _passes_zero(np.log(sizes), np.stack(draws, axis=1))
    ends = np.nanquantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return dataclasses.replace(known, **dict(zip(("tokens", "low", "high"), np.exp([middle, *ends]).tolist())))


def _passes_zero(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where each line of y (n, sizes) over x (sizes) passes zero, the middle of several; NaN where it does not."""
    left, right = y[:, :-1], y[:, 1:]
    passes = (left > 0) != (right > 0)
    where = np.where(passes, x[:-1] + np.diff(x) * left / np.where(passes, left - right, 1), np.nan)
    found, crosses = np.full(len(y), np.nan), passes.any(axis=1)
    found[crosses] = np.nanmedian(where[crosses], axis=1)
    return found


def _ended(points: list[Point], name: str, reference: str) -> str | None:
    """What left one of the two out first."""
    out = sorted((p.at, p.name != name, p) for p in points if p.name in (name, reference) and not p.rounds)
    return f"At {out[0][0]:,} tokens {out[0][2].name} {out[0][2].reason}" if out else None


def _shared(points: list[Point]) -> dict:
    """What the context of all points has in common."""
    first, *rest = (p.context for p in points)
    return {key: value for key, value in first.items() if all(c.get(key) == value for c in rest)}


def crossovers(points: Iterable[Point], reference: str = "softmax") -> list[Crossover]:
    """Every layer's crossover with the reference, the closed form beside it."""
    points = list(points)
    shape = {key: value for key, value in _shared(points).items() if key in ("dim", "num_heads")}
    return [crossover(points, name, reference, closed_form=closed_form_crossover(name, reference, **shape))
            for name in dict.fromkeys(p.name for p in points) if name != reference]


def crossover_table(found: Iterable[Crossover]):
    """DataFrame, one row a crossover: `model`, `value`, `low`, `high` (tokens), `closed_form`, `outcome`, `text`."""
    import pandas as pd
    return pd.DataFrame([{"model": c.name, "reference": c.reference, "value": c.tokens, "low": c.low, "high": c.high,
                          "closed_form": c.closed_form, "outcome": c.outcome, "text": c.text} for c in found])


# --------------------------------------------------------------------------------------------- the same, counted
def closed_form_crossover(name: str, reference: str = "softmax", dim: int = 96, num_heads: int = 3,
                          most: int = 2**16) -> int | None:
    """The smallest N at which one mechanism's layer needs fewer multiply-adds than another's, in whole numbers.

    Bisection: once fewer, always fewer, as N grows.

    Returns: N, or None where it is not fewer at `most`. Raises: ValueError: an unknown mechanism.
    """
    whole("most", most)

    def fewer(N: int) -> bool:
        return layer_macs(name, N, dim, num_heads) < layer_macs(reference, N, dim, num_heads)
    if not fewer(most):
        return None
    low, high = 0, most                                      # fewer(high), and not fewer(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fewer(middle) else (middle, high)
    return high


def layer_macs(name: str, N: int, dim: int = 96, num_heads: int = 3) -> int:
    """Multiply-adds of one mechanism's layer on N tokens, from the closed form of the layer built for them.

    The grid is as square as N allows; where windows do not divide it, whole windows of 8 x 8 are reckoned with.
    """
    name = "softmax" if name == WRITTEN_OUT else name
    one_of("mechanism", name, tuple(ATTENTION))
    side = next(s for s in range(math.isqrt(N), 0, -1) if N % s == 0)
    with torch.device("meta"):
        try:
            layer = ATTENTION[name](dim, num_heads, (side, N // side))
        except ValueError:
            layer = ATTENTION[name](dim, num_heads, (8, 8))
    return layer.mixing_macs(N) + layer.projection_macs(N)
