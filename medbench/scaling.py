r"""Where do they cross? Time and memory against the number of tokens, the image size, the threads and the batch.

What lives here, top to bottom: `Point`, one thing timed at one size; `over`, which goes up through sizes until time or
memory runs out; whole models, which go through it: `sizes`, `threads`, `batches`; the way back from records. Single
layers: `layers.py`. What points say, and where lines cross: `crossing.py`.

At each size all contenders are timed by one `latency.compare`, and a size is one step: whoever keeps the points of
finished steps and hands them back as `done` goes on where he was. Before a step starts, its times are estimated from
the last points and the multiply-adds, its memory is counted on torch's `meta` device: what does not fit is left out,
and its point says why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from . import cost, latency
from .checks import in_range, one_of, whole
from .latency.timing import milliseconds, suffix_of
from .machine import cores, resolve_device

TOKENS = tuple(2**power for power in range(6, 15))         # 64 to 16384
SIZES = (112, 224, 448)                                    # px
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)               # images
PARTS = {"tokens": ("n", "tokens"), "sizes": ("s", "px"), "threads": ("t", "threads"), "batches": ("", "images")}
CALLS = 20                   # of one model in a step: 6 rounds of a warm call and a timed one, the gate, the warm-up


def sized(part: str, size: int) -> str:
    """A size with its unit: `1 image`, `2,048 tokens`."""
    unit = PARTS[part][1]
    return f"{size:,} {unit.removesuffix('s') if size == 1 else unit}"


# --------------------------------------------------------------------------------------------- what comes out
@dataclass(frozen=True)
class Point:
    """One contender at one size.

    Attributes:
        part: one of `PARTS`, what `at` counts. name: of the contender. macs: multiply-adds of one call.
        memory_byte: weights, input and the most that lives between layers at one moment, as float32; counted.
        rounds: seconds, each round's median, paired with the other contenders' of the step; empty if not timed.
        low, high: seconds, of the median's 95 % interval. floor: the largest ratio - 1 that is noise in this step.
        reason: why there are no rounds, or no verdict. too_short: seconds of its step, where more would have helped.
        context: `batch`, `dtype` and what else tells runs apart.
    """

    part: str
    name: str
    at: int
    macs: int
    memory_byte: int
    rounds: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    reason: str | None = None
    too_short: float | None = None
    context: dict = field(default_factory=dict)

    @property
    def latency(self) -> float | None:
        """Seconds, the median over rounds."""
        return float(np.median(self.rounds)) if self.rounds else None

    @property
    def suffix(self) -> str:
        """What tells its records from those of other sizes: `n1024.b1`."""
        letter = PARTS[self.part][0]
        own = suffix_of(self.context.get("batch", 1), self.context.get("dtype", "float32"))
        return f"{letter}{self.at}.{own}" if letter else own

    def rows(self) -> list[dict]:
        """Latency with its rounds, memory and multiply-adds; the latency carries all that `recorded` needs."""
        about, ms = self.context | {PARTS[self.part][1]: self.at}, milliseconds
        known = about | {"part": self.part, "at": self.at, "macs": self.macs, "memory_byte": self.memory_byte,
                         "floor": self.floor, **({"too_short": self.too_short} if self.too_short else {})}
        rows = [{"quantity": "latency", "value": ms(self.latency), "low": ms(self.low), "high": ms(self.high),
                 "unit": "ms", "n": len(self.rounds), "samples": [ms(s) for s in self.rounds], "reason": self.reason,
                 "context": known},
                {"quantity": "memory", "value": self.memory_byte, "unit": "byte", "context": about},
                {"quantity": "macs", "value": self.macs, "unit": "MAC", "context": about}]
        return [row | {"suffix": self.suffix, "model": self.name} for row in rows]


# --------------------------------------------------------------------------------------------- the way up
@dataclass(frozen=True)
class Setup:
    """All that is timed side by side at one size: models or `latency.Candidate`s, and what each of them costs."""

    models: dict[str, nn.Module | latency.Candidate]
    input_size: tuple[int, ...]
    macs: dict[str, int]
    memory_byte: dict[str, int]
    context: dict = field(default_factory=dict)
    threads: int = 0


def over(part: str, names: Iterable[str], at: Iterable[int], setup: Callable[[int], Setup], *,
         reference: str = "softmax", context: dict | None = None, done: Iterable[Point] = (), seconds: float = 40.0,
         memory_byte: int | None = None, dtype: str = "float32", device="auto", **protocol) -> Iterator[list[Point]]:
    """Time contenders side by side at one size after the other, upwards, until time or memory runs out.

    Args:
        part: one of `PARTS`. names: of the contenders. at: the sizes. setup: from a size to what is timed there.
        reference: whose time the others are compared with; where it has run out, times are kept without ratios.
        context: of every point, for telling runs apart. done: points of finished steps, which are not timed again,
            but where a step was too short and has more seconds now.
        seconds: for each step. memory_byte: that one call may take; by default half of what is free.
        dtype, device, protocol: as for `latency.compare`.
    Yields:
        The points of each step, one a contender: also of those that were left out.
    Raises:
        ValueError: an unknown part or reference, or a size that is no whole number.
    """
    names, at, context = tuple(names), sorted(set(at)), dict(context or {}) | {"dtype": dtype}
    _check(part, names, at, reference, seconds)
    memory_byte = free_memory(device) // 2 if memory_byte is None else memory_byte
    known = [p for p in done if p.part == part and context.items() <= p.context.items()]
    for size in at:
        if set(names) <= {p.name for p in known if p.at == size and not (p.too_short and p.too_short < seconds)}:
            continue
        here = setup(size)
        out = left_out(here, _before(known, size), reference, seconds, memory_byte)
        models = {name: model for name, model in here.models.items() if name not in out}
        found = latency.compare(models, here.input_size, reference=reference if reference in models else None,
                                seconds=seconds, threads=here.threads, dtype=dtype, device=device,
                                **protocol) if models else None
        few = found is not None and found.stopped == "seconds" and not found.judged
        short = {name for name in names if here.memory_byte[name] <= memory_byte and (name in out or few)}
        step = [_point(part, name, size, here, found, out.get(name), seconds if name in short else None, context)
                for name in names]
        before = [p for p in known if p.at == size]
        if few and any(p.rounds and not p.reason for p in before):           # those that had verdicts keep them
            step = [dataclasses.replace(p, too_short=p.too_short and seconds) for p in before]
        known = [p for p in known if p.at != size] + step
        yield step


def default_sizes(part: str) -> tuple[int, ...]:
    """The sizes at which one of `PARTS` is timed on this machine, if nobody says others."""
    one_of("part", part, tuple(PARTS))
    return {"tokens": TOKENS, "sizes": SIZES, "batches": BATCHES,
            "threads": tuple(sorted({1, min(2, cores()), cores()}))}[part]


def _check(part, names, at, reference, seconds) -> None:
    one_of("part", part, tuple(PARTS))
    one_of("reference", reference, names)
    in_range("seconds", seconds, 0.001)
    for size in at:
        whole(PARTS[part][1], size)


def _before(points: list[Point], size: int) -> dict[str, Point]:
    """The last timed point of each contender below a size."""
    below = sorted((p for p in points if p.at < size and p.rounds), key=lambda p: p.at)
    return {p.name: p for p in below}


def left_out(here: Setup, before: dict[str, Point], reference: str, seconds: float, memory_byte: int) -> dict[str, str]:
    r"""What does not fit into a step, and why, from multiply-adds and memory alone.

    A call takes about $t_0 \cdot \mathrm{MAC}/\mathrm{MAC}_0$ with $t_0$ the quickest round of the size before; what
    has no size before is tried. The slowest are left out until six rounds of the rest fit; the reference is timed
    twice a round. What a busy machine timed says little and counts a quarter.

    Returns: {name: reason}.
    """
    out = {name: f"would need about {byte / 1e9:.1f} GB of {memory_byte / 1e9:.1f} GB"
           for name, byte in here.memory_byte.items() if byte > memory_byte}
    takes = {name: min(p.rounds) * here.macs[name] / p.macs for name, p in before.items()
             if name in here.models and name not in out}
    calls = {name: CALLS * (2 if name == reference else 1) / (4 if p.reason else 1) for name, p in before.items()}
    while takes and sum(calls[name] * takes[name] for name in takes) > seconds:
        slowest = max(takes, key=takes.get)
        out[slowest] = f"would take about {takes.pop(slowest):.2g} s a call, too long for a step of {seconds:g} s"
    return out


def _point(part, name, size, here: Setup, found, reason, too_short, context) -> Point:
    """What a comparison says of one contender, or why it was left out."""
    known = {"part": part, "name": name, "at": size, "macs": here.macs[name], "memory_byte": here.memory_byte[name],
             "too_short": too_short, "context": context | here.context}
    if reason:
        return Point(**known, reason=reason)
    timing = found[name]
    rounds = tuple(r.value(name) for r in found.used if name in r.calls)
    return Point(**known, rounds=rounds, low=timing.low, high=timing.high, floor=found.floor, reason=timing.reason)


def free_memory(device="auto") -> int:
    """Bytes that are free on a device."""
    place = resolve_device(device)
    if place.type == "cuda":
        return torch.cuda.mem_get_info(place)[0]
    import psutil
    return psutil.virtual_memory().available


# --------------------------------------------------------------------------------------------- whole models
def sizes(build: Callable[[str, int], nn.Module], names: Iterable[str], at: Iterable[int] = SIZES, *,
          batch: int = 1, in_chans: int = 3, **options) -> Iterator[list[Point]]:
    """Whole models against the image size: `build(name, px)` makes each. Args: `options` as for `over`."""
    names = tuple(names)

    def setup(px: int) -> Setup:
        return _models({name: build(name, px) for name in names}, (batch, in_chans, px, px))
    return over("sizes", names, at, setup, context={"batch": batch}, **options)


def threads(models: dict[str, nn.Module], input_size: tuple[int, ...], at: Iterable[int], **options):
    """The same models on one processor, two, ...: yields points as `over`. Args: `at` numbers of threads."""
    def setup(count: int) -> Setup:
        return _models(models, input_size, threads=count)
    return over("threads", tuple(models), at, setup, context={"batch": input_size[0]}, **options)


def batches(models: dict[str, nn.Module], image_size: tuple[int, ...], at: Iterable[int] = BATCHES,
            **options):
    """The same models with more and more images, of (channels, height, width), in one call: yields as `over`."""
    def setup(batch: int) -> Setup:
        return _models(models, (batch, *image_size), context={"batch": batch})
    return over("batches", tuple(models), at, setup, **options)


def costs(module: nn.Module, input_size: tuple[int, ...]) -> tuple[int, int]:
    """Multiply-adds of one call, and bytes of float32 weights, input and intermediate tensors; nothing is run."""
    found = cost.profile(module, input_size)
    return found.macs, 4 * (found.weight_elements + math.prod(input_size) + found.activation_elements)


def _models(models: dict[str, nn.Module], input_size, context: dict | None = None, threads: int = 0) -> Setup:
    found = {name: costs(model, input_size) for name, model in models.items()}
    return Setup(models, input_size, {name: macs for name, (macs, _) in found.items()},
                 {name: byte for name, (_, byte) in found.items()}, context or {}, threads)


# --------------------------------------------------------------------------------------------- back from records
def recorded(records, part: str) -> list[Point]:
    """The points of one part among the records of a file, to be handed on as `done`."""
    one_of("part", part, tuple(PARTS))
    own = ("part", "at", "macs", "memory_byte", "floor", "too_short", PARTS[part][1])
    points = []
    for r in records:
        if r.quantity != "latency" or r.context.get("part") != part:
            continue
        context = {key: value for key, value in r.context.items() if key not in own or key == "batch"}
        seconds = [None if v is None else v / 1000 for v in (r.low, r.high)]
        points.append(Point(part, r.model, r.context["at"], r.context["macs"], r.context["memory_byte"],
                            tuple(v / 1000 for v in r.samples or ()), *seconds, r.context["floor"], r.reason,
                            r.context.get("too_short"), context))
    return points
