"""What chapter 09 asks of a ResNet: its equation spelt out, its cost by hand, its receptive fields, its mixing.

The mechanism chapters ask one layer of tokens. A ResNet has no tokens, so the same questions need a few lines more.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import mixing
from ..data import to_input


def convolutions(depth: int, dim: int, grid: tuple[int, int]):
    """A stack of random 3x3 convolutions as a function of tokens `(B, N, C)`, for `mixing.matrix`."""
    layers = nn.Sequential(*(nn.Conv2d(dim, dim, 3, padding=1, bias=False) for _ in range(depth)))

    def tokens(x: Tensor) -> Tensor:
        return layers(x.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
    return tokens


def product(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution without bias and groups as one matrix product of unfolded patches, `(B, C, H, W)`."""
    k, s, p = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    side = [(n + 2 * p - k) // s + 1 for n in x.shape[-2:]]
    return (conv.weight.flatten(1) @ F.unfold(x, k, padding=p, stride=s)).unflatten(-1, side)


def spelt_out(block: nn.Module, x: Tensor) -> Tensor:
    """timm's bottleneck block in evaluation mode, with every convolution as a matrix product."""
    skip = x
    if block.downsample is not None:
        conv, bn = (m for m in block.downsample if not isinstance(m, (nn.Identity, nn.AvgPool2d)))
        skip = bn(product(conv, x))
    x = F.relu(block.bn1(product(block.conv1, x)))
    x = F.relu(block.bn2(product(block.conv2, x)))
    return F.relu(block.bn3(product(block.conv3, x)) + skip)


def limits(model: nn.Module, side: int = 256):
    """Shift, shuffle and enlarge an image, and see what the last grid of features does.

    Returns: DataFrame `test`, `what happens`. Differences are relative to the largest feature, away from the border.
    """
    import pandas as pd
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(1, model.config.in_chans, side, side, dtype=torch.float64)
    x[..., 96:160, 96:160] = torch.rand(64, 64, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        plain, shifted = (model.forward_features(image) for image in (x, x.roll(32, -1)))
        order = torch.randperm(side * side, generator=generator)
        shuffled = model.forward_features(x.flatten(2)[..., order].unflatten(2, (side, side)))
        large = model.forward_features(F.interpolate(x, scale_factor=2))
    off = ((shifted.roll(-1, -1) - plain)[..., 2:-2, 2:-2].abs().max() / plain.abs().max()).item()
    moved = ((shuffled - plain).abs().max() / plain.abs().max()).item()
    rows = [("image shifted by 32 px", f"features shift by one place, within {off:.0e}"),
            ("pixels shuffled", f"features change by {moved:.1g} of the largest"),
            ("image twice as large", f"a grid of {large.shape[-2]} x {large.shape[-1]} in place of "
                                     f"{plain.shape[-2]} x {plain.shape[-1]}")]
    return pd.DataFrame(rows, columns=["test", "what happens"])


def macs_by_hand(model: nn.Module, size: tuple[int, ...]) -> int:
    """Sum of H W C_out C_in k^2 / g over convolutions, and of products in linear layers, for one input of that size."""
    found = []

    def hook(layer, _, out):
        found.append(out.numel() * layer.weight[0].numel())
    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        model(torch.zeros(size, dtype=next(model.parameters()).dtype))
    for handle in handles:
        handle.remove()
    return sum(found)


def fields(model: nn.Module, image: Tensor, share: float = 0.9):
    """How many pixels across one middle place depends on, and how many hold that share of the squared gradient.

    A fresh timm ResNet starts with every residual branch switched off (the last BatchNorm of a block has weight 0);
    a copy with these weights at 1 is asked.

    Args: `model` a timm ResNet; `image` (1, C, H, W). Returns: DataFrame `after`, `reach_px`, `effective_px`.
    """
    import pandas as pd
    model, rows = copy.deepcopy(model), []
    for module in model.modules():
        if hasattr(module, "bn3"):
            nn.init.ones_(module.bn3.weight)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        gradient = _gradient(model, stage, image)
        columns = gradient.sum(0)
        reach = torch.nonzero(columns > 0)
        middle = (columns * torch.arange(len(columns))).sum() / columns.sum()
        wide = next(s for s in range(1, 2 * len(columns)) if _held(gradient, middle, s) >= share)
        rows.append((stage, int(reach.max() - reach.min()) + 1, min(wide, len(columns))))
    return pd.DataFrame(rows, columns=["after", "reach_px", "effective_px"])


def _gradient(model: nn.Module, stage: str, image: Tensor) -> Tensor:
    """Squared gradient (H, W) of the middle place of a stage with respect to the pixels."""
    x = image.clone().requires_grad_(True)
    features = _stage(model, stage, x)
    middle = features.shape[-1] // 2
    weights = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(0), dtype=features.dtype)
    return torch.autograd.grad((features[0, :, middle, middle] * weights).sum(), x)[0][0].square().sum(0)


def _held(gradient: Tensor, middle: Tensor, side: int) -> float:
    """The share of the gradient in a centred square of that side."""
    near = (torch.arange(gradient.shape[-1]) - middle).abs() <= side / 2
    return float(gradient[near][:, near].sum() / gradient.sum())


def _stage(model: nn.Module, stage: str, x: Tensor) -> Tensor:
    """The features that a stage puts out, `(B, C, H, W)`."""
    found = []
    handle = getattr(model, stage).register_forward_hook(lambda module, given, out: found.append(out))
    model.forward_features(x)
    handle.remove()
    return found[0]


def mixing_of(model: nn.Module, images, *, stage: str = "layer2"):
    """The mixing matrix of the network from the input to one stage, both on that stage's grid.

    The gradient is that of eight random combinations of the stage's channels: the norm over all channels is the same
    on average, and far fewer gradients are taken.

    Args: `model` a timm ResNet; `images` uint8 (1, H, W). Returns: (matrix (N, N), grid_size).
    """
    device = next(model.parameters()).device
    x = to_input(images, model.config.in_chans).to(device)
    with torch.no_grad():
        channels, *grid = _stage(model, stage, x).shape[1:]
    few = torch.randn(channels, 8, generator=torch.Generator().manual_seed(0)).to(device) / 8**0.5
    side = (x.shape[-2] // grid[0], x.shape[-1] // grid[1])

    def tokens(patches: Tensor) -> Tensor:
        pixels = F.fold(patches.transpose(1, 2), x.shape[-2:], side, stride=side)
        return _stage(model, stage, pixels).flatten(2).transpose(1, 2) @ few
    patches = F.unfold(x, side, stride=side).transpose(1, 2)
    return mixing.matrix(tokens, patches).cpu(), tuple(grid)
