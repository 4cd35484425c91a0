"""Exercises of chapter 02: the share of mixing in a pyramid, and merging patches."""

from __future__ import annotations

import itertools

import torch

from .judging import Exercise, as_number, as_tensor, demand, randn


def mixing_share(answer) -> str:
    """`answer(tokens, dims, depths)`: the share of softmax mixing in the multiply-adds of a pyramid's blocks."""
    pyramids = (((1024, 256, 64, 16), (96, 192, 384, 768), (2, 2, 6, 2)),
                ((256, 64, 16, 4), (32, 64, 128, 256), (2, 2, 2, 1)), ((100,), (48,), (3,)))
    for tokens, dims, depths in pyramids:
        def share(mixing=2, projections=4, mlp=8, deep=True, stages=tuple(zip(tokens, dims, depths))):
            times = [n if deep else 1 for *_, n in stages]
            top = sum(mixing * N**2 * C * n for (N, C, _), n in zip(stages, times))
            return top / (top + sum((projections + mlp) * N * C**2 * n for (N, C, _), n in zip(stages, times)))

        wanted, got = share(), as_number(answer(tokens, dims, depths), "the share")
        named = {"the MLP, 8NC^2, belongs to the block": share(mlp=0),
                 "the projections, 4NC^2, belong to the block": share(projections=0),
                 "only three of the four projections are counted: proj takes NC^2 too": share(projections=3),
                 "mixing is two products, QK^T and AV: 2N^2C": share(mixing=1),
                 "the depths are left out: a stage has several blocks": share(deep=False),
                 "this is mixing against the rest; wanted its share of the whole": wanted / (1 - wanted),
                 "a share lies between 0 and 1; this is in per cent": 100 * wanted}
        for mistake, value in named.items():
            demand(abs(got - value) > 1e-9 or abs(value - wanted) < 1e-9, mistake)
        demand(abs(got - wanted) <= 1e-9, f"for tokens {tokens}, dims {dims} and depths {depths} the share is "
                                          f"{wanted:.4f}, not {got:.4f}")
    return "2N^2C against 12NC^2, summed over the blocks of three pyramids"


def patch_merge(answer) -> str:
    """`answer(x, grid)`: four neighbours side by side, (B, N, C) -> (B, N/4, 4C); any order of the four passes."""
    for grid in ((4, 6), (6, 4), (2, 8)):
        x = randn(2, grid[0] * grid[1], 3, seed=grid[0])
        N = x.shape[1]
        got = as_tensor(answer(x, grid), torch.empty(2, N // 4, 12), f"the merged tokens of a {grid} grid")
        cells = x.view(2, grid[0] // 2, 2, grid[1] // 2, 2, 3).permute(2, 4, 0, 1, 3, 5).reshape(4, 2, N // 4, 3)
        orders = itertools.permutations(range(4))
        if any(torch.equal(got, torch.cat([cells[i] for i in order], -1)) for order in orders):
            continue
        demand(not torch.equal(got, x.reshape(2, N // 4, 12)), f"on a {grid} grid four tokens of one row are joined; "
                                                               "two of the four lie in the row below")
        crossed = x.view(2, grid[1], grid[0], 3)
        crossed = crossed.view(2, grid[1] // 2, 2, grid[0] // 2, 2, 3).transpose(2, 3).reshape(2, N // 4, 12)
        demand(grid[0] == grid[1] or not torch.equal(got, crossed), f"on a {grid} grid height and width are exchanged")
        same = set(map(float, got.flatten())) == set(map(float, x.flatten()))
        demand(same, f"on a {grid} grid numbers were changed or lost: merging only moves them")
        demand(False, f"on a {grid} grid the four parts of a merged token are not the four cells of one 2 x 2 square")
    return "the four cells of each square side by side, on three grids that are not square"


EXERCISES = {"backbone.mixing_share": Exercise(mixing_share), "backbone.patch_merge": Exercise(patch_merge)}
