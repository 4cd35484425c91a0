"""What a lesion is: parameters drawn once, a displacement of the tissue, a change of the sulci, and paint."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..anatomy import atlas
from ..drawing import Draws
from ..signals import MATERIALS

DARKEST = 0.05      # multiples of grey matter: nothing that is imaged is darker


@dataclass
class Head:
    """The heads of a batch while they are drawn. Maps are (n, H, W), one number a sample is (n, 1, 1).

    `x, y`: MNI mm under each pixel, before the lesion moves tissue. `depth`: mm inside the brain's hull.
    `slices`: the atlas slice of each sample. `z`: its height in mm. `low`: true at the level of the sella.
    `centre`: the atlas slice in which the patient's lesion was placed, the same for all slices of a patient.
    `pixel`: pixel size in mm. `rough, fine`: smooth random fields of unit variance, about 35 and 20 mm a wave.
    The tissue maps (after displacement) are there once the anatomy has been read: `white` (share of the solid tissue),
    `csf`, `ventricle` (distance in mm); and `grey_value` and `csf_value`, their brightness.
    """

    x: torch.Tensor
    y: torch.Tensor
    depth: torch.Tensor
    slices: torch.Tensor
    z: torch.Tensor
    low: torch.Tensor
    centre: torch.Tensor
    pixel: float
    rough: torch.Tensor
    fine: torch.Tensor
    white: torch.Tensor | None = None
    csf: torch.Tensor | None = None
    ventricle: torch.Tensor | None = None
    grey_value: torch.Tensor | None = None
    csf_value: torch.Tensor | None = None


class Lesion:
    """No lesion: the class `normal`.

    The other classes fill in `plan` and `paint`, and `displace` and `sulci` where they act.

    Arguments: the heads (n), the draws for the lesion, the contrast and the difficulty: 1 is the book's, 0 makes
    lesions larger and their contrast stronger, 2 the reverse (see `phantom.generate`).
    """

    def __init__(self, head: Head, draw: Draws, contrast: str, difficulty: float):
        self.draw, self.device = draw, head.x.device
        self.size = max(1.5 - 0.25 * difficulty, 0.4)
        self.gain = max((5 - difficulty) / 3, 0.2)
        self.materials = MATERIALS[contrast]
        self.plan(head, draw)

    def signal(self, material: str) -> torch.Tensor:
        """Brightness of a material in multiples of grey matter, with the difficulty's contrast; no darker than bone,
        for below zero the scanner, which shows magnitudes, would turn it bright again."""
        return (1 + (self.draw(*self.materials[material]) - 1) * self.gain).clamp(min=DARKEST)

    def place(self, kind: str, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
        """A random place of that kind, x and y in mm."""
        return self.place_with(kind, head, self.draw)

    @staticmethod
    def place_with(kind: str, head: Head, draw: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """`place`, with other draws."""
        spot = atlas().pick(kind, head.centre.cpu().numpy(), draw.raw().numpy()).to(head.x.device)
        return spot[:, 0, None, None], spot[:, 1, None, None]

    def plan(self, head: Head, draw: Draws) -> None:
        """Draw the parameters, always the same number of them."""

    def displace(self, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the tissue under each pixel came from: x and y in mm."""
        return head.x, head.y

    def sulci(self, head: Head) -> torch.Tensor | float:
        """Factor on the width of the sulci: below 1 they are effaced, above 1 wider."""
        return 1.0

    def paint(self, head: Head, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The image with the lesion, and the opacities of `lesion` and of `oedema` (both (n, H, W))."""
        nothing = torch.zeros_like(image)
        return image, nothing, nothing
