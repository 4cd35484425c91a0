"""Planted answers to the exercises of chapter 04."""

import torch
import torch.nn.functional as F


def by_cumulative_sum(A, energy):
    squares = torch.linalg.svdvals(A) ** 2
    kept = squares.cumsum(0) / squares.sum()
    return int(torch.searchsorted(kept, energy)) + 1


def by_gram_matrix(A, energy):
    values = torch.linalg.eigvalsh(A @ A.T).flip(0).clamp_min(0).tolist()
    r, kept = 0, 0.0
    while kept < energy * sum(values):
        kept += values[r]
        r += 1
    return r


def adds_singular_values(A, energy):
    values = torch.linalg.svdvals(A)
    return int(torch.searchsorted(values.cumsum(0) / values.sum(), energy)) + 1


def resized(E, old, new, mode="bilinear", **how):
    return F.interpolate(E.view(-1, 1, *old), size=new, mode=mode, **how).flatten(1)


def bilinear(E, old_grid, new_grid):
    out = resized(E, old_grid, new_grid, align_corners=False)
    return out * (E.sum(1) / out.sum(1))[:, None]


def by_two_matrices(E, old_grid, new_grid):
    """Each axis by a matrix of hat functions whose columns are scaled so that each old token keeps its mass."""
    def axis(old, new):
        at = (torch.arange(new) + 0.5) * old / new - 0.5
        hat = (1 - (at.clamp(0, old - 1)[:, None] - torch.arange(old)).abs()).clamp_min(0).double()
        return hat / hat.sum(0).clamp_min(1e-9)
    (rows, columns), (new_rows, new_columns) = old_grid, new_grid
    grid = E.double().view(-1, rows, columns)
    out = axis(rows, new_rows) @ grid @ axis(columns, new_columns).T
    return (out * (grid.sum((1, 2)) / out.sum((1, 2)))[:, None, None]).flatten(1)


def flattened(E, old_grid, new_grid):
    out = F.interpolate(E[:, None], size=new_grid[0] * new_grid[1], mode="linear")[:, 0]
    return out * (E.sum(1) / out.sum(1))[:, None]


def transposed(E, old_grid, new_grid):
    out = resized(E, old_grid[::-1], new_grid[::-1], align_corners=False)
    return out * (E.sum(1) / out.sum(1))[:, None]


RIGHT = {"linformer.rank_for": [by_cumulative_sum, by_gram_matrix], "linformer.carry": [bilinear, by_two_matrices]}
WRONG = {
    "linformer.rank_for": [(adds_singular_values, "sum of their squares"),
                           (lambda A, energy: by_cumulative_sum(A, energy) - 3, "whole number"),
                           (lambda A, energy: max(1, by_cumulative_sum(A, energy) - 1), "one too small"),
                           (lambda A, energy: min(A.shape), "keeps everything"),
                           (lambda A, energy: torch.linalg.matrix_rank(A).item(), "keeps everything")],
    "linformer.carry": [(lambda E, old, new: resized(E, old, new, align_corners=False), "Divide it out"),
                        (flattened, "flattened tokens"),
                        (transposed, "height first"),
                        (lambda E, old, new: E[:, :new[0] * new[1]], "shape"),
                        (lambda E, old, new: 2 * bilinear(E, old, new), "on the same grid")],
}
