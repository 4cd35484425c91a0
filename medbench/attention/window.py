r"""Windows (Swin): tokens look at the tokens of their own window, and every second block shifts the windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checks import whole
from .base import Attention, attend


def to_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut a grid `(B, H, W, C)` into windows `(B * H/wh * W/ww, wh * ww, C)`, both row-major."""
    B, H, W, C = x.shape
    wh, ww = window
    return x.view(B, H // wh, wh, W // ww, ww, C).transpose(2, 3).reshape(-1, wh * ww, C)


def from_windows(x: Tensor, window: tuple[int, int], grid_size: tuple[int, int]) -> Tensor:
    """Put windows `(B * H/wh * W/ww, wh * ww, C)` back into a grid `(B, H, W, C)`."""
    (H, W), (wh, ww), C = grid_size, window, x.shape[-1]
    return x.view(-1, H // wh, W // ww, wh, ww, C).transpose(2, 3).reshape(-1, H, W, C)


def relative_position_index(window: tuple[int, int]) -> Tensor:
    """Row of the bias table for each pair of tokens in one window, `(M, M)`: one row for each difference of places."""
    wh, ww = window
    y, x = (g.flatten() for g in torch.meshgrid(torch.arange(wh), torch.arange(ww), indexing="ij"))
    dy, dx = y[:, None] - y, x[:, None] - x
    return (dy + wh - 1) * (2 * ww - 1) + dx + ww - 1


def shift_mask(grid_size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """`(windows, M, M)`: -100 between tokens that the roll brought into one window from opposite edges, else 0."""
    H, W = grid_size

    def region(size: int, w: int, s: int) -> Tensor:
        place = torch.arange(size)
        return (place >= size - w).long() + (place >= size - s).long() if s else torch.zeros(size).long()

    label = 3 * region(H, window[0], shift[0])[:, None] + region(W, window[1], shift[1])
    label = to_windows(label[None, :, :, None], window).squeeze(-1)             # (windows, M)
    return (label[:, :, None] != label[:, None, :]) * -100.0


class Window(Attention):
    r"""$\mathrm{softmax}(QK^\top/\sqrt d + b)\,V$ within each window of $M = w^2$ tokens.

    `window_size`: side $w$ in tokens; clipped to a grid that is smaller, and dividing one that is larger. The bias
    $b$ is learned, $(2w-1)^2$ values for each head, one for each difference of places. On odd blocks the grid is
    rolled by $w/2$ first, and a mask of -100 keeps tokens from opposite edges apart; a grid of a single window is
    not shifted. One window and zero bias is softmax attention. This in our pyramid is not the whole Swin.

    Source: Liu et al. 2021, arXiv:2103.14030, sec. 3.2.
    """

    undecayed = ("relative_position_bias_table",)

    def setup(self, window_size: int = 8) -> None:
        self.window_size = tuple(min(window_size, side) for side in self.grid_size)
        self.shift_size = self.choose_shift()
        self.add_bias()
        mask = shift_mask(self.grid_size, self.window_size, self.shift_size) if any(self.shift_size) else None
        self.register_buffer("attn_mask", mask, persistent=False)

    def choose_shift(self) -> tuple[int, int]:
        """Half a window on odd blocks, along the sides that have more than one."""
        odd = self.layer_index % 2
        return tuple(w // 2 * odd if w < side else 0 for w, side in zip(self.window_size, self.grid_size))

    def add_bias(self) -> None:
        """The table of relative position biases, and which of its rows each pair of tokens takes."""
        wh, ww = self.window_size
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * wh - 1) * (2 * ww - 1), self.num_heads))
        self.register_buffer("relative_position_index", relative_position_index(self.window_size), persistent=False)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Small biases."""
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02, generator=generator)

    def bias(self) -> Tensor | None:
        """What is added to the logits: `(1, h, M, M)`, or `(windows, h, M, M)` where the windows are shifted."""
        M = len(self.relative_position_index)
        b = self.relative_position_bias_table.T.index_select(1, self.relative_position_index.flatten())
        b = b.view(1, self.num_heads, M, M)
        return b if self.attn_mask is None else b + self.attn_mask.unsqueeze(1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        r"""$\mathrm{softmax}(QK^\top/\sqrt d + b)\,V$ for `(B * windows, h, M, d)`"""
        b = self.bias()
        return attend(q, k, v, self.drop_now, bias=None if b is None else b.to(q.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Roll the grid, cut it into windows, mix within them, and undo both, for tokens `(B, N, C)`."""
        self.check_tokens(x.shape[1])
        (sh, sw), shifted = self.shift_size, any(self.shift_size)
        x = x.unflatten(1, self.grid_size)                                      # (B, H, W, C)
        x = x.roll((-sh, -sw), dims=(1, 2)) if shifted else x
        x = super().forward(to_windows(x, self.window_size))
        x = from_windows(x, self.window_size, self.grid_size)
        x = x.roll((sh, sw), dims=(1, 2)) if shifted else x
        return x.flatten(1, 2)                                                  # (B, N, C)

    def mixing_macs(self, num_tokens: int) -> int:
        r"""$2NMC$: each of the $N$ tokens meets the $M$ tokens of its window, twice."""
        return 2 * num_tokens * self.window_size[0] * self.window_size[1] * self.dim

    @classmethod
    def check_options(cls, dim: int, num_heads: int, grid_size: tuple[int, int], window_size: int = 8) -> None:
        whole("window_size", window_size)
        if any(side > window_size and side % window_size for side in grid_size):
            raise ValueError(f"window_size {window_size} does not divide the {grid_size} grid; choose a window that "
                             f"divides both sides, or an img_size whose grids it divides in every stage")


class SeedWindow(Window):
    r"""The study's: windows that never shift, and no bias."""

    def choose_shift(self) -> tuple[int, int]:
        """Never."""
        return 0, 0

    def add_bias(self) -> None:
        """None."""

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Nothing of its own."""

    def bias(self) -> None:
        """None."""
        return None


Window.SEED = SeedWindow
