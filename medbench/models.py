"""From a name to a model: the pyramids, the ResNets beside them, and their entries in timm's registry."""

from __future__ import annotations

import torch
from timm.models import register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from .backbone import Pyramid, initialise
from .config import ALL_MODELS, ModelConfig, model_config

__all__ = ["RESNETS", "ChannelsLastResNet", "build_model", "input_size"]  # timm adds the registered names

# the Bottleneck ResNet beside each preset: ResNet-50 for `paper`; the others have a stem of three 3x3 convolutions, and
# `small` is a quarter as wide, about as large as the pyramids of the same preset
RESNETS = {
    "paper": dict(layers=(3, 4, 6, 3)),
    "small": dict(layers=(2, 2, 3, 4), channels=(16, 32, 64, 128), stem_type="deep", stem_width=8),
    "smoke": dict(layers=(1, 1, 1, 1), channels=(8, 16, 24, 32), stem_type="deep", stem_width=8),
}
PYRAMID_ONLY = ("stem", "patch_size", "embed_dims", "depths", "num_heads", "mlp_ratio", "qkv_bias", "attn_drop",
                "proj_drop", "options")


def build_model(name: str | ModelConfig, preset: str = "paper", setting: str = "faithful", num_classes: int = 10,
                seed: int = 0, **overrides) -> nn.Module:
    """A model with fresh weights that depend on its configuration and seed alone.

    Args:
        name: one of `config.ALL_MODELS`, or a whole `ModelConfig` (then nothing else may be given).
        preset: `"paper"`, `"small"` or `"smoke"`: how large.
        setting: `"faithful"`, as each mechanism's paper has it, or `"seed"`, as the 2022 study computed it.
        num_classes: number of logits.
        seed: of the initial weights; the global generator is left as it was.
        **overrides: other fields of `ModelConfig` (`img_size`, `in_chans`, `depths`, ...) and the mechanism's own
            options (`r`, `window_size`, `lpi`); an option may be a list with one value for each stage.

    Returns:
        A module from images `(B, in_chans, height, width)` to logits `(B, num_classes)`, with its `.config`.

    Raises:
        ValueError: for an unknown name or option or an impossible combination, before anything is allocated.
    """
    if not isinstance(name, ModelConfig):
        config = model_config(name, preset, setting, num_classes, seed, **overrides)
    elif (preset, setting, num_classes, seed, overrides) == ("paper", "faithful", 10, 0, {}):
        config = name
    else:
        raise ValueError("build_model got a whole ModelConfig and more; change the configuration with .replace(...)")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_resnet(config) if config.name == "resnet50" else build_pyramid(config)
    model.config = config
    return model


def input_size(model: nn.Module, batch: int = 1) -> tuple[int, ...]:
    """What a model of `build_model` takes: (batch, channels, height, width) in pixels."""
    return (batch, model.config.in_chans, *model.config.img_size)


def build_pyramid(config: ModelConfig) -> Pyramid:
    """The pyramid with the configuration's mechanism, its skeleton the same for all mechanisms."""
    model = Pyramid(config)
    initialise(model, config.seed)
    return model


def build_resnet(config: ModelConfig) -> ResNet:
    """timm's ResNet-50 (`paper`), or the small one of the preset; refuses settings of parts it does not have."""
    plain = model_config("resnet50", config.preset)
    for field in PYRAMID_ONLY:
        if getattr(config, field) != getattr(plain, field):
            raise ValueError(f"{field} is {getattr(config, field)!r} but resnet50 has no such part; leave it out "
                             f"(resnet50 takes img_size, in_chans and drop_path_rate)")
    return ChannelsLastResNet(Bottleneck, num_classes=config.num_classes, in_chans=config.in_chans,
                              drop_path_rate=config.drop_path_rate, **RESNETS[config.preset])


class ChannelsLastResNet(ResNet):
    """timm's ResNet with weights and input laid out channels last: the same numbers, on a CPU in less time."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Images `(B, in_chans, height, width)` to logits `(B, num_classes)`."""
        return super().forward(x.clone(memory_format=torch.channels_last))


def register(name: str) -> None:
    """Make `timm.create_model("medbench_<name>", ...)` call `build_model(name, ...)`."""
    def entry(pretrained: bool = False, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **kwargs):
        if pretrained or pretrained_cfg or pretrained_cfg_overlay:
            raise ValueError(f"medbench_{name} has no pretrained weights; use pretrained=False and train it")
        return build_model(name, **kwargs)

    entry.__name__ = entry.__qualname__ = f"medbench_{name}"
    entry.__doc__ = f"`build_model({name!r}, ...)`, called in timm's way."
    globals()[entry.__name__] = register_model(entry)


for _name in ALL_MODELS:
    register(_name)
