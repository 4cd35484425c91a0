"""Real images: what a source holds, before any image is opened, and how one image is read.

What lives here: `Listing`, one row an image; `listing`, which finds the reader of a source and checks what it says;
`unseen`, what it holds for a model that was trained on other images. Each reader has a file of its own: `manifest`,
`folders`, `radimagenet`, `medmnist`. `pictures` reads image files, `dicom` those of scanners, `splits` makes a split
where none is given.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from . import folders, manifest, medmnist, radimagenet
from .listing import ALONE, BOXES, NEEDED, SPLITS, Listing
from .pictures import Picture, fitted, fitted_boxes, read_image, read_picture
from .splits import said_of

__all__ = ["BOXES", "NEEDED", "SPLITS", "Listing", "Picture", "faults", "fitted", "fitted_boxes", "listing",
           "read_image", "read_picture", "unseen"]

# the first that knows a source reads it
READERS = (medmnist, manifest, radimagenet, folders)


def listing(source: str | os.PathLike, subset: str = "", cache: Path | None = None, *, whole: bool = True) -> Listing:
    """What a source holds: label, split and what else it tells of each image; no image is opened yet.

    Args: `source`: a manifest (`.csv`), a MedMNIST file (`.npz`) or `medmnist:NAME`, RadImageNet's folder, or a folder
        with one sub-folder a class; `subset`: a part of it, where the reader knows parts (`MR/brain`); `cache`: where
        downloads go; `whole`: refuse what cannot be trained on (`faults`).
    Returns: `Listing`.
    Raises: FileNotFoundError, ValueError: naming the file, the line, what was wanted and the fix. OSError: a folder
        cannot be read, or a download not be written.
    """
    reader = next((one for one in READERS if one.knows(str(source))), None) if str(source).strip() else None
    if reader is None:
        raise FileNotFoundError(f"data source {str(source)!r} does not exist; wanted 'phantom', a manifest (.csv with "
                                f"columns path, label, split), a MedMNIST file (.npz) or medmnist:NAME, RadImageNet's "
                                f"folder, or a folder with one sub-folder a class")
    if subset and not reader.HAS_SUBSETS:
        raise ValueError(f"subset is {subset!r} but {str(source)!r} has no subsets; leave it out (RadImageNet has "
                         f"some, such as MR/brain)")
    found = reader.read(str(source), subset, cache)
    caveats, notes = _lacking(found)
    found = replace(found, caveats=(*found.caveats, *caveats), notes=(*found.notes, *notes))
    if whole:
        for fault in faults(found, source):
            raise fault
    return found


def faults(found: Listing, source) -> Iterator[Exception]:
    """Why nothing can be trained on a source: an unknown or empty split, a single class, one that is never trained, a
    validation set of one class, missing files. One error each, with what to do."""
    table, where = found.table, repr(str(source))
    yield from _other_splits(found, where)
    few = "" if found.split_given else f": {found.few}"
    counts = {name: int((table["split"] == name).sum()) for name in SPLITS}
    there = ", ".join(f"{count} in {name}" for name, count in counts.items())
    for name in (name for name, count in counts.items() if not count):
        yield ValueError(f"{where} has no image in split {name!r} ({there}); give each of {', '.join(SPLITS)} "
                         f"some{few}")
    classes = found.classes
    if len(classes) < 2:
        yield ValueError(f"{where} has one class only ({classes[0]!r}); a classifier needs at least two")
    alike = Counter(map(_plain, classes))
    if twins := [key for key in classes if alike[_plain(key)] > 1]:
        yield ValueError(f"{where} has classes that differ in capitals, blanks or the coding of their accents alone "
                         f"({', '.join(map(ascii, twins))}); write each in one way")
    trained = set(table.loc[table["split"] == "train", "label"])
    if counts["train"] and (untrained := [key for key in classes if key not in trained]):
        yield ValueError(f"{where} has no training image of class {', '.join(map(repr, untrained))}; add some, or "
                         f"remove the class")
    chosen = table.loc[table["split"] == "val", "label"].unique()
    if len(classes) > 1 and len(chosen) == 1:
        yield ValueError(f"split 'val' of {where} has images of class {chosen[0]!r} only; the epoch is chosen by AUROC "
                         f"on it, which needs two classes: give it more{few}")
    yield from _missing(found, table, where)


def _plain(key) -> str:
    """A class's name without capitals and blanks around it, its accents in one coding: systems write them in two."""
    return unicodedata.normalize("NFC", str(key)).strip().casefold()


def _lacking(found: Listing) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Caveats and notes where validation or the test has no image of some class."""
    caveats, notes = [], []
    for split, name, score in (("val", "validation", "the epoch is chosen without it"),
                               ("test", "test", "balanced accuracy and macro AUROC cannot be told")):
        there = set(found.table.loc[found.table["split"] == split, "label"])
        if there and (gone := [repr(key) for key in found.classes if key not in there]):
            caveats.append(f"no {name} image is of class {', '.join(gone)}")
            what_to_do = "give it some" if found.split_given else found.few
            notes.append(f"No {name} image is of class {', '.join(gone)}, so {score}; {what_to_do}.")
    return tuple(caveats), tuple(notes)


def unseen(source: str | os.PathLike, classes: tuple[str, ...], subset: str = "", cache: Path | None = None,
           *, every: bool = False) -> Listing:
    """What a source holds for a model that was trained on other images: those of its split `test` are tested on.

    Args: `classes`: those that the model knows, in its order; the source may lack some. `every`: count all images as
        `test`, since the model saw none of them. The rest as `listing`.
    Returns: `Listing`; what it says of images of other splits is nothing to its reader.
    Raises: FileNotFoundError, ValueError: no image to be tested on, one of another class, or one that is missing.
    """
    found, where = listing(source, subset, cache, whole=False), repr(str(source))
    table = found.table.assign(split="test") if every else found.table
    tested = table[table["split"] == "test"]
    for fault in _other_splits(replace(found, table=table), where):
        raise fault
    if tested.empty:
        raise ValueError(f"{where} has no image in split 'test' ({len(table)} in others); name some in a column split, "
                         f"or count all images as unseen (--every-image)")
    if other := sorted(set(tested["label"]) - set(classes)):
        raise ValueError(f"the model knows the classes {', '.join(classes)} but {where} has images of "
                         f"{', '.join(other)}; write the classes as the model does, or leave these images out")
    for fault in _missing(found, tested, where):
        raise fault
    said = f"{len(tested)} of {len(table)} images of {where} are tested on"
    if not every:
        said += ": those of its split 'test'" if found.split_given else (
            ": no split is named, and a hash of names sends these to the test, as before a training. Where none was "
            "trained on, all can count (--every-image)")
    split_notes = (*said_of(found.table, found.split_given)[1], *_lacking(found)[1])
    return replace(found, table=table, classes=tuple(classes), caveats=() if "group" in table.columns else (ALONE,),
                   notes=(f"{said}.", *(note for note in found.notes if note not in split_notes)))


def _other_splits(found: Listing, where: str) -> Iterator[Exception]:
    """An unknown name of a split: the first, with its place."""
    for row, name in found.table["split"].items():
        if name not in SPLITS:
            yield ValueError(found.other_split.format(source=where, line=row + 2, name=name))
            break


def _missing(found: Listing, table, where: str) -> Iterator[Exception]:
    """Files of `table` that are not there."""
    if found.arrays is None and (missing := [path for path in table["path"] if not os.path.isfile(path)]):
        yield FileNotFoundError(f"{len(missing)} of {len(table)} images of {where} are missing, the first is "
                                f"{missing[0]!r}; {found.where}")
