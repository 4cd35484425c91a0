"""Exercises of chapter 13: integrated gradients that add up, and a map that would look the same without training."""

from __future__ import annotations

import torch

from .judging import Exercise, as_tensor, demand, error, randn


def completeness(answer) -> str:
    """`answer(f, x, baseline, steps)`: integrated gradients of f (one number from one image), with the shape of x."""
    for seed, baseline in ((1, torch.full((3, 5), 0.4, dtype=torch.float64)), (2, randn(3, 5, seed=9))):
        M = randn(3, 5, seed=seed)

        def f(x, M=M):
            return torch.tanh((M * x).sum((-2, -1)) / 2) + (x**3 * M).sum((-2, -1)) / 4 + 1

        x = randn(3, 5, seed=seed + 10)
        got = as_tensor(answer(f, x, baseline, 256), x, "the attribution")
        wanted = _path_integral(f, x, baseline)
        gap = f(x) - f(baseline)
        if error(got, wanted) <= 0.01 * wanted.abs().max() and abs(got.sum() - gap) <= 0.01 * abs(gap):
            continue
        gradient = _gradient(f, x)
        named = {"these are mean gradients; multiply them by x - baseline": wanted / (x - baseline),
                 "multiply by x - baseline, not by x": wanted / (x - baseline) * x,
                 "the path starts at zero; it must start at the baseline": _path_integral(f, x, torch.zeros_like(x)),
                 "this is the gradient at x times the difference: average along the path": gradient * (x - baseline),
                 "this is the gradient at x alone: take the mean along the path": gradient,
                 "the sign is wrong: x - baseline, not baseline - x": -wanted,
                 "these are magnitudes; without their signs they cannot add up": wanted.abs(),
                 "the gradients are summed, not averaged, over the steps": wanted * 256}
        for mistake, planted in named.items():
            demand(error(got, planted) > 0.02 * float(planted.abs().max()), mistake)
        demand(False, f"the attributions add up to {float(got.sum()):.4f}, but f(x) - f(baseline) is {float(gap):.4f}")
    return "the attributions add up to f(x) - f(baseline) within 1 %, for two baselines"


def randomisation(answer) -> str:
    """`answer(trained, randomised, limit)`: True if a method's maps pass the randomisation test.

    Both are maps of the same images (n, H, W), from the trained model and from one with random weights. A method passes
    if the mean over images of the absolute correlation of the maps' magnitudes is at most the limit.
    """
    maps, noise = randn(10, 20, 15, seed=1), randn(10, 20, 15, seed=2)
    mixed = 0.8 * maps.abs() + 0.6 * noise.abs()
    fails = {"a map that is the same with random weights": (maps, maps),
             "a map whose sign alone is turned: magnitudes are what one sees": (maps, -maps),
             "a map that is brighter but otherwise the same": (maps, 3 * maps.abs() + 5),
             "maps that agree by four fifths": (maps, mixed),
             "magnitudes that are the exact opposite of each other: that is agreement too":
                 (maps, maps.abs().amax((1, 2), keepdim=True) - maps.abs())}
    for what, (trained, randomised) in fails.items():
        demand(not _said(answer, trained, randomised), f"passed, but must fail: {what}")
    odd = noise.clone()
    odd[0] = maps[0]
    demand(_said(answer, maps, noise), "failed, but must pass: maps that have nothing to do with each other")
    demand(_said(answer, maps, odd), "failed, but must pass: one image of ten agrees; take the mean over images, each "
                                     "with its own correlation")
    bright = torch.ones(10, 1, 1, dtype=maps.dtype)
    bright[-1] = 1000
    demand(_said(answer, bright * maps, bright * noise), "failed, but must pass: one image is much brighter "
                                                         "than the others; "
                                   "correlate image by image, not over all pixels together")
    return "five ways of not noticing the weights fail, three honest ones pass"


def _said(answer, trained, randomised) -> bool:
    said = answer(trained, randomised, 0.2)
    demand(isinstance(said, bool) or (hasattr(said, "dtype") and said.ndim == 0 and bool(said) == said),
           f"wanted True or False but received {said!r:.60}")
    return bool(said)


def _gradient(f, x):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(f(x), x)[0]


def _path_integral(f, x, baseline, steps: int = 2000):
    places = (torch.arange(steps, dtype=x.dtype)[:, None, None] + 0.5) / steps
    path = (baseline + places * (x - baseline)).requires_grad_(True)
    return torch.autograd.grad(f(path).sum(), path)[0].mean(0) * (x - baseline)


EXERCISES = {"saliency.completeness": Exercise(completeness), "saliency.randomisation": Exercise(randomisation)}
