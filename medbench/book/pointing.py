"""What chapter 13 shares: which images are explained, all models' maps, and their scores in one table."""

from __future__ import annotations

import numpy as np
import torch

from .. import config, data, phantom, saliency
from ..inference import predict
from ..models import build_model
from ..training import fit

CHEAP = ("gradient",)                                  # methods that explain many images in seconds
CELL = "{value:.2f} [{low:.2f}, {high:.2f}] n={n}"
METHODS = ("gradient", "smooth_grad", "integrated_gradients", "occlusion")


def load_models(profile, seed: int, device: str):
    """The models that chapter 10 trained, in evaluation mode, with their decisions on the test set, and the data.

    Returns: ({name: model}, {name: decisions (n,)}, Data, its DataConfig).
    """
    found = {name: config.Experiment.preset(profile.preset, name, seed=seed, profile=profile, device=device)
             for name in config.ALL_MODELS}
    images = data.load_data(next(iter(found.values())).data)
    models = {name: fit(build_model(exp.model), images, exp.training).model for name, exp in found.items()}
    decided = {name: (predict(model, images.test) - np.log(images.prior)).argmax(1) for name, model in models.items()}
    return models, decided, images, next(iter(found.values())).data


def explained(decided, split, count: int) -> np.ndarray:
    """The first `count` test images that have a lesion and are classified correctly, as positions."""
    return np.flatnonzero((np.asarray(decided) == split.labels) & split.masks.any((1, 2)))[:count]


def shown(decided: dict, split, key: str = "intra") -> int:
    """The first image of a class that every model gets right; without one, the one that most get right."""
    right = np.sum([np.asarray(d) == split.labels for d in decided.values()], axis=0)
    return int(np.argmax(np.where(split.labels == split.classes.index(key), right, -1)))


def as_input(split, positions, model) -> torch.Tensor:
    """These images as the model takes them, on its device."""
    x = data.to_input(np.asarray(split.images[positions]), split.in_chans)
    return x.to(next(model.parameters()).device)


def classes(split, positions) -> torch.Tensor:
    """The true classes of these images."""
    return torch.as_tensor(np.asarray(split.labels)[positions])


def maps_of(method: str, model, split, positions, grey: float, profile) -> saliency.Maps:
    """One method's maps of the true classes; integrated gradients and occlusion start from the mean grey."""
    options = {"integrated_gradients": {"n_steps": profile.ig_steps, "baseline": grey}, "occlusion": {"baseline": grey}}
    return saliency.explain(method, model, as_input(split, positions, model), classes(split, positions),
                            **options.get(method, {}))


def scores(maps: saliency.Maps, split, positions, bootstrap: int) -> saliency.Localisation:
    """Where the maps of these images point."""
    return saliency.localise(maps, split.masks[positions], np.asarray(split.images[positions]), bootstrap=bootstrap)


def table(found: dict, quantity: str):
    """Localisations {(model, method): Localisation} as a table for the page: one row a model, one column a method."""
    import pandas as pd
    rows = [{"model": model, "method": method, "cell": CELL.format(**score[quantity])}
            for (model, method), score in found.items()]
    return pd.DataFrame(rows).pivot(index="model", columns="method", values="cell").loc[
        list(dict.fromkeys(model for model, _ in found))]


def forest_table(found: dict, quantity: str, method: str):
    """One quantity of one method for `plots.forest`: `model`, `value`, `low`, `high`."""
    import pandas as pd
    return pd.DataFrame([{"model": model, **{k: score[quantity][k] for k in ("value", "low", "high")}}
                         for (model, how), score in found.items() if how == method])


def paired(found: dict, quantity: str, method: str, reference: str = "softmax") -> list[dict]:
    """Each model's mean score against the reference's, with an interval from independent bootstraps, as rows.

    The models are right on different images, so the images are not paired; intervals are wider for that.
    """
    def draw(score, seed):
        values = score.per_image[quantity]
        picks = np.random.default_rng(seed).integers(len(values), size=(1000, len(values)))
        return values[picks].mean(1)
    base = found[reference, method]
    rows = []
    for seed, ((model, how), score) in enumerate(found.items()):
        if how == method and model != reference:
            low, high = np.percentile(draw(score, seed + 1) - draw(base, 0), (2.5, 97.5))
            value = score.per_image[quantity].mean() - base.per_image[quantity].mean()
            verdict = "better" if low > 0 else "worse" if high < 0 else "tie"
            rows.append({"quantity": f"{quantity}_difference", "value": float(value), "low": float(low), "unit": "1",
                         "high": float(high), "n": len(score.per_image[quantity]), "suffix": method, "model": model,
                         "context": {"verdict": verdict, "method": method, "reference": reference}})
    return rows


def twin_agreement(maps: saliency.Maps, split, positions, config_data) -> list[dict]:
    """Rank correlation of maps with what really differs: the image less its healthy twin, as rows.

    Args: `config_data` the `DataConfig` that drew the split.
    """
    from ..faithfulness import rank_correlation
    from ..viewing import mean_interval
    healthy = phantom.twin(split.labels[positions], split.indices[positions], seed=config_data.seed,
                           img_size=config_data.img_size, difficulty=config_data.difficulty).images
    differs = np.abs(np.asarray(split.images[positions], float) - np.asarray(healthy, float))
    values = rank_correlation(np.abs(maps.map), differs)
    return [{"quantity": "twin_correlation", "unit": "1", "suffix": maps.method, "context": {"method": maps.method},
             **mean_interval(values, 0, 1000)}]
