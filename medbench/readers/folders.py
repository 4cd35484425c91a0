"""Class folders: the folder's name is the label, a folder below it the patient.

    <class>/<image>                 split by a hash of the image's name: no patient ids
    <class>/<patient>/.../<image>   split by a hash of the patient's name; studies and series below it are the patient's
    <split>/<class>/...             train, val and test as they are

Where every file is a DICOM slice with a PatientID, that is the patient, unless it is the same in all, as after
de-identification, and the folders are not. Where only some are, and a PatientID lies in two folders that count as
patients, that is a caveat. Names that begin with a dot are passed over, links to folders are followed.
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
BESIDE = ("{source} has a folder {name!r} beside train, val and test, where each folder is a split; move it elsewhere, "
          "or its images into one of these")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", *dicom.SUFFIXES)


def knows(source: str) -> bool:
    """Whether this is a folder."""
    return Path(source).expanduser().is_dir()


def read(source: str, subset: str = "", cache: Path | None = None) -> Listing:
    """Rows from the folders. Raises: ValueError for an image outside a class folder, where there is none, and for
    folders that look like splits but are not all there; OSError for a folder that cannot be read."""
    import pandas
    folder = Path(source).expanduser()
    given = all((folder / name).is_dir() for name in SPLITS)
    if not given:
        _refuse_half_a_split(folder)
    level, wanted = (1, "<split>/<class>/<image>") if given else (0, "<class>/<image>")
    rows, patients, others = [], [], Counter()
    for file in _files(folder):
        parts = file.relative_to(folder).parts
        if file.name.upper() == INDEX:
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
    groups, said, leaks = _groups(table, patients)
    if groups is not None:
        table["group"] = groups
    if not given:
        table = with_split(table, [os.path.relpath(path, folder).replace(os.sep, "/") for path in table["path"]])
    caveats, notes = said_of(table, given)
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        said += (f"{others.total()} files are no images that can be read and were passed over: {kinds}.",)
    few = ONE if groups is not None and len(set(groups)) == 1 else FEW
    return Listing(table, caveats + leaks, notes + said, split_given=given, few=few, other_split=BESIDE)


def _files(folder: Path) -> list[Path]:
    """All files below a folder, sorted. Raises: OSError for what cannot be read, or is a link to nothing: it would be
    missing without a word."""
    def refuse(error: OSError):
        raise error
    found: list[Path] = []
    try:
        for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
            folders[:] = [name for name in folders if name[0] != "." and not _leads_back(Path(place, name))]
            found += [Path(place, name) for name in files if name[0] != "."]
        for path in found:
            if path.is_symlink() and path.suffix.lower() in ("", *SUFFIXES):
                path.stat()                                  # a link to nothing is no file, nor a folder
        return sorted(path for path in found if path.is_file())
    except OSError as error:
        raise _missing(error) from error


def _missing(error: OSError) -> OSError:
    return OSError(error.errno, f"{str(error.filename)!r} cannot be read ({error.strerror}), so its images would be "
                                f"missing; give permission there, mount its disk or remove the link, or list the "
                                f"images to be used in a manifest")


def _leads_back(folder: Path) -> bool:
    """Whether this is a link to a folder that holds it, in which one would walk for ever."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    return any(above.resolve().is_relative_to(target) for above in folder.parents)


def _refuse_half_a_split(folder: Path) -> None:
    """Folders named like splits would be taken for classes, and their classes for patients."""
    named = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name.lower() in SPLIT_WORDS)
    if named:
        raise ValueError(f"{str(folder)!r} has folders that look like splits ({', '.join(named)}); wanted all of "
                         f"{', '.join(SPLITS)}, in these words: rename them and add what is missing, or write a "
                         f"manifest with a column split")


def _image(path: Path) -> bool:
    """Whether a file is an image by its suffix, or begins as DICOM slices do, which often have none."""
    try:
        return path.suffix.lower() in SUFFIXES or (not path.suffix.strip(".0123456789") and dicom.knows(path))
    except OSError as error:
        raise _missing(error) from error


def _groups(table, folders: list[str]) -> tuple[list[str] | None, tuple[str, ...], tuple[str, ...]]:
    """Patients: from DICOM headers where all files have one, and not all the same, else from the folders below the
    class. And notes and caveats: that it is the same, that only some of the images have a patient, so that none counts,
    that folders which count as patients share one.
    """
    paths, said = table["path"], ()
    slices = [_dicom(path) for path in paths]
    headers = [dicom.patient(path) if one else "" for path, one in zip(paths, slices)]
    if all(headers):
        if len(set(headers)) == 1 < len(set(folders)) and all(folders):
            return folders, ("Every file has the same PatientID, as after de-identification: the folders below the "
                             "classes count as patients.",), ()
        return headers, (), ()
    for what, patients in (("with a PatientID", headers), ("in a patient's folder", folders)):
        if all(patients):
            return patients, said, _shared(headers, folders)
        if any(patients):
            lacking = [path for path, patient in zip(paths, patients) if not patient]
            said += (f"{len(lacking)} of {len(patients)} images are not {what}, the first is "
                     f"{os.path.basename(lacking[0])!r}: so these are not used as patients.",)
    return None, said, ()


def _dicom(path: str) -> bool:
    """Whether an image is a DICOM slice. One that cannot be opened is asked again when it is read."""
    try:
        return path.lower().endswith(dicom.SUFFIXES) or dicom.knows(path)
    except OSError:
        return False


def _shared(headers: list[str], folders: list[str]) -> tuple[str, ...]:
    """A caveat where folders that count as patients share a PatientID; one that is the same in all tells nothing."""
    if len(set(headers) - {""}) < 2:
        return ()
    places: dict[str, set[str]] = {}
    for patient, folder in zip(headers, folders):
        places.setdefault(patient, set()).add(folder)
    shared = sum(len(own) > 1 for patient, own in places.items() if patient)
    return (f"folders count as patients, but {shared} PatientIDs lie in more than one",) if shared else ()
