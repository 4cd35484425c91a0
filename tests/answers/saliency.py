"""Planted answers to the exercises of chapter 13."""

import numpy as np
import torch


def gradient(f, x):
    x = x.detach().clone().requires_grad_(True)
    return torch.autograd.grad(f(x), x)[0]


def midpoints(f, x, baseline, steps):
    places = (torch.arange(steps) + 0.5) / steps
    return (x - baseline) * torch.stack([gradient(f, baseline + a * (x - baseline)) for a in places]).mean(0)


def gauss_legendre(f, x, baseline, steps):
    nodes, weights = np.polynomial.legendre.leggauss(min(steps, 40))
    total = sum(w / 2 * gradient(f, baseline + (t + 1) / 2 * (x - baseline)) for t, w in zip(nodes, weights))
    return total * (x - baseline)


def mean_gradient(f, x, baseline, steps):
    return midpoints(f, x, baseline, steps) / (x - baseline)


def correlation(a, b):
    a, b = (m.abs().flatten() - m.abs().mean() for m in (a, b))
    return (a @ b / (a.norm() * b.norm()).clamp_min(1e-12)).item()


def by_torch(trained, randomised, limit):
    return sum(abs(correlation(a, b)) for a, b in zip(trained, randomised)) / len(trained) <= limit


def by_numpy(trained, randomised, limit):
    pairs = zip(np.abs(trained.numpy()), np.abs(randomised.numpy()))
    return bool(np.mean([abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in pairs]) <= limit)


def signed(trained, randomised, limit):
    return bool(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(trained, randomised)]) <= limit)


def together(trained, randomised, limit):
    return abs(correlation(trained, randomised)) <= limit


RIGHT = {"saliency.completeness": [midpoints, gauss_legendre], "saliency.randomisation": [by_torch, by_numpy]}
WRONG = {
    "saliency.completeness": [
        (mean_gradient, "multiply them by"),
        (lambda f, x, b, n: mean_gradient(f, x, b, n) * x, "not by x"),
        (lambda f, x, b, n: midpoints(f, x, torch.zeros_like(x), n), "start at the baseline"),
        (lambda f, x, b, n: gradient(f, x) * (x - b), "times the difference"),
        (lambda f, x, b, n: gradient(f, x), "at x alone"),
        (lambda f, x, b, n: midpoints(f, x, b, n).abs(), "magnitudes"),
        (lambda f, x, b, n: n * midpoints(f, x, b, n), "summed, not averaged"),
        (lambda f, x, b, n: midpoints(f, x, b, n).sum(), "shape")],
    "saliency.randomisation": [
        (lambda a, b, limit: True, "same with random weights"), (lambda a, b, limit: False, "nothing to do"),
        (signed, "sign alone"), (together, "pixels together"),
        (lambda a, b, limit: max(abs(correlation(m, n)) for m, n in zip(a, b)) <= limit + 0.15, "mean over images"),
        (lambda a, b, limit: correlation(a, b), "True or False")],
}
