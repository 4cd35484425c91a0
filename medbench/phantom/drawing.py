"""What every part of the phantom draws with: random numbers by sample, soft edges, smooth fields, displacements.

Lengths are millimetres. `n` is the number of samples, `H, W` the image's sides.
"""

from __future__ import annotations

import functools

import torch

UNIFORMS, FIELDS, CONTROL = 320, 6, 24       # per sample: uniform numbers, smooth fields, control points a side


# --------------------------------------------------------------------------------------------- random numbers
def _mix(value: int) -> int:
    """A bijection of 32-bit numbers that leaves no pattern (the finaliser of MurmurHash3, by A. Appleby)."""
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16


def key(seed: int, index: int) -> int:
    """The number that seeds a sample's generator. For one seed, different indices never share one."""
    return _mix(_mix(seed & 0xFFFFFFFF) ^ _mix(index & 0xFFFFFFFF) ^ _mix((seed >> 32) + 0x9E3779B9 & 0xFFFFFFFF))


def numbers(seed: int, indices, img_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All random numbers of some samples, each sample's from a CPU generator of its own, in one fixed order.

    Returns: uniform numbers (n, 320), standard normal control points (n, 6, 24, 24) and standard normal noise
    (n, 2, img_size, img_size). The first two do not depend on the image size.
    """
    generator = torch.Generator()
    n = len(indices)
    uniform, control = torch.empty(n, UNIFORMS), torch.empty(n, FIELDS, CONTROL, CONTROL)
    noise = torch.empty(n, 2, img_size, img_size)
    for row, index in enumerate(indices):
        generator.manual_seed(key(seed, int(index)))
        torch.rand(UNIFORMS, generator=generator, out=uniform[row])
        torch.randn(FIELDS, CONTROL, CONTROL, generator=generator, out=control[row])
        torch.randn(2, img_size, img_size, generator=generator, out=noise[row])
    return uniform, control, noise


class Draws:
    """Hands out the columns of `uniform` (n, K) one by one, scaled; each call returns (n, 1, 1) on the device."""

    def __init__(self, uniform: torch.Tensor, device="cpu"):
        self.uniform, self.device, self.used = uniform, device, 0

    def raw(self) -> torch.Tensor:
        """The next column (n,), on the CPU."""
        self.used += 1
        return self.uniform[:, self.used - 1]

    def __call__(self, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Uniform between low and high."""
        return (low + (high - low) * self.raw()).to(self.device)[:, None, None]

    def happens(self, probability: float) -> torch.Tensor:
        """True with the given probability."""
        return self(0, 1) < probability

    def side(self) -> torch.Tensor:
        """-1 (left) or 1 (right)."""
        return torch.where(self.happens(0.5), 1.0, -1.0)


# --------------------------------------------------------------------------------------------- smooth fields
@functools.cache
def _spline(size: int, control: int, device: str) -> torch.Tensor:
    """Uniform cubic B-spline basis (size, control): the weight of each control point at each pixel centre."""
    t = (torch.arange(size, dtype=torch.float64) + 0.5) / size * (control - 3)
    cell = t.floor().clamp(max=control - 4)
    u = t - cell
    weights = torch.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], 1) / 6
    basis = torch.zeros(size, control, dtype=torch.float64)
    basis.scatter_(1, cell.long()[:, None] + torch.arange(4), weights)
    return basis.float().to(device)


def smooth(control: torch.Tensor, size: int) -> torch.Tensor:
    """Smooth fields (..., size, size) through control points (..., k, k): independent of the image's resolution."""
    basis = _spline(size, control.shape[-1], str(control.device))
    return basis @ control @ basis.T


# --------------------------------------------------------------------------------------------- edges and shapes
def step(distance: torch.Tensor, width) -> torch.Tensor:
    """0 outside (negative distance), 1 inside, linear over `width` mm around the edge."""
    return (distance / width + 0.5).clamp_(0, 1)


def bell(distance: torch.Tensor, width) -> torch.Tensor:
    """exp(-(distance / width)^2)."""
    return torch.exp(-((distance / width) ** 2))


def over(image: torch.Tensor, alpha: torch.Tensor, value) -> torch.Tensor:
    """Lay `value` over the image with opacity `alpha`."""
    return image + alpha * (value - image)


def radius(x: torch.Tensor, y: torch.Tensor, cx, cy, stretch=1.0, angle=None) -> torch.Tensor:
    """Distance in mm from (cx, cy), in an ellipse's own measure if `stretch` (long over short axis) is given."""
    dx, dy = x - cx, y - cy
    if angle is not None:
        c, s = torch.cos(angle), torch.sin(angle)
        root = stretch**0.5
        dx, dy = (c * dx + s * dy) / root, (c * dy - s * dx) * root
    return torch.sqrt(dx * dx + dy * dy + 1e-6)


# --------------------------------------------------------------------------------------------- displacements
def push(x, y, cx, cy, size, strength):
    """Where tissue at (x, y) came from when a mass of radius `size` grew at (cx, cy).

    r_src^2 = r^2 - k R^2 exp(-(r/2.2R)^2)
    """
    dx, dy = x - cx, y - cy
    r2 = dx * dx + dy * dy + 1e-3
    scale = (1 - strength * size**2 * torch.exp(-r2 / (2.2 * size) ** 2) / r2).clamp(min=0.04).sqrt()
    return cx + dx * scale, cy + dy * scale


def pull(x, y, cx, cy, reach, amount):
    """Where tissue came from when the middle grew by the factor 1 + amount: magnification that fades over `reach`."""
    dx, dy = x - cx, y - cy
    scale = 1 - amount / (1 + amount) * torch.exp(-(dx * dx + dy * dy) / reach**2)
    return cx + dx * scale, cy + dy * scale


def shift_midline(x, y, side, amount, cy):
    """Where tissue came from when the midline moved `amount` mm away from `side`."""
    return x + side * amount * torch.exp(-((x / 32) ** 2) - ((y - cy) / 55) ** 2), y
