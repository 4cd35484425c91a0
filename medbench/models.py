"""From a name to a model: the pyramids, the ResNets beside them, and their entries in timm's registry."""

from __future__ import annotations

import timm
import torch
from timm.models import register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from .backbone import Pyramid, initialise
from .config import ALL_MODELS, ModelConfig, model_config

# the ResNet beside each preset: timm's ResNet-50 for `paper`; ours are Bottleneck ResNets with a stem of three 3x3
# convolutions, about as large as the pyramids of the same preset
RESNETS = {
    "paper": dict(layers=(3, 4, 6, 3)),
    "small": dict(layers=(2, 2, 2, 2), channels=(16, 32, 64, 128), stem_type="deep", stem_width=8),
    "smoke": dict(layers=(1, 1, 1, 1), channels=(8, 16, 24, 32), stem_type="deep", stem_width=8),
}


def build_resnet(config: ModelConfig) -> nn.Module:
    """timm's ResNet-50 (`paper`), or the small one of the preset."""
    for name in ("attn_drop", "proj_drop"):
        if getattr(config, name):
            raise ValueError(f"{name} is {getattr(config, name)} but resnet50 has no attention; use {name}=0 "
                             f"(drop_path_rate works)")
    if config.options:
        raise ValueError(f"resnet50 has no option {config.options[0][0]!r}; it has: none of its own")
    return ResNet(Bottleneck, num_classes=config.num_classes, in_chans=config.in_chans,
                  drop_path_rate=config.drop_path_rate, **RESNETS[config.preset])


def build_model(name: str | ModelConfig, preset: str = "paper", setting: str = "faithful", num_classes: int = 10,
                seed: int = 0, **overrides) -> nn.Module:
    """A model with fresh weights that depend on its configuration and seed alone.

    Args:
        name: one of `config.ALL_MODELS`, or a whole `ModelConfig` (then nothing else may be given).
        preset: `"paper"`, `"small"` or `"smoke"`: how large.
        setting: `"faithful"`, as each mechanism's paper has it, or `"seed"`, as the 2022 study computed it.
        num_classes: number of logits.
        seed: of the initial weights; the global generators are left as they are.
        **overrides: other fields of `ModelConfig` (`img_size`, `in_chans`, `depths`, ...) and the mechanism's own
            options (`r`, `window_size`, `lpi`); a list of one value for each stage is allowed for those.

    Returns:
        A module from images `(B, in_chans, height, width)` to logits `(B, num_classes)`, with its `.config`.

    Raises:
        ValueError: for an unknown name or option or an impossible combination, before anything is allocated.
    """
    if isinstance(name, ModelConfig):
        config = name
    else:
        config = model_config(name, preset, setting, num_classes, seed, **overrides)
    devices = []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        model = build_resnet(config) if config.name == "resnet50" else Pyramid(config)
    if config.name != "resnet50":
        initialise(model, config.seed)
    model.config = config
    return model


def _entry(name: str):
    """The function that timm calls for `medbench_<name>`."""
    def entry(pretrained: bool = False, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **kwargs):
        if pretrained:
            raise ValueError(f"medbench_{name} has no pretrained weights; use pretrained=False and train it")
        return build_model(name, **kwargs)

    entry.__name__ = entry.__qualname__ = f"medbench_{name}"
    entry.__doc__ = f"`build_model({name!r}, ...)` by timm's way of calling."
    return register_model(entry)


for _name in ALL_MODELS:
    _entry(_name)
