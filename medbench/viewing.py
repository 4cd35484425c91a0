"""What attributions and their tests share: checked images and targets, a model held still, means with intervals."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor, nn

from .checks import in_range


def check_images(model: nn.Module, images, target, batch_size: int = 32) -> tuple[Tensor, Tensor]:
    """Images and their target classes on the model's device; refuses what does not fit, before any work.

    Args: `target`: one class, (n,) classes, or None for the largest logit.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; wanted a torch.nn.Module")
    in_range("batch_size", batch_size, 1)
    images = torch.as_tensor(np.asarray(images)) if not isinstance(images, Tensor) else images
    if not images.is_floating_point() or images.ndim != 4 or not len(images):
        raise ValueError(f"images are {images.dtype} of shape {tuple(images.shape)}; wanted floats (n, C, H, W) as the "
                         f"model takes them: mb.data.to_input(images, in_chans)")
    place = next((p.device for p in model.parameters()), images.device)
    x = images.detach().to(place, torch.float32)
    with still(model):
        try:
            few = logits(model, x[:1], 1)
        except Exception as error:
            raise ValueError(f"images of shape {tuple(x.shape)} do not run through the model: {error}") from error
        chosen = logits(model, x, batch_size).argmax(1) if target is None else torch.as_tensor(target, device=place)
    chosen = chosen.expand(len(x)) if chosen.ndim == 0 else chosen
    if chosen.shape != (len(x),) or chosen.is_floating_point():
        raise ValueError(f"target has shape {tuple(chosen.shape)} and type {chosen.dtype}; wanted one class, or "
                         f"{len(x)} of them as integers")
    if chosen.min() < 0 or chosen.max() >= few.shape[1]:
        raise ValueError(f"target holds classes from {int(chosen.min())} to {int(chosen.max())}; the model has "
                         f"{few.shape[1]}, numbered from 0")
    return x.contiguous(), chosen.long().contiguous()


@contextlib.contextmanager
def still(model: nn.Module):
    """Evaluation mode, and parameters that take no gradients; afterwards everything as it was."""
    modes = [(part, part.training) for part in model.modules()]
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for part, training in modes:
            part.training = training
        for p, requires in wanted:
            p.requires_grad_(requires)


def chunks(size: int, *tensors: Tensor):
    """The tensors `size` rows at a time, ready to take gradients where they are floats."""
    for parts in zip(*(tensor.split(size) for tensor in tensors)):
        yield tuple(p.detach().clone().requires_grad_() if p.is_floating_point() else p for p in parts)


@torch.no_grad()
def logits(model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """Logits (n, k), `batch_size` images at a time."""
    return torch.cat([model(part) for part in x.split(batch_size)])


def relevance(maps) -> np.ndarray:
    """The positive part of maps (n, H, W), float64: what speaks for the class."""
    found = np.asarray(getattr(maps, "map", maps), dtype=np.float64)
    if found.ndim != 3 or not found.size:
        raise ValueError(f"maps have shape {found.shape}; wanted (n, H, W), as an attribution returns them")
    if not np.isfinite(found).all():
        raise ValueError(f"{np.sum(~np.isfinite(found).all((1, 2)))} of {len(found)} maps hold NaN or infinity")
    return found.clip(min=0)


def bootstrap_means(values: np.ndarray, seed: int, bootstrap: int) -> np.ndarray:
    """Means (bootstrap,) of (n,) values over images that are drawn with replacement."""
    picks = np.random.default_rng(seed).integers(len(values), size=(bootstrap, len(values)))
    return values[picks].mean(1)


def mean_interval(values: np.ndarray, seed: int, bootstrap: int) -> dict:
    """Mean of (n,) values over images with its 95 % bootstrap interval, as the keys of a row."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return {"value": None, "n": 0, "reason": "no image has a lesion"}
    spread = bootstrap_means(values, seed, bootstrap) if bootstrap else np.full(1, np.nan)
    low, high = np.quantile(spread, [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


class MethodMeans:
    """What scores of one `method`'s maps share: `scores[name]` is one of its `means`, from `mean_interval`."""

    method: str
    means: dict[str, dict]

    def __getitem__(self, name: str) -> dict:
        return self.means[name]

    def rows(self) -> list[dict]:
        """One record a mean, the method in the suffix."""
        return [{"quantity": name, "unit": "1", "suffix": self.method, "context": {"method": self.method}, **mean}
                for name, mean in self.means.items()]
