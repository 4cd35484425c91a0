"""Real images: what a source holds, before any image is opened, and how one image is read.

What lives here: `Listing`, one row an image; `listing`, which finds the reader of a source and checks what it says.
Each reader has a file of its own: `manifest`, `folders`, `radimagenet`, `medmnist`. `pictures` reads image files,
`dicom` those of scanners, `splits` makes a split where none is given.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..checks import one_of
from . import folders, manifest, medmnist, radimagenet
from .listing import BOXES, NEEDED, SPLITS, Listing
from .pictures import Picture, fitted, read_image, read_picture

__all__ = ["BOXES", "NEEDED", "SPLITS", "Listing", "Picture", "fitted", "listing", "read_image", "read_picture"]

# the first that knows a source reads it
READERS = (medmnist, manifest, radimagenet, folders)


def listing(source: str | os.PathLike, subset: str = "", cache: Path | None = None) -> Listing:
    """What a source holds: label, split and what else it tells of each image; no image is opened yet.

    Args: `source`: a manifest (`.csv`), a MedMNIST file (`.npz`) or `medmnist:NAME`, RadImageNet's folder, or a folder
        with one sub-folder a class; `subset`: a part of it, where the reader knows parts (`MR/brain`); `cache`: where
        downloads go.
    Returns: `Listing`.
    Raises: FileNotFoundError, ValueError: naming the file, the line, what was wanted and the fix.
    """
    reader = next((one for one in READERS if one.knows(str(source))), None)
    if reader is None:
        raise FileNotFoundError(f"data source {str(source)!r} does not exist; wanted 'phantom', a manifest (.csv with "
                                f"columns path, label, split), a MedMNIST file (.npz) or medmnist:NAME, RadImageNet's "
                                f"folder, or a folder with one sub-folder a class")
    if subset and not reader.HAS_SUBSETS:
        raise ValueError(f"subset is {subset!r} but {str(source)!r} has no subsets; leave it out (RadImageNet has "
                         f"some, such as MR/brain)")
    found = reader.read(str(source), subset, cache)
    _check(found, source)
    return found


def _check(found: Listing, source) -> None:
    """Refuse unknown or empty splits, a single class, a class that is never trained, and missing files."""
    table = found.table
    for line, name in enumerate(table["split"]):
        one_of(f"split in {str(source)!r}, line {line + 2},", name, SPLITS)
    for name in SPLITS:
        if not (table["split"] == name).any():
            raise ValueError(f"{str(source)!r} has no image in split {name!r}; give each of {', '.join(SPLITS)} some"
                             + ("" if found.split_given else ": with so few images or patients, add a column split"))
    classes = found.classes
    if len(classes) < 2:
        raise ValueError(f"{str(source)!r} has one class only ({classes[0]!r}); a classifier needs at least two")
    trained = set(table.loc[table["split"] == "train", "label"])
    if untrained := [key for key in classes if key not in trained]:
        raise ValueError(f"{str(source)!r} has no training image of class {', '.join(map(repr, untrained))}; add some, "
                         f"or remove the class")
    if found.arrays is not None:
        return
    if missing := [path for path in table["path"] if not os.path.isfile(path)]:
        raise FileNotFoundError(f"{len(missing)} of {len(table)} images of {str(source)!r} are missing, the first is "
                                f"{missing[0]!r}; {found.where}")
