"""Frozen, checked configurations and the presets and profiles they come from.

What lives here, top to bottom: how a configuration is changed and fingerprinted; `ModelConfig`, `DataConfig`,
`TrainingConfig`; `PRESETS` (how large a model is); `PROFILES` (how much a chapter does). `experiment.Experiment` holds
one of each configuration.

A **preset** sizes a model, a **profile** sizes a chapter. Neither changes what the code does, but that the largest
models learn at a rate of their own (`experiment.large_rate`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from .checks import in_range, one_of, whole

MECHANISMS = ("softmax", "linformer", "performer", "fastformer", "xca", "window")
MODELS = (*MECHANISMS, "resnet50")
CONTROL = "none"
ALL_MODELS = (*MODELS, CONTROL)
SETTINGS = ("faithful", "seed")
STEMS = ("patch", "conv")
PRIORS = ("study", "sqrt", "uniform")
PRECISIONS = ("auto", "float32", "bfloat16")
LOSSES = ("cross_entropy", "class_weights", "logit_adjustment", "focal")
EVENING = ("class_weights", "logit_adjustment")              # losses that let every class count the same
SAMPLINGS = ("as_is", "balanced")
DEVICES = ("auto", "cpu", "cuda")
MOST_THREADS = 1024                                           # with many more the OpenMP library crashes


# --------------------------------------------------------------------------------------------- what all share
def fingerprint(*parts: Any) -> str:
    """Sixteen hex digits that stand for the content of dataclasses, dicts, lists, numbers and strings."""
    def plain(part):
        return dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part
    text = json.dumps([plain(p) for p in parts], sort_keys=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Config:
    """What all configurations share: `replace` and `fingerprint`."""

    def replace(self, **changes):
        """A copy with some fields changed; an unknown field is refused with the list of known ones."""
        known = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            one_of(f"field of {type(self).__name__}", name, tuple(known))
        return dataclasses.replace(self, **changes)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any field changes."""
        return fingerprint(type(self).__name__, self)


# --------------------------------------------------------------------------------------------- model
@dataclass(frozen=True)
class ModelConfig(Config):
    """One model: the pyramid with one mechanism in it, or the ResNet beside it.

    Names are timm's. `patch_size` is the patch stem's; the convolutional one steps by 8 px. `options` holds the
    mechanism's own arguments as sorted (name, value) pairs; a tuple there has one value for each stage.
    """

    name: str
    preset: str = "paper"
    setting: str = "faithful"
    num_classes: int = 10
    in_chans: int = 3
    img_size: tuple[int, int] = (224, 224)
    stem: str = "patch"
    patch_size: int = 7
    embed_dims: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    drop_path_rate: float = 0.0
    options: tuple[tuple[str, Any], ...] = ()
    seed: int = 0

    def __post_init__(self):
        one_of("model name", self.name, ALL_MODELS)
        one_of("preset", self.preset, tuple(PRESETS))
        one_of("setting", self.setting, SETTINGS)
        one_of("stem", self.stem, STEMS)
        size = self.img_size
        object.__setattr__(self, "img_size", tuple(size) if isinstance(size, (tuple, list)) else (size, size))
        for name in ("embed_dims", "depths", "num_heads"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)):
                raise ValueError(f"{name} is {value!r}; wanted a number for each stage, such as "
                                 f"{PRESETS['small'][name]}")
            object.__setattr__(self, name, tuple(value))
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in dict(self.options).items()}
        object.__setattr__(self, "options", tuple(sorted(options.items())))
        self._check_numbers()
        self._check_stages()

    def _check_numbers(self):
        if len(self.img_size) != 2:
            raise ValueError(f"img_size is {self.img_size}; wanted one side in px, or (height, width)")
        for name in ("num_classes", "in_chans", "patch_size"):
            whole(name, getattr(self, name))
        for name in ("img_size", "embed_dims", "depths", "num_heads"):
            for value in getattr(self, name):
                whole(name, value)
        whole("seed", self.seed, 0)
        one_of("qkv_bias", self.qkv_bias, (True, False))
        in_range("mlp_ratio", self.mlp_ratio, 0)
        for name in ("attn_drop", "proj_drop", "drop_path_rate"):
            in_range(name, getattr(self, name), 0, 1)

    def _check_stages(self):
        if not len(self.embed_dims) == len(self.depths) == len(self.num_heads) > 0:
            raise ValueError(f"embed_dims {self.embed_dims}, depths {self.depths} and num_heads {self.num_heads} "
                             f"describe different numbers of stages; give each the same length")
        for dim, heads in zip(self.embed_dims, self.num_heads):
            if dim % heads:
                raise ValueError(f"num_heads {heads} does not divide embed_dims {dim}; choose heads that divide it")


# --------------------------------------------------------------------------------------------- data
@dataclass(frozen=True)
class DataConfig(Config):
    """Where images come from and how many.

    `source` is `"phantom"` or what `readers.listing` takes, `subset` a part of it, such as `MR/brain` of RadImageNet.
    Of real images a share of `max_damaged` may be set aside. For the phantom, `num_train` and `num_val` images follow
    `prior`; the test set has `num_test_per_class` of each.
    """

    source: str = "phantom"
    subset: str = ""
    max_damaged: float = 0.01
    img_size: int = 112
    in_chans: int = 1
    prior: str = "sqrt"
    num_train: int = 18000
    num_val: int = 1000
    num_test_per_class: int = 500
    difficulty: float = 1.0
    confounding: float = 0.0
    seed: int = 0

    def __post_init__(self):
        one_of("prior", self.prior, PRIORS)
        whole("img_size", self.img_size, 16)
        whole("seed", self.seed, 0)
        one_of("in_chans", self.in_chans, (1, 3))
        for name in ("num_train", "num_val", "num_test_per_class"):
            whole(name, getattr(self, name))
        in_range("difficulty", self.difficulty, 0.0)
        in_range("max_damaged", self.max_damaged, 0, 1)
        in_range("confounding", self.confounding, 0, 1)


# --------------------------------------------------------------------------------------------- training
@dataclass(frozen=True)
class TrainingConfig(Config):
    """The one recipe for every model: AdamW, warm-up, cosine, clipping, flips and shifts.

    `samples_seen = num_train * epochs`. `threads` and `processes` are part of the fingerprint because the last bits of
    a sum depend on how it is split. `threads=0` means all cores of the machine, shared by the processes on it.
    `batch_size` is that of all processes together. `micro_batch`: images that one process takes at once, 0 for all of
    its share; where memory runs out it is halved, and the gradient stays that of the whole batch (batch normalisation
    takes its statistics from each part). Either `sampling` or one of the losses in `EVENING` lets every class count the
    same, not both.
    """

    epochs: int = 3
    batch_size: int = 32
    lr: float = 7e-4
    min_lr: float = 1e-5
    warmup: float = 0.1
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip_grad: float = 1.0
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    sampling: str = "as_is"
    flip: float = 0.5
    shift: float = 0.01
    precision: str = "auto"
    threads: int = 0
    processes: int = 1
    micro_batch: int = 0
    device: str = "auto"
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise ValueError(f"betas is {self.betas!r}; wanted two numbers from 0 to 1, such as (0.9, 0.999)")
        object.__setattr__(self, "betas", tuple(self.betas))
        for beta in self.betas:
            in_range("betas", beta, 0, 1)
        whole("epochs", self.epochs)
        whole("batch_size", self.batch_size)
        whole("seed", self.seed, 0)
        in_range("lr", self.lr, 0)
        in_range("min_lr", self.min_lr, 0)
        in_range("label_smoothing", self.label_smoothing, 0, 1)
        in_range("warmup", self.warmup, 0, 1)
        in_range("weight_decay", self.weight_decay, 0)
        in_range("clip_grad", self.clip_grad, 0)
        in_range("focal_gamma", self.focal_gamma, 0)
        in_range("flip", self.flip, 0, 1)
        in_range("shift", self.shift, 0, 0.5)
        whole("threads", self.threads, 0, MOST_THREADS)
        whole("processes", self.processes)
        whole("micro_batch", self.micro_batch, 0)
        if self.batch_size < self.processes:
            raise ValueError(f"batch_size is {self.batch_size} for {self.processes} processes; give each at least one "
                             f"image, for it is the batch of all together")
        one_of("loss", self.loss, LOSSES)
        one_of("sampling", self.sampling, SAMPLINGS)
        if self.sampling == "balanced" and self.loss in EVENING:
            raise ValueError(f"sampling is 'balanced' and loss is {self.loss!r}: each lets every class count the same, "
                             f"and both would count rare ones twice; say sampling='as_is', or loss='cross_entropy'")
        one_of("precision", self.precision, PRECISIONS)
        one_of("device", self.device.split(":")[0], DEVICES)


# --------------------------------------------------------------------------------------------- presets
PRESETS: dict[str, dict[str, Any]] = {
    # arXiv 2206.00244, table 1 and section 4.1: the pyramid of the fair comparison, 28 M parameters at 224 px
    "paper": dict(img_size=224, in_chans=3, stem="patch", patch_size=7, embed_dims=(96, 192, 384, 768),
                  depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    # ours: about 1.4 M parameters at 112 px; the convolutional stem gives a 16 x 16 grid, so that windows of 4
    # shift, Linformer compresses and every other mechanism really acts
    "small": dict(img_size=112, in_chans=1, stem="conv", patch_size=8, embed_dims=(32, 64, 128, 256),
                  depths=(2, 2, 2, 1), num_heads=(1, 2, 4, 8)),
    # ours: the same shape, narrow, for tests
    "smoke": dict(img_size=112, in_chans=1, stem="conv", patch_size=8, embed_dims=(16, 32, 48, 64),
                  depths=(2, 1, 1, 1), num_heads=(1, 2, 3, 4)),
}

# mechanisms' own options that depend on the preset
PRESET_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {"window": {"window_size": 8}},
    "small": {"window": {"window_size": 4}},
    "smoke": {"window": {"window_size": 4}},
}


def model_config(name: str, preset: str = "paper", setting: str = "faithful", num_classes: int = 10, seed: int = 0,
                 **overrides: Any) -> ModelConfig:
    """The configuration of one model: a preset, with some fields changed.

    An override that is no field of `ModelConfig` is an option of the mechanism; `build_model` refuses it if the
    mechanism has no such option.
    """
    one_of("model name", name, ALL_MODELS)
    one_of("preset", preset, tuple(PRESETS))
    fields = {f.name for f in dataclasses.fields(ModelConfig)} - {"options"}
    options = {**PRESET_OPTIONS[preset].get(name, {}), **dict(overrides.pop("options", ()))}
    options |= {k: v for k, v in overrides.items() if k not in fields}
    changed = {k: v for k, v in overrides.items() if k in fields}
    shape = PRESETS[preset] | changed
    if shape["stem"] == "conv" and changed.get("patch_size", 8) != 8:
        raise ValueError(f"patch_size is {changed['patch_size']} but stem='conv' has no patches; leave patch_size out, "
                         f"or choose stem='patch'")
    return ModelConfig(name, preset, setting, num_classes, options=tuple(options.items()), seed=seed, **shape)


# --------------------------------------------------------------------------------------------- profiles
@dataclass(frozen=True)
class Profile(Config):
    """How much a chapter does. A profile changes sizes, and never what is done.

    `preset` sizes the models that are trained; `cost_preset` those whose costs and latency are measured. Each training
    takes `threads` of the processor (0: all), and as many run at a time as there is room for.
    """

    name: str
    preset: str
    cost_preset: str
    num_train: int
    num_val: int
    num_test_per_class: int
    epochs: int
    threads: int
    seeds: tuple[int, ...]
    latency_rounds: int
    latency_batches: tuple[int, ...]
    latency_seconds: float
    saliency_images: int
    localised_images: int
    ig_steps: int
    bootstrap: int
    gallery_images: int


PROFILES: dict[str, Profile] = {p.name: p for p in (
    Profile("smoke", "smoke", "smoke", num_train=160, num_val=40, num_test_per_class=8, epochs=1, threads=1,
            seeds=(0,), latency_rounds=6, latency_batches=(1,), latency_seconds=5.0, saliency_images=8,
            localised_images=8, ig_steps=16, bootstrap=100, gallery_images=10),
    Profile("laptop", "small", "paper", num_train=18000, num_val=1000, num_test_per_class=500, epochs=3, threads=1,
            seeds=(0,), latency_rounds=30, latency_batches=(1, 16), latency_seconds=120.0, saliency_images=40,
            localised_images=500, ig_steps=64, bootstrap=1000, gallery_images=40),
    Profile("full", "paper", "paper", num_train=90000, num_val=5000, num_test_per_class=500, epochs=30, threads=0,
            seeds=(0, 1, 2, 3, 4, 5, 6, 7), latency_rounds=100, latency_batches=(1, 16, 64), latency_seconds=600.0,
            saliency_images=500, localised_images=500, ig_steps=128, bootstrap=2000, gallery_images=100),
)}


def profile(name: str) -> Profile:
    """The profile of that name; an unknown one is refused with the list of known ones."""
    one_of("profile", name, tuple(PROFILES))
    return PROFILES[name]
