r"""Whether maps say what the model does: insertion and deletion curves, and the randomisation test.

What lives here, top to bottom: `insertion_deletion` and `Curves`; `randomisation` and `Sanity`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from .checks import in_range
from .viewing import MethodMeans, check_images, logits, mean_interval, still


# --------------------------------------------------------------------------------------------- insertion and deletion
@dataclass(frozen=True, eq=False)
class Curves(MethodMeans):
    """`fractions` (p,) of the pixels; `deletion`, `insertion` (n, p): the target's probability along the way.

    `random_deletion`, `random_insertion`: the same with pixels in random order. `means`: the areas under the curves
    (`deletion_auc`: less is better; `insertion_auc`: more), and what the map's order gains over the random one.
    """

    method: str
    fractions: np.ndarray
    deletion: np.ndarray = field(repr=False)
    insertion: np.ndarray = field(repr=False)
    random_deletion: np.ndarray = field(repr=False)
    random_insertion: np.ndarray = field(repr=False)
    means: dict[str, dict]


def insertion_deletion(model: nn.Module, images: Tensor, maps, target=None, *, baseline: float | None = None,
                       points: int = 11, bootstrap: int = 1000, seed: int = 0, batch_size: int = 64) -> Curves:
    """How the target's probability falls when the most relevant pixels go first, and rises when they come first.

    Args: `model`, `images`, `target` as for `saliency.gradient`; `maps`: `Maps` (which bring their own targets) or
    (n, H, W), signed. `baseline`: the grey that replaces pixels, by default the mean of `images`. `points` on each
    curve, both ends included.
    Returns: `Curves`. Raises: ValueError for maps of another size.
    Source: Petsiuk, Das and Saenko 2018, arXiv:1806.07421.
    """
    in_range("points", points, 2)
    x, target = check_images(model, images, getattr(maps, "target", None) if target is None else target, batch_size)
    values = torch.as_tensor(np.asarray(getattr(maps, "map", maps)), device=x.device)
    if values.shape != (len(x), *x.shape[-2:]):
        raise ValueError(f"maps have shape {tuple(values.shape)}; wanted {(len(x), *x.shape[-2:])}, one for each image")
    grey = float(x.mean()) if baseline is None else float(baseline)
    fractions = torch.linspace(0, 1, points)
    noise = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)
    curves = {}
    with still(model):
        for kind, order in (("", values), ("random_", noise)):
            rank = order.flatten(1).argsort(1, descending=True).argsort(1).view_as(order)[:, None]
            both = _walk(model, x, rank, target, grey, fractions, batch_size)
            curves |= {f"{kind}deletion": both[0], f"{kind}insertion": both[1]}
    area = {name: np.trapezoid(curve, fractions.numpy(), axis=1) for name, curve in curves.items()}
    found = {"deletion_auc": area["deletion"], "insertion_auc": area["insertion"],
             "deletion_gain": area["random_deletion"] - area["deletion"],
             "insertion_gain": area["insertion"] - area["random_insertion"]}
    means = {name: mean_interval(values, seed, bootstrap) for name, values in found.items()}
    return Curves(getattr(maps, "method", "maps"), fractions.numpy(), **curves, means=means)


def _walk(model, x, rank, target, grey, fractions, batch_size) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, p) while the first pixels of the order are deleted, and while they are inserted."""
    found = [], []
    for fraction in fractions.tolist():
        first = rank < round(fraction * rank[0].numel())
        for kept, image in zip(found, (torch.where(first, grey, x), torch.where(first, x, grey))):
            probability = logits(model, image, batch_size).softmax(1).gather(1, target[:, None])[:, 0]
            kept.append(probability.cpu().numpy())
    return np.stack(found[0], 1), np.stack(found[1], 1)


# --------------------------------------------------------------------------------------------- randomisation
@dataclass(frozen=True, eq=False)
class Sanity:
    """`correlation` (n,): Spearman's, of the map's magnitude before and after the weights are shuffled. `mean`."""

    method: str
    correlation: np.ndarray
    mean: dict

    def rows(self) -> list[dict]:
        """One record: the mean correlation; near 0 is what a map of the model's knowledge should show."""
        return [{"quantity": "randomisation_correlation", "unit": "1", "suffix": self.method,
                 "samples": self.correlation.tolist(), "context": {"method": self.method}, **self.mean}]


def randomisation(attribution: Callable, model: nn.Module, images: Tensor, target=None, *, maps=None, seed: int = 0,
                  bootstrap: int = 1000, **options) -> Sanity:
    """Whether a map depends on what the model learned: shuffle all weights, explain again, correlate.

    A map that stays as it was shows the image, not the model. Weights are shuffled within each tensor of a copy, so
    that their distribution stays and what was learned goes.

    Args: `attribution` such as `saliency.gradient`, called with `options`; `model`, `images`, `target` as for it;
    `maps` of the model as it is, if they are there already.
    Returns: `Sanity`. Source: Adebayo et al. 2018, arXiv:1810.03292.
    """
    maps = attribution(model, images, target, **options) if maps is None else maps
    broken = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*broken.parameters(), *(b for b in broken.buffers() if b.is_floating_point())):
            order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            tensor.copy_(tensor.flatten()[order].view_as(tensor))
    after = attribution(broken, images, torch.as_tensor(maps.target), **options)
    correlation = rank_correlation(np.abs(maps.map), np.abs(after.map))
    return Sanity(maps.method, correlation, mean_interval(correlation, seed, bootstrap))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of two maps over the pixels, for each of n images; 0 where a map is constant."""
    from scipy.stats import rankdata
    a, b = (rankdata(np.asarray(maps).reshape(len(maps), -1), axis=1) for maps in (first, second))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.where(scale > 0, (a * b).sum(1) / np.where(scale > 0, scale, 1), 0.0)
