r"""Single layers of the mechanisms against the number of tokens: what `scaling.over` times there, and their memory.

What lives here, top to bottom: `grid`, tokens as rows and columns; `over_tokens`, the layers timed side by side at
growing N; `setup`, the layers of one N with what they cost; softmax attention written out; `peaks`, memory measured.

Softmax is `scaled_dot_product_attention`, whose fused kernel never forms the N x N matrix: its memory grows with N
alone. `softmax_written_out` is the same layer with that matrix formed, as in models of 2022 and before.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import latency
from .attention import ATTENTION
from .checks import one_of, whole
from .config import MECHANISMS
from .counting import Ledger, ghost
from .files import without_folders
from .latency.timing import suffix_of
from .machine import resolve_device
from .scaling import TOKENS, Point, Setup, costs, free_memory, over

WRITTEN_OUT = "softmax_written_out"
LAYERS = (*MECHANISMS, WRITTEN_OUT)


# --------------------------------------------------------------------------------------------- timed
def grid(tokens: int) -> tuple[int, int]:
    """(H, W) of N tokens with W = H or W = 2H, both multiples of 8, so that windows divide it."""
    whole("tokens", tokens)
    for ratio in (1, 2):
        side = math.isqrt(tokens // ratio)
        if ratio * side**2 == tokens and side % 8 == 0:
            return side, ratio * side
    raise ValueError(f"tokens is {tokens}; wanted H x H or H x 2H with H a multiple of 8, such as 64, 128, 256, 512")


def over_tokens(names: Iterable[str] = LAYERS, tokens: Iterable[int] = TOKENS, dim: int = 96, num_heads: int = 3,
                batch: int = 1, dtype: str = "float32", seed: int = 0, **options) -> Iterator[list[Point]]:
    """Single layers of the mechanisms against the number of tokens.

    Args: `names` among `LAYERS`; `tokens` N, see `grid`; `dim` channels C; `num_heads` h; `batch` images; `options`
        as for `over`, such as `done`, `seconds`, `memory_byte`.
    Yields: the points of each N. Raises: ValueError: an unknown name, an N without a grid.
    """
    names, tokens = tuple(names), tuple(tokens)
    for name in names:
        one_of("mechanism", name, LAYERS)
    for N in tokens:
        grid(N)
    context = {"dim": dim, "num_heads": num_heads, "batch": batch}
    return over("tokens", names, tokens, lambda N: setup(names, N, dim, num_heads, batch, dtype, seed),
                context=context, dtype=dtype, seed=seed, **options)


def setup(names, N: int, dim: int, num_heads: int, batch: int, dtype: str, seed: int = 0) -> Setup:
    """Layers of one N with what they cost; both kinds of softmax have the same weights."""
    size, models, macs, memory = (batch, N, dim), {}, {}, {}
    for name in names:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer = ATTENTION["softmax" if name == WRITTEN_OUT else name](dim, num_heads, grid(N)).eval()
        models[name], (macs[name], memory[name]) = layer, costs(layer, size)
        if name == WRITTEN_OUT:
            models[name], memory[name] = written_out(layer, dtype), memory_written_out(layer, size)
    return Setup(models, size, macs, memory)


# --------------------------------------------------------------------------------------------- written out
class WrittenOut(nn.Module):
    """A layer of softmax attention that forms its N x N matrix."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        """Tokens (B, N, C) to tokens of the same shape."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.layer(x)


def written_out(layer: nn.Module, dtype: str = "float32") -> latency.Candidate:
    """Softmax attention written out. Its float64 twin is not: it would take twice the memory."""
    formed = WrittenOut(layer)

    def run(x):
        with torch.autocast(x.device.type, getattr(torch, dtype), dtype != "float32"):
            return formed(x)
    return latency.Candidate(WRITTEN_OUT, run, copy.deepcopy(layer).double(), dtype, module=formed)


def memory_written_out(layer: nn.Module, input_size: tuple[int, ...]) -> int:
    """As the memory of `costs`, with the operators of fused attention counted one by one."""
    copied, x = WrittenOut(ghost(layer)), torch.empty(input_size, device="meta")
    weights = [*copied.parameters(), *copied.buffers()]
    ledger = Ledger({t.untyped_storage()._cdata for t in (*weights, x)})
    with torch.no_grad(), ledger:
        copied(x)
    return 4 * (sum(t.numel() for t in weights) + x.numel() + ledger.peak)


# --------------------------------------------------------------------------------------------- memory
def peaks(names: Iterable[str] = LAYERS, tokens: Iterable[int] = TOKENS, dim: int = 96, num_heads: int = 3,
          batch: int = 1, *, done: Iterable[tuple[str, int]] = (), memory_byte: int | None = None, device="auto",
          seed: int = 0) -> Iterator[dict[str, list[dict]]]:
    """Memory of single layers against the number of tokens, measured beside the count.

    Args: as for `over_tokens`; `done` pairs (name, N) that are not measured again.
    Yields: {name: rows} of one layer: `counted`, the bytes of what lives between its operations at most; `grown`, by
        how many memory rose above weights and input while it ran, on a CPU that of the process; null with the reason
        where more than `memory_byte` would be needed, or where the measuring failed.
    """
    done, place = set(done), resolve_device(device)
    memory_byte = free_memory(device) // 2 if memory_byte is None else memory_byte
    for N in tokens:
        here = setup([name for name in names if (name, N) not in done], N, dim, num_heads, batch, "float32", seed)
        for name, model in here.models.items():
            module, byte = getattr(model, "module", model), here.memory_byte[name]
            held = 4 * (sum(t.numel() for t in (*module.parameters(), *module.buffers())) + batch * N * dim)
            grown, why = None, f"would need about {byte / 1e9:.1f} GB of {memory_byte / 1e9:.1f} GB"
            if byte <= memory_byte:
                grown, why = _grown(module, here.input_size, place, held, seed)
            about = {"unit": "byte", "suffix": f"n{N}.{suffix_of(batch, 'float32')}", "model": name,
                     "context": {"tokens": N, "dim": dim, "num_heads": num_heads, "batch": batch}}
            yield {name: [{"quantity": "counted", "value": byte - held, **about},
                          {"quantity": "grown", "value": grown, **about, **({"reason": why} if grown is None else {})}]}


def _grown(module: nn.Module, size, place: torch.device, held: int, seed: int) -> tuple[int | None, str | None]:
    """Bytes by which memory rose above the `held` ones of weights and input, or None and why."""
    try:
        found = latency.peak_memory(module, size, device=str(place), seed=seed)
    except RuntimeError as error:                            # a process that was ended, or no memory on a GPU
        return None, without_folders(str(error))[:300]
    if place.type == "cuda":
        return found.allocated - held, None
    return found.process, found.reasons.get("process")
