r"""What a decision depends on, as one number for each pixel, and how far such maps can be trusted.

What lives here, top to bottom: `Maps`; the four attributions (`gradient`, `integrated_gradients`, `smooth_grad`,
`occlusion`), all by captum; the table `METHODS` and `explain`. How faithful maps are: `faithfulness.py` (insertion and
deletion, parameter randomisation); where they point: `localisation.py` (pointing game, relevance mass). Their names are
here too.

A map explains the logit $f(x)$ of one class. `images` are what the model takes, float tensors (n, C, H, W), as
`data.to_input` makes them; with C > 1 the channels of a grey image move together, so a map sums over them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from .checks import in_range, one_of
from .faithfulness import Curves, Sanity, insertion_deletion, randomisation
from .localisation import Localisation, edges, localise, to_masks
from .viewing import check_images, chunks, logits, still

__all__ = ["METHODS", "Curves", "Localisation", "Maps", "Sanity", "edges", "explain", "gradient", "insertion_deletion",
           "integrated_gradients", "localise", "mean_grey", "occlusion", "randomisation", "smooth_grad", "to_masks"]


# --------------------------------------------------------------------------------------------- what comes out
@dataclass(frozen=True, eq=False)
class Maps:
    r"""One map an image: `map` (n, H, W) float32, `target` (n,) the classes explained, `options` of the method.

    Integrated gradients and occlusion are signed (positive: evidence for the class); gradients are magnitudes.
    Integrated gradients also have `delta` (n,), the completeness error $\sum_i \mathrm{map}_i - (f(x) - f(x'))$;
    `gap` (n,), that difference; `steps` (n,), how many were needed.
    """

    method: str
    map: np.ndarray
    target: np.ndarray
    options: dict = field(default_factory=dict)
    delta: np.ndarray | None = None
    gap: np.ndarray | None = None
    steps: np.ndarray | None = None
    tolerance: float | None = None

    def __len__(self) -> int:
        return len(self.map)

    @property
    def complete(self) -> np.ndarray | None:
        """Which images' completeness error is within the tolerance, (n,) bool."""
        return None if self.delta is None else np.abs(self.delta) <= self.tolerance * np.abs(self.gap)

    def rows(self) -> list[dict]:
        """How many maps; for integrated gradients the completeness, the steps and the baseline."""
        rows = [{"quantity": "maps", "value": len(self), "unit": "1"}]
        if self.delta is not None:
            relative = np.abs(self.delta) / np.maximum(np.abs(self.gap), 1e-12)
            rows += [{"quantity": "completeness_error", "value": float(np.median(relative)), "unit": "1",
                      "low": float(relative.min()), "high": float(relative.max()), "samples": relative.tolist()},
                     {"quantity": "complete_share", "value": float(self.complete.mean()), "unit": "1"},
                     {"quantity": "steps", "value": float(np.median(self.steps)), "unit": "1",
                      "samples": self.steps.tolist()}]
        return [row | {"n": len(self), "suffix": self.method, "context": {"method": self.method, **self.options}}
                for row in rows]


# --------------------------------------------------------------------------------------------- attributions
def gradient(model: nn.Module, images: Tensor, target=None, *, batch_size: int = 32) -> Maps:
    r"""$|\partial f/\partial x|$: how strongly the logit answers to a small change of each pixel.

    Args: `model` (n, C, H, W) -> (n, k); `images` as the model takes them; `target` one class or (n,), by default the
    largest logit; `batch_size` images at once. Returns: `Maps`. Raises: ValueError for images or classes that do not
    fit.
    Source: Simonyan, Vedaldi and Zisserman 2014, arXiv:1312.6034.
    """
    from captum.attr import Saliency
    x, target = check_images(model, images, target, batch_size)
    with still(model):
        explain = Saliency(model)
        found = [explain.attribute(part, target=classes, abs=False).sum(1).abs().detach().cpu()
                 for part, classes in chunks(batch_size, x, target)]
    return Maps("gradient", torch.cat(found).numpy(), target.cpu().numpy())


def integrated_gradients(model: nn.Module, images: Tensor, target=None, *, n_steps: int = 64, max_steps: int = 1024,
                         tolerance: float = 0.01, baseline=None, batch_size: int = 64) -> Maps:
    r"""$(x - x') \int_0^1 \nabla f(x' + a(x - x'))\,da$, by Gauss and Legendre, until the map is complete.

    Complete means $|\sum_i \mathrm{map}_i - (f(x) - f(x'))|$ is at most `tolerance` of $|f(x) - f(x')|$. For images
    where it is not, the steps are doubled, up to `max_steps`; what remains incomplete is reported, not hidden.

    Args: `model`, `images`, `target` as for `gradient`. `n_steps` to begin with. `baseline` $x'$: a number (grey), or a
    tensor like `images` (the healthy twins); by default the mean of `images`; better `mean_grey` of the training
    images. `batch_size`: images times steps at once.
    Returns: `Maps` with `delta`, `gap` and `steps`. Raises: ValueError as `gradient`, or for steps.
    Source: Sundararajan, Taly and Yan 2017, arXiv:1703.01365.
    """
    from captum.attr import IntegratedGradients
    in_range("n_steps", n_steps, 1, max_steps)
    in_range("tolerance", tolerance, 0)
    x, target = check_images(model, images, target, batch_size)
    start, named = _baseline(x, baseline)
    attributions = torch.zeros_like(x)
    delta, steps = torch.zeros(len(x), device=x.device), torch.zeros(len(x), dtype=torch.long)
    with still(model):
        gap = _picked(model, x, target, batch_size) - _picked(model, start, target, batch_size)
        explain = IntegratedGradients(model)
        todo, count = torch.arange(len(x), device=x.device), n_steps
        while len(todo):
            for part in todo.split(batch_size):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")          # captum warns where steps exceed the batch size
                    attributions[part] = explain.attribute(
                        x[part], baselines=start[part], target=target[part], n_steps=count, method="gausslegendre",
                        internal_batch_size=batch_size).to(x.dtype).detach()
            delta[todo] = attributions[todo].flatten(1).sum(1) - gap[todo]
            steps[todo.cpu()] = count
            todo = todo[delta[todo].abs() > tolerance * gap[todo].abs()]
            if count >= max_steps:
                break
            count = min(2 * count, max_steps)
    return Maps("integrated_gradients", attributions.sum(1).cpu().numpy(), target.cpu().numpy(), {"baseline": named},
                delta.cpu().numpy(), gap.cpu().numpy(), steps.numpy(), tolerance)


def smooth_grad(model: nn.Module, images: Tensor, target=None, *, samples: int = 25, noise: float = 0.15,
                seed: int = 0, batch_size: int = 8) -> Maps:
    r"""$|\frac1s \sum_j \partial f/\partial x\,(x + \epsilon_j)|$: the gradient, averaged over noisy copies.

    Args: as for `gradient`; `samples` $s$; `noise`: standard deviation of $\epsilon$ as a share of the range of
    `images`; `seed` of the noise, which depends on `batch_size` too.
    Returns: `Maps`. Raises: ValueError as `gradient`. Source: Smilkov et al. 2017, arXiv:1706.03825.
    """
    from captum.attr import NoiseTunnel, Saliency
    in_range("samples", samples, 1)
    in_range("noise", noise, 0)
    x, target = check_images(model, images, target, batch_size)
    deviation = noise * float(x.max() - x.min())
    with still(model), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        explain = NoiseTunnel(Saliency(model))
        found = [explain.attribute(part, nt_type="smoothgrad", nt_samples=samples, stdevs=deviation, target=classes,
                                   abs=False).sum(1).abs().detach().cpu()
                 for part, classes in chunks(batch_size, x, target)]
    return Maps("smooth_grad", torch.cat(found).numpy(), target.cpu().numpy(), {"samples": samples, "noise": noise})


def occlusion(model: nn.Module, images: Tensor, target=None, *, patch: int = 16, stride: int = 8, baseline=None,
              batch_size: int = 64) -> Maps:
    """How much the logit falls when a square is covered, averaged over the squares that cover a pixel.

    Args: as for `gradient`; `patch`, `stride` in pixels; `baseline`: what covers, as for `integrated_gradients`.
    Returns: `Maps`. Raises: ValueError as `gradient`, or for a patch larger than the images.
    Source: Zeiler and Fergus 2014, arXiv:1311.2901.
    """
    from captum.attr import Occlusion
    x, target = check_images(model, images, target, batch_size)
    in_range("patch", patch, 1, min(x.shape[-2:]))
    in_range("stride", stride, 1, patch)
    start, named = _baseline(x, baseline)
    window, step = (x.shape[1], patch, patch), (x.shape[1], stride, stride)
    at_once = max(1, batch_size // 8)
    with still(model), torch.no_grad():
        explain, found = Occlusion(model), []
        for part, under, classes in chunks(at_once, x, start, target):
            found.append(explain.attribute(part, sliding_window_shapes=window, strides=step, baselines=under,
                                           target=classes, perturbations_per_eval=8).mean(1).cpu())
    return Maps("occlusion", torch.cat(found).numpy(), target.cpu().numpy(),
                {"baseline": named, "patch": patch, "stride": stride})


METHODS = {"gradient": gradient, "integrated_gradients": integrated_gradients, "smooth_grad": smooth_grad,
           "occlusion": occlusion}


def explain(method: str, model: nn.Module, images: Tensor, target=None, **options) -> Maps:
    """The maps of one of `METHODS` by its name; `options` are the method's own."""
    one_of("method", method, tuple(METHODS))
    return METHODS[method](model, images, target, **options)


# --------------------------------------------------------------------------------------------- baselines
def mean_grey(images) -> float:
    r"""The mean of uint8 images (n, H, W), on the scale that models see: $(u/255 - 0.5)/0.5$."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or not images.size:
        raise ValueError(f"images are {images.dtype} {images.shape}; wanted uint8 (n, H, W), such as data.train.images")
    return float(images.mean(dtype=np.float64) / 127.5 - 1)


def _baseline(x: Tensor, baseline) -> tuple[Tensor, object]:
    """The baseline as a tensor like `x`, and what a record says of it."""
    if isinstance(baseline, Tensor):
        if baseline.shape != x.shape:
            raise ValueError(f"baseline has shape {tuple(baseline.shape)}; wanted a number, or {tuple(x.shape)} like "
                             f"the images")
        return baseline.to(x), "images"
    grey = float(x.mean()) if baseline is None else float(baseline)
    return torch.full_like(x, grey), grey


def _picked(model: nn.Module, x: Tensor, target: Tensor, batch_size: int) -> Tensor:
    return logits(model, x, batch_size).gather(1, target[:, None])[:, 0]
