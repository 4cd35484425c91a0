"""The records of real images: the eight models and the baselines on brain-tumor-mri and on BreastMNIST.

What lives here, top to bottom: `RealSet`, what a data set is and what its results have to say; the two sets;
`record_real`, which `python -m medbench campaign` calls as `real-mri` and `breastmnist` where the data are; runs of
images in place of patients; what was published for BreastMNIST. `make book` never needs them: chapter 10 reads the
committed records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np

from .. import baselines, data, results
from ..config import ALL_MODELS
from ..experiment import Experiment
from ..rows import caveat_column
from ..training import evaluate
from .benchmark import PUBLISHED, REAL, train_all


@dataclass(frozen=True)
class RealSet:
    """A real data set: its short name, where it lies in the folder of data sets, the chapter's record file, its source
    and licence, and what its split can and cannot say.

    `a_patient`: how many images a patient has on average, where ids are lost but files are numbered patient by patient.
    """

    name: str
    path: str
    chapter: str
    source: str
    split: str
    a_patient: int = 0

    def grouped(self, opened: data.Data) -> data.Data:
        """The data as its scores see them: with runs of test images in place of patients who are not known."""
        if not self.a_patient:
            return opened
        said = (*opened.caveats, f"in intervals, runs of {self.a_patient} slices stand for patients")
        train, val, test = (replace(split, caveats=said) for split in (opened.train, opened.val, opened.test))
        return replace(opened, train=train, val=val, test=replace(test, groups=runs(test, self.a_patient)))


# 3,064 slices of 233 patients: 13 each
MRI = RealSet("brain-tumor-mri", "brain-tumor-mri/manifest.csv", REAL, "J. Cheng et al., figshare 1512427, CC BY 4.0",
              "Patient ids are not in these files. The split takes contiguous blocks of the original numbering with a "
              "guard of 8 slices, a proxy for patients. Three tumour classes, no normals, contrast T1, several "
              "orientations; location alone helps with pituitary tumours.", a_patient=13)
BREAST = RealSet("breastmnist", "medmnist/breastmnist.npz", PUBLISHED, "BreastMNIST of MedMNIST v2 (Yang et al. 2023, "
                 "doi:10.1038/s41597-022-01721-8), after Al-Dhabyani et al. 2020, CC BY 4.0",
                 "Official split. Patient ids are not in this file, and some images of different splits are nearly or "
                 "wholly the same. 28 px, enlarged.")
# AUC and ACC of BreastMNIST in Yang et al. 2023, table 4
PUBLISHED_SCORES = {"resnet18-28": (0.901, 0.863), "resnet18-224": (0.891, 0.833), "resnet50-28": (0.857, 0.812),
                    "resnet50-224": (0.866, 0.842), "auto-sklearn": (0.836, 0.803), "autokeras": (0.871, 0.831),
                    "google-automl-vision": (0.919, 0.861)}


def experiment(name: str, seed: int = 0, device: str = "auto", of: RealSet = MRI) -> Experiment:
    """The experiment of `train --model NAME --preset small --data ...`, on one thread as in chapter 10."""
    return Experiment.preset("small", name, seed, source=str(data.data_root() / of.path), device=device, threads=1)


def record_real(of: RealSet = MRI, names=ALL_MODELS, *, seed: int = 0, device: str = "auto", bootstrap: int = 1000,
                to=None) -> list[dict]:
    """Train the models on real images, or load them, score each once on the test set, and record.

    Args: `of`: the data set; `names` of models; `to`: the record file (default: the set's own of this device).
    Returns: one row a model or baseline: its name, the record file, balanced accuracy and top-1.
    Raises: FileNotFoundError if the data are not there.
    """
    to = to or results.here(of.chapter, device)
    opened = of.grouped(data.load_data(experiment(names[0], seed, device, of).data))
    about = {"data": of.name, "source": of.source}
    size = len(opened.classes), len(opened.train)
    trained = train_all([experiment(name, seed, device, of).on(*size) for name in names], opened)
    results.begin(to)                                        # not before: a file without models would hide another
    lines = baselines.shortcut_scores(opened, bootstrap=bootstrap)
    lines["nearest_neighbour"] = baselines.nearest_neighbour(opened, bootstrap=bootstrap)
    for name, scores in lines.items():
        results.record(f"{of.name}.{name}", scores, to=to, **about)
    results.record(of.name, _split_rows(opened, of), to=to, **about)
    if of is BREAST:
        results.record(of.name, published_rows(), to=to, data=of.name)
    for one in trained:
        lines[one.name] = evaluate(one.logits, opened.test, bootstrap=bootstrap)
        results.record(one.experiment, lines[one.name], one.run, to=to, **about)
    said = caveat_column(opened.caveats)
    return [{"name": name, "balanced_accuracy": s.balanced_accuracy.value, "top1": s.top1.value, "to": str(to)} | said
            for name, s in lines.items()]


def runs(split: data.Split, length: int) -> np.ndarray:
    """A number for each image (n,), the same for up to `length` images of one class whose files are numbered without a
    gap: who resamples these draws about as many neighbours at once as a patient has."""
    numbers = np.array([int(PurePath(path).stem) for path in split.paths])
    order = np.lexsort((numbers, split.labels))
    gap = (np.diff(split.labels[order]) != 0) | (np.diff(numbers[order]) != 1)
    stretch = np.concatenate([[0], np.cumsum(gap)])
    place = np.arange(len(order)) - np.flatnonzero(np.concatenate([[True], gap]))[stretch]
    found = np.empty(len(order), np.int64)
    found[order] = np.unique(np.column_stack([stretch, place // length]), axis=0, return_inverse=True)[1]
    return found


def published_rows() -> list[dict]:
    """The published figures of BreastMNIST: their AUC is our macro AUROC, their ACC our top-1."""
    source = "Yang et al. 2023, doi:10.1038/s41597-022-01721-8, table 4"
    about = {"unit": "1", "n": 156, "quoted": True, "source": source}
    return [{"quantity": "published", "suffix": f"{name}.{quantity}", "value": value, **about,
             "context": {"method": name, "published_as": called}}
            for name, figures in PUBLISHED_SCORES.items()
            for (quantity, called), value in zip((("macro_auroc", "AUC"), ("top1", "ACC")), figures)]


def _split_rows(opened, of: RealSet) -> list[dict]:
    """Images of each split and class, with what the split can and cannot say."""
    splits = (opened.train, opened.val, opened.test)
    return [{"quantity": "images", "value": count, "unit": "1", "suffix": f"{split.name}.{key}", "text": of.split,
             "context": {"split": split.name, "class": key}}
            for split in splits for key, count in split.class_counts.items()]
