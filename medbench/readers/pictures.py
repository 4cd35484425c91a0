"""One image as grey levels: grey of 8 or 16 bits, colour, transparent, palette, DICOM.

What lives here, top to bottom: `Picture`; `read_image` and `read_picture`; `picture_of`, for an image in memory;
`fitted`, to a square of a given side, and `fitted_boxes`; grey levels from any mode.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import dicom
from .listing import NOT_DAMAGE, why

JPEG_NOISE = 8                 # grey levels by which channels of grey that was stored as colour may differ
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262                      # tags of TIFF


@dataclass(frozen=True, eq=False)
class Picture:
    """One image: `grey`, a PIL image in mode L; `mode` and `size` (width, height) of the file; had it colour?"""

    grey: Any
    mode: str
    size: tuple[int, int]
    coloured: bool = False

    @property
    def blank(self) -> bool:
        """Whether all pixels have one grey level."""
        low, high = self.grey.getextrema()
        return low == high


def read_image(path: str | os.PathLike, side: int) -> np.ndarray:
    """One image file as grey levels, padded to a square with black and resized.

    Args: `path`; `side` in pixels. An image of more than 8 bits is scaled so that its range fills 0 to 255; DICOM gets
        its rescale and window.
    Returns: (side, side) uint8. Raises: FileNotFoundError; ValueError if the file is no whole image.
    """
    return fitted(read_picture(path), side)


def read_picture(path: str | os.PathLike) -> Picture:
    """One image file, turned as its EXIF says. Raises: FileNotFoundError; ValueError if it is no whole image;
    ImportError as `dicom.read`."""
    from PIL import Image, ImageOps
    if not os.path.isfile(path):
        raise FileNotFoundError(f"image {str(path)!r} does not exist")
    if dicom.knows(path):
        return picture_of(dicom.read(path), "DICOM")
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise ValueError(f"it has {frames} frames; wanted one image a file")
            _refuse_deep_colour(image)
            image.load()
            image, dark_is_high = ImageOps.exif_transpose(image), _dark_is_high(image)
            grey = _grey(image)
            return Picture(ImageOps.invert(grey) if dark_is_high else grey, image.mode, image.size, _coloured(image))
    except NOT_DAMAGE:
        raise
    except Exception as error:
        raise ValueError(f"{str(path)!r} is no whole image ({why(error)})") from error


def _refuse_deep_colour(image) -> None:
    """Pillow reads 16 bits a channel as 8 without a word: what has 12 bits in 16 would be almost black."""
    deep = image.format == "PNG" and ";16" in str(image.tile)               # how it will be decoded
    deep |= image.format == "TIFF" and max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) > 8
    if deep and len(image.getbands()) > 1:
        raise ValueError("it has 16-bit colour or transparency, of which the high byte alone would be read; store it "
                         "as 16-bit grey or as 8-bit colour")


def _dark_is_high(image) -> bool:
    """Whether a TIFF of more than 8 bits has white as 0 (WhiteIsZero); up to 8 bits Pillow turns it over itself."""
    return image.format == "TIFF" and image.mode[0] in "IF" and image.tag_v2.get(PHOTOMETRIC) == 0


def picture_of(array: np.ndarray, mode: str = "") -> Picture:
    """An image in memory: (h, w) or (h, w, 3) of 8 bits, or (h, w) of any numbers, whose range then fills 0 to 255."""
    from PIL import Image
    array = np.asarray(array)
    image = Image.fromarray(array) if array.dtype == np.uint8 else _stretched(array)
    return Picture(_grey(image), mode or image.mode, image.size, _coloured(image))


def fitted(picture: Picture, side: int) -> np.ndarray:
    """(side, side) uint8: padded to a square with black, then averaged down or interpolated up."""
    from PIL import Image
    grey = picture.grey
    if grey.width != grey.height:
        square = Image.new("L", (max(grey.size),) * 2)
        square.paste(grey, tuple(_margins(np.array(grey.size)).tolist()))
        grey = square
    how = Image.Resampling.BOX if grey.width > side else Image.Resampling.BICUBIC
    return np.asarray(grey.resize((side, side), how))


def fitted_boxes(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) in shares of images of `sizes` (n, 2) px, width and height, in shares of what `fitted` makes of
    them."""
    square = sizes.max(1, keepdims=True)
    share = sizes / square
    return np.hstack([_margins(sizes) / square + boxes[:, :2] * share, boxes[:, 2:] * share])


def _margins(sizes: np.ndarray) -> np.ndarray:
    """Black px to the left of images and above them, in their squares; `sizes` (..., 2), width and height."""
    return (sizes.max(-1, keepdims=True) - sizes) // 2


# --------------------------------------------------------------------------------------------- grey levels
def _grey(image):
    """Mode L from any mode: deep images by their range, transparent ones on black, colour by ITU-R 601 luma."""
    from PIL import Image
    if image.mode[0] in "IF":
        return _stretched(np.asarray(image))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return image.convert("L")


def _coloured(image) -> bool:
    """Whether the channels differ by more than what JPEG makes of grey."""
    from PIL import ImageChops
    if image.mode in ("1", "L", "LA") or image.mode[0] in "IF":
        return False
    red, green, blue = image.convert("RGB").split()
    return any(ImageChops.difference(green, other).getextrema()[1] > JPEG_NOISE for other in (red, blue))


def _stretched(array: np.ndarray):
    """Numbers of 16 or 32 bits as a grey image, their range scaled to 0 to 255."""
    from PIL import Image
    deep = np.asarray(array, dtype=np.float64)
    if not np.isfinite(deep).all():
        raise ValueError("it has pixels that are NaN or infinite")
    return Image.fromarray((255 * (deep - deep.min()) / max(np.ptp(deep), 1e-12)).astype(np.uint8))
