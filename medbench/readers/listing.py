"""What every reader returns: one row an image, and what a result on these images has to say.

What lives here: the names of the columns; the caveats that several readers share; what counts as damage, and what is
only out of reach; `Listing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")
NEEDED = ("path", "label")
BOXES = ("box_x_center", "box_y_center", "box_width", "box_height")
NO_GROUPS = "no patient ids: slice-level split"
ALONE = "no patient ids: intervals take images for independent"
UNCHECKED = "no patient ids: the authors' official split is taken as given and cannot be checked"
NOT_DAMAGE = (ImportError, MemoryError)                      # any other error while one image is read is the image's


def why(error: Exception) -> str:
    """What an error says; its kind goes before what is no sentence, as of a missing key."""
    said = str(error)
    return said if " " in said else f"{type(error).__name__} {said}".strip()


def out_of_reach(error: BaseException | None) -> OSError | None:
    """The error of the system behind one of reading an image: no permission, a disk or network that does not answer.

    It says nothing of the image, and may be gone in a minute. Pillow's own errors have no number.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__
    return None


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a source.

    `table`: a DataFrame with `path`, `label`, `split` and optionally `group` (the patient) and the four columns of a
    box. `caveats`: short sentences that go with every result. `notes`: what else a reader has to know. `classes`: the
    labels in their order. `split_given`: by the source, not by us; `few`: what to do where ours leaves a split without
    images. `where`: what paths are relative to. `other_split`: what to say of a split of another name. `arrays`: the
    images themselves, row by row, where the source is one file.
    """

    table: Any
    caveats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    split_given: bool = True
    few: str = "with so few images or patients, add a column split"
    where: str = "put them there, or take them out of the data set"
    other_split: str = f"split in {{source}}, line {{line}}, is {{name!r}}; allowed: {', '.join(map(repr, SPLITS))}"
    arrays: list[np.ndarray] | None = None

    def __post_init__(self):
        object.__setattr__(self, "classes", self.classes or tuple(sorted(set(self.table["label"]))))

    @property
    def groups(self) -> np.ndarray | None:
        """A number for the group of each image, `None` where the source names none."""
        if "group" not in self.table.columns:
            return None
        return self.table["group"].factorize(sort=True)[0].astype(np.int64)
