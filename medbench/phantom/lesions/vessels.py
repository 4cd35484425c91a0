"""Arteriovenous anomaly: a nidus of dark winding vessels, one wide draining vein, one feeder; nothing is pushed."""

import torch

from ..drawing import bell, over, radius, step
from .base import Lesion

DEGREE = torch.pi / 180


class ArteriovenousAnomaly(Lesion):
    """Vessels carry fast blood and are dark. The nidus' curls are the zero lines of a sum of plane waves."""

    waves = 5

    def plan(self, head, draw):
        self.x, self.y = self.place("hemisphere", head)
        self.r = draw(9, 16) * self.size
        self.value, self.width = self.signal("void"), draw(2, 4) * self.size
        self.gliosis, self.has_gliosis = self.signal("faint"), draw.happens(0.4)
        turn, wavelength = draw(0, 180), draw(10, 14)
        self.plane = [((turn + 180 * k / self.waves + draw(-12, 12)) * DEGREE,
                       2 * torch.pi / (wavelength * draw(0.8, 1.2)),
                       draw(0, 360) * DEGREE) for k in range(self.waves)]
        out = torch.atan2(self.y + 18, self.x)
        self.vein = (out + draw(-50, 50) * DEGREE, draw(3, 6) * self.size,
                     draw(25, 50), draw(2, 4), draw(0, 360) * DEGREE)
        self.feeder = (out + draw(130, 230) * DEGREE, draw(1.8, 3) * self.size,
                       draw(18, 30), draw(1, 3), draw(0, 360) * DEGREE)

    def curls(self, head):
        """Distance in mm inside the nidus' vessels: half their width minus |f| / |grad f|."""
        f = fx = fy = 0.0
        for angle, k, phase in self.plane:
            kx, ky = k * torch.cos(angle), k * torch.sin(angle)
            argument = kx * (head.x - self.x) + ky * (head.y - self.y) + phase
            f, slope = f + torch.cos(argument), torch.sin(argument)
            fx, fy = fx + kx * slope, fy + ky * slope
        return self.width / 2 - f.abs() / torch.sqrt(fx * fx + fy * fy + 0.02)

    def tube(self, head, towards, width, length, swing, phase):
        """Distance in mm inside one winding vessel that leaves the nidus' middle in direction `towards`."""
        c, s = torch.cos(towards), torch.sin(towards)
        along = c * (head.x - self.x) + s * (head.y - self.y)
        across = c * (head.y - self.y) - s * (head.x - self.x)
        start = 0.6 * self.r
        turn = along / 6 + phase
        slope = swing / 6 * torch.cos(turn)
        away = (across - swing * torch.sin(turn)).abs() / torch.sqrt(1 + slope**2)
        return torch.minimum(width / 2 - away, torch.minimum(along - start, start + length - along))

    def paint(self, head, image):
        r = radius(head.x, head.y, self.x, self.y)
        brain = step(head.depth, head.pixel)
        faint = bell(r, 1.1 * self.r) * self.has_gliosis * (1 - head.csf) * brain
        nidus = torch.minimum(self.curls(head), self.r - r + 1.5 * head.fine)
        tubes = torch.maximum(nidus, torch.maximum(self.tube(head, *self.vein), self.tube(head, *self.feeder)))
        alpha = step(tubes, head.pixel) * brain
        image = over(image, 0.8 * faint, self.gliosis * head.grey_value)
        bed = step(self.r - r, 2.0) * brain
        return over(image, alpha, self.value * head.grey_value), torch.maximum(alpha, bed), faint
