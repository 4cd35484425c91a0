"""Class folders: the folder's name is the label, a folder below it the patient.

    <class>/<image>                 split by a hash of the image's name: no patient ids
    <class>/<patient>/.../<image>   split by a hash of the patient's name; studies and series below it are the patient's
    <split>/<class>/...             train, val and test as they are

Where every file is a DICOM slice with a PatientID, that is the patient, unless it is the same in all, as after
de-identification, and the folders are not. Names that begin with a dot are passed over.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from . import dicom
from .listing import NEEDED, SPLITS, Listing
from .splits import said_of, with_split

HAS_SUBSETS = False
SPLIT_WORDS = {"train", "training", "val", "valid", "validation", "test", "testing"}
INDEX = "DICOMDIR"                                           # lists the slices of a medium and is none
FEW = "with so few images or patients, write a manifest with a column split"
ONE = ("all count as images of one patient, since the PatientID in every file, or the name of the folder below the "
       "class, is the same; write a manifest with a column group or split")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", *dicom.SUFFIXES)


def knows(source: str) -> bool:
    """Whether this is a folder."""
    return Path(source).expanduser().is_dir()


def read(source: str, subset: str = "", cache: Path | None = None) -> Listing:
    """Rows from the folders. Raises: ValueError for an image outside a class folder, where there is none, and for
    folders that look like splits but are not all there."""
    import pandas
    folder = Path(source).expanduser()
    given = all((folder / name).is_dir() for name in SPLITS)
    if not given:
        _refuse_half_a_split(folder)
    level, wanted = (1, "<split>/<class>/<image>") if given else (0, "<class>/<image>")
    rows, patients, others = [], [], Counter()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = file.relative_to(folder).parts
        if any(part.startswith(".") for part in parts) or file.name.upper() == INDEX:
            continue
        if not _image(file):
            others[file.suffix.lower() or "no suffix"] += 1
            continue
        if len(parts) < level + 2:
            raise ValueError(f"{str(file)!r} lies outside a class folder; wanted {wanted}")
        rows.append((str(file), parts[level]) + ((parts[0],) if given else ()))
        patients.append(parts[level + 1] if len(parts) > level + 2 else "")
    if not rows:
        raise ValueError(f"folder {str(folder)!r} holds no image; wanted {wanted} with one of {', '.join(SUFFIXES)}")
    table = pandas.DataFrame(rows, columns=[*NEEDED, "split"] if given else list(NEEDED))
    groups, said = _groups(table, patients)
    if groups is not None:
        table["group"] = groups
    if not given:
        table = with_split(table, [os.path.relpath(path, folder).replace(os.sep, "/") for path in table["path"]])
    caveats, notes = said_of(table, given)
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        said += (f"{others.total()} files are no images that can be read and were passed over: {kinds}.",)
    few = ONE if groups is not None and len(set(groups)) == 1 else FEW
    return Listing(table, caveats, notes + said, split_given=given, few=few)


def _refuse_half_a_split(folder: Path) -> None:
    """Folders named like splits would be taken for classes, and their classes for patients."""
    named = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name.lower() in SPLIT_WORDS)
    if named:
        raise ValueError(f"{str(folder)!r} has folders that look like splits ({', '.join(named)}); wanted all of "
                         f"{', '.join(SPLITS)}, in these words: rename them and add what is missing, or write a "
                         f"manifest with a column split")


def _image(path: Path) -> bool:
    """Whether a file is an image by its suffix, or begins as DICOM slices do, which often have none."""
    return path.suffix.lower() in SUFFIXES or (not path.suffix.strip(".0123456789") and dicom.knows(path))


def _groups(table, folders: list[str]) -> tuple[list[str] | None, tuple[str, ...]]:
    """Patients: from DICOM headers where all files have one, and not all the same, else from the folders below the
    class. And what to say where it is the same, or where only some of the images have a patient, so that none counts.
    """
    said: tuple[str, ...] = ()
    found = {"in a patient's folder": folders}
    if all(path.lower().endswith(dicom.SUFFIXES) or dicom.knows(path) for path in table["path"]):
        headers = [dicom.patient(path) for path in table["path"]]
        if headers[0] and len(set(headers)) == 1 < len(set(folders)) and all(folders):
            return folders, ("Every file has the same PatientID, as after de-identification: the folders below the "
                             "classes count as patients.",)
        found = {"with a PatientID": headers} | found
    for what, patients in found.items():
        if all(patients):
            return patients, ()
        if any(patients):
            lacking = [path for path, patient in zip(table["path"], patients) if not patient]
            said += (f"{len(lacking)} of {len(patients)} images are not {what}, the first is "
                     f"{os.path.basename(lacking[0])!r}: so these are not used as patients.",)
    return None, said
