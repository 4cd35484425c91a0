"""How far the phantom can be learned: a ResNet-18 that sees the same images more often than the chapters' models.

What lives here: `record_ceiling`, which `python -m medbench ceiling` calls. It takes longer than a chapter may, so
`make book` never does it: chapter 10 tells what the committed record holds.
"""

from __future__ import annotations

import torch

from .. import data, results
from ..experiment import Experiment
from ..training import evaluate, fit

CHAPTER = "10_ceiling"
MODEL = "resnet18"
EPOCHS = 10


def record_ceiling(*, profile: str = "laptop", seed: int = 0, device: str = "auto", bootstrap: int = 1000,
                   to=None) -> list[dict]:
    """Train timm's ResNet-18 by the one recipe for ten epochs, or load it, score it on the test set, and record.

    Args: `profile` sizes the data; `to`: the record file (default: `10_ceiling.json` of this device).
    Returns: one row: the model, images seen, balanced accuracy, macro AUROC and the record file.
    """
    import timm
    to = to or results.here(CHAPTER, device)
    like = Experiment.preset("small", "resnet50", seed, profile, device=device)
    images = data.load_data(like.data)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model(MODEL, num_classes=len(images.classes), in_chans=like.data.in_chans)
    run = fit(model, images, like.training.replace(epochs=EPOCHS, threads=0))
    scores = evaluate(run.model, images.test, bootstrap=bootstrap)
    results.begin(to, profile)
    results.record(f"phantom.{MODEL}", scores, run, to=to, seed=seed, data="phantom")
    return [{"name": MODEL, "samples_seen": run.samples_seen, "balanced_accuracy": scores.balanced_accuracy.value,
             "macro_auroc": scores.macro_auroc.value, "to": str(to)}]
