"""Exercises of chapter 02: what share of the arithmetic mixing has, and merging patches on any even grid."""

from __future__ import annotations

from itertools import permutations

import torch

from .judging import Exercise, as_number, as_tensor, demand, randn

PYRAMID = dict(dims=(96, 192, 384, 768), depths=(2, 2, 6, 2))


def mixing_share(answer) -> str:
    """`answer(tokens, dims, depths)`: softmax mixing as a share of all multiply-adds of the blocks."""
    for tokens in ((256, 64, 16, 4), (1024, 256, 64, 16), (4096, 1024, 256, 64)):
        got = as_number(answer(tokens, **PYRAMID), f"the share at {tokens[0]} tokens")
        demand(0 <= got <= 1, f"{got:g} is no share: divide mixing by the whole, both in multiply-adds")
        named = {4: "the MLP is missing: it costs 8NC^2 in every block",
                 8: "the projections are missing: qkv and proj cost 4NC^2 in every block"}
        for rest, mistake in named.items():
            demand(abs(got - _share(tokens, rest=rest)) > 1e-9, mistake)
        demand(abs(got - _share(tokens, mixing=1)) > 1e-9, "mixing is two products, QK^T and the one with V: 2N^2C")
        demand(abs(got - _share(tokens, depths=(1, 1, 1, 1))) > 1e-9, "a stage has several blocks: weight by depths")
        demand(abs(got - _share(tokens)) <= 1e-9, f"at {tokens[0]} tokens {got:g} is not the share: sum mixing over "
                                                  "all blocks, then divide by the sum of everything")
    return "right at three image sizes"


def _share(tokens, mixing=2, rest=12, depths=PYRAMID["depths"]) -> float:
    """Mixing's share where a block costs mixing N²C + rest NC²."""
    stages = list(zip(depths, tokens, PYRAMID["dims"]))
    mixed = sum(depth * mixing * N**2 * C for depth, N, C in stages)
    return mixed / (mixed + sum(depth * rest * N * C**2 for depth, N, C in stages))


def patch_merge(answer) -> str:
    """`answer(x, grid)` puts 2 x 2 neighbours side by side: (B, N, C) to (B, N/4, 4C)."""
    H, W, C = 4, 6, 3
    x = randn(2, H * W, C)
    got = as_tensor(answer(x.clone(), (H, W)), x.new_empty(2, H * W // 4, 4 * C))
    demand(not torch.equal(got, x.reshape(2, -1, 4 * C)),
           "four tokens of one row were joined: neighbours below lie W tokens further on")
    demand(not _merges(got, x, W, H), "height and width are swapped: row-major means that a row has W tokens")
    parts = _corners(x, H, W)
    shuffled = torch.stack(parts, -1).flatten(2)
    demand(not torch.equal(got, shuffled), "the channels of the four tokens alternate: keep each token's C channels "
                                           "together")
    demand(_merges(got, x, H, W), "these are not the four tokens of each 2 x 2 square, side by side")
    return "each output holds its four neighbours whole, on a grid that is not square"


def _corners(x, H: int, W: int) -> list[torch.Tensor]:
    """The four tokens of every 2 x 2 square, each (B, N/4, C)."""
    grid = x.reshape(x.shape[0], H, W, -1)
    return [grid[:, i::2, j::2].flatten(1, 2) for i in (0, 1) for j in (0, 1)]


def _merges(got, x, H: int, W: int) -> bool:
    """Whether `got` joins the four corners in one order or another."""
    return any(torch.equal(got, torch.cat(order, -1)) for order in permutations(_corners(x, H, W)))


EXERCISES = {"backbone.mixing_share": Exercise(mixing_share), "backbone.patch_merge": Exercise(patch_merge)}
