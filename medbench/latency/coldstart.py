r"""How long a model takes from nothing: to import, to build, to answer first; apart from how long it takes afterwards.

What lives here, top to bottom: `ColdStart`, what comes out; `cold_start`, which starts a new process; what runs there.

A process is cold, the files that it reads may not be: they stay in the system's memory from the last time.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ..machine import cores, resolve_device
from .processes import packed
from .timing import suffix_of, timer_for

HOME = str(Path(__file__).resolve().parents[2])

# what the new process runs: it times its imports before anything of ours is there to do it
PROGRAM = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[1])
begun = time.perf_counter()
import torch
between = time.perf_counter()
import medbench
imported = time.perf_counter()
from medbench.latency.coldstart import _steps
_steps(sys.argv[2], [between - begun, imported - between])
"""


# --------------------------------------------------------------------------------------------- what comes out
@dataclass(frozen=True)
class ColdStart:
    """Seconds of each step of a new process, one after the other.

    `import_torch`, `import_medbench`; `build`: the model, in evaluation mode on its device; `first_call`, with whatever
    is made or compiled on the way, and `second_call`, without.
    """

    import_torch: float
    import_medbench: float
    build: float
    first_call: float
    second_call: float
    batch: int
    threads: int
    device: str

    @property
    def total(self) -> float:
        """From the first import to the first answer."""
        return self.import_torch + self.import_medbench + self.build + self.first_call

    def rows(self) -> list[dict]:
        """Each step and the total, in seconds."""
        context = {"batch": self.batch, "threads": self.threads}
        steps = {k: v for k, v in asdict(self).items() if k not in (*context, "device")} | {"total": self.total}
        return [{"quantity": f"cold_{name}", "value": value, "unit": "s", "n": 1, "context": context,
                 "suffix": suffix_of(self.batch, "float32")} for name, value in steps.items()]


# --------------------------------------------------------------------------------------------- the new process
def cold_start(build: Callable[[], nn.Module], input_size: tuple[int, ...], *, device="auto",
               threads: int = 0) -> ColdStart:
    """Time a new process from its imports to its second answer.

    Args:
        build: makes the model; a function of the top of a module, or `functools.partial` of one. Where it returns
            `torch.compile(model)`, the first call less the second is the time to compile.
        input_size: (batch, channels, height, width) in pixels. device: `"auto"`, `"cpu"` or `"cuda"`.
        threads: of the CPU, 0 for all cores.
    Returns:
        `ColdStart`.
    Raises:
        TypeError: `build` cannot go to another process. RuntimeError: `cuda` without a GPU, or the process failed; its
            last words are in the message.
    """
    place, threads = resolve_device(device), threads or cores()
    task = {"build": packed("build", build), "size": tuple(input_size), "device": str(place), "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task"
        path.write_bytes(pickle.dumps(task))
        line = [sys.executable, "-c", PROGRAM, json.dumps([*sys.path, HOME]), str(path)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or [f"it exited with {done.returncode}"]
            raise RuntimeError(f"the new process failed: {said[0]}")
        return ColdStart(*json.loads(_answer(path).read_text()), input_size[0], threads, str(place))


def _answer(task: Path) -> Path:
    """Where the new process writes its seconds; what `build` prints goes elsewhere."""
    return task.with_suffix(".json")


def _steps(path: str, imports: list[float]) -> None:
    """In the new process: build, call, call again, and write all seconds beside the task."""
    task = pickle.loads(Path(path).read_bytes())
    place = torch.device(task["device"])
    torch.set_num_threads(task["threads"])
    timer, x = timer_for(place, time.perf_counter), torch.randn(task["size"]).to(place)
    begun = timer.clock()
    model = pickle.loads(task["build"])().eval().to(place)
    built = timer.clock() - begun
    with torch.inference_mode():
        calls = [timer.first(model, x)[0] for _ in range(2)]
    _answer(Path(path)).write_text(json.dumps([*imports, built, *calls]))
