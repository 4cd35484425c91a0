"""What chapter 01 asks of the drawings: shortcuts and their cures, the mark of a site, leaking copies, a quiz."""

from __future__ import annotations

import numpy as np

from .. import baselines, phantom

UNCURED = {"histogram_matching": False, "sella_slices": False, "decoys": False}
TEST = 10_000_000                                          # test indices lie apart from the training ones
NORMAL = phantom.CLASSES.index("normal")


def drawn(count: int, first: int = 0, *, seed: int, **options) -> phantom.Batch:
    """`count` phantoms with equally many of each class, numbered from `first`; `options` as for `phantom.generate`."""
    order = np.arange(count)
    return phantom.generate(order % len(phantom.CLASSES), order + first, seed=seed, **options)


def shortcut_rows(train: phantom.Batch, test: phantom.Batch, *, seed: int = 0, bootstrap: int = 200) -> list[dict]:
    """What programs that see no anatomy make of a data set, as rows for `mb.results.record`.

    Intensity statistics and thumbnails: a linear model. Slice height: Bayes' rule. Masked lesions: statistics of what
    is left when the lesion is covered, each class against normals, on training and test images together.
    """
    (images, labels, masks, heights), (asked, truth, others, at) = map(_arrays, (train, test))
    found = baselines.shortcuts(images, labels, asked, truth, classes=phantom.CLASSES, seed=seed,
                                bootstrap=bootstrap)
    found["slice_height"] = baselines.slice_level(heights, labels, at, truth, classes=phantom.CLASSES,
                                                  bootstrap=bootstrap)
    rows = [scores.overall[name].row(f"{probe}_{name}") for probe, scores in found.items()
            for name in ("macro_auroc", "balanced_accuracy")]
    pituitary = found["slice_height"].per_class["pituatary_lesion"]["auroc"]
    rows.append(pituitary.row("slice_height_auroc", suffix="pituatary_lesion"))
    masked = baselines.masked_lesions(np.concatenate([images, asked]), np.concatenate([labels, truth]),
                                      np.concatenate([masks, others]), normal=NORMAL, classes=phantom.CLASSES,
                                      seed=seed)
    rows += [{"quantity": "masked_auroc", "value": value, "unit": "1", "suffix": key, "context": {"class": key}}
             for key, value in masked.items()]
    return rows


def _arrays(batch: phantom.Batch):
    return tuple(np.asarray(part) for part in (batch.images, batch.labels, batch.lesion, batch.z))


def before_and_after(before: list[dict], after: list[dict]):
    """Both lists of rows as one table: a row a probe, beside what guessing gives."""
    import pandas as pd
    names = {"intensity_statistics_macro_auroc": ("brightness: AUROC", 0.5),
             "thumbnails_28_balanced_accuracy": ("thumbnails: balanced accuracy", 0.1),
             "slice_height_balanced_accuracy": ("height: balanced accuracy", 0.1),
             "slice_height_auroc.pituatary_lesion": ("height: AUROC, pituitary", 0.5)}

    def by_name(rows):
        return {".".join(filter(None, (row["quantity"], row.get("suffix")))): row["value"] for row in rows}
    first, second = by_name(before), by_name(after)
    covered = [name for name in first if name.startswith("masked_auroc")]
    names |= {name: (f"covered: {phantom.CLASS_NAMES[name.split('.')[1]].lower()}", 0.5) for name in covered}
    rows = {title: (first[name], second[name], chance) for name, (title, chance) in names.items()}
    return pd.DataFrame(rows, index=["before", "after", "guessing"]).T


def sick_or_not(train: phantom.Batch, test: phantom.Batch, *, seed: int = 0) -> float:
    """AUROC of a linear model on 28-px thumbnails that tells normal heads from all others."""
    from sklearn.metrics import roc_auc_score
    features = [baselines.thumbnails(np.asarray(batch.images)) for batch in (train, test)]
    sick = [(np.asarray(batch.labels) != NORMAL).astype(int) for batch in (train, test)]
    logits = baselines.linear_probe(features[0], sick[0], features[1], 2, seed)
    return float(roc_auc_score(sick[1], logits[:, 1] - logits[:, 0]))


def confounding_rows(strengths, count: int, *, seed: int) -> list[dict]:
    """`sick_or_not`, trained on `count` images with marks of each strength, tested at home and on images without.

    Returns: rows `auroc_<strength in hundredths>_home` and `..._elsewhere`, for `mb.results.record`.
    """
    clean, rows = half_normal(count, TEST, seed=seed), []
    for strength in strengths:
        train = half_normal(count, seed=seed, confounding=strength)
        home = half_normal(count, TEST, seed=seed, confounding=strength)
        for place, test in (("home", home), ("elsewhere", clean)):
            rows.append({"quantity": f"auroc_{100 * strength:.0f}_{place}", "value": sick_or_not(train, test),
                         "unit": "1", "n": count, "context": {"confounding": strength, "tested": place}})
    return rows


def half_normal(count: int, first: int = 0, *, seed: int, **options) -> phantom.Batch:
    """Like `drawn`, but every other head is normal and the rest is spread over the nine findings."""
    findings = np.delete(np.arange(len(phantom.CLASSES)), NORMAL)
    order = np.arange(count)
    labels = np.where(order % 2, NORMAL, findings[order // 2 % len(findings)])
    return phantom.generate(labels, order + first, seed=seed, **options)


def slices_of(images, copies: int, *, seed: int):
    """Stand-ins for neighbouring slices of a patient: each head `copies` times, a little shifted and noisier.

    Returns: pixels (n x copies, H x W) float32 and the patient of each, (n x copies,).
    """
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(len(images)), copies)
    shifts = rng.integers(-2, 3, (len(patients), 2))
    moved = np.stack([np.roll(images[p], shift, (0, 1)) for p, shift in zip(patients, shifts)]).astype(np.float32)
    noisy = moved + 8 * rng.standard_normal(moved.shape, dtype=np.float32)
    return noisy.reshape(len(noisy), -1), patients


def quiz(count: int = 20, *, seed: int) -> phantom.Batch:
    """Heads for the reader to name: every class at least once, the rest drawn at random, in random order."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(len(phantom.CLASSES)), rng.integers(0, len(phantom.CLASSES), count)])[:count]
    return phantom.generate(rng.permutation(labels), np.arange(count) + 2 * TEST, seed=seed)
