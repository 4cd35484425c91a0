r"""Whether maps point at the lesion: the pointing game and the relevance mass, against chance and an edge detector.

What lives here, top to bottom: `localise` and `Localisation`; `edges`, the baseline that knows no model; `to_masks`,
which turns boxes into masks.

Only what speaks for the class counts: $R = \max(\mathrm{map}, 0)$. In an image with lesion $M$: pointing is 1 if the
largest $R$ lies in $M$; mass is $\sum_M R / \sum R$. Chance, for both, is $M$'s share of the image.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .checks import in_range
from .viewing import MethodMeans, mean_interval, relevance

SCORES = ("pointing", "mass")


@dataclass(frozen=True, eq=False)
class Localisation(MethodMeans):
    """Scores of each image with a lesion: `per_image[name]` (m,), of the maps and of `edges`, and `chance` (m,).

    `means[name]` has value, low, high, n: `pointing`, `mass`, `chance`, `edge_pointing`, `edge_mass`, and the paired
    differences `pointing_above_chance`, `mass_above_chance`, `pointing_above_edges`, `mass_above_edges`.
    """

    method: str
    per_image: dict[str, np.ndarray] = field(repr=False)
    means: dict[str, dict]


def localise(maps, masks, images, *, bootstrap: int = 1000, seed: int = 0) -> Localisation:
    """Pointing game and relevance mass of maps, and of an edge detector on the same images.

    Args: `maps`: `Maps` or (n, H, W). `masks` (n, H, W) bool: the lesion; images without one are left out. For boxes
    see `to_masks`. `images` (n, H, W) or (n, C, H, W), any scale, for the edges. `bootstrap` resamples of the images.
    Returns: `Localisation` with 95 % intervals. Raises: ValueError where sizes do not fit.
    Source: Zhang et al. 2018, IJCV 126 (pointing game); Arras, Osman and Samek 2022, Information Fusion 81 (mass).
    """
    R, masks, grey = relevance(maps), np.asarray(masks), _grey(images)
    in_range("bootstrap", bootstrap, 0)
    if masks.shape != R.shape or masks.dtype != bool:
        raise ValueError(f"masks are {masks.dtype} of shape {masks.shape}; wanted bool {R.shape}, one for each map and "
                         f"as large (boxes become masks with to_masks)")
    if grey.shape != R.shape:
        raise ValueError(f"images have shape {grey.shape}; wanted {R.shape} like the maps")
    here = masks.any((1, 2))
    R, E, masks = R[here], edges(grey[here]), masks[here]
    found = {"chance": masks.mean((1, 2))}
    found |= {"pointing": _pointing(R, masks), "mass": _mass(R, masks),
              "edge_pointing": _pointing(E, masks), "edge_mass": _mass(E, masks)}
    for name in SCORES:
        found[f"{name}_above_chance"] = found[name] - found["chance"]
        found[f"{name}_above_edges"] = found[name] - found[f"edge_{name}"]
    means = {name: mean_interval(values, seed, bootstrap) for name, values in found.items()}
    return Localisation(getattr(maps, "method", "maps"), found, means)


def _pointing(R: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of the pixels with the largest relevance that lie in the mask: 0 or 1, except where several are largest."""
    top = R == R.max((1, 2), keepdims=True)
    return (top & masks).sum((1, 2)) / top.sum((1, 2))


def _mass(R: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of the relevance in the mask; of a map without any, the mask's share of the image."""
    total = R.sum((1, 2))
    return np.where(total > 0, (R * masks).sum((1, 2)) / np.where(total > 0, total, 1), masks.mean((1, 2)))


def edges(images) -> np.ndarray:
    """Sobel's gradient magnitude of images (n, H, W): what a map would be that sees outlines and knows no model."""
    from scipy import ndimage
    grey, kernel = _grey(images), np.outer((1, 2, 1), (-1, 0, 1))[None]      # one image thick: images do not mix
    return np.hypot(ndimage.correlate(grey, kernel), ndimage.correlate(grey, kernel.transpose(0, 2, 1)))


def _grey(images) -> np.ndarray:
    found = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images, dtype=np.float64)
    return found.mean(1) if found.ndim == 4 else found


def to_masks(boxes, size: tuple[int, int]) -> np.ndarray:
    """Masks (n, H, W) of boxes (n, 4): centre x, centre y, width, height as shares of the sides; NaN is no box.

    A pixel belongs to a box that holds its centre.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes have shape {boxes.shape}; wanted (n, 4): centre x, centre y, width, height as shares")
    if np.nanmax(boxes, initial=0) > 1 or np.nanmin(boxes, initial=0) < 0:
        raise ValueError("boxes hold numbers outside 0 to 1; wanted shares of the image's sides, not pixels")
    (H, W), (x, y, w, h) = size, boxes.T[:, :, None]
    rows, columns = (np.arange(H) + 0.5) / H, (np.arange(W) + 0.5) / W
    inside = np.abs(rows - y) <= h / 2, np.abs(columns - x) <= w / 2
    return inside[0][:, :, None] & inside[1][:, None, :]
