"""A run's folder: what it holds while training, and when finished.

What lives here, top to bottom: tensors to bytes and back; the state of an unfinished run; a finished run.

    run.json              what was trained, the history, `finished`; written last
    model.safetensors     the chosen weights
    state.json            while training: how far, and which tensors belong to it
    state-<step>.safetensors

Every file is written atomically and `state.json` and `run.json` name the hash of the tensors that they belong to, so
that a run broken off at any moment is either found whole or goes on from the state before.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .files import read_json, sha256, write_bytes, write_json


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors as safetensors; returns the file's hash."""
    from safetensors.torch import save
    write_bytes(path, save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}))
    return sha256(path)


def read_tensors(path: Path, noted: str) -> dict[str, Tensor] | None:
    """The tensors of a file, or `None` where it is missing or not the one whose hash was noted."""
    from safetensors.torch import load_file
    return load_file(path) if path.is_file() and sha256(path) == noted else None


# --------------------------------------------------------------------------------------------- unfinished
def save_state(folder: Path, model: nn.Module, optimiser: Optimizer, best: dict[str, Tensor], info: dict) -> None:
    """Keep everything that the next step depends on; `info["step"]` says how many steps are done."""
    state = {f"model.{name}": t for name, t in model.state_dict().items()}
    state |= {f"best.{name}": t for name, t in best.items()}
    for index, values in optimiser.state_dict()["state"].items():
        state |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    file = folder / f"state-{info['step']}.safetensors"
    noted = write_tensors(file, state)
    write_json(folder / "state.json", info | {"file": file.name, "sha256": noted})
    for old in folder.glob("state-*.safetensors"):
        if old != file:
            old.unlink()


def load_state(folder: Path, model: nn.Module, optimiser: Optimizer) -> tuple[dict | None, dict[str, Tensor]]:
    """Put model and optimiser back where `save_state` left them; its `info` and best weights, or (None, {})."""
    info = read_json(folder / "state.json")
    tensors = info and read_tensors(folder / info["file"], info["sha256"])
    if not tensors:
        return None, {}
    parts: dict[str, dict] = {"model": {}, "best": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    model.load_state_dict(parts["model"])
    state: dict[int, dict] = {}
    for name, tensor in parts["optimiser"].items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return info, parts["best"]


# --------------------------------------------------------------------------------------------- finished
def save_run(folder: Path, weights: dict[str, Tensor], info: dict) -> None:
    """Turn the folder into a finished run and drop the state that led there."""
    noted = write_tensors(folder / "model.safetensors", weights)
    write_json(folder / "run.json", info | {"finished": True, "sha256": noted})
    (folder / "state.json").unlink(missing_ok=True)
    for old in folder.glob("state-*.safetensors"):
        old.unlink()


def load_run(folder: Path) -> tuple[dict, dict[str, Tensor]] | None:
    """What a finished run is and its weights; `None` where the folder holds none, or one whose files do not fit."""
    info = read_json(folder / "run.json")
    if not info or not info.get("finished"):
        return None
    weights = read_tensors(folder / "model.safetensors", info["sha256"])
    return (info, weights) if weights else None
