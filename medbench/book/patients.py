"""Several slices of each patient: what chapter 01 shows of splits by slice and by patient.

What lives here, top to bottom: `scans`; `divided`, the same images split in one way or the other; `fall`, what that
does; `checked`, what the check of real data sets found, from its records.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .. import phantom, results
from ..config import fingerprint
from ..data import Data, Split
from ..metrics import Score, Scores
from ..rows import with_caveats
from .tables import of_one_device

CHECK = "01_check"                                         # where the records of checked data sets are kept
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def scans(patients: int, slices: int, *, seed: int) -> tuple[phantom.Batch, np.ndarray]:
    """Phantoms of patients with `slices` slices each, and the patient of each image; classes in turn."""
    order = np.arange(patients * slices)
    patient = order // slices
    return phantom.generate(patient % len(phantom.CLASSES), order, seed=seed, slices_per_patient=slices), patient


def divided(batch: phantom.Batch, patient: np.ndarray, by: str, *, seed: int) -> Data:
    """The images as training, validation and test, 70-10-20 of the slices or of the patients.

    Args: `by`: `"slice"` or `"patient"`; the patients stand in `groups` of each split either way.
    """
    unit = {"slice": np.arange(len(patient)), "patient": patient}[by]
    names, ends = list(SHARES), np.cumsum(list(SHARES.values()))[:-1]
    rank = np.random.default_rng(seed).permutation(unit.max() + 1)[unit] / (unit.max() + 1)
    part = np.digitize(rank, ends)
    images, labels = batch.images.numpy(), batch.labels.numpy()
    prior = np.bincount(labels[part == 0], minlength=len(phantom.CLASSES)) / (part == 0).sum()

    def split(number, name):
        rows = np.flatnonzero(part == number)
        return Split(name, images[rows], labels[rows], rows, phantom.CLASSES, prior, groups=patient[rows])
    return Data(*(split(*pair) for pair in enumerate(names)),
                fingerprint=fingerprint(hashlib.sha256(images).hexdigest(), labels.tolist(), part.tolist()))


def fall(told: dict[str, Scores], splits: dict[str, Data]):
    """Both scores and how far they fall from slices to patients, as rows; and as a table, with whom each split knows.

    Args: `told`: the scores of the split by `"slice"` and by `"patient"`; `splits`: the data of each.
    """
    import pandas as pd
    rows, table = [], {}
    for by, scores in told.items():
        score, data = scores.balanced_accuracy, splits[by]
        known, asked = set(data.train.groups), set(data.test.groups)
        rows.append(with_caveats(score.row(f"balanced_accuracy_by_{by}"), scores.caveats))
        table[f"split by {by}"] = {"patients in training": len(known), "patients in test": len(asked),
                                   "in both": len(known & asked), "images in test": score.n,
                                   "balanced accuracy": str(score)}
    lost = _apart(told["slice"].balanced_accuracy, told["patient"].balanced_accuracy)
    rows.append(with_caveats(lost.row("fall", unit="percentage point"), told["patient"].caveats))
    return rows, pd.DataFrame(table).T


def _apart(first: Score, second: Score) -> Score:
    """The difference of two scores of different images in percentage points, each end as far as the ends of both
    together, by the root of their squares (Zou & Donner 2008, Stat. Med. 27, 1693-1702)."""
    gap = first.value - second.value
    low = gap - np.hypot(first.value - first.low, second.high - second.value)
    high = gap + np.hypot(first.high - first.value, second.value - second.low)
    return Score(100 * gap, 100 * low, 100 * high, second.n, second.reason or first.reason)


def checked(device="auto"):
    """What `data check` found, one column a data set: counts of images.

    Args: `device`: whose records, if it has any. Raises: LookupError if there are none.
    """
    table = results.load()
    table = table[table.chapter == CHECK]
    if not len(table):
        raise LookupError("there are no records of checked data sets; `python -m medbench data check SOURCE --record "
                          f"{CHECK}` makes them")
    table = of_one_device(table, device)
    names, order = table["name"].str.split(".", n=1), ["images", "set_aside"]
    table = table.assign(first=~table["quantity"].isin(order)).sort_values("first", kind="stable")
    shown = table.assign(set=names.str[0], finding=names.str[1].str.replace(".", ", ").str.replace("_", " "))
    return shown.pivot_table(index="finding", columns="set", values="value", sort=False).astype(int).rename_axis(
        index=None, columns=None)
