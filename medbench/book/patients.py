"""Several slices of each patient: what chapter 01 shows of splits by slice and by patient.

What lives here, top to bottom: `scans`; `divided`, the same images split in one way or the other; `shared` and `fall`,
what that does; `checked`, what the check of real data sets found, from its records.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .. import phantom, results
from ..config import fingerprint
from ..data import Data, Split
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


def shared(batch: phantom.Batch, patient: np.ndarray, by: str, *, seed: int) -> int:
    """How many patients of the test set are in training too."""
    data = divided(batch, patient, by, seed=seed)
    return len(np.intersect1d(data.train.groups, data.test.groups))


def fall(told: dict, batch: phantom.Batch, patient: np.ndarray, *, seed: int):
    """How far the score falls from slices to patients, as a row, and both scores as a table.

    Args: `told` {"slice": Scores, "patient": Scores}; the rest as `divided`.
    """
    import pandas as pd
    lost = told["slice"].balanced_accuracy.value - told["patient"].balanced_accuracy.value
    n = told["patient"].balanced_accuracy.n
    row = {"quantity": "fall", "value": 100 * lost, "unit": "percentage point", "n": n}
    rows = {f"split by {by}": {"images in test": scores.balanced_accuracy.n,
                               "patients also in training": shared(batch, patient, by, seed=seed),
                               "balanced accuracy": str(scores.balanced_accuracy)} for by, scores in told.items()}
    return row, pd.DataFrame(rows).T


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
