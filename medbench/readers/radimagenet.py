"""RadImageNet as its authors give it (Mei et al. 2022, doi:10.1148/ryai.210315): images of CT, MR and ultrasound.

    radiology_ai/MR/brain/normal/<file>.png         modality, anatomy, class
    radiology_ai/US/thyroid/<file>.png              ultrasound has no level for the anatomy
    RadiologyAI_{train,val,test}.csv                filename,label; inside radiology_ai/ or beside it

The class is read from the path. The authors split by patient; patient ids are not in these files, so the split is
taken as given.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from .listing import SPLITS, UNCHECKED, Listing

HAS_SUBSETS = True
ROOT = "radiology_ai"
FILE = "RadiologyAI_{}.csv"
# a class that every anatomy has: by it the folders are known without a split file
NORMAL = tuple(f"{place}/normal" for place in ("CT/abd", "CT/lung", "MR/af", "MR/brain", "MR/hip", "MR/knee",
                                               "MR/shoulder", "MR/spine"))


def knows(source: str) -> bool:
    """Whether this folder is `radiology_ai`, or holds it, a split file, or classes as RadImageNet has them.

    Where the split files are missing, `read` says so; as class folders, anatomies would count as patients.
    """
    folder = Path(source).expanduser().absolute()
    if not folder.is_dir():
        return False
    named = folder.name == ROOT or any(os.path.isdir(folder / name) for name in (ROOT, *NORMAL))
    return named or any(_split_file(folder, split, missing=False) for split in SPLITS)


def read(source: str, subset: str = "", cache: Path | None = None) -> Listing:
    """Rows from the three split files; `subset` is the beginning of a path, such as `MR/brain` or `US`.

    Classes are the folders below the subset, joined by `_`: `normal` with `MR/brain`, `MR_brain_normal` without.
    Raises: FileNotFoundError for a missing split file, ValueError for a wrong column, path or subset.
    """
    import pandas
    folder = Path(source).expanduser()
    root = folder / ROOT if (folder / ROOT).is_dir() else folder
    prefix = PurePosixPath(subset.strip("/")).parts
    rows, classes = [], set()
    for split in SPLITS:
        file = _split_file(folder, split)
        for line, name in enumerate(_names(file), 2):
            parts = PurePosixPath(name.removeprefix(f"{ROOT}/")).parts
            if len(parts) < 3:
                raise ValueError(f"{str(file)!r}, line {line}: filename is {name!r}; wanted {ROOT}/<modality>/"
                                 f"[<anatomy>/]<class>/<file>")
            classes.add(parts[:-1])
            if parts[:len(prefix)] == prefix and len(parts) > len(prefix) + 1:
                rows.append((str(root.joinpath(*parts)), "_".join(parts[len(prefix):-1]), split))
    if not rows:
        raise ValueError(f"subset is {subset!r}, {_why_empty('/'.join(prefix), classes)}")
    note = (f"RadImageNet{f', {subset}' if subset else ''}: the class is the folder's name, as its authors spell it. "
            f"They split by patient; that is taken as given.")
    table = pandas.DataFrame(rows, columns=["path", "label", "split"])
    return Listing(table, (UNCHECKED,), (note,), where=f"they were looked for in {str(root)!r}")


def _why_empty(subset: str, classes: set[tuple[str, ...]]) -> str:
    """What a subset is that holds no class, and what to name in its place; capitals do not count."""
    subsets = {"/".join(parts[:depth]) for parts in classes for depth in range(1, len(parts))}
    for parts in classes:
        if "/".join(parts).casefold() == subset.casefold():
            return f"which is a class; name the subset that holds it: {'/'.join(parts[:-1])!r}"
    alike = [name for name in subsets if name.casefold() == subset.casefold()]
    if alike:
        return f"which is spelt {alike[0]!r} here; name it so"
    first = subset.casefold().split("/")[0]
    near = sorted(name for name in subsets if name.casefold().split("/")[0] == first) or sorted(subsets)
    return f"but no image lies there; there are: {', '.join(near[:20])}"


def _split_file(folder: Path, split: str, missing: bool = True) -> Path | None:
    """The split file inside `radiology_ai/` or one level above it."""
    name = FILE.format(split)
    places = [folder / name, folder / ROOT / name]
    if folder.absolute().name == ROOT:                       # "." may be it
        places.append(folder.absolute().parent / name)
    found = next((place for place in places if place.is_file()), None)
    if found is None and missing:
        raise FileNotFoundError(f"RadImageNet in {str(folder)!r} lacks {name}; put the three split files into this "
                                f"folder or beside {ROOT}/, or list other images than RadImageNet's in a manifest")
    return found


def _names(file: Path) -> list[str]:
    """The column `filename` of a split file."""
    import pandas
    table = pandas.read_csv(file, dtype=str, keep_default_na=False)
    if "filename" not in table.columns:
        raise ValueError(f"{str(file)!r} has the columns {', '.join(table.columns)}; wanted filename,label")
    return table["filename"].tolist()
