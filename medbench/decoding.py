"""Real images from a listing to 8-bit arrays: what is damaged is set aside by name and reason.

What lives here, top to bottom: `opened`, the pictures of some rows, in order, by several threads; `decode`, one split
into the cache; what is too much damage; what a reader has to know of the images.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .files import array_file, write_array, write_json
from .machine import cores
from .readers import SPLITS, Listing, Picture, fitted, read_picture
from .readers.listing import NOT_DAMAGE, out_of_reach, why
from .readers.pictures import picture_of

VERSION = 4                    # raised when images are read otherwise: old caches are then made anew
SET_ASIDE = "set_aside.json"
AHEAD = 256                    # images opened before the first of them is used
NAMED = 5                      # of many damaged images, in a message
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


# --------------------------------------------------------------------------------------------- open
class Unreachable(RuntimeError):
    """An image that could not be read this time, which is no fault of the image."""


def opened(found: Listing, rows):
    """Yields for each row its `Picture`, the reason (a string) why there is none, or the `Unreachable` that hides it,
    in the order of `rows`.

    Threads open the files: Pillow lets go of the interpreter while it decodes.
    """
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(rows), AHEAD):
            yield from pool.map(lambda row: _open(found, row), rows[start:start + AHEAD])


def _open(found: Listing, row: int) -> Picture | str | Unreachable:
    """One picture, or why there is none. A missing package or memory is raised: it is no fault of the image."""
    path = found.table["path"].iloc[row]
    try:
        picture = read_picture(path) if found.arrays is None else picture_of(found.arrays[row])
    except NOT_DAMAGE:
        raise
    except Exception as error:
        if behind := out_of_reach(error):
            return Unreachable(f"image {str(path)!r} cannot be read ({behind.strerror}), which is no fault of its own: "
                               f"give permission there or mount its disk, or take it out of the data set, and start "
                               f"again")
        return why(error).removeprefix(repr(str(path))).strip()
    return f"is blank, every pixel is {picture.grey.getextrema()[0]}" if picture.blank else picture


def stamps(found: Listing, rows) -> list:
    """What tells whether the images of some rows have changed: size and time of files, or a hash of arrays."""
    if found.arrays is not None:
        return [hashlib.sha256(b"".join(found.arrays[row].tobytes() for row in rows)).hexdigest()]
    paths = [found.table["path"].iloc[row] for row in rows]
    return [(path, facts.st_size, facts.st_mtime_ns) for path, facts in ((path, os.stat(path)) for path in paths)]


# --------------------------------------------------------------------------------------------- decode
def decode(folder: Path, found: Listing, rows, labels: np.ndarray, side: int, bar) -> None:
    """Read one split's images into the folder, those that can be read.

    `images.npy` (m, side, side), `labels.npy` (m,), `kept.npy` (m,): positions among `rows`, `sizes.npy` (m, 2):
    width and height of each file in px, `coloured.npy` (m,) bool, and `set_aside.json`: (row, reason) of the others.

    Raises: Unreachable: an image that could be read at another time; nothing is kept then.
    """
    kept, sizes, coloured, aside = [], [], [], []
    with array_file(folder / "images.npy", side, side) as append:
        for i, picture in enumerate(opened(found, rows)):
            if isinstance(picture, Unreachable):
                raise picture
            if isinstance(picture, str):
                aside.append((int(rows[i]), picture))
            else:
                append(fitted(picture, side)[None])
                kept.append(i)
                sizes.append(picture.size)
                coloured.append(picture.coloured)
            bar.update()
    write_array(folder / "labels.npy", labels[kept])
    write_array(folder / "kept.npy", np.array(kept, np.int64))
    write_array(folder / "sizes.npy", np.array(sizes, np.int64).reshape(-1, 2))
    write_array(folder / "coloured.npy", np.array(coloured, bool))
    write_json(folder / SET_ASIDE, aside)


# --------------------------------------------------------------------------------------------- say
def refuse_too_many(lost: list[tuple[str, str]], total: int, allowed: float, more: str = ", or raise max_damaged"
                    ) -> None:
    """Raises ValueError where more than the allowed share of images is damaged or blank; `more` advice."""
    if len(lost) > allowed * total:
        raise ValueError(f"{len(lost)} of {total} images cannot be used, and max_damaged allows {allowed:.2%}: "
                         f"{in_short(lost)}; replace them, or take them out of the data set{more}")


def refuse_emptied(found: Listing, arrays: dict, lost: list[tuple[str, str]]) -> tuple[str, ...]:
    """Caveats where a split of `arrays` lost all images of a class; raises the first error of `emptied`."""
    errors, caveats = emptied(found, np.concatenate([own["rows"] for own in arrays.values()]), lost, tuple(arrays))
    for error in errors:
        raise error
    return caveats


def emptied(found: Listing, kept, lost: list[tuple[str, str]], splits=SPLITS
            ) -> tuple[list[ValueError], tuple[str, ...]]:
    """Where no image of a split is kept, or none of a class in it: errors where nothing can be trained on the rest, as
    `readers.faults` has them of the whole, and caveats where something can."""
    errors, caveats = [], []
    for split in splits:
        name = SPLIT_NAMES[split]
        before, left = (table[table["split"] == split] for table in (found.table, found.table.iloc[kept]))
        gone = before[~before["label"].isin(left["label"])]
        if gone.empty:
            continue
        keys = ", ".join(repr(key) for key in found.classes if key in set(gone["label"]))
        what = f"all {name} images" + (f" of class {keys}" if len(left) else "")
        why = in_short([(path, reason) for path, reason in lost if path in set(gone["path"])])
        if split == "val" and left["label"].nunique() == 1:
            errors.append(ValueError(f"{what} are set aside ({why}), which leaves class {left['label'].iloc[0]!r} "
                                     f"only; the epoch is chosen by AUROC, which needs two classes: replace them"))
        elif split == "train" or left.empty:
            errors.append(ValueError(f"{what} are set aside ({why}); replace them"))
        else:
            caveats.append(f"{what} are damaged or blank")
    return errors, tuple(caveats)


def in_short(lost: list[tuple[str, str]]) -> str:
    """The first few images that are set aside, by name and reason."""
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    return "; ".join(f"{os.path.basename(path)} {reason}" for path, reason in lost[:NAMED]) + more


def said_of(arrays: dict, side: int, lost: list[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Caveats for every result, and notes: enlarged images, copies, images set aside, colour."""
    caveats, notes = [], []
    sides = np.concatenate([part["sizes"].max(1) for part in arrays.values()])
    if small := int((sides < side).sum()):
        sizes = f"{sides.min()} px" if sides.min() == sides[sides < side].max() else f"{sides.min()} px or more"
        which = "images" if small == len(sides) else f"{small} of {len(sides)} images"
        caveats.append(f"{which} enlarged from {sizes}")
    caveats += copies((hashlib.sha256(image).digest(), name, int(label)) for name, part in arrays.items()
                      for image, label in zip(part["images"], part["labels"]))
    if lost:
        notes.append(f"{len(lost)} images are set aside: {in_short(lost)}.")
    if colour := int(sum(part["coloured"].sum() for part in arrays.values())):
        notes.append(f"{colour} of {len(sides)} images have colour, which is reduced to grey (ITU-R 601 luma).")
    return tuple(caveats), tuple(notes)


def copies(images) -> tuple[str, ...]:
    """Caveats on images that are the same, pixel by pixel: in two splits, of two classes, tested twice.

    Args: `images`: for each its hash, its split and its class.
    """
    seen: dict[bytes, list[tuple]] = {}
    for digest, split, label in images:
        seen.setdefault(digest, []).append((split, label))
    twice = [tuple(zip(*own)) for own in seen.values() if len(own) > 1]                   # their splits, their classes
    counts = {"lie in more than one split": sum(len(set(splits)) > 1 for splits, _ in twice),
              "have more than one class": sum(len(set(labels)) > 1 for _, labels in twice),
              "stand in the test more than once": sum(splits.count("test") > 1 for splits, _ in twice)}
    return tuple(f"{count} images {what}, pixel by pixel" for what, count in counts.items() if count)
