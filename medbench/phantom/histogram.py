"""Every image gets one histogram: the cure for the intensity shortcut.

A large bright lesion changes how many pixels are bright, and counting them needs no look at where they are. So the
whole image, lesion and background included, is brought to a reference histogram: its ranks u in [0, 1] go through the
reference's quantile function. The reference itself is bent anew for each image by a random increasing map drawn
before the label is looked at, so that what a masked lesion leaves behind in the histogram says little either.
"""

import numpy as np
import torch

BINS = 1024
BEND_WIDE, BEND_FINE = 0.7, 0.5              # strength of the random map: over five spans, and from knot to knot
SPANS = 6
_RANKS = (0.0, 0.30, 0.42, 0.50, 0.58, 0.68, 0.80, 0.88, 0.94, 0.98, 1.0)
_LEVELS = {
    "flair": (0.0, 0.04, 0.06, 0.11, 0.27, 0.37, 0.46, 0.55, 0.70, 0.86, 1.0),
    "t2": (0.0, 0.05, 0.08, 0.16, 0.32, 0.38, 0.46, 0.56, 0.72, 0.88, 1.0),
    "t1": (0.0, 0.05, 0.08, 0.16, 0.30, 0.42, 0.54, 0.66, 0.76, 0.88, 1.0),
}
RANKS = np.concatenate([np.linspace(0, 0.42, 4), np.linspace(0.42, 0.9, 12)[1:], np.linspace(0.9, 1, 12)[1:]])
LEVELS = {contrast: np.interp(RANKS, _RANKS, levels) for contrast, levels in _LEVELS.items()}


def reference(contrast: str, normal: torch.Tensor) -> torch.Tensor:
    """A quantile function per image: levels (n, 26) at RANKS, increasing from 0 to 1.

    Equation: the increments of the contrast's table times exp(0.7 w + 0.5 f), normalised to sum to one; w runs
    linearly between six standard normal numbers, f is one of its own for each increment.

    Arguments: `normal` (n, at least 31) standard normal numbers, drawn before the label is looked at.
    """
    rise = torch.as_tensor(LEVELS[contrast], dtype=torch.float32, device=normal.device).diff()
    at = torch.linspace(0, SPANS - 1, len(rise), device=normal.device)
    left = at.long().clamp(max=SPANS - 2)
    wide = torch.lerp(normal[:, left], normal[:, left + 1], at - left)
    rise = rise * torch.exp(BEND_WIDE * wide + BEND_FINE * normal[:, SPANS:SPANS + len(rise)])
    levels = torch.cat([torch.zeros_like(rise[:, :1]), rise.cumsum(1)], 1)
    return levels / levels[:, -1:]


def match(images: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Bring images (n, H, W) to the histograms whose quantiles at RANKS are `levels` (n, 26). Values in [0, 1].

    Ranks come from a cumulative histogram of 1,024 bins, linear within a bin: increasing, so no order is reversed.
    """
    flat = images.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    position = (flat - low) * ((BINS - 1e-3) / (high - low).clamp(min=1e-6))
    bin_ = position.long().clamp_(0, BINS - 1)
    counts = torch.zeros(len(flat), BINS + 1, device=flat.device)
    counts.scatter_add_(1, bin_ + 1, torch.ones_like(flat))
    ranks = counts.cumsum(1) / flat.shape[1]                              # rank at each bin's edge
    table = interpolate(ranks, levels)
    here = table.gather(1, bin_)
    above = table.gather(1, bin_ + 1)
    return (here + (position - bin_) * (above - here)).view_as(images)


def interpolate(u: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The piecewise linear function through (RANKS, levels) at u (n, m)."""
    ranks = torch.as_tensor(RANKS, dtype=torch.float32, device=u.device)
    k = torch.searchsorted(ranks, u.contiguous(), right=True).clamp(1, len(RANKS) - 1)
    left = levels.gather(1, k - 1)
    return left + (u - ranks[k - 1]) / (ranks[k] - ranks[k - 1]) * (levels.gather(1, k) - left)
