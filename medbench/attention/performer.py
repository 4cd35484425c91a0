r"""Performer (FAVOR+): softmax attention by random features, so that the N x N matrix is never formed."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from ..checks import whole
from .base import Attention


def orthogonal_rows(r: int, d: int, generator: torch.Generator | None = None) -> Tensor:
    """Unit vectors `(r, d)`, uniform on the sphere, orthogonal to each other within each block of d rows.

    QR alone is not uniform over rotations: the signs of R's diagonal must go into Q (Mezzadri 2007,
    arXiv:math-ph/0609050). Without them the Performer's error stalls as r grows.
    """
    blocks = []
    for _ in range(math.ceil(r / d)):
        Q, R = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
        blocks.append(Q * R.diagonal().sign())
    return torch.cat(blocks)[:r].float()


def full_precision(x: Tensor) -> Tensor:
    """At least float32: exponentials of bf16 numbers are too coarse."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(device_type: str):
    """A context in which operators keep the types they are given; a device without autocast (`meta`) needs none."""
    available = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if available else contextlib.nullcontext()


class Performer(Attention):
    r"""$\phi(Q)\,(\phi(K)^\top V) \,/\, \phi(Q)\,(\phi(K)^\top 1)$ with positive random features

    $\phi(x) = r^{-1/2} \exp(Wx' - |x'|^2/2)$ with $x' = x\,d^{-1/4}$, so that on average over $W$
    $\phi(q)^\top\phi(k) = \exp(q^\top k/\sqrt d)$.

    `r`: number of features; by default $d \ln d$ (110 for $d = 32$). $W \in \mathbb R^{r \times d}$ has orthogonal
    rows of $\chi_d$-distributed length, is shared by the heads, drawn once, saved with the model and never redrawn.
    Features are computed in float32 at least, their products in the type of $v$. No constant is added to the
    normaliser: factors that cancel are taken out instead, so that it is never below 1. Tends to softmax attention as
    r grows.

    Source: Choromanski et al. 2021, arXiv:2009.14794, sec. 2.2 to 2.4; the default r has the size of their
    theorem on uniform convergence, of order d log d.
    """

    refuses_attn_drop = "never forms an attention matrix"
    W: Tensor

    def setup(self, r: int | None = None) -> None:
        self.r = max(1, int(self.head_dim * math.log(self.head_dim))) if r is None else r
        self.register_buffer("W", torch.empty(self.r, self.head_dim))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw W: orthogonal rows, each as long as a d-dimensional Gaussian vector would be."""
        length = torch.randn(self.r, self.head_dim, generator=generator).norm(dim=1, keepdim=True)
        self.W.copy_(orthogonal_rows(self.r, self.head_dim, generator) * length)

    def project(self, x: Tensor) -> Tensor:
        r"""$Wx'$ with $x' = x\,d^{-1/4}$ for `(B, h, N, d)`; returns `(B, h, N, r)`."""
        x = full_precision(x) * self.head_dim**-0.25
        return x @ self.W.to(x.dtype).transpose(-2, -1)

    def log_features(self, x: Tensor) -> Tensor:
        r"""$\ln\phi(x) = Wx' - |x'|^2/2 - \tfrac12\ln r$ for `(B, h, N, d)`; returns `(B, h, N, r)`."""
        norm = full_precision(x).square().sum(-1, keepdim=True) * self.head_dim**-0.5     # |x'|^2, (B, h, N, 1)
        return self.project(x) - (norm + math.log(self.r)) / 2

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$\phi(Q)\,(\phi(K)^\top V) \,/\, \phi(Q)\,(\phi(K)^\top 1)$

        Feature m of all keys is divided by its largest value $e^{c_m}$ and feature m of all queries multiplied by
        it; then each query's features are divided by their sum, which takes out the query's norm and $\sqrt r$ as
        well. None of it changes the quotient.
        """
        with without_autocast(q.device.type):
            log_k, log_q = self.log_features(k), self.project(q)
            c = log_k.detach().amax(-2, keepdim=True)                          # (B, h, 1, r)
            phi_k = (log_k - c).exp().to(v.dtype)                              # (B, h, N, r)
            phi_q = (log_q + c).softmax(-1).to(v.dtype)                        # (B, h, N, r)
            return self.quotient(phi_q, phi_k, v)                              # (B, h, N, d)

    def quotient(self, phi_q: Tensor, phi_k: Tensor, v: Tensor, eps: float = 0.0) -> Tensor:
        r"""$\phi(Q)\,(\phi(K)^\top V) \,/\, (\phi(Q)\,(\phi(K)^\top 1) + \epsilon)$, right to left: no N x N matrix."""
        numerator = phi_q @ (phi_k.transpose(-2, -1) @ v)                      # (B, h, N, d)
        normaliser = phi_q @ phi_k.sum(-2, keepdim=True).transpose(-2, -1)     # (B, h, N, 1)
        return numerator / (normaliser + eps)

    def mixing_macs(self, num_tokens: int) -> int:
        r"""$4NrC + Nrh$: $\phi(Q)$, $\phi(K)$, $\phi(K)^\top V$ and its product with $\phi(Q)$; the normaliser."""
        return 4 * num_tokens * self.r * self.dim + num_tokens * self.r * self.num_heads

    @classmethod
    def check_options(cls, dim: int, num_heads: int, grid_size: tuple[int, int], r: int | None = None) -> None:
        if r is not None:
            whole("Performer's r", r)


class SeedPerformer(Performer):
    r"""The study's: $r = 16$, rows of $W$ of length $\sqrt r$, one $W$ per head, $10^{-6}$ added to the normaliser.

    Nothing is taken out of the quotient, and no exponent can overflow: $w^\top x' - |x'|^2/2 \le |w|^2/2$.
    """

    def setup(self, r: int = 16) -> None:
        self.r = r
        self.register_buffer("W", torch.empty(self.num_heads, self.r, self.head_dim))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw a W for each head: orthogonal rows of length sqrt(r)."""
        for W in self.W:
            W.copy_(orthogonal_rows(self.r, self.head_dim, generator) * self.r**0.5)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$\phi(Q)\,(\phi(K)^\top V) \,/\, (\phi(Q)\,(\phi(K)^\top 1) + 10^{-6})$"""
        with without_autocast(q.device.type):
            phi_q, phi_k = self.log_features(q).exp(), self.log_features(k).exp()
            return self.quotient(phi_q, phi_k, full_precision(v), eps=1e-6).to(v.dtype)


Performer.SEED = SeedPerformer
