"""From random numbers to images: pose, anatomy, lesion, coil, noise, histogram. One class a call."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from . import histogram
from .anatomy import CEREBRUM, SELLA, Z_LOW, sample
from .drawing import Draws, bell, over, pull, radius, smooth, step
from .lesions import LESIONS, Head
from .signals import TISSUES

FIELD_OF_VIEW = 210.0          # mm
CENTRE_Y = -17.0               # MNI y of the image's centre
SELLA_SHARE = 0.16             # of every class but the pituitary lesion, which always lies there
GAIN = 0.8                     # brightness 1.25 is the whitest that an image shows
HEIGHT_DRAWS, COMMON = 3, 128  # uniform numbers kept for the slice, and for head and scanner; the rest: the lesion's


@dataclass(frozen=True)
class Look:
    """What a data set has in common: sequence, difficulty, and which shortcuts are cured."""

    contrast: str
    difficulty: float
    confounding: float
    histogram_matching: bool
    sella_slices: bool
    decoys: bool


def render(label: str, uniform, control, noise, offset, look: Look, device: str, healthy: bool = False):
    """Draw the samples of one class.

    Arguments: the samples' random numbers (see `drawing.numbers`); `offset` (n,): mm from the height at which the
    patient's lesion was placed; `healthy` leaves the lesion and its displacement out.
    Returns: images uint8, lesion bool, affected bool, each (n, H, W), and the slices' heights in mm (n,).
    """
    control, noise = control.to(device), noise.to(device)
    draw = Draws(uniform[:, :COMMON], device)
    centre, low = height(label, draw, look.sella_slices)
    z = _within(centre + offset.to(device)[:, None, None], low)
    image, opacity, affected = _expose("normal" if healthy else label, z, low, uniform, control, noise, look, device,
                                       centre)
    if look.histogram_matching:
        rows, donors = low.flatten(), None
        if rows.any():                                        # the same heads, healthy, higher up
            here = rows.cpu()
            z_up = height("normal", Draws(uniform[here, :COMMON], device), False)
            higher = _expose("normal", *z_up, uniform[here], control[rows], noise[rows], look, device)[0]
            donors = histogram.quantiles(higher)
        image = histogram.remap(image, control[:, 5].flatten(1), rows, donors)
    image = _site(image, label, uniform[:, COMMON - 1, None, None].to(device), look)
    return image.mul(255).round().clamp(0, 255).byte(), opacity > 0.5, affected, z.flatten()


def _within(z: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Heights in whole mm, mirrored at the ends of the sella's level, or of the cerebrum, to stay where they belong."""
    bottom, top = (torch.where(low, *ends) for ends in zip(SELLA, CEREBRUM))
    return (top - (top - bottom - (z - bottom).abs()).abs()).round()


def _expose(label, z, low, uniform, control, noise, look, device, centre=None):
    """The image (n, H, W) as the scanner sees it, the lesion's opacity, and whether tissue is affected."""
    draw = Draws(uniform[:, HEIGHT_DRAWS:COMMON], device)
    head = _pose(z, low, draw, control, noise.shape[-1], device, z if centre is None else centre)
    lesion = LESIONS[label](head, Draws(uniform[:, COMMON:], device), look.contrast, look.difficulty)
    x, y = lesion.displace(head)
    near = (head.depth / 6).clamp(0, 1)                       # nothing moves at the inner table
    x, y = head.x + near * (x - head.x), head.y + near * (y - head.y)
    moved = (x - head.x) ** 2 + (y - head.y) ** 2 > 1.5**2
    image = _anatomy(head, x, y, lesion.sulci(head), draw, look)
    if look.decoys:
        image = _decoys(head, image, lesion, draw)
    image, opacity, oedema = lesion.paint(head, image)
    return _scanner(image, control, noise, draw), opacity, (oedema > 0.5) | moved


def height(label: str, draw: Draws, sella_slices: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The slice's MNI z in mm, and whether it shows the sella, each (n, 1, 1)."""
    sella = draw.happens(SELLA_SHARE if sella_slices else 0.0)
    high, low = draw(*CEREBRUM), draw(*SELLA)
    sella = sella | (label == "pituatary_lesion")
    return torch.where(sella, low, high).round(), sella


def _pose(z, low, draw, control, size, device, centre) -> Head:
    """Lay the pixels into the head: rotation, scale, shear, shift and a smooth warp."""
    pixel = FIELD_OF_VIEW / size
    ruler = (torch.arange(size, device=device) + 0.5) * pixel - FIELD_OF_VIEW / 2
    column, row = ruler[None, None, :], -ruler[None, :, None]
    turn, scale, shear, stretch = draw(-0.15, 0.15), draw(0.95, 1.04), draw(-0.03, 0.03), draw(0.97, 1.03)
    scale = scale * torch.where(low, 1.04, 1.0)               # the head is smaller there: as much air as higher up
    c, s = torch.cos(turn), torch.sin(turn)
    warp = 5.0 * smooth(control[:, :2, :6, :6], size)
    x = (c * column - s * row) / (scale * stretch) + draw(-6, 6) + warp[:, 0]
    y = (s * column + c * row) * stretch / scale + shear * x + draw(-6, 6) + CENTRE_Y + warp[:, 1]
    slices, placed = ((at.flatten() - Z_LOW).long() for at in (z, centre))
    rough, fine = 2 * smooth(control[:, 2, :12, :12], size), 2 * smooth(control[:, 3], size)
    return Head(x, y, sample("depth", slices, x, y)[:, 0], slices, z, low, placed, pixel, rough, fine)


def _anatomy(head: Head, x, y, sulci, draw, look) -> torch.Tensor:
    """Read the tissue at its place of origin, with this head's own atrophy, and give it the sequence's brightness."""
    atrophy, large = draw(), draw(-0.08, 0.4)
    x, y = pull(x, y, 0.0, 2.0, 30.0, large * torch.where(head.low, 0.0, 1.0))
    head.white, csf, other, head.ventricle = sample("tissue", head.slices, x, y).unbind(1)
    head.csf = ((csf * (0.75 + 0.9 * atrophy) * sulci - 0.2) / 0.45).clamp(0, 1)
    value = {name: draw(*limits) for name, limits in TISSUES[look.contrast].items()}
    if not look.decoys:
        value["fat"] = 1.3 * value["grey"]
    head.grey_value, head.csf_value = value["grey"], value["csf"]
    solid = over(value["grey"], head.white, value["white"]) * (1 + 0.03 * head.fine)
    brain = over(solid, head.csf, value["csf"])
    brain = over(brain, other, value["orbit"] * (1 + 0.3 * head.rough))
    return _skull(head, brain, value, draw, look)


def _skull(head: Head, image, value, draw, look) -> torch.Tensor:
    """Rings around the hull: fluid, inner table, marrow, outer table, scalp, air."""
    gap, bone, scalp = draw(1, 3), draw(4, 7), draw(3.5, 10)
    out = -head.depth + 0.7 * head.rough
    image = over(image, step(out, head.pixel), value["csf"])
    image = over(image, step(out - gap, head.pixel), value["skull"])
    marrow = bell(out - gap - bone / 2, bone / 4)
    image = over(image, marrow * step(out - gap, head.pixel), value["marrow"])
    uneven = torch.exp(0.25 * head.rough + 0.12 * head.fine) if look.decoys else 1.0      # in places as any lesion
    image = over(image, step(out - gap - bone, head.pixel), value["fat"] * uneven)
    return over(image, step(out - gap - bone - scalp, head.pixel), 0.0)


def _decoys(head: Head, image, lesion, draw) -> torch.Tensor:
    """Harmless things that any head may have.

    Thin ventricular caps, dots, choroid plexus, bright and dark vessels, scalp lumps.
    """
    grey = head.grey_value
    cap = draw(0, 2.5) - head.ventricle
    image = over(image, step(cap, head.pixel) * (1 - head.csf) * step(head.y.abs() - 20, 10.0), draw(1.1, 1.3) * grey)
    dots, brightness = draw(0, 3).floor(), draw(1.15, 1.5)
    for k in range(2):
        x, y = lesion.place_with("white", head, draw)
        r = torch.where(k < dots, draw(0.8, 1.3), -9.0)
        image = over(image, step(r - radius(head.x, head.y, x, y), head.pixel), brightness * grey)
    for x, y, chance in ((23.0, -40.0, 0.5), (-23.0, -40.0, 0.5)):                       # choroid plexus in the atria
        plexus = step(draw(2, 4) - radius(head.x, head.y, x, y), head.pixel) * head.csf * draw.happens(chance)
        image = over(image, plexus * ~head.low, draw(0.7, 1.2) * grey)
    for _ in range(4):                                                                    # vessels, end-on, at the rim
        x, y = lesion.place_with("inner table", head, draw)
        vessel = step(draw(1, 2.6) - radius(head.x, head.y, 0.95 * x, 0.95 * y), head.pixel) * draw.happens(0.5)
        image = over(image, vessel, torch.where(draw.happens(0.5), draw(1.2, 1.7), draw(0.05, 0.3)) * grey)
    for _ in range(2):                                                                    # lumps of the scalp
        x, y = lesion.place_with("inner table", head, draw)
        lump = bell(radius(head.x, head.y, 1.13 * x, 1.13 * y), draw(5, 11)) * step(-head.depth - 6, 3.0)
        image = over(image, lump * draw.happens(0.5), draw(0.3, 1.0))
    return image


def _scanner(image, control, noise, draw) -> torch.Tensor:
    """Coil sensitivity, Rician noise and gain; values in [0, 1]."""
    coil = torch.exp(0.12 * smooth(control[:, 4, :5, :5], image.shape[-1]) * 2)
    spread = draw(0.012, 0.04)
    image = torch.sqrt((image * coil + spread * noise[:, 0]) ** 2 + (spread * noise[:, 1]) ** 2)
    return (GAIN * image).clamp(max=1)


def _site(image, label, u, look) -> torch.Tensor:
    """The mark that a site burns into its images, tied to the label with strength `confounding`.

    Sick heads come from the site that marks the top left corner with probability (1 + confounding) / 2, normal ones
    with (1 - confounding) / 2; the other site marks the bottom right corner. Without confounding there are no marks.
    """
    if not look.confounding:
        return image
    sick = -1.0 if label == "normal" else 1.0
    first = u < (1 + sick * look.confounding) / 2
    side = image.shape[-1]
    a, b, c = (max(1, round(side * f)) for f in (0.03, 0.07, 0.16))
    mark = torch.zeros(side, side, device=image.device)
    mark[a:b, a:c] = 1.0
    return torch.maximum(image, torch.where(first, mark, mark.flip(0, 1)))
