"""Class folders: the folder's name is the label, a folder below it the patient.

    <class>/<image>                 split by a hash of the image's name: no patient ids
    <class>/<patient>/<image>       split by a hash of the patient's name
    <split>/<class>/...             train, val and test as they are

Where every file is a DICOM slice with a PatientID, that is the patient.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import dicom
from .listing import NEEDED, SPLITS, Listing
from .splits import said_of, with_split

HAS_SUBSETS = False
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", *dicom.SUFFIXES)


def knows(source: str) -> bool:
    """Whether this is a folder."""
    return Path(source).expanduser().is_dir()


def read(source: str, subset: str = "", cache: Path | None = None) -> Listing:
    """Rows from the folders. Raises: ValueError for an image outside a class folder, and where there is none."""
    import pandas
    folder = Path(source).expanduser()
    given = all((folder / name).is_dir() for name in SPLITS)
    level, wanted = (1, "<split>/<class>/<image>") if given else (0, "<class>/<image>")
    rows, below = [], []
    for file in sorted(path for path in folder.rglob("*") if _image(path)):
        parts = file.relative_to(folder).parts
        if len(parts) < level + 2:
            raise ValueError(f"{str(file)!r} lies outside a class folder; wanted {wanted}")
        rows.append((str(file), parts[level]) + ((parts[0],) if given else ()))
        below.append("/".join(parts[level + 1:-1]))
    if not rows:
        raise ValueError(f"folder {str(folder)!r} holds no image; wanted {wanted} with one of {', '.join(SUFFIXES)}")
    table = pandas.DataFrame(rows, columns=[*NEEDED, "split"] if given else list(NEEDED))
    if (groups := _groups(table, below)) is not None:
        table["group"] = groups
    if not given:
        table = with_split(table, [os.path.relpath(path, folder).replace(os.sep, "/") for path in table["path"]])
    caveats, notes = said_of(table, given)
    return Listing(table, caveats, notes, split_given=given)


def _image(path: Path) -> bool:
    """Whether a file is an image by its suffix, or begins as DICOM slices do, which often have none."""
    return path.suffix.lower() in SUFFIXES or (not path.suffix.strip(".0123456789") and path.is_file()
                                               and not path.name.startswith(".") and dicom.knows(path))


def _groups(table, below: list[str]) -> list[str] | None:
    """Patients: from DICOM headers where all files have one, else from the folders below the class."""
    if all(path.lower().endswith(dicom.SUFFIXES) or dicom.knows(path) for path in table["path"]):
        patients = [dicom.patient(path) for path in table["path"]]
        if all(patients):
            return patients
    return below if all(below) else None
