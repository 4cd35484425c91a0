"""A run's folder: what it holds while training, and when finished.

What lives here, top to bottom: tensors to bytes and back; the states of an unfinished run; a finished run; refusing
pickles.

    run.json                       what was trained, the history, `finished`; written last, and when it is found damaged
    model.safetensors              the chosen weights
    state-<step>.safetensors       while training: everything that the next step depends on
    state-<step>.json              how far, the hash of these tensors and its own; written after them
    memory.json                    while training, where memory ran out: how many images fit at once
    failure.json                   where the loss became NaN or infinite: the batch and the first layer that broke

Every file is written beside its place and moved there in one step. A state counts when its JSON is there and both
have the hashes that stand in it, and the last two states are kept. So at any moment, whatever is killed or runs
full, there is a complete one, and one that was damaged later has another before it. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .files import read_json, sha256, write_bytes, write_json

KEPT = 2                                                     # states of an unfinished run
HALF_WRITTEN = (".state-*", ".model.*", ".run.*")            # left where a process was killed
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")


# --------------------------------------------------------------------------------------------- tensors
def write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors as safetensors; returns the file's hash.

    Raises: OSError: they could not be written; what was there before is whole.
    """
    from safetensors.torch import save
    content = save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, noted: str) -> dict[str, Tensor] | None:
    """The tensors of a file, or `None` where it is missing or not the one whose hash was noted."""
    from safetensors.torch import load_file
    return load_file(path) if path.is_file() and sha256(path) == noted else None


def digest(tensors: dict[str, Tensor]) -> str:
    """A hash of names, shapes and bytes of tensors, in the order of their names."""
    found = hashlib.sha256()
    for name, t in sorted(tensors.items()):
        plain = t.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as tensors, `<parameter>.<name>`."""
    return {f"{index}.{name}": torch.as_tensor(value) for index, values in optimiser.state_dict()["state"].items()
            for name, value in values.items()}


# --------------------------------------------------------------------------------------------- unfinished
def save_state(folder: Path, model: nn.Module, optimiser: Optimizer, best: dict[str, Tensor], info: dict) -> None:
    """Keep everything that the next step depends on; `info["step"]` says how many steps are done.

    Raises: OSError: the disk is full, or not to be written; the states before are whole.
    """
    state = {f"model.{name}": t for name, t in model.state_dict().items()}
    state |= {f"best.{name}": t for name, t in best.items()}
    state |= {f"optimiser.{name}": t for name, t in optimiser_tensors(optimiser).items()}
    state |= {f"random.{name}": t for name, t in random_states().items()}
    file = folder / f"state-{info['step']}.safetensors"
    try:
        noted = info | {"sha256": write_tensors(file, state)}
        write_json(file.with_suffix(".json"), noted | {"own": _hash(noted)})
    except OSError as error:
        kept = [_step(path) for path in _states(folder)]
        raise OSError(error.errno, f"the state of step {info['step']} could not be written to {str(folder)!r} "
                      f"({error.strerror or error}); make room or give permission and start again: "
                      + (f"it goes on from step {kept[0]}" if kept else "it begins anew")) from error
    found = _states(folder)
    beyond = [path for path in found if _step(path) > info["step"]]       # damaged, or the run would be there
    for old in beyond + [path for path in found if path not in beyond][KEPT:]:
        _forget(old)


def load_state(folder: Path, model: nn.Module,
               optimiser: Optimizer) -> tuple[dict | None, dict[str, Tensor], list[str]]:
    """Put model, optimiser and random states back where the last whole state left them.

    Returns: its `info`, the best weights so far, and a sentence on each state that is damaged; (None, {}, ...) where
        there is no whole one.
    """
    said = []
    for left in (path for pattern in HALF_WRITTEN for path in folder.glob(pattern)):
        left.unlink(missing_ok=True)
    for file in _states(folder):
        info, tensors = _state(file)
        if tensors:
            return info, _put_back(tensors, model, optimiser), said
        said.append(f"the state of step {_step(file)} is damaged and was passed over")
    return None, {}, said


def _state(file: Path) -> tuple[dict | None, dict[str, Tensor] | None]:
    """What a state's JSON says and its tensors; `None` of what is damaged, or lies on a part of the disk that is."""
    try:
        info = read_json(file)
        if not isinstance(info, dict) or info.pop("own", None) != _hash(info) or info["step"] != _step(file):
            return None, None
        return info, read_tensors(file.with_suffix(".safetensors"), info["sha256"])
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None, None


def _hash(info: dict) -> str:
    """Of what a JSON file says."""
    return hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()


def last_step(folder: Path) -> int:
    """How many steps the last state of an unfinished run has behind it; 0 where there is none."""
    found = _states(folder)
    return _step(found[0]) if found else 0


def has_state(folder: Path) -> bool:
    """Whether an unfinished run has a state, if only that before its first step."""
    return bool(_states(folder))


def _put_back(tensors: dict[str, Tensor], model: nn.Module, optimiser: Optimizer) -> dict[str, Tensor]:
    """Load a state's tensors; returns the best weights among them."""
    parts: dict[str, dict] = {"model": {}, "best": {}, "optimiser": {}, "random": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    model.load_state_dict(parts["model"])
    state: dict[int, dict] = {}
    for name, tensor in parts["optimiser"].items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, values in optimiser.state.items():        # a fused step takes both in the order of memory
        for name, tensor in values.items():
            if tensor.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(tensor)
    set_random_states(parts["random"])
    return parts["best"]


def random_states() -> dict[str, Tensor]:
    """torch's random states as tensors: of the CPU, and of each GPU that is in use."""
    found = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        found |= {f"cuda{i}": t for i, t in enumerate(torch.cuda.get_rng_state_all())}
    return found


def set_random_states(states: dict[str, Tensor]) -> None:
    """Put `random_states` back; a GPU that is not here is left out."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    for i in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        if f"cuda{i}" in states:
            torch.cuda.set_rng_state(states[f"cuda{i}"], i)


def _states(folder: Path) -> list[Path]:
    """The JSON files of all states, the latest first."""
    found = [path for path in folder.glob("state-*.json") if re.fullmatch(r"state-\d+", path.stem)]
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("state-"))


def _forget(file: Path) -> None:
    """Remove a state, its JSON first: tensors without one do not count."""
    file.unlink(missing_ok=True)
    file.with_suffix(".safetensors").unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------- finished
def save_run(folder: Path, weights: dict[str, Tensor], info: dict) -> None:
    """Turn the folder into a finished run and drop the states that led there.

    Raises: OSError: the disk is full, or not to be written; the states are whole.
    """
    try:
        noted = write_tensors(folder / "model.safetensors", weights)
        write_json(folder / "run.json", info | {"finished": True, "sha256": noted})
    except OSError as error:
        raise OSError(error.errno, f"the finished run could not be written to {str(folder)!r} "
                      f"({error.strerror or error}); make room or give permission and start again") from error
    for file in _states(folder):
        _forget(file)
    for left in folder.glob("state-*.safetensors"):                       # of a writer that was killed
        left.unlink(missing_ok=True)


def load_run(folder: Path, patience: float = 0.0) -> tuple[dict, dict[str, Tensor]] | None:
    """What a finished run is and its weights; `None` where the folder holds none, or one whose files do not fit.

    Args: `patience`: seconds to look again, where another machine may just have finished it.
    """
    until = time.monotonic() + patience
    while True:
        info = read_json(folder / "run.json")
        weights = read_tensors(folder / "model.safetensors", info["sha256"]) if info and info.get("finished") else None
        if weights:
            return info, weights
        if time.monotonic() >= until:
            return None
        time.sleep(min(2.0, patience))


def reopen(folder: Path, patience: float = 0.0) -> list[str]:
    """Let a finished run that is damaged count as unfinished, to be trained again; states that are there stay.

    Args: `patience`: as in `load_run`.
    Returns: a sentence on it for the notes of the run to come, also when asked again; none of other runs.
    Raises: OSError: the folder may not be written.
    """
    file, weights = folder / "run.json", folder / "model.safetensors"
    info, why = read_json(file), ""
    if info is None and file.is_file() and weights.is_file():
        why = "its run.json cannot be read"
    elif info and info.get("finished") and not load_run(folder, patience):
        why = "its weights are not those that were written" if weights.is_file() else "its weights are missing"
    if why:
        info = {"finished": False, "reason": f"it had ended, but was damaged since ({why}); train it again",
                "notes": [f"the finished run was damaged ({why}) and was trained again"]}
        write_json(file, info)
    return info.get("notes", []) if info and not info.get("finished") else []


def chosen_epoch(info: dict) -> dict:
    """Of what `run.json` tells of a run, the line of the epoch whose weights were kept."""
    return info["history"][info["best_epoch"] - 1]


# --------------------------------------------------------------------------------------------- pickles
def refuse_pickle(path: Path) -> None:
    """Raises ValueError for a file that would have to be unpickled: reading one runs whatever code is in it."""
    path = Path(path)
    if path.is_file() and path.suffix.lower() in PICKLES:
        raise ValueError(f"{str(path)!r} is a pickle, and reading a pickle runs any code that somebody put into it; "
                         f"medbench reads safetensors alone: convert it where you trust it, or train again")
