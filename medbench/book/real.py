"""The records of real MRI: the eight models and the baselines on brain-tumor-mri.

What lives here: the data set's name and licence, and `record_real_mri`, which `python -m medbench real-mri` calls where
the data are. `make book` never needs them: chapter 10 reads the committed records.
"""

from __future__ import annotations

from .. import baselines, data, results
from ..config import ALL_MODELS, Experiment
from ..training import evaluate
from .benchmark import REAL, train_all

MANIFEST = "brain-tumor-mri/manifest.csv"
SOURCE = "J. Cheng et al., figshare 1512427, CC BY 4.0"
SPLIT = ("Patient ids are not in these files. The split takes contiguous blocks of the original numbering with a guard "
         "of 8 slices, a proxy for patients. Three tumour classes, no normals, contrast T1, several orientations; "
         "location alone helps with pituitary tumours.")


def experiment(name: str, seed: int = 0, device: str = "auto") -> Experiment:
    """The experiment of `train --model NAME --preset small --data $MEDBENCH_DATA/brain-tumor-mri/manifest.csv`, on one
    thread as in chapter 10."""
    return Experiment.preset("small", name, seed, source=str(data.data_root() / MANIFEST), device=device, threads=1)


def record_real_mri(names=ALL_MODELS, *, seed: int = 0, device: str = "auto", bootstrap: int = 1000,
                    to=None) -> list[dict]:
    """Train the models on real MRI, or load them, score each once on the test set, and record.

    Args: `names` of models; `to`: the record file (default: `10_real.json` of this device).
    Returns: one row a model or baseline: its name, the record file, balanced accuracy and top-1.
    Raises: FileNotFoundError if the data are not there.
    """
    to = to or results.here(REAL, device)
    opened = data.load_data(experiment(names[0], seed, device).data)
    about = {"data": "brain-tumor-mri", "source": SOURCE}
    results.begin(to)
    lines = baselines.shortcut_scores(opened, bootstrap=bootstrap)
    lines["nearest_neighbour"] = baselines.nearest_neighbour(opened, bootstrap=bootstrap)
    for name, scores in lines.items():
        results.record(f"brain-tumor-mri.{name}", scores, to=to, **about)
    results.record("brain-tumor-mri", _split_rows(opened), to=to, **about)
    size = len(opened.classes), len(opened.train)
    experiments = [experiment(name, seed, device).on(*size) for name in names]
    for one in train_all(experiments, opened):
        lines[one.name] = evaluate(one.logits, opened.test, bootstrap=bootstrap)
        results.record(one.experiment, lines[one.name], one.run, to=to, **about)
    return [{"name": name, "balanced_accuracy": s.balanced_accuracy.value, "top1": s.top1.value, "to": str(to)}
            for name, s in lines.items()]


def _split_rows(opened) -> list[dict]:
    """Images of each split and class, with what the split can and cannot say."""
    splits = (opened.train, opened.val, opened.test)
    return [{"quantity": "images", "value": count, "unit": "1", "suffix": f"{split.name}.{key}", "text": SPLIT,
             "context": {"split": split.name, "class": key}}
            for split in splits for key, count in split.class_counts.items()]
