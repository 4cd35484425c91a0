"""Small data sets in the layout of large ones, written by the tests that need them."""

import csv

import numpy as np
from PIL import Image

BRAIN = ("acute_infarct", "arteriovenous_anomaly", "chronic_infarct", "edema", "extra", "focal_flair_hyper", "intra",
         "normal", "pituatary_lesion", "white_matter_changes")
SHARE = {"train": 4, "val": 1, "test": 2}                    # images of each class


def radimagenet(folder, inside=False, levels=tuple(f"MR/brain/{key}" for key in BRAIN)):
    """RadImageNet's tree and split files under `folder`; the CSVs lie inside `radiology_ai/` or beside it.

    Besides the classes of `levels` (by default those of the brain) it has CT and ultrasound, which has no level for
    the anatomy.
    """
    rng, rows, number = np.random.default_rng(0), {name: [] for name in SHARE}, 0
    for level in (*levels, "CT/abd/normal", "CT/abd/ascites", "US/thyroid", "US/usabd"):
        (folder / "radiology_ai" / level).mkdir(parents=True)
        for split, count in SHARE.items():
            for _ in range(count):
                number += 1
                name = f"radiology_ai/{level}/{level.split('/')[0].lower()}n{number:06d}.png"
                Image.fromarray(rng.integers(0, 256, (30, 26), dtype=np.uint8)).save(folder / name)
                rows[split].append((name, level.split("/")[-1]))
    for split, lines in rows.items():
        place = folder / "radiology_ai" if inside else folder
        with open(place / f"RadiologyAI_{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("filename", "label"), *lines])
    return rows


def breastmnist(file, side=28, change=lambda arrays: arrays, write=np.savez):
    """A file of BreastMNIST's shape and counts, with noise for images."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in {"train": 546, "val": 78, "test": 156}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    write(file, **change(arrays))
