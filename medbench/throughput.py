r"""Our training loop beside timm's: the same model, images and batch, one step of each in turn.

What lives here, top to bottom: `Race`, what came of it; `race`, which times the loops side by side; ours; timm's.

timm has its loop in a script, so it is written here from its parts: `create_loader`, `create_optimizer_v2`,
`dispatch_clip_grad`, in the order of `train.py`, as it is by default (float32) and with its option for bfloat16. Both
loops turn bytes into a batch, go forward and backward, clip, and update. So that both can be held to the same exact
answer, the picture is one and the same, alike left and right, and the learning rate so small that no weight moves:
neither changes what is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import distributed, latency, recipe
from .config import TrainingConfig
from .data import Data, Split, to_input
from .latency.timing import milliseconds as ms
from .loop import Batches, Loop
from .models import build_model

OURS, DEFAULT, AMP = "medbench", "timm", "timm --amp"
STILL = 1e-30                                                # a learning rate that moves nothing
BATCHES = 4                                                  # in the data set, before it begins anew


@dataclass(frozen=True)
class Race:
    """One model in all loops; `found` has ours as the reference, so `found["timm"].ratio` is timm's time over ours."""

    name: str
    preset: str
    found: latency.Comparison

    def lines(self) -> list[dict]:
        """A line a loop: images a second, and its time over ours with the interval and the verdict."""
        lines = []
        for loop in (OURS, DEFAULT, AMP):
            timed = self.found[loop]
            rate = timed.batch / timed.median if timed.median else None
            lines.append({"model": self.name, "loop": loop, "dtype": timed.dtype, "batch": timed.batch,
                          "images_per_second": rate, "ratio": timed.ratio, "ratio_low": timed.ratio_low,
                          "ratio_high": timed.ratio_high, "rounds": len(self.found.quiet), "floor": self.found.floor,
                          "verdict": timed.verdict if timed.median else timed.reason})
        return lines

    def rows(self) -> list[dict]:
        """Records: the rate and the step of each loop, and the ratio to ours."""
        rows = []
        for line in self.lines():
            timed, slug = self.found[line["loop"]], line["loop"].replace(" --", "_")
            about = {"suffix": f"{slug}.b{line['batch']}", "context": {key: line[key] for key in (
                "loop", "dtype", "batch", "rounds", "floor", "verdict")} | {"preset": self.preset}}
            about |= {} if timed.median else {"reason": timed.reason or "not timed"}
            samples = [ms(r.value(timed.name)) for r in latency.thinned(self.found.rounds) if timed.median]
            rows += [{"quantity": "training_rate", "value": line["images_per_second"], "unit": "images/s", **about},
                     {"quantity": "training_step", "value": ms(timed.median), "low": ms(timed.low),
                      "high": ms(timed.high), "unit": "ms", "n": timed.n, "samples": samples, **about}]
            if line["loop"] != OURS:
                rows.append({"quantity": "ratio", "value": timed.ratio, "low": timed.ratio_low,
                             "high": timed.ratio_high, "unit": "1", **about})
        return rows


def race(name: str = "softmax", preset: str = "paper", batch: int = 16, *, seconds: float = 240.0, seed: int = 0,
         threads: int = 0, **protocol) -> Race:
    """Time a training step of our loop and of timm's on the CPU, in one interleaved run.

    Args: `seconds` for all loops together; the rest as for `latency.compare`.
    Returns: `Race`.
    """
    model = build_model(name, preset, seed=seed)
    config = recipe.resolve(TrainingConfig(batch_size=batch, lr=STILL, min_lr=STILL, shift=0.0, threads=threads,
                                           device="cpu", epochs=10_000))
    data = one_picture(model.config, BATCHES * batch, seed)
    images = to_input(torch.from_numpy(np.array(data.train.images[:batch])), model.config.in_chans).double()
    exact = copy.deepcopy(model).double().train()

    def answer(asked: Tensor) -> Tensor:
        return exact(images)[:len(asked)]
    steps = {OURS: (ours(copy.deepcopy(model), data, config), config.precision),
             DEFAULT: (timms(copy.deepcopy(model), data, config, False), "float32"),
             AMP: (timms(copy.deepcopy(model), data, config, True), "bfloat16")}
    loops = {loop: latency.Candidate(loop, step, answer, dtype) for loop, (step, dtype) in steps.items()}
    found = latency.compare(loops, tuple(images.shape), seconds=seconds, seed=seed, threads=config.threads,
                            device="cpu", **protocol)
    return Race(name, preset, found)


def one_picture(config, count: int, seed: int = 0) -> Data:
    """A data set that holds one picture many times, noise that is alike left and right."""
    height, width = config.img_size
    half = np.random.default_rng(seed).integers(0, 256, (height, -(-width // 2)), dtype=np.uint8)
    picture = np.concatenate([half, half[:, :width // 2][:, ::-1]], 1)
    classes = tuple(f"c{i}" for i in range(config.num_classes))
    split = Split("train", np.broadcast_to(picture, (count, height, width)), np.arange(count) % len(classes),
                  np.arange(count), classes, np.full(len(classes), 1 / len(classes)), in_chans=config.in_chans)
    return Data(split, split, split, fingerprint="one-picture")


def _watched(model: nn.Module) -> list[Tensor]:
    """A list that holds the model's last answer."""
    kept: list[Tensor] = []
    model.register_forward_hook(lambda module, inputs, output: kept.__setitem__(slice(None), [output.detach().float()]))
    return kept


# --------------------------------------------------------------------------------------------- ours
def ours(model: nn.Module, data: Data, config: TrainingConfig) -> Callable[[Tensor], Tensor]:
    """A function that does one step of `loop.Loop` and gives the logits of its batch."""
    loop = Loop(model, data, config, Path("nowhere"), distributed.world(config), progress=False)
    loop.wrapped.train()
    kept, state = _watched(model), {"step": 0}

    def step(_: Tensor) -> Tensor:
        epoch, done = divmod(state["step"], loop.per_epoch)
        with torch.inference_mode(False), torch.enable_grad():
            if not done:
                state["batches"] = Batches(loop, recipe.order(loop.labels, epoch, config), epoch, state["step"])
            now, batches = state["step"], state["batches"]
            loop._step(now, batches.of(now), batches[now]).item()
        state["step"] += 1
        return kept[0]
    return step


# --------------------------------------------------------------------------------------------- timm's
class _Pictures(torch.utils.data.Dataset):
    """Images as timm's loader takes them: PIL, then its transform."""

    transform: Callable | None = None

    def __init__(self, split: Split):
        self.split, self.mode = split, "RGB" if split.in_chans == 3 else "L"

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int):
        from PIL import Image
        image = Image.fromarray(np.ascontiguousarray(self.split.images[index])).convert(self.mode)
        return self.transform(image), int(self.split.labels[index])


def timms(model: nn.Module, data: Data, config: TrainingConfig, amp: bool) -> Callable[[Tensor], Tensor]:
    """A function that does one step of timm's loop and gives the logits of its batch; `amp`: in bfloat16."""
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2
    from timm.utils import dispatch_clip_grad
    side = (data.train.in_chans, *data.train.images.shape[-2:])
    loader = create_loader(_Pictures(data.train), side, config.batch_size, is_training=True, no_aug=True,
                           use_prefetcher=False, num_workers=0, mean=(0.5,) * side[0], std=(0.5,) * side[0])
    optimiser = create_optimizer_v2(model, opt="adamw", lr=STILL, weight_decay=config.weight_decay)
    loss_function, kept, left = nn.CrossEntropyLoss(), _watched(model.train()), iter(())

    def step(_: Tensor) -> Tensor:
        nonlocal left
        with torch.inference_mode(False), torch.enable_grad():
            batch = next(left, None)
            if batch is None:
                left = iter(loader)
                batch = next(left)
            images, labels = batch
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                loss = loss_function(model(images), labels)
            optimiser.zero_grad()
            loss.backward()
            dispatch_clip_grad(model.parameters(), config.clip_grad, mode="norm")
            optimiser.step()
            loss.item()
        return kept[0]
    return step
