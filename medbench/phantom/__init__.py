"""Synthetic axial brain MRI: ten classes with the study's names and counts, lesion masks and healthy twins.

What lives here: the classes and their priors, `generate` and `twin`. `anatomy` holds the atlas (ICBM-152 2009; its
licence and citation stand there), `drawing` the tools, `lesions` the ten classes, `render` the way from random
numbers to an image, `histogram` and the decoys in `render` the cure for shortcuts.

The images are drawings with known answers, caricatures from general knowledge. They are for research and teaching,
not for clinical use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..checks import in_range, one_of, whole
from ..config import PRIORS
from .drawing import Draws, numbers
from .lesions import LESIONS
from .render import Look, height, render
from .signals import MATERIALS

CLASSES = tuple(LESIONS)
CLASS_NAMES = {
    "acute_infarct": "Acute infarct", "arteriovenous_anomaly": "Arteriovenous anomaly",
    "chronic_infarct": "Chronic infarct", "edema": "Edema", "extra": "Extra-axial lesion",
    "focal_flair_hyper": "Focal FLAIR hyperintensity", "intra": "Intra-axial lesion", "normal": "Normal",
    "pituatary_lesion": "Pituitary lesion", "white_matter_changes": "White matter changes",
}
STUDY_COUNTS = dict(zip(CLASSES, (513, 272, 2307, 125, 1259, 751, 1721, 27374, 83, 10266)))
CONTRASTS = tuple(MATERIALS)
VERSION = 5                    # raised whenever a drawing changes: old caches are then drawn anew
CHUNK = 256                    # samples whose random numbers are held at once
GROUP = 32                     # samples of one class drawn at once: fits the cache of a core
REACH = 6.0                    # mm that a patient's slices lie above or below the middle of the lesion, at most
PATIENTS = 1 << 40             # added to the seed of what a patient's slices share


@dataclass(frozen=True)
class Batch:
    """Images with what is known about them, aligned by row.

    `images` uint8 (n, H, W); `labels` int64 (n,), positions in CLASSES; `lesion` bool (n, H, W), the diseased tissue;
    `affected` bool (n, H, W), oedema around it and tissue displaced by more than 1.5 mm; `z` float (n,), the slice's
    height in MNI mm.
    """

    images: torch.Tensor
    labels: torch.Tensor
    lesion: torch.Tensor
    affected: torch.Tensor
    z: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


def prior(name: str = "study") -> np.ndarray:
    """The probability of each class: `study` (the study's counts), `sqrt` (their square roots) or `uniform`."""
    one_of("prior", name, PRIORS)
    weights = np.array(list(STUDY_COUNTS.values()), float) ** {"study": 1.0, "sqrt": 0.5, "uniform": 0.0}[name]
    return weights / weights.sum()


def generate(labels, indices, *, seed: int, img_size: int = 112, prior: str = "study", contrast: str = "flair",
             difficulty: float = 1.0, confounding: float = 0.0, device: str = "cpu", histogram_matching: bool = True,
             sella_slices: bool = True, decoys: bool = True, healthy: bool = False,
             slices_per_patient: int = 1) -> Batch:
    """Draw phantoms. Each sample depends on (seed, index) alone, whatever it is drawn together with.

    Arguments:
        labels: a class position for each index, or None to draw it from `prior`.
        indices: the samples' numbers, n integers from 0 to 2^32 - 1.
        seed: the data set's number.
        img_size: side in px; the field of view is 210 mm.
        prior: `study`, `sqrt` or `uniform`; only used where labels is None.
        contrast: `flair`, `t2` or `t1`.
        difficulty: lesions have 1.5 - d/4 times the size that their files state and (5 - d)/3 times the contrast to
            grey matter, but nothing gets darker than bone. 1 is the book's; at 2 all is as stated.
        confounding: 0 to 1, how closely a mark burnt into the image follows the label.
        device: where to draw; random numbers always come from the CPU.
        histogram_matching, sella_slices, decoys: the cures for shortcuts; False shows what they prevent.
        healthy: draw the same heads without lesion (see `twin`).
        slices_per_patient: with s of them, sample i is of patient i // s: all share head, lesion, scanner and drawn
            label, and differ in height, by at most `REACH` mm either way, and in noise.

    Returns: a `Batch` on the device.
    Raises: ValueError for an unknown prior or contrast, a label outside the classes, labels and indices of unequal
    length.
    """
    one_of("contrast", contrast, CONTRASTS)
    in_range("img_size", img_size, 16)
    in_range("difficulty", difficulty, 0)
    in_range("confounding", confounding, 0, 1)
    indices = np.asarray(indices, dtype=np.int64).reshape(-1)
    cumulative = np.cumsum(globals()["prior"](prior))
    look = Look(contrast, difficulty, confounding, histogram_matching, sella_slices, decoys)
    whole("slices_per_patient", slices_per_patient)
    labels = _checked(labels, len(indices))
    parts = [_chunk(labels if labels is None else labels[k:k + CHUNK], indices[k:k + CHUNK], seed, img_size, cumulative,
                    look, str(device), healthy, slices_per_patient) for k in range(0, len(indices), CHUNK)]
    return Batch(*(torch.cat(column) for column in zip(*parts)))


def twin(labels, indices, **options) -> Batch:
    """The healthy twins: the same heads, slices, coils and noise, without lesion or displacement.

    Arguments as `generate`.
    """
    return generate(labels, indices, healthy=True, **options)


def slice_levels(labels, indices, *, seed: int, sella_slices: bool = True) -> np.ndarray:
    """The heights (n,) in MNI mm of the slices that `generate` draws for these samples, without drawing them."""
    indices = np.asarray(indices, dtype=np.int64).reshape(-1)
    labels, uniform = torch.from_numpy(_checked(labels, len(indices))), numbers(seed, indices, 1)[0][:, 1:]
    heights = np.empty(len(indices), np.float32)
    for label in labels.unique().tolist():
        rows = labels == label
        heights[rows.numpy()] = height(CLASSES[label], Draws(uniform[rows]), sella_slices)[0].flatten().numpy()
    return heights


def _checked(labels, n: int) -> np.ndarray | None:
    if labels is None:
        return None
    labels = np.asarray(labels, dtype=np.int64).reshape(-1)
    if len(labels) != n:
        raise ValueError(f"received {len(labels)} labels for {n} indices; give one label an index, or None to draw "
                         f"them")
    if n and not (0 <= labels.min() and labels.max() < len(CLASSES)):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; wanted 0 to {len(CLASSES) - 1}, "
                         f"positions in CLASSES")
    return labels


def _chunk(labels, indices, seed, img_size, cumulative, look, device, healthy, slices_per_patient):
    """Draw up to CHUNK samples, class by class, and put them back in order."""
    uniform, control, noise = numbers(seed, indices, img_size)
    offset = torch.zeros(len(indices))
    if slices_per_patient > 1:
        offset = REACH * (2 * uniform[:, 0] - 1)
        uniform, control, _ = numbers(seed + PATIENTS, indices // slices_per_patient, 1)
    if labels is None:
        labels = np.searchsorted(cumulative, uniform[:, 0].numpy(), side="right").clip(max=len(CLASSES) - 1)
    labels = torch.from_numpy(labels)
    n = len(labels)
    images = torch.empty(n, img_size, img_size, dtype=torch.uint8, device=device)
    lesion, affected = torch.empty_like(images, dtype=torch.bool), torch.empty_like(images, dtype=torch.bool)
    z = torch.empty(n, device=device)
    for label in labels.unique().tolist():
        for rows in (labels == label).nonzero().flatten().split(GROUP):
            here = rows.to(device)
            images[here], lesion[here], affected[here], z[here] = render(
                CLASSES[label], uniform[rows, 1:], control[rows], noise[rows], offset[rows], look, device, healthy)
    return images, labels.to(device), lesion, affected, z
