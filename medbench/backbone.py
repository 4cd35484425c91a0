r"""The pyramid that every mechanism sits in, part by part: stem, block, patch merge, stage, the whole.

One source for its shape: "Fair Comparison between Efficient Attentions", arXiv:2206.00244 (CVPR 2022, T4V workshop).
Symbols as in `attention/base.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from .attention import ATTENTION, Attention
from .config import ModelConfig

LAYER_NORM_EPS = 1e-6
CONV_STEM_STRIDE = 8
RESIDUAL_ENDS = ("attn.proj", "mlp.fc2", "head")      # linear maps that start small


# --------------------------------------------------------------------------------------------- before the first block
def fourier_features(grid_size: tuple[int, int], num_features: int = 64, temperature: float = 10000.0) -> Tensor:
    r"""Fixed sines and cosines of the place in the grid, `(1, num_features, H, W)`: half of them for y, half for x.

    Feature $2i$ of an axis with $n$ places is $\sin(2\pi p/(n\,T^{2i/f}))$ at place $p = 1 \dots n$ with $T$ the
    `temperature` and $f$ features per axis; feature $2i+1$ is the cosine.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5; on two axes as in El-Nouby et al. 2021, arXiv:2106.09681.
    """
    f = num_features // 2

    def axis(n: int) -> Tensor:
        angle = 2 * math.pi * torch.arange(1, n + 1) / n
        angle = angle[:, None] / temperature ** (torch.arange(0, f, 2) / f)      # (n, f/2)
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).T      # (f, n)

    (H, W), y, x = grid_size, *map(axis, grid_size)
    return torch.cat([y[:, :, None].expand(f, H, W), x[:, None, :].expand(f, H, W)]).unsqueeze(0)


def power_of_two(side: int) -> int:
    """The least power of two that is not below `side`: 112 -> 128, 224 -> 256."""
    return 2 ** math.ceil(math.log2(side))


class PatchStem(nn.Conv2d):
    """One linear map of each patch of `patch_size` x `patch_size` pixels (the `paper` preset)."""

    def __init__(self, in_chans: int, dim: int, patch_size: int):
        super().__init__(in_chans, dim, patch_size, stride=patch_size)


class ConvStem(nn.Sequential):
    """Three 3x3 convolutions of stride 2 to 16, 32 and `dim` channels, after a resize to the next power of two.

    A named deviation from the study, the same for all mechanisms: it is what makes small models learn, and its
    16 x 16 grid at 112 px is what makes windows shift and Linformer compress there.
    """

    def __init__(self, in_chans: int, dim: int):
        super().__init__(
            nn.Conv2d(in_chans, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.GELU(),
            nn.Conv2d(32, dim, 3, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, in_chans, height, width)` to a grid `(B, dim, H, W)`."""
        size = tuple(map(power_of_two, x.shape[-2:]))
        if size != tuple(x.shape[-2:]):
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return super().forward(x.clone(memory_format=torch.channels_last))  # much faster on a CPU, and no copy after it


class Stem(nn.Module):
    """Images to tokens: a patch or a convolutional projection, LayerNorm, and a position encoding added once."""

    def __init__(self, config: ModelConfig, grid_size: tuple[int, int]):
        super().__init__()
        dim = config.embed_dims[0]
        if config.stem == "patch":
            self.proj = PatchStem(config.in_chans, dim, config.patch_size)
        else:
            self.proj = ConvStem(config.in_chans, dim)
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.register_buffer("features", fourier_features(grid_size), persistent=False)
        self.position = nn.Conv2d(self.features.shape[1], dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, in_chans, height, width)` to tokens `(B, N, C)`, row-major over the grid."""
        x = self.norm(self.proj(x).flatten(2).transpose(1, 2))
        return x + self.position(self.features).flatten(2).transpose(1, 2)


# --------------------------------------------------------------------------------------------- blocks and stages
class Block(nn.Module):
    """Pre-norm: tokens plus mixed tokens, then plus an MLP of each token."""

    def __init__(self, dim: int, attn: Attention, mlp_ratio: float, proj_drop: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=nn.GELU, drop=proj_drop)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens `(B, N, C)`."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = self.attn.local(x)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerge(nn.Module):
    """Halve the grid: 2x2 neighbours side by side, LayerNorm(4C), and a linear map without bias to `out_dim`."""

    def __init__(self, dim: int, out_dim: int, grid_size: tuple[int, int]):
        super().__init__()
        self.grid_size = grid_size
        self.norm = nn.LayerNorm(4 * dim, eps=LAYER_NORM_EPS)
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens `(B, N/4, out_dim)`."""
        (H, W), (B, _, C) = self.grid_size, x.shape
        x = x.view(B, H // 2, 2, W // 2, 2, C).transpose(2, 3).reshape(B, H * W // 4, 4 * C)
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    """A patch merge (not in the first stage), then blocks on one grid."""

    def __init__(self, downsample: nn.Module, blocks: list[Block], grid_size: tuple[int, int]):
        super().__init__()
        self.grid_size = grid_size
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of the stage before to tokens of this one."""
        return self.blocks(self.downsample(x))


# --------------------------------------------------------------------------------------------- the grid and its checks
def grid_sizes(config: ModelConfig) -> list[tuple[int, int]]:
    """(height, width) of the grid of tokens in each stage; refuses an image size that does not fit."""
    if config.stem == "patch":
        step, sides, fix = config.patch_size, config.img_size, f"a multiple of {config.patch_size}"
    else:
        step, sides, fix = CONV_STEM_STRIDE, tuple(map(power_of_two, config.img_size)), "a larger one"
    if any(side % step for side in sides):
        raise ValueError(f"img_size {config.img_size} is not divided by patch_size {step}; choose {fix}")
    H, W = (side // step for side in sides)
    halvings = len(config.depths) - 1
    if H % 2**halvings or W % 2**halvings:
        raise ValueError(f"img_size {config.img_size} gives a {(H, W)} grid of tokens, which {halvings} patch merges "
                         f"cannot halve; choose img_size so that each side of the grid is a multiple of {2**halvings}")
    return [(H // 2**stage, W // 2**stage) for stage in range(len(config.depths))]


def attention_options(config: ModelConfig, stage: int) -> dict:
    """The mechanism's arguments in one stage; an option given as a list has one value for each stage."""
    options = {"attn_drop": config.attn_drop, "proj_drop": config.proj_drop, "setting": config.setting}
    for name, value in config.options:
        if isinstance(value, tuple):
            if len(value) != len(config.depths):
                raise ValueError(f"{name} is {value}, {len(value)} values for {len(config.depths)} stages; give one "
                                 f"for each stage, or one number for all")
            value = value[stage]
        options[name] = value
    return options


def check(config: ModelConfig) -> None:
    """Refuse a pyramid that cannot be built, before anything is allocated."""
    own = ATTENTION[config.name].variant(config.setting).option_names()
    for name, _ in config.options:
        if name not in own:
            fields = ", ".join(field.name for field in dataclasses.fields(config)
                               if field.name not in ("options", "name", "preset", "seed"))
            raise ValueError(f"{config.name} (setting {config.setting!r}) has no option {name!r}; it has: "
                             f"{', '.join(own) or 'none of its own'}; every model has: {fields}")
    for stage, grid_size in enumerate(grid_sizes(config)):
        dim, heads, options = config.embed_dims[stage], config.num_heads[stage], attention_options(config, stage)
        try:
            ATTENTION[config.name].check(dim, heads, grid_size, **options)
        except ValueError as error:
            raise ValueError(f"{config.name}, stage {stage + 1}: {error}") from None


# --------------------------------------------------------------------------------------------- the whole
class Pyramid(nn.Module):
    """Stem, four stages, LayerNorm, mean over the tokens, a linear classifier; no class token.

    Args:
        config: which mechanism, and how large; checked before anything is allocated.

    Attributes:
        config: as given. stages: the `Stage`s; each of their `.blocks` has its mechanism as `.attn`.
        num_features: channels before the classifier.
    """

    def __init__(self, config: ModelConfig):
        check(config)
        super().__init__()
        self.config = config
        self.num_classes, self.num_features = config.num_classes, config.embed_dims[-1]
        grids = grid_sizes(config)
        self.stem = Stem(config, grids[0])
        self.stages = nn.ModuleList(self._stage(stage, grids) for stage in range(len(grids)))
        self.norm = nn.LayerNorm(self.num_features, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(self.num_features, config.num_classes)

    def _stage(self, stage: int, grids: list[tuple[int, int]]) -> Stage:
        config, dim, grid_size = self.config, self.config.embed_dims[stage], grids[stage]
        depth, first = sum(config.depths), sum(config.depths[:stage])
        blocks = []
        for index in range(config.depths[stage]):
            attn = ATTENTION[config.name](dim, config.num_heads[stage], grid_size, layer_index=index,
                                          qkv_bias=config.qkv_bias, **attention_options(config, stage))
            drop_path = config.drop_path_rate * (first + index) / max(1, depth - 1)  # rises from 0 along the depth
            blocks.append(Block(dim, attn, config.mlp_ratio, config.proj_drop, drop_path))
        merge = PatchMerge(config.embed_dims[stage - 1], dim, grids[stage - 1]) if stage else nn.Identity()
        return Stage(merge, blocks, grid_size)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images `(B, in_chans, height, width)` to normalised tokens of the last stage, `(B, N, C)`."""
        wanted = (self.config.in_chans, *self.config.img_size)
        if tuple(x.shape[1:]) != wanted:
            raise ValueError(f"the model was built for images of (channels, height, width) {wanted} but received "
                             f"{tuple(x.shape[1:])}; build it with in_chans and img_size of the images")
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens `(B, N, C)` to logits `(B, num_classes)`, or to their mean `(B, C)`."""
        x = x.mean(1)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, in_chans, height, width)` to logits `(B, num_classes)`."""
        return self.forward_head(self.forward_features(x))

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay must leave alone, by timm's name for it: temperatures and tables of biases."""
        return {f"{name}.{own}" for name, module in self.named_modules() if isinstance(module, Attention)
                for own in module.undecayed}

    def get_classifier(self) -> nn.Linear:
        """The classifier, by timm's name for it."""
        return self.head


def own_generator(seed: int, name: str) -> torch.Generator:
    """A generator that depends on `seed` and `name` alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def initialise(model: nn.Module, seed: int) -> None:
    """Draw all weights anew, each module from a generator of its own, seeded by `seed` and the module's name.

    So the shared skeleton starts from the same weights whatever the mechanism, however much randomness that draws.
    A linear map keeps the variance of what comes in (std = fan_in^-0.5), but for those that end a residual branch and
    the classifier: these start small (std = 0.02), so that a block begins close to the identity.
    """
    for name, module in model.named_modules():
        generator = own_generator(seed, name)
        if isinstance(module, Attention):
            module.init_weights(generator)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            std = 0.02 if name.endswith(RESIDUAL_ENDS) else module.weight[0].numel() ** -0.5
            nn.init.trunc_normal_(module.weight, std=std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
