"""The atlas: which tissue lies where in a head, read from the ICBM-152 template and prepared once a process.

The ICBM-152 2009 nonlinear symmetric template (release a) comes with nilearn, at 1 mm. Copyright (C) 1993-2004 Louis
Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University: "Permission to use, copy,
modify, and distribute this software and its documentation for any purpose and without fee is hereby granted, provided
that the above copyright notice appear in all copies." Cite: V. S. Fonov, A. C. Evans, R. C. McKinstry, C. R. Almli,
D. L. Collins, "Unbiased nonlinear average age-appropriate brain templates from birth to adulthood", NeuroImage 47
(2009) S102, doi:10.1016/S1053-8119(09)70884-5; and V. S. Fonov et al., NeuroImage 54 (2011) 313-327,
doi:10.1016/j.neuroimage.2010.07.033.

The template holds the brain alone. Skull, scalp and orbits are drawn by us around its hull.
Coordinates are MNI millimetres: x to the right, y forward, z up.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

Z_LOW, Z_HIGH = -30, 48                    # slices kept, MNI mm
SELLA = (-27.0, -17.0)                     # slices that show the sella
CEREBRUM = (-2.0, 46.0)                    # slices that show the cerebral hemispheres
ORIGIN = (98, 134, 72)                     # voxel of MNI (0, 0, 0)
MAPS = ("white", "csf", "other", "ventricle")   # channels of Atlas.tissue
CROP = (slice(22, 219), slice(18, 180))         # rows and columns of the template that hold brain


@dataclass(frozen=True)
class Atlas:
    """Maps by slice, and the places where lesions may lie.

    `tissue` (Z, 4, Y, X): the share of white matter in the solid tissue, cerebrospinal fluid, what fills the hull
    besides (orbits, bone), all from 0 to 1, and the distance to the lateral ventricles in mm.
    `depth` (Z, 1, Y, X): distance to the brain's hull in mm, positive inside.
    `corner_...`: MNI x and y of the first column and row of each.
    `places`: for each kind of place, per slice, an array (n, 2) of x and y in mm.
    """

    tissue: torch.Tensor
    depth: torch.Tensor
    places: dict[str, list[np.ndarray]]
    corner_tissue: tuple[int, int]
    corner_depth: tuple[int, int]

    def pick(self, kind: str, slices: np.ndarray, u: np.ndarray) -> torch.Tensor:
        """One place (x, y) in mm per slice: the one that the number u in [0, 1) points at. Shape (n, 2)."""
        found = []
        for k, number in zip(slices, u):
            table = self.places[kind][k]
            found.append(table[int(number * len(table))])
        return torch.from_numpy(np.asarray(found, dtype=np.float32).reshape(-1, 2))


def _hull(mask: np.ndarray) -> np.ndarray:
    """The brain's outline in one slice with its gaps (the sella, the orbits' inner side) closed."""
    from scipy import ndimage
    pad = 32
    closed = ndimage.distance_transform_edt(~np.pad(mask, pad)) <= 26
    return (ndimage.distance_transform_edt(closed) > 26)[pad:-pad, pad:-pad] | mask


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage
    inside = ndimage.distance_transform_edt(mask)
    return (inside - ndimage.distance_transform_edt(~mask)).astype(np.float32)


def _ventricle_distance(csf, depth, x, y, z) -> np.ndarray:
    """Distance in mm to the lateral ventricles, in three dimensions, on a 2 mm grid brought back to 1 mm."""
    from scipy import ndimage
    body = (np.abs(x) > 2) & (np.abs(x) < 42) & (y > -56) & (y < 36) & (z > -3) & (z < 32)
    sylvian = (np.abs(x) > 24) & (y > -22)
    cistern = (np.abs(x) < 9) & (y < -18)
    ventricle = (csf > 0.5) & (depth > 18) & body & ~sylvian & ~cistern
    coarse = 2 * ndimage.distance_transform_edt(~ventricle[::2, ::2, ::2])
    zoom = [n / m for n, m in zip(csf.shape, coarse.shape)]
    return ndimage.zoom(coarse.astype(np.float32), zoom, order=1, grid_mode=True, mode="nearest")


def _places(grey, white, other, ventricle, depth, x, y, z) -> dict[str, list[np.ndarray]]:
    """Where lesions may have their centre, one table a kind and slice. A slice without such a place borrows one."""
    low = z < -10
    ax = np.abs(x)
    pons = (ax < 11) & (y < -17) & (y > -34) & low
    kinds = {
        "white": (white > 0.8) & (depth > 9) & (ventricle > 9) & (ax > 9)
                 | (white > 0.6) & low & (depth > 9) & (ax > 9),
        "hemisphere": (white > 0.5) & (depth > 15) & (depth < 38) & (ax > 15),
        "subcortical": (white + grey > 0.8) & (depth > 12) & (depth < 32) & (ax > 16),
        "deep": (grey > 0.45) & (depth > 26) & (ax > 8) & (ax < 32) & (y > -26) & (y < 20) & ~low
                | pons | (white > 0.5) & (depth > 30) & (ax > 12) & ~low & (z > 20),
        "inner table": (depth > 0.5) & (depth < 2.5) & (ax > 6) & ~(low & (y > 22)),
    }
    tables = {}
    for kind, where in kinds.items():
        rows = [np.stack([(x + 0 * y)[0][w], (y + 0 * x)[0][w]], 1) for w in np.broadcast_to(where, grey.shape)]
        filled = [k for k, r in enumerate(rows) if len(r)]
        tables[kind] = [rows[min(filled, key=lambda f, k=k: abs(f - k))] for k in range(len(rows))]
    return tables


@functools.cache
def atlas() -> Atlas:
    """Read the template from nilearn's package and prepare every slice from z = -30 to 48 mm (about 3 s, once)."""
    from nilearn import datasets
    cut = slice(Z_LOW + ORIGIN[2], Z_HIGH + ORIGIN[2] + 1)

    def load(what):
        image = getattr(datasets, f"load_mni152_{what}")(resolution=1)
        return np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)[cut]

    grey, white, mask = load("gm_template"), load("wm_template"), load("brain_mask") > 0
    z, y, x = np.ogrid[Z_LOW:Z_HIGH + 1, -ORIGIN[1]:grey.shape[1] - ORIGIN[1], -ORIGIN[0]:grey.shape[2] - ORIGIN[0]]
    hull = np.stack([_hull(m) for m in mask])
    depth = np.stack([_signed_distance(h) for h in hull])
    cistern = hull & ~mask & (np.abs(x) < 22) & (y > -16) & (y < 16)         # the suprasellar hole is fluid
    csf = np.where(mask, np.clip(1 - grey - white, 0, 1), 0) + cistern
    other = (hull & ~mask & ~cistern).astype(np.float32)
    ventricle = _ventricle_distance(csf, depth, x, y, z)
    share = np.clip((white / (grey + white + 1e-3) - 0.5) * 1.6 + 0.5, 0, 1)
    rows, columns = CROP
    tissue = np.stack([share, csf, other, ventricle], 1).astype(np.float32)[:, :, rows, columns]
    return Atlas(torch.from_numpy(tissue.copy()), torch.from_numpy(depth[:, None]),
                 _places(grey, white, other, ventricle, depth, x, y, z),
                 (columns.start - ORIGIN[0], rows.start - ORIGIN[1]), (-ORIGIN[0], -ORIGIN[1]))


@functools.cache
def _on_device(name: str, device: str) -> torch.Tensor:
    return getattr(atlas(), name).to(device)


def sample(name: str, slices: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Read the atlas' `tissue` or `depth` at points x, y (n, H, W) in mm of slices (n,): (n, C, H, W), bilinear."""
    maps, (left, bottom) = _on_device(name, str(x.device)), getattr(atlas(), f"corner_{name}")
    height, width = maps.shape[-2:]
    grid = torch.stack([(x - left) * (2 / (width - 1)) - 1, (y - bottom) * (2 / (height - 1)) - 1], -1)
    return F.grid_sample(maps[slices], grid, mode="bilinear", padding_mode="border", align_corners=True)
