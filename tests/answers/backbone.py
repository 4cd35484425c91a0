"""Planted answers to the exercises of chapter 02."""

import torch


def share(tokens, dims, depths, mixing=2, rest=12, deep=True):
    stages = [(N, C, n if deep else 1) for N, C, n in zip(tokens, dims, depths)]
    top = sum(n * mixing * N**2 * C for N, C, n in stages)
    return top / (top + sum(n * rest * N * C**2 for N, C, n in stages))


def with_tensors(tokens, dims, depths):
    N, C, n = (torch.tensor(part, dtype=torch.float64) for part in (tokens, dims, depths))
    mixing = (2 * n * N * N * C).sum()
    return mixing / (mixing + (12 * n * N * C * C).sum())


def by_view(x, grid):
    (H, W), (B, N, C) = grid, x.shape
    return x.view(B, H // 2, 2, W // 2, 2, C).transpose(2, 3).reshape(B, N // 4, 4 * C)


def by_slices(x, grid):
    """The order of Swin's code: down the columns first."""
    g = x.unflatten(1, grid)
    return torch.cat([g[:, 0::2, 0::2], g[:, 1::2, 0::2], g[:, 0::2, 1::2], g[:, 1::2, 1::2]], -1).flatten(1, 2)


RIGHT = {"backbone.mixing_share": [share, with_tensors], "backbone.patch_merge": [by_view, by_slices]}
WRONG = {
    "backbone.mixing_share": [(lambda *p: share(*p, rest=4), "MLP"),
                              (lambda *p: share(*p, rest=8), "projections, 4NC^2"),
                              (lambda *p: share(*p, rest=11), "three of the four"),
                              (lambda *p: share(*p, mixing=1), "two products"),
                              (lambda *p: share(*p, deep=False), "depths are left out"),
                              (lambda *p: share(*p) / (1 - share(*p)), "share of the whole"),
                              (lambda *p: 100 * share(*p), "per cent")],
    "backbone.patch_merge": [(lambda x, grid: x.reshape(x.shape[0], -1, 4 * x.shape[2]), "row below"),
                             (lambda x, grid: by_view(x, grid[::-1]), "exchanged"),
                             (lambda x, grid: by_view(x, grid) * 0.5, "changed or lost"),
                             (lambda x, grid: by_view(x, grid).flip(1), "2 x 2 square"),
                             (lambda x, grid: by_view(x, grid)[:, :, :3], "shape")],
}
