"""Softmax attention: every token looks at every other one."""

from __future__ import annotations

from torch import Tensor

from .base import Attention, attend


class Softmax(Attention):
    r"""$\mathrm{softmax}(QK^\top/\sqrt d)\,V$, the mechanism that all others replace.

    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.1; no options of its own.
    """

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$\mathrm{softmax}(QK^\top/\sqrt d)\,V$, in one fused call."""
        return attend(q, k, v, self.drop_now)  # (B, h, N, d)

    def mixing_macs(self, num_tokens: int) -> int:
        r"""$2N^2C$: $N^2C$ for $QK^\top$ and as many for its product with $V$."""
        return 2 * num_tokens**2 * self.dim
