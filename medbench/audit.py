"""What is in a data set, and what is wrong with it: `python -m medbench data check SOURCE`.

What lives here, top to bottom: `Report`; `check`; the phantom; images that are the same or nearly the same, and where.

Every image is opened once. Two are *exact* copies if their grey levels agree pixel by pixel, and *near* copies if their
thumbnails of 32 x 32 px correlate at `near` or more: a copy that was stored, scaled or brightened anew, or a
neighbouring slice of the same head.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from . import decoding, readers
from .checks import in_range
from .config import DataConfig
from .data import load_data
from .files import cache_dir, progress

SIDE = 32                      # px of the thumbnails
NEAR = 0.98                    # on 2,824 tumour slices: 73 pairs, 68 of them neighbouring slices; 8 pairs at 0.99
MOST = 200_000                 # images among which near copies are looked for
AT_ONCE = 1024                 # rows of the matrix of correlations
PLACES = ("in the same split", "in another split", "in another class")


@dataclass(frozen=True, eq=False)
class Report:
    """What `check` found.

    `counts[split][class]`, `sizes` and `modes` count images. `set_aside`: path and reason of those that cannot be used.
    `copies[kind][place]`: for `"exact"` and `"near"` and each of `PLACES`, rows of images that have a copy there, and
    the row of that copy. `straddling`: groups with images in more than one split. `faults`: why training would refuse
    these data.
    """

    counts: dict[str, dict[str, int]]
    sizes: Counter
    modes: Counter
    set_aside: list[tuple[str, str]]
    copies: dict[str, dict[str, dict[int, int]]]
    straddling: list[str] | None
    paths: list[str]
    caveats: tuple[str, ...]
    notes: tuple[str, ...]
    skipped: str = field(default="")
    faults: tuple[str, ...] = ()

    def rows(self) -> list[dict]:
        """One row a finding: what, where, how many images, and the first of them by name."""
        rows = [_row("images", f"{split}, {key}", count) for split, part in self.counts.items()
                for key, count in part.items()]
        rows += [_row("size", f"{width} x {height} px", count) for (width, height), count in self.sizes.most_common(10)]
        if len(self.sizes) > 10:
            rows.append(_row("size", f"{len(self.sizes) - 10} other sizes", sum(sorted(self.sizes.values())[:-10])))
        rows += [_row("mode", mode, count) for mode, count in self.modes.most_common()]
        rows.append(_row("set aside", "all", len(self.set_aside), decoding.in_short(self.set_aside)))
        for kind, places in self.copies.items():
            for place, found in places.items():
                pairs = [f"{self._name(a)} = {self._name(b)}" for a, b in list(found.items())[:3]]
                rows.append(_row(f"{kind} copy", place, len(found), "; ".join(pairs)))
        if self.skipped:
            rows.append(_row("near copy", "everywhere", None, self.skipped))
        groups = None if self.straddling is None else len(self.straddling)
        said = "no patient ids" if groups is None else ", ".join(self.straddling[:5])
        rows.append(_row("group in two splits", "all", groups, said))
        return rows + [_row("training would stop", "before it starts", None, fault) for fault in self.faults]

    def _name(self, row: int) -> str:
        return "/".join(self.paths[row].replace(os.sep, "/").split("/")[-2:])

    def records(self) -> list[dict]:
        """The counts as rows for `results.record`; nothing that names a file."""
        rows = [("images", None, sum(map(sum, (part.values() for part in self.counts.values()))), None),
                ("set_aside", None, len(self.set_aside), None)]
        rows += [(f"{kind}_copies", place.replace(" ", "_"), len(found), None) for kind, places in self.copies.items()
                 for place, found in places.items()]
        known = self.straddling is not None
        rows.append(("groups_in_two_splits", None, len(self.straddling) if known else None,
                     None if known else "the source names no groups"))
        return [{"quantity": quantity, "value": value, "unit": "1"} | ({"suffix": suffix} if suffix else {})
                | ({"reason": reason} if reason else {}) for quantity, suffix, value, reason in rows]

    def full(self) -> dict:
        """Everything, with every name, for a JSON file; paths as the source has them."""
        copies = {kind: {place: [[self.paths[a], self.paths[b]] for a, b in found.items()]
                         for place, found in places.items()} for kind, places in self.copies.items()}
        sizes = [[*size, count] for size, count in self.sizes.items()]
        return {"counts": self.counts, "sizes": sizes, "modes": dict(self.modes), "set_aside": self.set_aside,
                "copies": copies, "near_copies_not_looked_for": self.skipped or None,
                "groups_in_two_splits": self.straddling, "caveats": self.caveats, "notes": self.notes,
                "training_would_stop": self.faults}


def _row(finding: str, where: str, images: int | None, first: str = "") -> dict:
    return {"finding": finding, "where": where, "count": images, "such as": first or None}


# --------------------------------------------------------------------------------------------- check
def check(source: str, subset: str = "", *, near: float = NEAR, cache=None, show: bool = True) -> Report:
    """Open every image of a source and report what is there.

    Args: `source`, `subset`: as `readers.listing`, or `"phantom"`, which is drawn; `near`: the correlation from which
        two images count as near copies; `show`: a bar in the terminal.
    Returns: `Report`. Damaged images, missing files or an empty split are part of it, not an error.
    Raises: FileNotFoundError, ValueError: the source cannot be listed, or `near` is outside 0.5 to 1.
    """
    in_range("near", near, 0.5, 1)
    found = _drawn(cache, show) if source == "phantom" else \
        readers.listing(source, subset, cache_dir(cache), whole=False)
    table, sizes, modes, lost = found.table, Counter(), Counter(), []
    kept, digests, thumbnails, unreachable = [], [], [], []
    with progress(len(table), "checking images", "img", show) as bar:
        for row, picture in enumerate(decoding.opened(found, range(len(table)))):
            if not isinstance(picture, readers.Picture):
                lost.append((table["path"].iloc[row], str(picture)))
                if isinstance(picture, decoding.Unreachable):
                    unreachable.append(picture)
            else:
                kept.append(row)
                sizes[picture.size] += 1
                modes[picture.mode + (", colour" if picture.coloured else "")] += 1
                digests.append(hashlib.sha256(repr(picture.size).encode() + picture.grey.tobytes()).digest())
                thumbnails.append(readers.fitted(picture, SIDE).ravel())
            bar.update()
    splits, labels = (table[name].to_numpy()[kept] for name in ("split", "label"))
    copies, skipped = {"exact": _exact(digests, splits, labels)}, ""
    if len(kept) <= MOST:
        copies["near"] = _near(np.array(thumbnails).reshape(-1, SIDE**2), digests, splits, labels, near)
    else:
        skipped = f"more than {MOST:,} images: near copies are not looked for; check a subset"
    copies = {kind: {place: {kept[a]: kept[b] for a, b in pairs.items()} for place, pairs in places.items()}
              for kind, places in copies.items()}
    counts = {split: {key: int(((table["split"] == split) & (table["label"] == key)).sum()) for key in found.classes}
              for split in readers.SPLITS}
    errors, emptied = decoding.emptied(found, kept, lost)
    said = [str(fault) for fault in (*readers.faults(found, source), *unreachable[:1], *errors)]
    try:
        decoding.refuse_too_many(lost, len(table), DataConfig().max_damaged)
    except ValueError as error:
        said.append(str(error))
    caveats = found.caveats + emptied + decoding.copies(zip(digests, splits, labels))
    return Report(counts, sizes, modes, lost, copies, _straddling(table), list(table["path"]), caveats, found.notes,
                  skipped, tuple(said))


def _drawn(cache, show: bool) -> readers.Listing:
    """The phantom's default data set as a listing: each image is a head of its own, and has no file."""
    import pandas as pd
    data = load_data(DataConfig(), cache, show)
    parts = (data.train, data.val, data.test)
    table = pd.concat([pd.DataFrame({"path": [f"{part.name}/{number}" for number in part.indices],
                                     "label": [part.classes[label] for label in part.labels], "split": part.name})
                       for part in parts], ignore_index=True)
    table["group"] = table["path"]
    return readers.Listing(table, notes=data.notes, classes=data.classes,
                           arrays=[image for part in parts for image in part.images])


def _straddling(table) -> list[str] | None:
    """Names of groups with images in more than one split, `None` where there are no groups."""
    if "group" not in table.columns:
        return None
    splits = table.groupby("group")["split"].nunique()
    return [str(name) for name in splits.index[splits > 1]]


# --------------------------------------------------------------------------------------------- copies
def _exact(digests: list[bytes], splits, labels) -> dict[str, dict[int, int]]:
    """For each place, image -> another image with the same pixels there."""
    same: dict[bytes, list[int]] = {}
    for i, digest in enumerate(digests):
        same.setdefault(digest, []).append(i)
    found: dict[str, dict[int, int]] = {place: {} for place in PLACES}
    for members in same.values():
        for i in members if len(members) > 1 else ():
            for j in members:
                if i != j:
                    found[PLACES[int(splits[i] != splits[j])]].setdefault(i, j)
                    if labels[i] != labels[j]:
                        found[PLACES[2]].setdefault(i, j)
    return found


def _near(thumbnails: np.ndarray, digests: list[bytes], splits, labels, near: float) -> dict[str, dict[int, int]]:
    """For each place, image -> the image there that correlates most with it, from `near` on; exact copies left out."""
    x = thumbnails.astype(np.float32)
    x -= x.mean(1, keepdims=True)
    x /= np.linalg.norm(x, axis=1, keepdims=True) + 1e-6
    _, digest = np.unique(np.array(digests, dtype="S32"), return_inverse=True)
    found: dict[str, dict[int, int]] = {place: {} for place in PLACES}
    for start in range(0, len(x), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(x)))
        alike = x[rows] @ x.T
        alike[digest[rows, None] == digest] = 0                         # itself and its exact copies
        for i in np.flatnonzero(alike.max(1) >= near):
            others = np.flatnonzero(alike[i] >= near)
            others = others[np.argsort(-alike[i, others], kind="stable")]
            me = rows[i]
            for place, there in zip(PLACES, (splits[others] == splits[me], splits[others] != splits[me],
                                             labels[others] != labels[me])):
                if there.any():
                    found[place][int(me)] = int(others[there][0])
    return found
