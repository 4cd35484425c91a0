"""Infarcts: the tissue of one artery's territory, swollen when fresh and lost when old."""

import torch

from ..drawing import bell, over, pull, push, radius, step
from .base import Lesion

DEGREE = torch.pi / 180


class Infarct(Lesion):
    """What fresh and old infarcts share: a wedge of a territory (75 %) or a small one in the deep grey matter (25 %).

    The wedge has its apex at the wall of the ventricle and its base on the cortex. Territories: middle cerebral
    artery 60 %, posterior and anterior 20 % each; at the level of the sella temporal lobe or cerebellum.
    """

    small_mm = (10, 20)

    def plan(self, head, draw):
        self.side, territory, jitter = draw.side(), draw(), draw(-1, 1)
        middle, posterior = territory < 0.6, (territory >= 0.6) & (territory < 0.8)
        pick = lambda a, b, c: torch.where(middle, a, torch.where(posterior, b, c))  # noqa: E731
        ax, ay = pick(18., 17., 9.), pick(12 * jitter, -34., 20.)
        towards = pick(8 + 28 * jitter, -63 + 12 * jitter, 65 + 10 * jitter)
        temporal = territory < 0.5
        low_x, low_y = torch.where(temporal, 27., 13.), torch.where(temporal, -12., -54.)
        low_towards = torch.where(temporal, 5 + 20 * jitter, -45 + 25 * jitter)
        self.x, self.y = self.side * torch.where(head.low, low_x, ax), torch.where(head.low, low_y, ay)
        self.towards = torch.where(head.low, low_towards, towards) * DEGREE
        self.half = draw(20, 37) * DEGREE * self.size
        self.is_small, self.small = draw.happens(0.25), draw(*self.small_mm) / 2 * self.size
        self.small_x, self.small_y = self.place("deep", head)
        self.stretch, self.tilt = draw(1, 1.6), draw(0, 180) * DEGREE

    def middle(self):
        """About the centre of the lesion, and its radius: where it pushes."""
        reach = 34.0
        x = self.x + self.side * reach * torch.cos(self.towards)
        y = self.y + reach * torch.sin(self.towards)
        return (torch.where(self.is_small, self.small_x, x), torch.where(self.is_small, self.small_y, y),
                torch.where(self.is_small, self.small, 34 * torch.sin(self.half)))

    def inside(self, head):
        """Distance in mm to the lesion's edge, positive inside, ragged."""
        dx, dy = self.side * (head.x - self.x), head.y - self.y
        r = torch.sqrt(dx * dx + dy * dy + 1e-3)
        wedge = r * (self.half - (torch.atan2(dy, dx) - self.towards).abs()).clamp(-0.8, 0.8)
        wedge = torch.minimum(wedge, self.side * head.x - 2) + 2.5 * head.fine
        small = self.small - radius(head.x, head.y, self.small_x, self.small_y, self.stretch, self.tilt)
        return torch.where(self.is_small, small + 0.4 * head.fine, wedge)


class AcuteInfarct(Infarct):
    """Bright grey and white matter, ragged, swollen: the sulci inside are effaced."""

    def plan(self, head, draw):
        super().plan(head, draw)
        self.value, self.swelling, self.effaced = self.signal("infarct"), draw(0.08, 0.22), draw(0.1, 0.3)

    def displace(self, head):
        x, y, size = self.middle()
        return push(head.x, head.y, x, y, size, self.swelling)

    def sulci(self, head):
        return 1 - (1 - self.effaced) * step(self.inside(head) + 2, 4)

    def paint(self, head, image):
        alpha = step(self.inside(head), 1.5 * head.pixel) * (1 - head.csf) * step(head.depth, head.pixel)
        image = over(image, alpha, self.value * head.grey_value * (1 + 0.05 * head.rough))
        return image, alpha, torch.zeros_like(alpha)


class ChronicInfarct(Infarct):
    """A cavity of fluid with a bright rim; the ventricle beside it and the sulci around it widen: loss, never push."""

    small_mm = (4, 12)

    def plan(self, head, draw):
        super().plan(head, draw)
        self.rim_value, self.rim = self.signal("gliosis"), draw(3, 6)
        self.rim = torch.where(self.is_small, self.rim * 0.4, self.rim)
        self.loss = torch.where(self.is_small, 0.5, 1.0) * draw(0.2, 0.4)
        self.half = self.half * 0.85

    def displace(self, head):
        return pull(head.x, head.y, self.side * 9, torch.where(self.y < -20, -25., 8.), 26.0, 3.0 * self.loss)

    def sulci(self, head):
        x, y, size = self.middle()
        near = bell(radius(head.x, head.y, x, y), size + 22) * torch.where(self.is_small, 0.3, 1.0)
        return 1 + 1.6 * near * (self.side * head.x > 0)

    def paint(self, head, image):
        edge = self.inside(head)
        brain = step(head.depth, head.pixel)
        whole = step(edge, head.pixel) * brain
        rim = whole * (1 - head.csf)
        image = over(image, rim, self.rim_value * head.grey_value)
        cavity = step(edge - self.rim + 0.8 * head.fine, 1.2 * head.pixel) * brain
        return over(image, cavity, head.csf_value), whole, torch.zeros_like(whole)
