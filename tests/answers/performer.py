"""Planted answers to the exercises of chapter 05."""

import math

import torch


def positive(x, W):
    return torch.exp(x @ W.mT - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(len(W))


def symmetric(x, W):
    """The paper's second kind: exp(+Wx) and exp(-Wx) side by side."""
    both = torch.cat([x @ W.T, -x @ W.T], dim=-1)
    return (both - 0.5 * (x * x).sum(-1, keepdim=True)).exp() * (2 * W.shape[0]) ** -0.5


def waves(x, W):
    scale = torch.exp(x.square().sum(-1, keepdim=True) / 2) / math.sqrt(len(W))
    return scale * torch.cat([(x @ W.mT).sin(), (x @ W.mT).cos()], -1)


def block(d, generator, signs=True):
    Q, R = torch.linalg.qr(torch.randn(d, d, generator=generator))
    return Q * R.diagonal().sign() if signs else Q


def lengths(r, d, generator):
    return torch.randn(r, d, generator=generator).norm(dim=1, keepdim=True)


def blocks(r, d, generator, signs=True):
    return torch.cat([block(d, generator, signs) for _ in range(-(-r // d))])[:r]


def fixed_signs(r, d, generator):
    return blocks(r, d, generator) * lengths(r, d, generator)


def by_singular_vectors(r, d, generator):
    """Rotations from the polar decomposition of Gaussian matrices are uniform as well."""
    parts = []
    for _ in range(math.ceil(r / d)):
        U, _, Vh = torch.linalg.svd(torch.randn(d, d, generator=generator))
        parts.append(U @ Vh)
    chi = torch.randn(r, d, generator=generator).square().sum(1).sqrt()
    return torch.cat(parts)[:r] * chi[:, None]


def repeated(r, d, generator):
    return block(d, generator).repeat(-(-r // d), 1)[:r] * lengths(r, d, generator)


RIGHT = {"performer.features": [positive, symmetric], "performer.sampler": [fixed_signs, by_singular_vectors]}
WRONG = {
    "performer.features": [(waves, "not positive"),
                           (lambda x, W: torch.exp(x @ W.mT) / len(W) ** 0.5, "exp(-|x|^2/2) is missing"),
                           (lambda x, W: positive(x, W) * len(W) ** 0.5, "1/sqrt(r)"),
                           (lambda x, W: positive(x, W) / len(W) ** 0.5, "not 1/r"),
                           (lambda x, W: positive(x, W) * torch.exp(x.square().sum(-1, keepdim=True)), "sign of"),
                           (lambda x, W: positive(x, W).squeeze(0).sum(-1), "must be (1, features)")],
    "performer.sampler": [(lambda r, d, g: blocks(r, d, g, signs=False) * lengths(r, d, g), "QR fixes the signs"),
                          (lambda r, d, g: blocks(r, d, g) * d**0.5, "chi distribution"),
                          (lambda r, d, g: torch.randn(r, d, generator=g), "not orthogonal"),
                          (repeated, "repeats directions"),
                          (lambda r, d, g: fixed_signs(min(r, d), d, g), "shape (8, 8)"),
                          (lambda r, d, g: fixed_signs(r, d, g) / d**0.5, "mean squared length")],
}
