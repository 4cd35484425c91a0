"""Bright spots of the white matter: one (focal FLAIR hyperintensity) or many on both sides (white matter changes)."""

import torch

from ..drawing import over, radius, step
from .base import Lesion

DEGREE = torch.pi / 180


class FocalFlairHyper(Lesion):
    """One round or oval focus of 6 to 12 mm (in 20 % two) in the white matter; nothing is pushed, nothing is hollow."""

    def plan(self, head, draw):
        self.foci = []
        self.value, two = self.signal("focus"), draw.happens(0.2)
        for k in range(2):
            x, y = self.place("white", head)
            r = draw(6, 12) / 2 * self.size
            self.foci.append((x, y, r if k == 0 else torch.where(two, r, -9.0), draw(1, 1.6), draw(0, 180) * DEGREE))

    def paint(self, head, image):
        alpha = torch.zeros_like(image)
        for x, y, r, stretch, tilt in self.foci:
            alpha = torch.maximum(alpha, step(r - radius(head.x, head.y, x, y, stretch, tilt), 1.2 * head.pixel))
        alpha = alpha * (1 - head.csf)
        return over(image, alpha, self.value * head.grey_value), alpha, torch.zeros_like(alpha)


class WhiteMatterChanges(Lesion):
    """A bright band with caps around both ventricles, and 6 to 16 foci on both sides, near-symmetric; the pons too."""

    most = 16

    def plan(self, head, draw):
        self.value, self.band, self.caps = self.signal("white"), draw(5, 13) * self.size, draw(1, 4)
        self.count = draw(6, self.most + 1).floor()
        self.pons, self.pons_r = draw.happens(0.7) & head.low, draw(4, 8) * self.size
        self.pons_x, self.pons_y, self.pons_stretch = draw(-2, 2), draw(-29, -24), draw(1, 1.6)
        self.foci = []
        for k in range(self.most):
            if k % 2 == 0:
                x, y = self.place("white", head)
                jitter_x, jitter_y = draw(-6, 6), draw(-6, 6)
            else:                                                         # the partner on the other side
                x, y = -x + jitter_x, y + jitter_y
            self.foci.append((x, y, torch.where(k < self.count, draw(3, 10) / 2 * self.size, -9.0)))

    def paint(self, head, image):
        white = step(head.white - 0.5, 0.4) * (1 - head.csf) * step(head.depth - 6, 3.0)
        cap = self.caps * (step(head.y - 22, 8.0) + step(-head.y - 40, 8.0))
        spots = self.band + cap - head.ventricle + 1.6 * head.fine
        for x, y, r in self.foci:
            spots = torch.maximum(spots, r - radius(head.x, head.y, x, y) + 0.4 * head.fine)
        alpha = step(spots, 1.3 * head.pixel) * white
        upright = torch.zeros_like(self.pons_x)
        pons = self.pons_r - radius(head.x, head.y, self.pons_x, self.pons_y, self.pons_stretch, upright)
        alpha = torch.maximum(alpha, step(pons + 0.8 * head.fine, 2 * head.pixel) * self.pons * (1 - head.csf))
        return over(image, alpha, self.value * head.grey_value), alpha, torch.zeros_like(alpha)
