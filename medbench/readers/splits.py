"""Splits where the source gives none, by group where it names groups; and what a split can and cannot say.

What lives here, top to bottom: `split_by_name`, `with_split`, `said_of`.
"""

from __future__ import annotations

import hashlib

from .listing import NO_GROUPS

SHARES = "about 70 % to training, 10 % to validation and 20 % to the test"


def split_by_name(name: str) -> str:
    """`train`, `val` or `test` by a hash of the name: it stays where it is when others are added.

    Why: a data set grows. What was tested on once, and all images of that patient that come later, must not be trained
    on.
    """
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"


def with_split(table, names):
    """The table with a column `split`, made of the groups where there are any, else of the images' `names`."""
    keys = table["group"] if "group" in table.columns else names
    return table.assign(split=[split_by_name(str(key)) for key in keys])


def said_of(table, given: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Caveats for every result, and notes, on what the split of a table can and cannot say."""
    if "group" not in table.columns:
        made = "" if given else f" A hash of each image's name sends {SHARES}."
        return (NO_GROUPS,), (f"No group (patient) is named, so images of one patient may lie on both sides of a "
                              f"split, which inflates scores.{made}",)
    count, shared = table["group"].nunique(), int((table.groupby("group")["split"].nunique() > 1).sum())
    if shared:
        text = f"{shared} of {count} groups (patients) have images in more than one split, which inflates scores"
        return (text,), (f"{text}.",)
    made = "" if given else f" A hash of each group's name sends {SHARES}."
    alone = " Each image has a group of its own, so no images are held together." if count == len(table) else ""
    return (), (f"The split is by group: none of {count} groups lies in two splits.{alone}{made}",)
