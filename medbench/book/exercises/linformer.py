"""Exercises of chapter 04: the rank that keeps a share of the energy, and a projection carried to another grid."""

from __future__ import annotations

import torch

from .judging import Exercise, as_number, as_tensor, demand, error, randn


def rank_for(answer) -> str:
    """`answer(A, energy)`: the least r whose best rank-r approximation keeps that share of the squared norm of A."""
    cases = [([4.0, 3.0, 2.0, 1.0], 0.9), ([4.0, 3.0, 2.0, 1.0], 0.5), ([10.0, 1.0, 1.0, 1.0, 1.0], 0.5),
             ([5.0, 5.0, 5.0, 5.0], 0.7), ([3.0, 2.0, 1.0, 0.0, 0.0], 0.99)]
    for place, (spectrum, energy) in enumerate(cases):
        A = _with_spectrum(torch.tensor(spectrum, dtype=torch.float64), seed=place)
        got = as_number(answer(A, energy), "the rank")
        squares = torch.linalg.svdvals(A).square()
        wanted = _first(squares, energy)
        what = f"for singular values {spectrum} and energy {energy}"
        demand(got == int(got) and 1 <= got <= len(spectrum), f"{what} the rank is {got:g}; wanted a whole number of "
                                                               f"singular values from 1 to {len(spectrum)}")
        if got == wanted:
            continue
        demand(got != wanted - 1, f"{what} rank {got:g} is one too small: the first singular value has index 0 and "
                                  "keeping it is rank 1")
        demand(got != _first(squares.sqrt(), energy), f"{what} {got:g} comes from adding singular values: energy is "
                                                      "the sum of their squares")
        demand(got != len(spectrum), f"{what} {got:g} keeps everything; fewer singular values are enough")
        left = 1 - float(squares[:int(got)].sum() / squares.sum())
        demand(False, f"{what} rank {got:g} loses {left:.3f} of the energy, and the least rank that loses at most "
                      f"{1 - energy:.3f} is another one")
    return "the least rank for five known spectra; by Eckart and Young no other approximation of that rank keeps more"


def carry(answer) -> str:
    """`answer(E, old_grid, new_grid)`: Linformer's projection for images of another size."""
    E = randn(3, 24, seed=4) + 1
    same = as_tensor(answer(E, (4, 6), (4, 6)), E, "the projection on the same grid")
    demand(error(same, E) <= 1e-6, "on the same grid the projection must stay what it is")
    for new in ((8, 12), (6, 9), (2, 3)):
        tokens = new[0] * new[1]
        got = as_tensor(answer(E, (4, 6), new), torch.empty(3, tokens), f"the projection for a {new} grid").double()
        off = (got.sum(1) / E.sum(1) - 1).abs().max()
        demand((got.sum(1) / E.sum(1) - tokens / 24).abs().max() > 1e-3 or off < 1e-3,
               f"each row's sum grew by {tokens / 24:g}, like the number of tokens: then the sums over tokens grow "
               "too. Divide it out")
        demand(off <= 1e-5, f"row sums change by up to {float(off):.1%} on a {new} grid; scale each row back")
    rows, columns = torch.arange(4.0).double()[:, None] + 1, torch.arange(6.0).double() + 1
    ramp = rows.expand(4, 6).reshape(1, 24)                                          # grows from row to row of the grid
    wide = as_tensor(answer(ramp, (4, 6), (8, 12)), torch.empty(1, 96), "the projection of a ramp").double().view(8, 12)
    demand(wide.std(1).max() <= 0.2 * wide.std(0).min(),
           "weights that grow from top to bottom of the old grid no longer do so on the new one: a row of E is an "
           "image, height first; resize it in two dimensions")
    ramp = columns.expand(4, 6).reshape(1, 24)
    wide = as_tensor(answer(ramp, (4, 6), (8, 12)), torch.empty(1, 96), "the projection of a ramp").double().view(8, 12)
    demand(wide.std(0).max() <= 0.2 * wide.std(1).min(),
           "weights that grow from left to right of the old grid no longer do so on the new one: resize a row of E in "
           "two dimensions, not along the flattened tokens")
    return "identity on the same grid, row sums kept on three others, and top stays top"


def _first(energies, share: float) -> int:
    kept = energies.cumsum(0) / energies.sum()
    return int((kept < share - 1e-12).sum()) + 1


def _with_spectrum(values, seed: int):
    """A matrix with these singular values that is not symmetric."""
    n = len(values)
    left, right = (torch.linalg.qr(randn(n + extra, n, seed=seed + 10 * extra + 1)).Q for extra in (3, 0))
    return left @ values.diag() @ right.mT


EXERCISES = {"linformer.rank_for": Exercise(rank_for), "linformer.carry": Exercise(carry)}
