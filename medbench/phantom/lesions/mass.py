"""What takes room: oedema, masses in the brain and outside it, the pituitary lesion."""

import torch

from ..drawing import bell, over, push, radius, shift_midline, step
from .base import Lesion

DEGREE = torch.pi / 180


def fingers(head, reach):
    """Oedema spreads along white matter: `reach` is the distance in mm to its outer edge, positive inside."""
    white = step(head.white - 0.55, 0.35) * (1 - head.csf)
    return step(reach + 3 * head.fine, 5.0) * white


class Edema(Lesion):
    """Finger-like brightness of one hemisphere's white matter, without a core.

    Cortex and callosum are spared, the ventricle is compressed.
    """

    def plan(self, head, draw):
        self.x, self.y = self.place("hemisphere", head)
        self.side = torch.sign(self.x)
        self.reach = draw(35, 70) / 2 * self.size
        self.value, self.strength, self.shift = self.signal("oedema"), draw(0.15, 0.3), draw(2, 8)
        self.stretch, self.tilt = draw(1, 1.5), draw(60, 120) * DEGREE

    def displace(self, head):
        x, y = shift_midline(head.x, head.y, self.side, self.shift, self.y)
        return push(x, y, self.x, self.y, 0.6 * self.reach, self.strength)

    def sulci(self, head):
        return 1 - 0.6 * bell(radius(head.x, head.y, self.x, self.y), self.reach)

    def paint(self, head, image):
        r = radius(head.x, head.y, self.x, self.y, self.stretch, self.tilt)
        alpha = fingers(head, self.reach - r) * step(self.side * head.x - 7, 4.0)
        image = over(image, alpha, self.value * head.grey_value * (1 + 0.04 * head.rough))
        return image, alpha, torch.zeros_like(alpha)


class Intra(Lesion):
    """In the brain: a mass with rim, core and oedema around (75 %), or a haematoma, bright with a dark rim (25 %)."""

    def plan(self, head, draw):
        self.x, self.y = self.place("subcortical", head)
        self.side = torch.sign(self.x)
        self.is_blood = draw.happens(0.25)
        self.r = torch.where(self.is_blood, draw(9, 16), draw(13, 21)) * self.size
        self.rim = torch.where(self.is_blood, draw(2, 4), draw(3, 6))
        pick = lambda a, b: torch.where(self.is_blood, a, b)  # noqa: E731
        self.rim_value = pick(self.signal("iron"), self.signal("rim"))
        self.core_value = pick(self.signal("blood"), self.signal("core"))
        self.oedema_value, self.oedema = self.signal("oedema"), pick(draw(1, 3), draw(3, 9))
        self.strength, self.shift = draw(0.4, 0.65), draw(1, 6)
        self.phase, self.lobes = draw(0, 360) * DEGREE, draw(0.04, 0.14)
        self.stretch, self.tilt = draw(1, 1.35), draw(0, 180) * DEGREE

    def displace(self, head):
        x, y = shift_midline(head.x, head.y, self.side, self.shift * self.r / 20, self.y)
        return push(x, y, self.x, self.y, self.r, self.strength)

    def sulci(self, head):
        return 1 - 0.6 * bell(radius(head.x, head.y, self.x, self.y), 1.6 * self.r)

    def paint(self, head, image):
        angle = torch.atan2(head.y - self.y, head.x - self.x)
        wave = self.lobes * (torch.cos(3 * angle + self.phase) + torch.cos(5 * angle - 2 * self.phase))
        edge = self.r * (1 + wave) - radius(head.x, head.y, self.x, self.y, self.stretch, self.tilt)
        brain = step(head.depth - 1, head.pixel) * step(self.side * head.x, head.pixel)
        oedema = fingers(head, edge + self.oedema) * step(self.side * head.x - 5, 4.0)
        mass = step(edge, head.pixel) * brain
        core = step(edge - self.rim + 0.8 * head.fine, 1.5 * head.pixel) * brain
        image = over(image, oedema, self.oedema_value * head.grey_value)
        image = over(image, mass, self.rim_value * head.grey_value)
        image = over(image, core, self.core_value * head.grey_value * (1 + 0.08 * head.rough))
        return image, mass, oedema


class Extra(Lesion):
    """Outside the brain: a meningioma with a broad base on the dura (65 %), or a subdural crescent (35 %)."""

    def plan(self, head, draw):
        self.is_crescent = draw.happens(0.35)
        rim_x, rim_y = self.place("inner table", head)
        self.r = draw(12, 20) * self.size
        on_falx, sunk = draw.happens(0.2) & ~head.low, draw(0.35, 0.65) * self.r
        falx_side, falx_y = draw.side(), torch.where(draw.happens(0.5), draw(20, 50), draw(-80, -45))
        away = torch.sqrt(rim_x**2 + (rim_y + 18) ** 2)
        self.on_falx = on_falx & ~self.is_crescent
        self.x = torch.where(self.on_falx, falx_side * sunk, rim_x * (1 - sunk / away))
        self.y = torch.where(self.on_falx, falx_y, rim_y - (rim_y + 18) * sunk / away)
        self.side = torch.sign(self.x)
        self.value = self.signal("meningioma")
        self.crescent_value = torch.where(draw.happens(0.3), self.signal("hygroma"), self.signal("subdural"))
        self.thick, self.span = draw(6, 12) * self.size, draw(50, 80) * DEGREE
        self.towards = torch.atan2(rim_y + 18, rim_x.abs()).clamp(-40 * DEGREE, 40 * DEGREE)
        self.strength, self.shift, self.cleft = draw(0.6, 0.85), draw(1, 5), draw(1, 2)

    def crescent(self, head):
        """Thickness in mm of the crescent along the inner table: widest in the middle, gone at the falx."""
        angle = torch.atan2(head.y + 18, self.side * head.x)
        arc = (1 - ((angle - self.towards) / self.span) ** 2).clamp(min=0) ** 0.4
        return self.thick * arc * step(self.side * head.x - 4, 6.0)

    def displace(self, head):
        ball_x, ball_y = push(head.x, head.y, self.x, self.y, self.r, self.strength)
        thick = self.crescent(head)
        moved = thick * torch.exp(-(head.depth - thick).clamp(min=0) / 22)
        away = radius(head.x, head.y, 0.0, -18.0)
        x, y = head.x * (1 + moved / away), head.y + (head.y + 18) * moved / away
        x, y = shift_midline(x, y, self.side, self.shift, -10.0)
        return torch.where(self.is_crescent, x, ball_x), torch.where(self.is_crescent, y, ball_y)

    def sulci(self, head):
        near = bell(radius(head.x, head.y, self.x, self.y), 1.5 * self.r)
        return 1 - 0.5 * torch.where(self.is_crescent, step(self.side * head.x, 20.0), near)

    def paint(self, head, image):
        inside = step(head.depth, head.pixel)
        ball = self.r - radius(head.x, head.y, self.x, self.y)
        ball = torch.where(self.on_falx, torch.minimum(ball, self.side * head.x - 0.5), ball)
        edge = torch.where(self.is_crescent, self.crescent(head) - head.depth - 0.5, ball)
        alpha = step(edge, head.pixel) * inside
        cleft = step(edge + self.cleft, head.pixel) * inside * ~self.is_crescent * 0.8
        image = over(image, cleft, head.csf_value)
        value = torch.where(self.is_crescent, self.crescent_value, self.value) * head.grey_value
        return over(image, alpha, value * (1 + 0.025 * head.rough)), alpha, torch.zeros_like(alpha)


class PituitaryLesion(Lesion):
    """A round or snowman-shaped lesion of the midline that fills the dark cistern above the sella."""

    def plan(self, head, draw):
        self.x, self.y = draw(-1.2, 1.2), draw(-3, 2)
        self.r = draw(14, 24) / 2 * self.size
        self.value = self.signal("adenoma")
        self.snowman, self.second = draw.happens(0.4), draw(0.6, 0.8) * self.r
        self.offset = draw(0.75, 0.95) * self.r * torch.where(draw.happens(0.5), 1.0, -1.0)
        self.strength = draw(0.2, 0.4)

    def displace(self, head):
        return push(head.x, head.y, self.x, self.y, self.r, self.strength)

    def paint(self, head, image):
        edge = self.r - radius(head.x, head.y, self.x, self.y)
        second = self.second - radius(head.x, head.y, self.x, self.y + self.offset)
        edge = torch.where(self.snowman, torch.maximum(edge, second), edge)
        alpha = step(edge, head.pixel)
        image = over(image, alpha, self.value * head.grey_value * (1 + 0.03 * head.rough))
        return image, alpha, torch.zeros_like(alpha)
