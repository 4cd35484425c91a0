"""Exercises of chapter 08: the mask of shifted windows, and how far windows reach in depth."""

from __future__ import annotations

import torch

from .judging import Exercise, as_tensor, demand


def shift_mask(answer) -> str:
    """`answer(H, W, w)`: what is added to the logits after a shift by w // 2, (windows, M, M): 0 or -100 and below.

    A side that holds a single window is not shifted. Booleans are taken as "may look".
    """
    for H, W, w in ((8, 8, 4), (4, 12, 4), (12, 8, 4), (6, 9, 3)):
        wanted = _timms_mask(H, W, w)
        got = as_tensor(answer(H, W, w), wanted, f"the mask for a {H} x {W} grid and windows of {w}")
        got = torch.where(got, 0.0, -torch.inf) if got.dtype == torch.bool else got.double()
        blocked, timms = got < 0, wanted < 0
        what = f"on a {H} x {W} grid with windows of {w}"
        demand(blocked.any(), f"{what} the mask blocks nothing: opposite edges meet in one window after the roll")
        demand(not torch.equal(blocked, ~timms), f"{what} the mask is the wrong way round: True, or 0, lets pass")
        if not torch.equal(blocked, timms):
            across = _timms_mask(W, H, w)
            demand(H == W or across.shape != timms.shape or not torch.equal(blocked, across < 0),
                   f"{what} height and width are exchanged")
            missing, extra = int((timms & ~blocked).sum()), int((blocked & ~timms).sum())
            demand(missing == 0, f"{what} {missing} pairs from opposite edges may still talk: there are regions along "
                                 "both axes, up to nine in all")
            demand(False, f"{what} {extra} pairs are blocked that are neighbours in the image")
        leak = _leak(got)
        demand(leak <= 1e-30, f"{what} a blocked pair still passes a gradient of {leak:.1e}: add -100 or less, so that "
                              "exp leaves at most 1e-30")
    return "the pairs that timm's Swin block blocks, on four grids; the gradient across is at most 1e-30"


def reach(answer) -> str:
    """`answer(grid, w, depth)`: (N, N) booleans, True where output i of that many blocks depends on input j."""
    for grid, w, depth in (((8, 8), 4, 1), ((8, 8), 4, 2), ((8, 12), 4, 3), ((4, 8), 4, 2)):
        wanted = _measured_reach(grid, w, depth)
        got = as_tensor(answer(grid, w, depth), wanted, f"the pattern for a {grid} grid").bool()
        if torch.equal(got, wanted):
            continue
        what = f"for a {grid} grid, windows of {w} and {depth} block{'s' if depth > 1 else ''}"
        demand(not torch.equal(got, _composed(grid, w, depth, shifted=())),
               f"{what} the pattern is that of a single block: blocks that do not shift never reach further. Every "
               "second one, the odd ones counted from 0, shifts by w // 2")
        demand(not torch.equal(got, _composed(grid, w, depth, shifted=range(0, depth, 2))),
               f"{what} the wrong blocks shift: the first block does not, the second does")
        demand(not torch.equal(got, _composed(grid, w, depth, masked=False)),
               f"{what} tokens from opposite edges talk: the roll brings them into one window, the mask keeps them "
               "apart")
        demand(False, f"{what} the Jacobian has {int(wanted.sum())} non-zero entries, yours {int(got.sum())}")
    return "the pattern of non-zero entries in the Jacobian of real blocks, on three grids and up to three blocks"


def _timms_mask(H: int, W: int, w: int):
    from timm.models.swin_transformer import SwinTransformerBlock

    return SwinTransformerBlock(4, (H, W), num_heads=1, window_size=w, shift_size=w // 2).attn_mask


def _leak(mask) -> float:
    """The largest gradient of an output to a value it is blocked from, with all other logits at 0."""
    weights = mask.double().softmax(-1)
    return float(weights[mask < 0].max())


def _composed(grid, w: int, depth: int, shifted=None, masked: bool = True):
    """Reach by multiplying the patterns of single blocks."""
    shifted = range(1, depth, 2) if shifted is None else shifted
    total = torch.eye(grid[0] * grid[1])
    for block in range(depth):
        s = [w // 2 if block in shifted and w < side else 0 for side in grid]
        label = [(torch.arange(side) - step) % side if not masked else torch.arange(side) - step
                 for side, step in zip(grid, s)]
        rows, columns = (part.div(w, rounding_mode="floor") for part in label)
        window = (rows[:, None] * 1000 + columns).flatten()
        total = ((window[:, None] == window).float() @ total > 0).float()
    return total.bool()


def _measured_reach(grid, w: int, depth: int):
    from ... import mixing
    from ...attention import ATTENTION

    torch.manual_seed(0)
    layers = [ATTENTION["window"](4, 1, grid, layer_index=i, window_size=w).double().eval() for i in range(depth)]

    def blocks(x):
        for layer in layers:
            x = x + layer(x)
        return x

    x = torch.randn(1, grid[0] * grid[1], 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return mixing.matrix(blocks, x) > 1e-30


EXERCISES = {"window.shift_mask": Exercise(shift_mask), "window.reach": Exercise(reach)}
