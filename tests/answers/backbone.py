"""Planted answers to the exercises of chapter 02."""

import torch.nn.functional as F


def share(mixing=2, rest=12, depth=None):
    def answer(tokens, dims, depths):
        depths = depths if depth is None else depth
        parts = [(n * mixing * N**2 * C, n * rest * N * C**2) for n, N, C in zip(depths, tokens, dims)]
        return sum(a for a, _ in parts) / sum(a + b for a, b in parts)
    return answer


def with_ratios(tokens, dims, depths):
    """Mixing is N/6C of the rest of its block; weigh by what the rest costs."""
    rest = [n * N * C**2 for n, N, C in zip(depths, tokens, dims)]
    mixing = [r * N / (6 * C) for r, N, C in zip(rest, tokens, dims)]
    return sum(mixing) / (sum(mixing) + sum(rest))


def mean_of_shares(tokens, dims, depths):
    return sum(n * N / (N + 6 * C) for n, N, C in zip(depths, tokens, dims)) / sum(depths)


def mixing_over_rest(tokens, dims, depths):
    return share()(tokens, dims, depths) * 40


def with_views(x, grid):
    (H, W), (B, _, C) = grid, x.shape
    return x.view(B, H // 2, 2, W // 2, 2, C).transpose(2, 3).reshape(B, -1, 4 * C)


def with_unfold(x, grid):
    B, _, C = x.shape
    squares = F.unfold(x.mT.reshape(B, C, *grid), 2, stride=2)          # (B, 4C, N/4), channels first
    return squares.view(B, C, 4, -1).permute(0, 3, 2, 1).flatten(2)


def alternating(x, grid):
    B, _, C = x.shape
    return F.unfold(x.mT.reshape(B, C, *grid), 2, stride=2).mT


RIGHT = {
    "backbone.mixing_share": [share(), with_ratios],
    "backbone.patch_merge": [with_views, with_unfold],
}
WRONG = {
    "backbone.mixing_share": [(share(rest=4), "MLP is missing"), (share(rest=8), "projections are missing"),
                              (share(mixing=1), "two products"), (share(depth=(1, 1, 1, 1)), "several blocks"),
                              (mean_of_shares, "is not the share"), (mixing_over_rest, "is no share")],
    "backbone.patch_merge": [(lambda x, grid: x.reshape(x.shape[0], -1, 4 * x.shape[-1]), "one row"),
                             (lambda x, grid: with_views(x, grid[::-1]), "swapped"), (alternating, "alternate"),
                             (lambda x, grid: x.view(2, -1, 4, 3).flip(1).flatten(2), "not the four tokens"),
                             (lambda x, grid: x[:, ::4], "has shape")],
}
