"""Linformer: keys and values are projected along the tokens, from N of them to r."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import whole
from .base import Attention, attend


def project(EX: Tensor, E: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    r"""$E(XW^\top + 1b^\top) = (EX)W^\top + (E1)b^\top$ for EX `(B, r, C)`, E `(r, N)` and W `(C, C)`; `(B, r, C)`."""
    x = F.linear(EX, W)
    return x if b is None else x + (E.sum(-1, keepdim=True) * b).to(x.dtype)


class Linformer(Attention):
    r"""$\mathrm{softmax}(Q(EK)^\top/\sqrt d)\,(FV)$ with learned $E, F \in \mathbb R^{r \times N}$.

    `r`: projected length, at most $N$; by default $\min(128, N)$. $E$ and $F$ have no bias, are shared by the heads
    and not by keys and values: our choice among those that the paper offers (its "headwise sharing"). They tie the
    model to one $N$: another image size raises. With $E = F = I$ this is softmax attention.

    Since $E(XW) = (EX)W$, only r keys and values need to be projected: `forward` does the small product first.

    Source: Wang et al. 2020, arXiv:2006.04768, sec. 4.
    """

    def setup(self, r: int | None = None) -> None:
        self.r = min(128, self.num_tokens) if r is None else r
        self.E = nn.Parameter(torch.empty(self.r, self.num_tokens))
        self.F = nn.Parameter(torch.empty(self.r, self.num_tokens))

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Entries from a normal distribution of variance 1/r, as in the random projections of the paper's proofs."""
        nn.init.normal_(self.E, std=self.r**-0.5, generator=generator)
        nn.init.normal_(self.F, std=self.r**-0.5, generator=generator)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$K' = EK,\ V' = FV,\ \mathrm{softmax}(QK'^\top/\sqrt d)\,V'$"""
        self.check_tokens(k.shape[-2])
        k, v = self.E @ k, self.F @ v                                            # (B, h, r, d)
        return attend(q, k, v, self.drop_now)                                    # (B, h, N, d)

    def forward(self, x: Tensor) -> Tensor:
        r"""`mix` between the projections, with $K' = (EX)W_k + (E1)\,b_k^\top$ and $V' = (FX)W_v + (F1)\,b_v^\top$"""
        self.check_tokens(x.shape[-2])
        W_q, W_k, W_v = self.qkv.weight.chunk(3)
        b_q, b_k, b_v = (None,) * 3 if self.qkv.bias is None else self.qkv.bias.chunk(3)
        q = F.linear(x, W_q, b_q)                                                # (B, N, C)
        EX, FX = (torch.cat([self.E, self.F]) @ x).chunk(2, dim=1)               # (B, r, C)
        k, v = project(EX, self.E, W_k, b_k), project(FX, self.F, W_v, b_v)      # (B, r, C)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        x = self.merge_heads(attend(q, k, v, self.drop_now))
        return self.proj_drop(self.proj(x))

    def mixing_macs(self, num_tokens: int) -> int:
        r"""$4rNC$: $EX$, $FX$, $QK'^\top$ and the product with $V'$ take $rNC$ each."""
        return 4 * self.r * num_tokens * self.dim

    def projection_macs(self, num_tokens: int) -> int:
        r"""$2NC^2 + 2rC^2$: queries and the output of all tokens, keys and values of r."""
        return 2 * (num_tokens + self.r) * self.dim**2

    @classmethod
    def check_options(cls, dim: int, num_heads: int, grid_size: tuple[int, int], r: int | None = None) -> None:
        N = grid_size[0] * grid_size[1]
        if r is None:
            return
        whole("Linformer's r", r)
        if r > N:
            raise ValueError(f"Linformer's r is {r} but the {grid_size} grid has only {N} tokens; give r at most {N}, "
                             f"or one r for each stage, or leave it out for min(128, N)")


class SeedLinformer(Linformer):
    r"""The study's: one projection with bias, $P = E = F$, shared by keys, values and heads, and $r = \max(1, N/8)$.

    With $r$ in proportion to $N$ its cost grows with $N^2$ after all.
    """

    forward, projection_macs = Attention.forward, Attention.projection_macs      # it projects all keys and values

    def setup(self, r: int | None = None) -> None:
        self.r = max(1, self.num_tokens // 8) if r is None else r
        self.project = nn.Linear(self.num_tokens, self.r)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Weights of variance 1/r; no bias at the start."""
        nn.init.normal_(self.project.weight, std=self.r**-0.5, generator=generator)
        nn.init.zeros_(self.project.bias)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$K' = PK + b,\ V' = PV + b,\ \mathrm{softmax}(QK'^\top/\sqrt d)\,V'$"""
        self.check_tokens(k.shape[-2])
        k, v = (self.project(x.transpose(-2, -1)).transpose(-2, -1) for x in (k, v))  # (B, h, r, d)
        return attend(q, k, v, self.drop_now)                                    # (B, h, N, d)


Linformer.SEED = SeedLinformer
