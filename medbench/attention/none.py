"""The control: no token looks at any other one."""

from __future__ import annotations

from torch import Tensor, nn

from .base import Attention


class NoMixing(Attention):
    r"""$\mathrm{proj}(v)$: two linear maps of each token alone.

    What a model still learns with it comes from the stem, the patch merges and the mean over the tokens; what a
    mechanism is worth is its gain over this one. No options of its own.
    """

    refuses_attn_drop = "has no attention matrix"

    def add_projections(self, qkv_bias: bool) -> None:
        """A projection to v, and the one after it: there is no q and no k."""
        self.v = nn.Linear(self.dim, self.dim, bias=qkv_bias)
        self.proj = nn.Linear(self.dim, self.dim)

    def forward(self, x: Tensor) -> Tensor:
        r"""$\mathrm{proj}(v)$ for tokens `(B, N, C)`."""
        return self.proj_drop(self.proj(self.v(x)))

    def mixing_macs(self, num_tokens: int) -> int:
        """0"""
        return 0

    def projection_macs(self, num_tokens: int) -> int:
        """2NC²: there are two."""
        return 2 * num_tokens * self.dim**2
