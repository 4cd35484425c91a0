"""Manifests: a CSV table with one line an image.

    path,label[,split][,group][,box_x_center,box_y_center,box_width,box_height]

`path` is relative to the manifest's folder, `group` the patient, the box in shares of the image's sides. Without
`split` we split, by group where there is one. Commas separate, the text is UTF-8; blanks around a cell do not count.
What is no manifest by its suffix is refused: pandas would open archives.
"""

from __future__ import annotations

from pathlib import Path

from .listing import BOXES, NEEDED, Listing
from .splits import said_of, with_split

HAS_SUBSETS = False
TEXT = (*NEEDED, "split", "group")
SUFFIXES = (".csv", ".tsv", ".txt")
INSTEAD = {                                                  # what to make of other files
    (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".mgz"): "save its slices as PNG and list them in a manifest",
    (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".tar", ".7z", ".rar"): "unpack it and give what was in it",
    (".xls", ".xlsx", ".ods"): "save the table as CSV",
    ("",): "list images in a manifest, or give their folder",
}
MEANT = dict.fromkeys(("patient", "patient_id", "patientid", "subject", "subject_id"), "group")


def knows(source: str) -> bool:
    """Whether this is a file; one that is no manifest is refused by `read`."""
    return Path(source).expanduser().is_file()


def read(source: str, subset: str = "", cache: Path | None = None) -> Listing:
    """The rows of a manifest, with absolute paths. Raises: ValueError naming the line and the fix."""
    file = Path(source).expanduser()
    if not file.name.lower().endswith(SUFFIXES):
        hint = next(hint for suffixes, hint in INSTEAD.items() if file.name.lower().endswith(suffixes))
        raise ValueError(f"data source {str(file)!r} is a file, but no manifest ({', '.join(SUFFIXES)}) and no "
                         f"MedMNIST file (.npz); {hint}")
    table = _table(file)
    given = "split" in table.columns
    if not given:
        table = with_split(table, table["path"])
    for column in set(BOXES) & set(table.columns):
        table[column] = _shares(table[column], file)
    table["path"] = [str(file.parent / path) for path in table["path"]]
    caveats, notes = said_of(table, given)
    if unknown := [name for name in table.columns if name not in (*TEXT, *BOXES)]:
        notes += (f"Columns that are not read: {', '.join(unknown)}.",)
    return Listing(table, caveats, notes, split_given=given, where="paths are relative to the manifest's folder")


def _table(file: Path):
    """The columns that we know, as text; refuses a missing column, a part of a box and an empty cell."""
    import pandas
    try:
        table = pandas.read_csv(file, dtype=dict.fromkeys((*TEXT, *BOXES), str), keep_default_na=False,
                                na_values=[""], skip_blank_lines=False)   # a class may be called None
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"manifest {str(file)!r} is no readable CSV table ({error}); wanted a first line with "
                         f"{','.join(NEEDED)},split, commas between, saved as UTF-8") from error
    _refuse_other_names(table, file)
    for column in set(TEXT) & set(table.columns):
        table[column] = table[column].str.strip().replace("", None)
    for column in NEEDED:
        if column not in table.columns:
            raise ValueError(f"manifest {str(file)!r} has no column {column!r} (it has {', '.join(table.columns)}); "
                             f"add it: {', '.join(NEEDED)} are needed, with commas between the columns")
    if not isinstance(table.index, pandas.RangeIndex):                    # what pandas makes of it: the first is a name
        raise ValueError(f"manifest {str(file)!r} has lines with more cells than the first line has names; give each "
                         f"column a name, put quotes around a cell with a comma in it, and no comma at a line's end")
    lacking = [name for name in BOXES if name not in table.columns]
    if 0 < len(lacking) < len(BOXES):
        raise ValueError(f"manifest {str(file)!r} has no column {', '.join(map(repr, lacking))} (it has "
                         f"{', '.join(table.columns)}); a box is read from all of {', '.join(BOXES)}: add what is "
                         f"missing or misspelt, or remove the others")
    table = table.dropna(how="all")                                       # blank lines; the index still counts them
    for column in set(TEXT) & set(table.columns):
        if table[column].isna().any():
            line = int(table.index[table[column].isna().to_numpy().argmax()]) + 2
            raise ValueError(f"manifest {str(file)!r}, line {line}: {column} is empty; fill it in or remove the line")
    if table.empty:
        raise ValueError(f"manifest {str(file)!r} names no image; wanted one line an image")
    return table


def _refuse_other_names(table, file: Path) -> None:
    """A column that is nearly one of ours would be passed over without a word, and with it a split or the patients."""
    for name in map(str, table.columns):
        meant = name.strip().lower()
        meant = MEANT.get(meant, meant)
        if meant != name and meant in (*TEXT, *BOXES) and meant not in table.columns:
            raise ValueError(f"manifest {str(file)!r} has a column {name!r}, which is not read; if it is the "
                             f"{meant}, call it {meant!r}, otherwise give it a name that is not like it")


def _shares(column, file: Path):
    """A column of a box as numbers from 0 to 1, NaN where it is empty."""
    import pandas
    numbers = pandas.to_numeric(column, errors="coerce")
    wrong = column.notna() & ~numbers.between(0, 1)
    if wrong.any():
        line = wrong.index[wrong.to_numpy().argmax()]
        raise ValueError(f"manifest {str(file)!r}, line {line + 2}: {column.name} is {column[line]!r}; wanted a "
                         f"share of the image's side, from 0 to 1, or nothing")
    return numbers
