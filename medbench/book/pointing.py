"""What chapter 13 shares: which images are explained, all models' maps, and their scores in one table."""

from __future__ import annotations

import numpy as np
import torch

from .. import config, data, phantom, saliency
from ..faithfulness import rank_correlation
from ..inference import predict
from ..models import build_model
from ..rows import finding
from ..training import fit
from ..viewing import bootstrap_means, mean_interval
from .mechanism import experiment
from .tables import in_words, with_interval

CHEAP = ("gradient",)                                  # methods that explain many images in seconds
METHODS = ("gradient", "smooth_grad", "integrated_gradients", "occlusion")


def load_models(book):
    """The models that chapter 10 trained, in evaluation mode, with their decisions on test images, and the data.

    Args: `book` the chapter: its profile, device and seed.
    Returns: ({name: model}, {name: decisions (n,) on the first n test images}, Data, its DataConfig); n is enough for
        the images that are to be explained, even if a model is right on one in four only.
    """
    found = {name: experiment(name, book) for name in config.ALL_MODELS}
    images = data.load_data(next(iter(found.values())).data)
    models = {name: fit(build_model(exp.model), images, exp.training).model for name, exp in found.items()}
    first = images.test.take(slice(4 * max(book.profile.localised_images, book.profile.saliency_images)))
    decided = {name: (predict(model, first) - np.log(images.prior)).argmax(1) for name, model in models.items()}
    return models, decided, images, next(iter(found.values())).data


def explained(decided, split, count: int) -> np.ndarray:
    """The first `count` test images with a decision, a lesion and the right class, as positions."""
    seen = split.take(slice(len(decided)))
    return np.flatnonzero((np.asarray(decided) == seen.labels) & seen.masks.any((1, 2)))[:count]


def shown(decided: dict, split, key: str = "intra") -> int:
    """The first image of a class that every model gets right; without one, the one that most get right."""
    decided = np.array(list(decided.values()))                                        # (models, n)
    labels = split.labels[: decided.shape[1]]
    return int(np.argmax(np.where(labels == split.classes.index(key), (decided == labels).sum(0), -1)))


def as_input(split, positions, model) -> torch.Tensor:
    """These images as the model takes them, on its device."""
    x = data.to_input(np.asarray(split.images[positions]), split.in_chans)
    return x.to(next(model.parameters()).device)


def classes(split, positions) -> torch.Tensor:
    """The true classes of these images."""
    return torch.as_tensor(np.asarray(split.labels)[positions])


def maps_of(method: str, model, split, positions, grey: float, profile) -> saliency.Maps:
    """One method's maps of the true classes; integrated gradients and occlusion start from the mean grey.

    Steps of integrated gradients are doubled once, where a map is more than 5 % from complete: trained models would
    need many hundreds for 1 %, at half a minute for each model. What stays incomplete is recorded.
    """
    steps = {"n_steps": profile.ig_steps, "max_steps": 2 * profile.ig_steps, "tolerance": 0.05}
    options = {"integrated_gradients": {"baseline": grey, **steps}, "occlusion": {"baseline": grey}}
    return saliency.explain(method, model, as_input(split, positions, model), classes(split, positions),
                            **options.get(method, {}))


def scores(maps: saliency.Maps, split, positions, bootstrap: int) -> saliency.Localisation:
    """Where the maps of these images point."""
    return saliency.localise(maps, split.masks[positions], np.asarray(split.images[positions]), bootstrap=bootstrap)


def cell(mean: dict) -> str:
    """A mean with its interval and the number of images behind it, as the tables show it."""
    return f"{with_interval(mean['value'], mean.get('low'), mean.get('high'), 2)} n={mean['n']}"


def table(found: dict, quantity: str):
    """Localisations {(model, method): Localisation} as a table for the page: one row a model, one column a method."""
    import pandas as pd
    rows = [{"model": model, "method": method, "cell": cell(score[quantity])}
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
    base = found[reference, method].per_image[quantity]
    spread = bootstrap_means(base, 0, 1000)
    rows = []
    for seed, ((model, how), score) in enumerate(found.items(), start=1):
        if how == method and model != reference:
            values = score.per_image[quantity]
            low, high = np.percentile(bootstrap_means(values, seed, 1000) - spread, (2.5, 97.5))
            verdict = "better" if low > 0 else "worse" if high < 0 else "undecided"
            rows.append({"quantity": f"{quantity}_difference", "value": float(values.mean() - base.mean()),
                         "low": float(low), "high": float(high), "unit": "1", "n": len(values), "model": model,
                         "suffix": method,
                         "context": {"verdict": verdict, "method": method, "reference": reference}})
    return rows


def conclusion(rows: list[dict]) -> dict:
    """What the paired differences say of the study's claim, as a row with a computed sentence."""
    said = in_words({row["model"]: row["context"]["verdict"] for row in rows},
                    {"worse": "below it", "better": "above it", "undecided": "not told from it"})
    text = (f"By the mass of gradient maps inside the lesion, against softmax attention, in these runs: {said}. "
            f"Of {len(rows)} comparisons, one whose interval ends near zero can be chance.")
    return finding(text)


def by_method(found: dict, quantity: str = "mass") -> dict:
    """Which model has most of a quantity by each method, as a row with a computed sentence: is the order settled?

    Args: `found` {(model, method): Localisation}.
    """
    best: dict[str, list[str]] = {}
    for method in dict.fromkeys(method for _, method in found):
        mean = {model: score[quantity]["value"] for (model, how), score in found.items() if how == method}
        best.setdefault(max(mean, key=mean.get), []).append(method.replace("_", " "))
    said = "; ".join(f"{model} by {', '.join(methods)}" for model, methods in best.items())
    text = f"By each of these methods {said.split(' by ')[0]} has the most {quantity} inside the lesion." \
        if len(best) == 1 else f"Which model has the most {quantity} inside the lesion depends on the method: {said}."
    return finding(text, suffix="methods")


def twin_agreement(maps: saliency.Maps, split, positions, config_data) -> list[dict]:
    """Rank correlation of maps with what really differs: the image less its healthy twin, as rows.

    Args: `config_data` the `DataConfig` that drew the split.
    """
    healthy = phantom.twin(split.labels[positions], split.indices[positions], seed=config_data.seed,
                           img_size=config_data.img_size, difficulty=config_data.difficulty).images
    differs = np.abs(np.asarray(split.images[positions], float) - np.asarray(healthy, float))
    values = rank_correlation(np.abs(maps.map), differs)
    return [{"quantity": "twin_correlation", "unit": "1", "suffix": maps.method, "context": {"method": maps.method},
             **mean_interval(values, 0, 1000)}]
