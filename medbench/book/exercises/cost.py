"""Exercises of chapter 11: a counter's missing handle for attention, and the share that mixing can save."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .judging import Exercise, as_number, demand

SHAPES = (((5, 3, 7, 4), (5, 3, 11, 4), (5, 3, 11, 5)), ((1, 1, 16, 8), (1, 1, 16, 8), (1, 1, 16, 8)),
          ((5, 2, 3, 6), (5, 2, 9, 6), (5, 2, 9, 2)))


def handle(answer) -> str:
    """`answer(q_shape, k_shape, v_shape)`: FLOPs of attention, (B, h, N, d), (B, h, M, d), (B, h, M, e)."""
    for q, k, v in SHAPES:
        got = as_number(answer(q, k, v), "the count")
        (B, h, N, d), M, e = q, k[2], v[3]
        wanted = _counted_unfused(q, k, v)
        named = {"these are multiply-adds; a FLOP counter wants two for each": wanted / 2,
                 "only the product of queries and keys is counted; the weights are used on the values too":
                 2 * B * h * N * M * d,
                 "only the product with the values is counted; queries meet keys first": 2 * B * h * N * M * e,
                 "there may be more keys than queries: N x M, not N x N": 2 * B * h * N * N * (d + e),
                 "each image of the batch is computed": wanted / B, "each head is computed": wanted / h,
                 "batch and heads are left out": wanted / (B * h),
                 "values may have another number of channels than keys": 4 * B * h * N * M * d}
        for mistake, value in named.items():
            demand(got != value or value == wanted, mistake)
        demand(got == wanted, f"for q {q}, k {k}, v {v} the two products spelt out count {wanted} FLOPs, you {got:g}")
    return "as many FLOPs as torch counts for the two products spelt out, for three shapes"


def share(answer) -> str:
    """`answer(N, C)`: the largest share of a block's multiply-adds that a cheaper mixing could save."""
    for N, C in ((1024, 96), (64, 384), (16, 768), (4096, 32)):
        wanted = 2 * N**2 * C / (2 * N**2 * C + 12 * N * C**2)
        got = as_number(answer(N, C), "the share")
        named = {"the MLP's 8NC^2 belong to the block": N / (N + 2 * C),
                 "the projections' 4NC^2 belong to the block": N / (N + 4 * C),
                 "this is mixing against the rest; wanted its share of the whole": N / (6 * C),
                 "this is what stays; wanted what could be saved": 6 * C / (N + 6 * C),
                 "a share lies between 0 and 1; this is in per cent": 100 * wanted}
        for mistake, value in named.items():
            demand(abs(got - value) > 1e-9, mistake)
        demand(abs(got - wanted) <= 1e-9, f"for N = {N} and C = {C} the share is {wanted:.4f}, not {got:.4f}")
    return "N / (N + 6C), for four stages"


def _counted_unfused(q, k, v) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    tensors = [torch.empty(shape) for shape in (q, k, v)]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        F.scaled_dot_product_attention(*tensors)
    return counter.get_total_flops()


EXERCISES = {"cost.handle": Exercise(handle), "cost.share": Exercise(share)}
