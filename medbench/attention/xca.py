r"""XCA, cross-covariance attention: channels look at channels, over all tokens at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Attention


class LocalPatchInteraction(nn.Module):
    """A residual step: LayerNorm, then depthwise 3x3, GELU, BatchNorm, depthwise 3x3 over the grid of tokens.

    XCA mixes tokens only through sums over all of them; this lets neighbours talk.
    Source: El-Nouby et al. 2021, arXiv:2106.09681, sec. 3.3.
    """

    def __init__(self, dim: int, grid_size: tuple[int, int]):
        super().__init__()
        self.grid_size = grid_size
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.act = nn.GELU()
        self.bn = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """`x` plus the local step, for tokens `(B, N, C)`."""
        grid = self.norm(x).transpose(1, 2).unflatten(2, self.grid_size)       # (B, C, H, W)
        grid = self.conv2(self.bn(self.act(self.conv1(grid))))
        return x + grid.flatten(2).transpose(1, 2)


def length(x: Tensor) -> Tensor:
    """Length over the N tokens of each channel, at least 1e-12: `(B, h, N, d)` to `(B, h, 1, d)`."""
    return x.square().sum(-2, keepdim=True).clamp_min(1e-24).sqrt()


class XCA(Attention):
    r"""$A = \mathrm{softmax}(\hat Q^\top \hat K\, t)$, $\mathrm{out} = V A^\top$

    The columns of $\hat Q$ and $\hat K$, one for each channel, have unit length over the tokens.
    $A \in \mathbb R^{d \times d}$ for each head, softmax over the key channels; $t$ is a learned temperature per head
    (the paper divides by $\tau$, its code multiplies by $t = 1/\tau$).

    `lpi`: whether the block also has the local patch interaction, which is a residual step of its own behind this
    one; `XCA.local` holds it and the block applies it. Without it, the default, this is XCA and not the whole XCiT.

    Source: El-Nouby et al. 2021, arXiv:2106.09681, sec. 3.2.
    """

    undecayed = ("temperature",)

    def setup(self, lpi: bool = False) -> None:
        self.lpi = lpi
        self.temperature = nn.Parameter(torch.ones(self.num_heads, 1, 1))
        if lpi:
            self.local = LocalPatchInteraction(self.dim, self.grid_size)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$A = \mathrm{softmax}(\hat Q^\top \hat K\, t)$, $\mathrm{out} = V A^\top$

        Lengths divide the $d \times d$ product and not the $N \times d$ factors: the same, with less to divide. Each
        factor is laid out head by head once, for a product of scattered ones would do it at greater cost.
        """
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        lengths = length(q).transpose(-2, -1) * length(k)                      # (B, h, d, d)
        A = (q.transpose(-2, -1) @ k / lengths * self.temperature).softmax(-1)  # (B, h, d, d)
        return v @ self.attn_drop(A).transpose(-2, -1)                         # (B, h, N, d)

    def mixing_macs(self, num_tokens: int) -> int:
        r"""$2NCd$: $\hat Q^\top\hat K$ and $VA^\top$; with `lpi` $18NC$ more, two 3x3 depthwise convolutions."""
        return 2 * num_tokens * self.dim * self.head_dim + (18 * num_tokens * self.dim if self.lpi else 0)

    @classmethod
    def check_options(cls, dim: int, num_heads: int, grid_size: tuple[int, int], lpi: bool = False) -> None:
        if not isinstance(lpi, bool):
            raise ValueError(f"lpi is {lpi!r}; allowed: True, False")


class SeedXCA(XCA):
    r"""The study's: $A = \mathrm{softmax}(Q^\top K/\sqrt N)$; no unit length, temperature or local interaction."""

    def setup(self) -> None:
        self.lpi = False

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$A = \mathrm{softmax}(Q^\top K/\sqrt N)$, $\mathrm{out} = V A^\top$"""
        A = (q.transpose(-2, -1) @ k * q.shape[-2] ** -0.5).softmax(-1)        # (B, h, d, d)
        return v @ self.attn_drop(A).transpose(-2, -1)                         # (B, h, N, d)

    @classmethod
    def check_options(cls, dim: int, num_heads: int, grid_size: tuple[int, int]) -> None:
        """Nothing to choose."""


XCA.SEED = SeedXCA
