r"""The parts of the one recipe that every model is trained by; `training` puts them together.

What lives here, top to bottom: what `"auto"` and 0 stand for; the learning rate; the optimiser; the order of images;
the loss; flips and shifts, each drawn from (seed, epoch, image) alone.
"""

from __future__ import annotations

import contextlib
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from .config import EVENING, TrainingConfig
from .machine import cores, resolve_device

DEFINITE = ("device", "threads", "precision")                # what `resolve` decides


# --------------------------------------------------------------------------------------------- auto
def resolve(config: TrainingConfig) -> TrainingConfig:
    """The configuration with `DEFINITE`, its `device`, `threads` and `precision`, decided for this machine.

    Raises: RuntimeError if `cuda` is asked for and there is none.
    """
    device = resolve_device(config.device)
    precision = config.precision if config.precision != "auto" else best_precision(device)
    count = config.threads or max(1, cores() // min(config.processes, processes_here()))
    return config.replace(device=str(device), threads=count, precision=precision)


def processes_here() -> int:
    """How many processes torchrun started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def best_precision(device: torch.device) -> str:
    """`bfloat16` where the processor has instructions for it, else `float32`: a GPU that does not emulate it, or a CPU
    with AVX-512 BF16 or AMX.

    Why: on a CPU with AVX-512 BF16 a step of the small softmax model at batch 32 took 4.0 ms of CPU time an image in
    bfloat16 and 6.2 in float32; with those instructions masked 9.8 against 5.7, with AVX2 alone 47 against 5.4.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"


@contextlib.contextmanager
def threads(count: int):
    """Let torch use `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --------------------------------------------------------------------------------------------- optimiser
def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    r"""Linear warm-up over the first share `warmup` of all steps, then half a cosine down to `min_lr`.

    $\eta_t = \eta\,(t+1)/T_w$ for $t < T_w$, then
    $\eta_{min} + (\eta - \eta_{min})(1 + \cos(\pi\,(t - T_w)/(T - T_w)))/2$ (Loshchilov & Hutter 2017, eq. 5)
    """
    warm = math.ceil(config.warmup * steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * share)) / 2


def optimiser(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); norms, biases and what the model names in `no_weight_decay()` do not decay."""
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups = param_groups_weight_decay(model, config.weight_decay, no_weight_decay_list=exempt)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


# --------------------------------------------------------------------------------------------- the order of images
def order(labels: np.ndarray, epoch: int, config: TrainingConfig) -> np.ndarray:
    """Which image comes when in an epoch, (n,), from (seed, epoch) alone.

    `as_is`: each image once. `balanced`: n draws with replacement in which every class is as frequent as any other.
    """
    rng = np.random.default_rng([config.seed, epoch])
    if config.sampling == "as_is":
        return rng.permutation(len(labels))
    counts = np.bincount(labels)
    weight = 1 / counts[labels]
    return rng.choice(len(labels), len(labels), p=weight / weight.sum())


# --------------------------------------------------------------------------------------------- loss
class Loss:
    r"""The loss of a batch, also where it is computed in parts.

    A batch's loss is $\sum_i w_i \ell_i / \sum_i w_i$. `cross_entropy`: $\ell = -\log p_y$, $w = 1$. `class_weights`:
    $w = 1 / (k \pi_y)$. `logit_adjustment`: the cross-entropy of $z + \log\pi$ (Menon et al. 2021,
    arXiv:2007.07314, eq. 10). `focal`: $\ell = -(1 - p_y)^\gamma \log p_y$ (Lin et al. 2017, arXiv:1708.02002, eq. 4).
    $\pi$: class frequencies in training, k classes.
    """

    def __init__(self, config: TrainingConfig, prior: np.ndarray, device: torch.device):
        log_prior = torch.as_tensor(np.log(prior), dtype=torch.float32, device=device)
        self.weight = torch.exp(-log_prior) / len(prior) if config.loss == "class_weights" else None
        self.shift = log_prior if config.loss == "logit_adjustment" else 0.0
        self.gamma = config.focal_gamma if config.loss == "focal" else None
        self.smoothing = config.label_smoothing

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a whole batch."""
        return self.sum(logits, labels) / self.total(labels)

    def sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        r"""$\sum_i w_i \ell_i$ of some images of a batch."""
        z = logits.float() + self.shift
        if self.gamma is None:
            return F.cross_entropy(z, labels, self.weight, reduction="sum", label_smoothing=self.smoothing)
        each = F.cross_entropy(z, labels, reduction="none", label_smoothing=self.smoothing)
        chance = F.log_softmax(z, 1).gather(1, labels[:, None])[:, 0].exp()
        return ((1 - chance) ** self.gamma * each).sum()

    def total(self, labels: Tensor) -> Tensor | int:
        r"""$\sum_i w_i$ of a whole batch."""
        return len(labels) if self.weight is None else self.weight[labels].sum()


def prior_behind(config: TrainingConfig, prior: np.ndarray) -> np.ndarray:
    """Class frequencies that the trained logits assume: training's, or equal ones where loss or sampling evens them.

    The focal loss evens nothing out, but its probabilities are not calibrated either: what it assumes is taken to be
    training's.
    """
    return np.full(len(prior), 1 / len(prior)) if evens_out(config) else np.asarray(prior)


def evens_out(config: TrainingConfig) -> bool:
    """Whether loss or sampling lets every class count the same in training."""
    return config.loss in EVENING or config.sampling == "balanced"


def start_at_prior(model: nn.Module, prior_behind: np.ndarray) -> None:
    """Let the classifier's bias begin at the log of the class frequencies (Lin et al. 2017, sec. 3.3).

    Why: else the first steps teach the features a constant that says how frequent the classes are, and it hides the
    image behind it. Models that cannot name their classifier (timm's `get_classifier`) are left as they are.
    """
    head = model.get_classifier() if hasattr(model, "get_classifier") else None
    if isinstance(head, nn.Linear) and head.bias is not None:
        with torch.no_grad():
            head.bias.copy_(torch.as_tensor(np.log(prior_behind)))


# --------------------------------------------------------------------------------------------- augmentation
def uniforms(seed: int, epoch: int, indices: np.ndarray, draws: int) -> np.ndarray:
    """Numbers in [0, 1), (n, draws), that depend on (seed, epoch, index, draw) alone: SplitMix64 of a counter."""
    with np.errstate(over="ignore"):
        state = _mix(np.uint64(seed & 0xFFFFFFFFFFFFFFFF) + np.uint64(0x9E3779B97F4A7C15))
        state = _mix(state ^ _mix(np.uint64(epoch) + np.uint64(0x632BE59BD9B4E019)))
        state = _mix(state ^ _mix(np.asarray(indices, dtype=np.uint64)))
        state = _mix(state[:, None] + np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (state >> np.uint64(11)) * 2.0**-53


def _mix(z):
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def augment(images: Tensor, indices: np.ndarray, epoch: int, config: TrainingConfig) -> Tensor:
    """Mirror an image left to right with probability `flip`; shift it by up to `shift` of its sides, black moving in.

    Args: `images` (n, H, W) or (n, C, H, W) uint8; `indices` (n,): the images' numbers in the training set.
    Returns: as `images`.
    """
    H, W = images.shape[-2:]
    up, left = int(config.shift * H), int(config.shift * W)                           # the furthest reach of a shift
    u = uniforms(config.seed, epoch, indices, 3)
    down, right = np.floor((2 * up + 1) * u[:, 1:2]), np.floor((2 * left + 1) * u[:, 2:3])
    rows = np.arange(H) + down                                                        # (n, H), in the padded image
    columns = np.where(u[:, :1] < config.flip, W - 1 - np.arange(W), np.arange(W)) + right
    return _pick(_pick(F.pad(images, (left, left, up, up)), rows, -2), columns, -1)


def _pick(images: Tensor, places: np.ndarray, axis: int) -> Tensor:
    """Rows (axis -2) or columns (axis -1) of each image, from its own `places` (n, length)."""
    shape = [len(images)] + [1] * (images.ndim - 1)
    shape[axis] = places.shape[1]
    index = torch.as_tensor(places, dtype=torch.int64, device=images.device).view(shape)
    wanted = list(images.shape)
    wanted[axis] = places.shape[1]
    return images.gather(axis, index.expand(wanted))
