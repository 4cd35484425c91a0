"""Planted answers to the exercises of chapter 10."""

from statistics import NormalDist

from scipy.stats import norm


def z(s, n):
    return (NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)) * s / n**0.5


def alike(train, test):
    return {t for t in test if any(str(t).startswith(str(s)) for s in train)}


RIGHT = {
    "training.leaks": [lambda train, test: set(train) & set(test), lambda train, test: [p for p in test if p in train]],
    "training.minimal_difference": [z, lambda s, n: (norm.isf(0.025) + norm.ppf(0.8)) * (s**2 / n) ** 0.5],
}
WRONG = {
    "training.leaks": [(lambda train, test: bool(set(train) & set(test)), "wanted the patients"),
                       (lambda train, test: {a for a, b in zip(train, test) if a == b}, "place by place"),
                       (lambda train, test: set(train) | set(test), "all patients"),
                       (lambda train, test: [i for i, p in enumerate(test) if p in train], "not positions"),
                       (lambda train, test: {p for p in test if train.count(p) == 1}, "are not found"),
                       (alike, "not alike"), (lambda train, test: len(set(train) & set(test)), "wanted a set")],
    "training.minimal_difference": [(lambda s, n: norm.isf(0.025) * s / n**0.5, "power is missing"),
                                    (lambda s, n: (norm.isf(0.05) + norm.ppf(0.8)) * s / n**0.5, "two sides"),
                                    (lambda s, n: z(s, 1), "not s"), (lambda s, n: z(s, n**2), "not s / n"),
                                    (lambda s, n: z(s, n) * 2**0.5, "two independent groups")],
}
