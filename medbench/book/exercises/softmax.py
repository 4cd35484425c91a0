"""Exercises of chapter 03: softmax attention a block of keys at a time, and when mixing outgrows the rest."""

from __future__ import annotations

import math

import torch

from .judging import Exercise, as_number, as_tensor, demand, error, randn


def streaming(answer) -> str:
    """`answer(q, k, v, block)` is softmax attention that never holds an N x N tensor."""
    tokens, dim = 35, 4
    q, k, v = (randn(2, 3, tokens, dim, seed=s) for s in (1, 2, 3))
    full = _attention(q, k, v)
    for block in (5, 8, 35, 64):
        got = as_tensor(answer(q, k, v, block), full)
        demand(torch.isfinite(got).all(), f"the output is not finite with blocks of {block} keys")
        if error(got, full) <= 1e-10:
            continue
        demand(error(got, _attention(q * math.sqrt(dim), k, v)) > 1e-10, "the logits lack the factor 1/sqrt(d)")
        demand(error(got, _per_block(q, k, v, block)) > 1e-10,
               "every block has a softmax of its own: the blocks need one common normaliser")
        demand(tokens % block == 0 or error(got, _attention(q, k[..., :tokens - tokens % block, :],
                                                            v[..., :tokens - tokens % block, :])) > 1e-10,
               f"the last {tokens % block} keys are dropped: {block} does not divide {tokens}")
        demand(False, f"with blocks of {block} keys the output is off by {error(got, full):.1e}; wanted at most 1e-10. "
                      "When a block raises the running maximum, what was summed before must be scaled down")
    large = as_tensor(answer(q * 1e3, k, v, 8), full)
    demand(torch.isfinite(large).all(), "with logits a thousand times larger the output is not finite: "
                                        "subtract the running maximum before exp")
    demand(error(large, _attention(q * 1e3, k, v)) <= 1e-10, "with logits a thousand times larger the output is wrong")
    biggest = _largest_tensor(lambda: answer(q, k, v, 2))
    demand(biggest < tokens * tokens, f"a tensor with {biggest} numbers was made: that is the N x N matrix "
                                              "of logits, which the exercise forbids")
    return "equal to full attention to 1e-10, for blocks that do not divide N too, and finite at logits x 1000"


def crossover_tokens(answer) -> str:
    """`answer(C)` is the N at which mixing costs as many multiply-adds as projections and MLP together: 6C."""
    for channels in (32, 96, 192):
        got = as_number(answer(channels), f"the answer for C = {channels}")
        named = {2: "the MLP is missing: it costs 8NC^2", 4: "the four projections (qkv and proj, 4NC^2) are missing",
                 12: "mixing is two products, QK^T and AV: 2N^2C, not N^2C",
                 5.5: "proj, the output's own C x C projection, counts too: the projections are 4NC^2"}
        for factor, mistake in named.items():
            demand(abs(got - factor * channels) > 1e-6, mistake)
        demand(abs(got - _counted_crossover(channels)) <= 1e-6,
               f"for C = {channels} counting gives {_counted_crossover(channels)}, not {got:g}: write down both sides "
               "in multiply-adds and divide by NC")
    return "N = 6C, as counted by torch on products of these very sizes"


def _attention(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


def _per_block(q, k, v, block):
    return sum(_attention(q, kb, vb) for kb, vb in zip(k.split(block, -2), v.split(block, -2)))


def _largest_tensor(run) -> int:
    """The most numbers in any one tensor that an operator returned while `run` was running."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.most = max(self.most, tensor.numel())
            return out

    with Watch() as watch:
        run()
    return watch.most


def _counted_crossover(channels: int) -> float:
    """Count both sides at one N with torch's counter; mixing grows by N^2 and the rest by N."""
    from torch.utils.flop_counter import FlopCounterMode

    tokens = 8
    x = torch.empty(tokens, channels, device="meta")
    with FlopCounterMode(display=False) as rest:
        for width in (3 * channels, channels, 4 * channels):
            x @ torch.empty(channels, width, device="meta")
        torch.empty(tokens, 4 * channels, device="meta") @ torch.empty(4 * channels, channels, device="meta")
    with FlopCounterMode(display=False) as mixing:
        (x @ x.mT) @ x
    return tokens * rest.get_total_flops() / mixing.get_total_flops()


EXERCISES = {"softmax.streaming": Exercise(streaming), "softmax.crossover_tokens": Exercise(crossover_tokens)}
