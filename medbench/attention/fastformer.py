r"""Fastformer: additive attention, one global query and one global key instead of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Attention


class Fastformer(Attention):
    r"""$\alpha = \mathrm{softmax}_N(w_q^\top q/\sqrt d)$, $\bar q = \sum_i \alpha_i q_i$, $p_i = k_i * \bar q$,
    $\beta = \mathrm{softmax}_N(w_k^\top p/\sqrt d)$, $\bar k = \sum_i \beta_i p_i$,
    $\mathrm{out}_i = T(\bar k * v_i) + q_i$, with $*$ element by element.

    $w_q, w_k \in \mathbb R^{h \times d}$ are learned; $T$ is one $d \times d$ linear map with bias for all heads.
    Our choices: $v$ has a projection of its own (the authors' code has $v = q$), the logits come from one vector per
    head (theirs: a linear map from C to h), $T$ acts within a head (theirs: $C \times C$). Values never travel: the
    output of token $i$ depends on the other tokens' $q$ and $k$ alone. No options of its own.

    Source: Wu et al. 2021, arXiv:2108.09084, sec. 3.2.
    """

    refuses_attn_drop = "has no attention matrix"

    def setup(self) -> None:
        self.w_q = nn.Parameter(torch.empty(self.num_heads, self.head_dim))
        self.w_k = nn.Parameter(torch.empty(self.num_heads, self.head_dim))
        self.transform = nn.Linear(self.head_dim, self.head_dim)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Small normal weights: at the start both means are nearly uniform."""
        for weight in (self.w_q, self.w_k, self.transform.weight):
            nn.init.trunc_normal_(weight, std=0.02, generator=generator)
        nn.init.zeros_(self.transform.bias)

    def weights(self, x: Tensor, w: Tensor) -> Tensor:
        r"""$\mathrm{softmax}_N(w^\top x/\sqrt d)$ of x `(B, h, N, d)` and w `(h, d)`; returns `(B, h, 1, N)`."""
        logits = x @ w.unsqueeze(-1) * self.head_dim**-0.5                     # (B, h, N, 1)
        return logits.transpose(-2, -1).softmax(-1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$\mathrm{out}_i = T(\bar k * v_i) + q_i$"""
        q_bar = self.weights(q, self.w_q) @ q                                  # (B, h, 1, d)
        p = k * q_bar                                                          # (B, h, N, d)
        k_bar = self.weights(p, self.w_k) @ p                                  # (B, h, 1, d)
        return self.transform(k_bar * v) + q                                   # (B, h, N, d)

    def mixing_macs(self, num_tokens: int) -> int:
        r"""$NCd + 4NC$: the transform, and two logits and two weighted sums of $NC$ each."""
        return num_tokens * self.dim * self.head_dim + 4 * num_tokens * self.dim


class SeedFastformer(Fastformer):
    r"""The study's: $\bar k = \sum_i \beta_i k_i$ pools raw keys, there is no $T$, and $q$ is added after `proj`."""

    def setup(self) -> None:
        self.w_q = nn.Parameter(torch.empty(self.num_heads, self.head_dim))
        self.w_k = nn.Parameter(torch.empty(self.num_heads, self.head_dim))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Small normal weights: at the start both means are nearly uniform."""
        for weight in (self.w_q, self.w_k):
            nn.init.trunc_normal_(weight, std=0.02, generator=generator)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$\bar k * v_i$"""
        q_bar = self.weights(q, self.w_q) @ q                                  # (B, h, 1, d)
        k_bar = self.weights(k * q_bar, self.w_k) @ k                          # (B, h, 1, d)
        return k_bar * v                                                       # (B, h, N, d)

    def forward(self, x: Tensor) -> Tensor:
        r"""$\mathrm{proj}(\bar k * v) + q$ for tokens `(B, N, C)`."""
        q, k, v = self.heads(x)
        x = self.merge_heads(self.mix(q, k, v))
        return self.proj_drop(self.proj(x) + self.merge_heads(q))

    def mixing_macs(self, num_tokens: int) -> int:
        r"""$4NC$: two logits and two weighted sums."""
        return 4 * num_tokens * self.dim


Fastformer.SEED = SeedFastformer
