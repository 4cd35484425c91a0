"""Exercises of chapter 05: positive random features, and a sampler of orthogonal ones that has gone wrong."""

from __future__ import annotations

import torch

from .judging import Exercise, as_tensor, demand, randn


def features(answer) -> str:
    """`answer(x, W)`: positive features with E[phi(q) . phi(k)] = exp(q . k) for rows of W drawn from N(0, I)."""
    dim, r, draws = 4, 16, 4000
    q, k = 0.6 * randn(dim, seed=1), 0.6 * randn(dim, seed=2)
    W = randn(draws * r, dim, seed=3).view(draws, r, dim)
    first = answer(q[None], W[0])
    demand(isinstance(first, torch.Tensor) and first.dim() == 2 and first.shape[0] == 1,
           f"features of a (1, {dim}) token must be (1, features) but are "
           f"{tuple(first.shape) if isinstance(first, torch.Tensor) else type(first).__name__}")
    demand((first > 0).all() and (answer(-2 * q[None], W[1]) > 0).all(),
           "some features are not positive: sines and cosines can be negative, and so can the weights made of them")
    pairs = torch.stack([answer(torch.stack([q, k]), w).prod(0).sum() for w in W])
    _unbiased(pairs, q, k, r)
    opposite = torch.stack([answer(torch.stack([q, -q]), w).prod(0).sum() for w in W[:1000]])
    exact, waves = torch.exp(-q @ q), torch.stack([_waves(torch.stack([q, -q]), w).prod(0).sum() for w in W[:1000]])
    ours, theirs = ((estimate - exact).square().mean().sqrt() for estimate in (opposite, waves))
    demand(ours < theirs, f"at k = -q the error is {float(ours):.3f}, no less than that of sines and cosines "
                          f"({float(theirs):.3f})")
    return (f"positive, unbiased within 4 standard errors over {draws} draws, and at k = -q an error of "
            f"{float(ours):.3f} where sines and cosines have {float(theirs):.3f}")


def _unbiased(pairs, q, k, r: int) -> None:
    """Name what turns exp(q . k) into the mean that came out."""
    mean, spread = pairs.mean(), 4 * pairs.std() / len(pairs) ** 0.5
    norms = (q @ q + k @ k) / 2
    named = {torch.exp(q @ k + norms): "the factor exp(-|x|^2/2) is missing",
             r * torch.exp(q @ k): "the features lack the factor 1/sqrt(r), r features each",
             torch.exp(q @ k) / r: "the factor is 1/sqrt(r), not 1/r: it comes in twice, once with q and once with k",
             torch.exp(q @ k + 2 * norms): "the sign of |x|^2/2 is wrong",
             torch.exp(q @ k - norms): "the norm is taken off twice: -|x|^2/2, not -|x|^2"}
    exact = torch.exp(q @ k)
    if (mean - exact).abs() <= spread:
        return
    for value, mistake in named.items():
        demand((mean - value).abs() > max(spread, 0.02 * value), mistake)
    demand(False, f"the mean over many draws is {float(mean):.4f}, but exp(q . k) is {float(exact):.4f}: biased")


def _waves(x, W):
    """Sine and cosine features of the same kernel."""
    angle, scale = x @ W.mT, torch.exp(x.square().sum(-1, keepdim=True) / 2) / len(W) ** 0.5
    return scale * torch.cat([angle.sin(), angle.cos()], -1)


def sampler(answer) -> str:
    """`answer(r, d, generator)`: rows that are orthogonal in blocks of d, as long as Gaussian vectors, and unbiased."""
    d, generator = 8, torch.Generator().manual_seed(7)
    W = as_tensor(answer(20, d, generator), torch.empty(20, d), "W for r = 20, d = 8").double()
    for start in (0, 8, 16):
        block = torch.nn.functional.normalize(W[start:start + d], dim=1)
        off = (block @ block.mT - torch.eye(len(block), dtype=torch.float64)).abs().max()
        demand(off <= 1e-5, f"rows {start} to {start + len(block) - 1} are not orthogonal: a cosine is {off:.2f}")
    turned = torch.nn.functional.normalize(W, dim=1)
    demand((turned[:d] @ turned[d:2 * d].mT).abs().max() < 0.999, "the second block repeats directions of the first: "
                                                                  "draw every block anew")
    draws = torch.stack([torch.as_tensor(answer(d, d, generator)).double() for _ in range(1500)])
    lengths = draws.norm(dim=-1)
    demand(lengths.std() > 0.05, f"all rows have the length {float(lengths.mean()):.3f}: the length of a Gaussian "
                                 "vector varies, by a chi distribution with d degrees of freedom")
    squares = lengths.square().mean()
    demand((squares / d - 1).abs() < 0.05, f"the mean squared length is {float(squares):.2f}; for Gaussian vectors of "
                                           f"{d} numbers it is {d}")
    demand((lengths.square().var() / (2 * d) - 1).abs() < 0.25, "the squared lengths do not vary as those of "
           f"Gaussian vectors: variance {float(lengths.square().var()):.1f}, wanted {2 * d}")
    lean = (draws.mean(0) / (draws.std(0) / len(draws) ** 0.5)).abs().max()
    demand(lean < 6, f"some directions are preferred: over 1500 draws an entry's mean lies {float(lean):.0f} standard "
                     "errors from 0. QR fixes the signs of Q by the signs of R's diagonal; put them into Q")
    return "orthogonal in blocks, also for r > d, lengths as of Gaussian vectors, no direction preferred"


EXERCISES = {"performer.features": Exercise(features), "performer.sampler": Exercise(sampler)}
