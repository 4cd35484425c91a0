"""One model, one data set, one recipe: everything that a trained run depends on.

What lives here: `large_rate`; `Experiment`, made from a preset and a profile of `config`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any

from .checks import one_of
from .config import PRESETS, PROFILES, Config, DataConfig, ModelConfig, Profile, TrainingConfig, model_config

MOST_EPOCHS = 32                   # of a small data set, in place of the many that would make up for its size
FEW_IMAGES = {"batch_size": 16, "lr": 1e-3, "shift": 0.06}   # for real images, seen often (chosen on validation)


def large_rate(batch: int) -> float:
    r"""The highest learning rate of the preset `paper`: $5 \cdot 10^{-4} \sqrt{b / 512}$ for b images a step.

    DeiT (Touvron et al. 2021) takes 5e-4 at 512 images; Adam's rate goes with the square root (Malladi et al. 2022). No
    score chose it. At the small models' rate, eleven times as high on real MRI, softmax fell to guessing.
    """
    return 5e-4 * math.sqrt(batch / 512)


@dataclass(frozen=True)
class Experiment(Config):
    """One model, one data set, one recipe: everything that a trained run depends on."""

    model: ModelConfig
    data: DataConfig
    training: TrainingConfig

    def on(self, num_classes: int, num_train: int, keep_epochs: bool = False) -> Experiment:
        """The same experiment on data whose classes and size are known by now.

        As many images are seen in training, but none of them more than 32 times, or as often as the experiment has
        it: a small set is soon known by heart. With `keep_epochs` each is seen just as often.
        """
        own = self.training.epochs
        alike = max(1, round(self.data.num_train * own / num_train))
        epochs = own if keep_epochs else min(alike, max(own, MOST_EPOCHS))
        return self.replace(model=self.model.replace(num_classes=num_classes),
                            training=self.training.replace(epochs=epochs))

    @classmethod
    def preset(cls, preset: str, model: str, seed: int = 0, profile: str | Profile | None = None,
               **overrides: Any) -> Experiment:
        """The experiment of a preset: its model, as many images and epochs as a profile gives, the one recipe; for
        images from elsewhere than the phantom with `FEW_IMAGES`, for the preset `paper` with `large_rate`.

        Args: `preset`: `"paper"`, `"small"` or `"smoke"`; `model`: one of `ALL_MODELS`; `seed` of the weights and of
            the training (the images keep `data.seed`); `profile`: sizes of data and training, and its threads (by
            default the sizes of the one that trains this preset, and all threads); `**overrides`: any field of the
            three configurations, or an option of the mechanism. A field that several of them have (`img_size`,
            `in_chans`) is set in each.
        Raises: ValueError for an unknown preset, model, profile or value.
        """
        one_of("preset", preset, tuple(PRESETS))
        size = profile if isinstance(profile, Profile) else PROFILES[profile_of(preset, profile)]
        shape = {name: PRESETS[preset][name] for name in ("img_size", "in_chans")}
        data = shape | {name: getattr(size, name) for name in ("num_train", "num_val", "num_test_per_class")}
        data |= _take(DataConfig, overrides)
        threads = 0 if profile is None else size.threads
        few = {} if overrides.get("source", "phantom") == "phantom" else FEW_IMAGES
        chosen = _take(TrainingConfig, overrides)
        training = TrainingConfig(**{"epochs": size.epochs, "threads": threads, "seed": seed} | few | chosen)
        if preset == "paper" and "lr" not in chosen:
            training = training.replace(lr=large_rate(training.batch_size))
        rest = {name: value for name, value in overrides.items()
                if name in shape or name not in data and name not in chosen}
        return cls(_model(model, preset, seed, rest), DataConfig(**data), training)


def profile_of(preset: str, name: str | None = None) -> str:
    """The profile asked for, or the one whose chapters train this preset."""
    one_of("preset", preset, tuple(PRESETS))
    if name is None:
        return next(p.name for p in PROFILES.values() if p.preset == preset)
    one_of("profile", name, tuple(PROFILES))
    return name


def _model(model: str, preset: str, seed: int, options: dict[str, Any]) -> ModelConfig:
    """The model; what looks like an option of its mechanism may be a slip in a field of the data or the training."""
    config = model_config(model, preset, seed=seed, **options)
    known = [f.name for part in (DataConfig, TrainingConfig) for f in dataclasses.fields(part)]
    for name in dict(config.options):
        if near := difflib.get_close_matches(name, known, 1, 0.8):
            raise ValueError(f"{name!r} is no field of the model, the data or the training; did you mean {near[0]!r}?")
    return config


def _take(config: type, overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides that are fields of that configuration."""
    return {f.name: overrides[f.name] for f in dataclasses.fields(config) if f.name in overrides}
