"""Real images: manifests, class folders, and how one image file is read.

What lives here, top to bottom: `table_of`, one row an image (path, label, split and what else the source tells),
checked before any image is opened; manifests; class folders; `read_image`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from .checks import one_of

SPLITS = ("train", "val", "test")
NEEDED = ("path", "label", "split")
BOXES = ("box_x_center", "box_y_center", "box_width", "box_height")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")


def table_of(source: str | os.PathLike):
    """The images of a manifest or of a folder with one sub-folder a class.

    Returns: a DataFrame with absolute `path`, `label`, `split` and optional columns, and sentences on what the split
        can and cannot say.
    Raises: FileNotFoundError, ValueError: naming the file, the line, what was wanted and the fix.
    """
    source = Path(source).expanduser()
    if not source.exists():
        raise FileNotFoundError(f"data source {str(source)!r} does not exist; wanted 'phantom', a manifest (.csv with "
                                f"columns path, label, split) or a folder with one sub-folder a class")
    table, notes = _folders(source) if source.is_dir() else _manifest(source)
    _check(table, source)
    return table, notes


def _check(table, source: Path) -> None:
    """Refuse unknown or empty splits, a single class, a class that is never trained, and missing files."""
    for line, name in enumerate(table["split"]):
        one_of(f"split in {str(source)!r}, line {line + 2},", name, SPLITS)
    for name in SPLITS:
        if not (table["split"] == name).any():
            raise ValueError(f"{str(source)!r} has no image in split {name!r}; give each of {', '.join(SPLITS)} some")
    classes = sorted(set(table["label"]))
    if len(classes) < 2:
        raise ValueError(f"{str(source)!r} has one class only ({classes[0]!r}); a classifier needs at least two")
    trained = set(table.loc[table["split"] == "train", "label"])
    if untrained := [key for key in classes if key not in trained]:
        raise ValueError(f"{str(source)!r} has no training image of class {', '.join(map(repr, untrained))}; add some, "
                         f"or remove the class")
    if missing := [path for path in table["path"] if not os.path.isfile(path)]:
        raise FileNotFoundError(f"{len(missing)} of {len(table)} images of {str(source)!r} are missing, the first is "
                                f"{missing[0]!r}; paths are relative to the manifest's folder")


# --------------------------------------------------------------------------------------------- manifest
def _manifest(source: Path):
    """Rows of a manifest, with absolute paths."""
    import pandas
    try:
        table = pandas.read_csv(source, dtype=dict.fromkeys((*NEEDED, *BOXES, "group"), str), keep_default_na=False,
                                na_values=[""])                           # a class may be called None
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"manifest {str(source)!r} is no readable CSV table ({error}); wanted a first line with "
                         f"{','.join(NEEDED)}") from error
    for column in NEEDED:
        if column not in table.columns:
            raise ValueError(f"manifest {str(source)!r} has no column {column!r} (it has {', '.join(table.columns)}); "
                             f"add it: {', '.join(NEEDED)} are needed")
        if table[column].isna().any():
            line = int(table[column].isna().to_numpy().argmax()) + 2
            raise ValueError(f"manifest {str(source)!r}, line {line}: {column} is empty; fill it in or remove the line")
    if table.empty:
        raise ValueError(f"manifest {str(source)!r} names no image; wanted one line an image")
    for column in set(BOXES) & set(table.columns):
        table[column] = _shares(table[column], source)
    table["path"] = [str(source.parent / path) for path in table["path"]]
    return table, _split_notes(table)


def _shares(column, source: Path):
    """A column of a box as numbers from 0 to 1, NaN where it is empty."""
    import pandas
    numbers = pandas.to_numeric(column, errors="coerce")
    wrong = column.notna() & ~numbers.between(0, 1)
    if wrong.any():
        line = int(wrong.to_numpy().argmax())
        raise ValueError(f"manifest {str(source)!r}, line {line + 2}: {column.name} is {column.iloc[line]!r}; wanted a "
                         f"share of the image's side, from 0 to 1, or nothing")
    return numbers


def _split_notes(table) -> tuple[str, ...]:
    """Sentences on what the manifest's split can and cannot say."""
    if "group" not in table.columns:
        return ("The manifest names no group (patient), so images of one patient may lie on both sides of a split.",)
    count, shared = table["group"].nunique(), int((table.groupby("group")["split"].nunique() > 1).sum())
    if shared:
        return (f"{shared} of {count} groups have images in more than one split, which inflates scores.",)
    return (f"The split is by group: none of {count} groups lies in two splits.",)


# --------------------------------------------------------------------------------------------- class folders
def _folders(source: Path):
    """Rows from `<class>/<image>`, split 70-10-20 by a hash of the name, or from `<split>/<class>/<image>` as it is."""
    import pandas
    given = all((source / name).is_dir() for name in SPLITS)
    wanted = "<split>/<class>/<image>" if given else "<class>/<image>"
    rows = []
    for file in sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES):
        parts = file.relative_to(source).parts
        if len(parts) < wanted.count("/") + 1:
            raise ValueError(f"{str(file)!r} lies outside a class folder; wanted {wanted}")
        rows.append((str(file), parts[1], parts[0]) if given else (str(file), parts[0], _hashed_split("/".join(parts))))
    if not rows:
        raise ValueError(f"folder {str(source)!r} holds no image; wanted {wanted} with one of {', '.join(SUFFIXES)}")
    note = ("The folders name the splits; patients are unknown." if given else
            "The folders name no splits: a hash of each file's name sends about 70 % to training, 10 % to validation "
            "and 20 % to the test. Images of one patient may lie on both sides, which inflates scores.")
    return pandas.DataFrame(rows, columns=list(NEEDED)), (note,)


def _hashed_split(name: str) -> str:
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"


# --------------------------------------------------------------------------------------------- one image
def read_image(path: str | os.PathLike, side: int) -> np.ndarray:
    """One image file as grey levels, padded to a square with black and resized.

    Args: `path`; `side` in pixels. An image of more than 8 bits is scaled so that its range fills 0 to 255.
    Returns: (side, side) uint8. Raises: FileNotFoundError; ValueError if the file is no whole image.
    """
    from PIL import Image
    if not os.path.isfile(path):
        raise FileNotFoundError(f"image {str(path)!r} does not exist")
    try:
        with Image.open(path) as image:
            image.load()
            grey = _eight_bits(image).convert("L")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is no whole image ({error})") from error
    if grey.width != grey.height:
        square = Image.new("L", (max(grey.size),) * 2)
        square.paste(grey, ((square.width - grey.width) // 2, (square.height - grey.height) // 2))
        grey = square
    how = Image.Resampling.BOX if grey.width > side else Image.Resampling.BICUBIC
    return np.asarray(grey.resize((side, side), how))


def _eight_bits(image):
    """An image of 16 or 32 bits (modes I and F) with its range scaled to 0 to 255; others as they are."""
    from PIL import Image
    if image.mode[0] not in "IF":
        return image
    deep = np.asarray(image, dtype=np.float64)
    return Image.fromarray((255 * (deep - deep.min()) / max(np.ptp(deep), 1e-12)).astype(np.uint8))
