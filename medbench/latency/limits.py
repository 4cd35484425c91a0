r"""What this device can do at most, measured, and what that means for a model.

What lives here, top to bottom: `Ceilings` and `ceilings`, which measure the rate of products, of matrices or in a
convolution, and the memory bandwidth; `Roofline` and `roofline`, the least time that a model can take under them.

Source: Williams, Waterman and Patterson 2009, "Roofline", Communications of the ACM 52(4).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from ..checks import in_range, one_of
from ..cost import Costs
from ..machine import cores, resolve_device
from .timing import Disturbance, Load, between, prepared, read_load, suffix_of, timer_for

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


# --------------------------------------------------------------------------------------------- the ceilings
@dataclass(frozen=True)
class Ceilings:
    """The best that was seen: `flops` {dtype: FLOP/s} of products, `bandwidth` byte/s of copying.

    `samples` {dtype or "copy": every rate seen}; `load` says how busy the machine was.
    """

    flops: dict[str, float]
    bandwidth: float
    device: str
    threads: int
    load: Disturbance
    samples: dict[str, list[float]] = field(repr=False)

    def rows(self) -> list[dict]:
        """One record for each rate, its raw samples in it."""
        context = {"threads": self.threads, "disturbed": self.load.disturbed}
        rows = [{"quantity": "matrix_rate", "value": rate, "unit": "FLOP/s", "suffix": dtype,
                 "samples": self.samples[dtype], "context": context | {"dtype": dtype}}
                for dtype, rate in self.flops.items()]
        rows += [{"quantity": "bandwidth", "value": self.bandwidth, "unit": "byte/s", "samples": self.samples["copy"],
                  "context": context}]
        return [row | {"n": len(row["samples"])} for row in rows]


def ceilings(device="auto", *, dtypes: tuple[str, ...] = ("float32", "bfloat16"), seconds: float = 6.0,
             threads: int = 0, side: int | None = None, copy_byte: int | None = None,
             clock: Callable[[], float] = time.perf_counter, load: Callable[[], Load] = read_load) -> Ceilings:
    """Measure this device's rate of products, for each dtype, and its memory bandwidth.

    A product of two square matrices takes 2 n^3 FLOP. On a CPU a convolution is timed too, 2 FLOP for each weight and
    number of the output: it runs in another library than a product of matrices, and either of the two may use the
    processor better. Copying a tensor moves each byte twice, read and written. Of all repetitions the fastest counts,
    since a ceiling is what can be reached.

    Args:
        device: `"auto"`, `"cpu"` or `"cuda"`. dtypes: of the products. seconds: for everything together, about.
        threads: of the CPU, 0 for all cores. side: n; copy_byte: size of the copied tensor, far above any cache.
    Returns:
        `Ceilings`.
    Raises:
        ValueError: a dtype or a number that is not allowed; RuntimeError: `cuda` without a GPU.
    """
    for dtype in dtypes:
        one_of("dtype", dtype, tuple(BYTES))
    in_range("seconds", seconds, 0.001)
    place = resolve_device(device)
    large = place.type == "cuda"
    side, copy_byte = side or (8192 if large else 2048), copy_byte or (2**31 if large else 2**28)
    threads, budget = threads or cores(), seconds / (len(dtypes) + 1)
    start, before = clock(), load()
    samples = {}
    with prepared([], place, threads):
        timer, draw = timer_for(place, clock), torch.Generator(place).manual_seed(0)
        ways = [_matrices, _convolution] if place.type == "cpu" else [_matrices]

        def rand(dtype: str, *size: int):
            return torch.rand(*size, generator=draw, device=place).to(getattr(torch, dtype))
        for dtype in dtypes:
            made = [way(side, functools.partial(rand, dtype)) for way in ways]
            samples[dtype] = [rate for way in made for rate in _rates(timer, *way, budget / len(made), clock)]
        source = torch.rand(copy_byte // 4, generator=draw, device=place)
        target = torch.empty_like(source)
        samples["copy"] = _rates(timer, target.copy_, source, 2 * 4 * source.numel(), budget, clock)
    best = {name: max(rates) for name, rates in samples.items()}
    return Ceilings({dtype: best[dtype] for dtype in dtypes}, best["copy"], str(place), threads,
                    between(before, load(), clock() - start), samples)


def _matrices(side: int, rand) -> tuple:
    """(call, its argument, FLOP) of a product of two square matrices."""
    a, b = rand(side, side), rand(side, side)
    return functools.partial(torch.mm, mat2=b, out=torch.empty_like(a)), a, 2 * side**3


def _convolution(side: int, rand) -> tuple:
    """(call, its argument, FLOP) of a 3 x 3 convolution of about the same size, channels last."""
    channels, pixels = max(1, side // 8), max(8, side // 32)
    x, weight = (t.contiguous(memory_format=torch.channels_last)
                 for t in (rand(4, channels, pixels, pixels), rand(channels, channels, 3, 3)))
    return functools.partial(F.conv2d, weight=weight), x, 2 * weight.numel() * 4 * (pixels - 2)**2


def _rates(timer, run, x, work: int, seconds: float, clock) -> list[float]:
    """Work per second of each repetition, in threes until the time is spent."""
    end, rates = clock() + seconds, []
    while not rates or clock() < end:
        rates += [work / max(taken, 1e-9) for taken, _ in timer.series(run, x, 3)]
    return rates


# --------------------------------------------------------------------------------------------- the roof over a model
@dataclass(frozen=True)
class Roofline:
    """The least time for one batch under this device's ceilings.

    `seconds` is the larger of `compute_seconds` (products at the full rate) and `memory_seconds` (weights, and what the
    products read and write, once each at the full bandwidth); `bound` names which. `share` of a measured latency is
    how much of it the device's limit explains; None if none was given.
    """

    seconds: float
    compute_seconds: float
    memory_seconds: float
    bound: str
    flops: int
    moved_byte: int
    batch: int
    dtype: str
    share: float | None = None

    @property
    def intensity(self) -> float:
        """FLOP for each byte moved."""
        return self.flops / self.moved_byte

    def rows(self) -> list[dict]:
        """The floor, its two parts and the share."""
        context = {"batch": self.batch, "dtype": self.dtype, "bound": self.bound}
        values = {"roofline": (1000 * self.seconds, "ms"), "roofline_compute": (1000 * self.compute_seconds, "ms"),
                  "roofline_memory": (1000 * self.memory_seconds, "ms"), "roofline_share": (self.share, "1"),
                  "intensity": (self.intensity, "1"), "moved": (self.moved_byte, "byte")}
        return [{"quantity": name, "value": value, "unit": unit, "suffix": suffix_of(self.batch, self.dtype),
                 "context": context, **({} if value is not None else {"reason": "no latency was given"})}
                for name, (value, unit) in values.items()]


def roofline(costs: Costs, ceilings: Ceilings, batch: int | None = None, dtype: str = "float32",
             latency: float | None = None) -> Roofline:
    r"""The least time for a batch: $\max(\mathrm{FLOP}/\mathrm{rate},\ \mathrm{byte}/\mathrm{bandwidth})$.

    Weights are read once whatever the batch; what the products read and write grows with it. Everything between the
    products is taken as free and attention as fused, so this is a floor that an eager model does not reach.

    Args: `costs` of any batch; `ceilings` of this device; `batch` images, those of `costs` if not given; `dtype` of
    numbers and products; `latency` in seconds, measured, for `share`.
    Returns: `Roofline`. Raises: ValueError for a dtype whose rate was not measured.
    """
    one_of("dtype", dtype, tuple(ceilings.flops))
    counted = costs.input_size[0]
    batch = counted if batch is None else batch
    in_range("batch", batch, 1)
    flops = round(costs.flops * batch / counted)
    moved = round(BYTES[dtype] * (costs.weight_elements + costs.traffic_elements * batch / counted))
    compute, memory = flops / ceilings.flops[dtype], moved / ceilings.bandwidth
    floor = max(compute, memory)
    return Roofline(floor, compute, memory, "compute" if compute >= memory else "memory", flops, moved, batch, dtype,
                    None if latency is None else floor / latency)
