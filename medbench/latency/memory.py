r"""How much memory a forward pass takes at its peak, measured.

What lives here, top to bottom: `Peak`, what comes out; `peak`; the measurement on a GPU and that on the CPU, which
takes place in a new process.

Counted by formula, without allocator and libraries: `cost.Costs.activation_elements`.
"""

from __future__ import annotations

import ctypes
import gc
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..checks import one_of
from ..machine import cores, process_memory, resolve_device
from .processes import fresh, packed
from .timing import prepared, suffix_of

PASSES = 3                   # the first allocates what libraries keep, the others show what comes again
DTYPES = ("float32", "bfloat16", "float16")
UNCOUNTED = "torch does not count what it allocates on a CPU"


# --------------------------------------------------------------------------------------------- what comes out
@dataclass(frozen=True)
class Peak:
    """Bytes at the peak of the forward passes of one batch; None with the reason under `reasons`.

    `allocated`: tensors on the GPU, weights among them; `reserved`: what torch's allocator took for them. `process`: on
    a GPU all that the process holds there; on the CPU, by how much its resident memory grew while the passes ran,
    so without weights.
    """

    allocated: int | None
    reserved: int | None
    process: int | None
    reasons: dict[str, str]
    batch: int
    dtype: str
    device: str

    def rows(self) -> list[dict]:
        """`peak_allocated`, `peak_reserved`, `peak_process` in bytes; suffix such as `b16`."""
        context = {"batch": self.batch, "dtype": self.dtype, "passes": PASSES}
        return [{"quantity": f"peak_{name}", "value": getattr(self, name), "unit": "byte", "context": context,
                 "suffix": suffix_of(self.batch, self.dtype),
                 **({"reason": self.reasons[name]} if name in self.reasons else {})}
                for name in ("allocated", "reserved", "process")]


# --------------------------------------------------------------------------------------------- the measurement
def peak(module: nn.Module, input_size: tuple[int, ...], *, device="auto", dtype: str = "float32",
         threads: int = 0, seed: int = 0) -> Peak:
    """Peak memory of forward passes in evaluation mode.

    Args:
        module: comes back in the mode and on the device it had; for the CPU one that can be pickled.
        input_size: of the random input, batch first. device: `"auto"`, `"cpu"` or `"cuda"`.
        dtype: `"float32"`, or `"bfloat16"` and `"float16"` by autocast. threads: of the CPU, 0 for all cores.
    Returns:
        `Peak`.
    Raises:
        ValueError: an unknown dtype; TypeError: a module that cannot go to another process; RuntimeError: `cuda`
            without a GPU.
    """
    one_of("dtype", dtype, DTYPES)
    place, threads = resolve_device(device), threads or cores()
    x = torch.randn(tuple(input_size), generator=torch.Generator().manual_seed(seed))
    if place.type == "cuda":
        found, reasons = _on_gpu(module, x, place, dtype, threads)
    else:
        grown, why = fresh(_growth, packed("module", (module, x, dtype, threads)))
        found, reasons = (None, None, grown), {"allocated": UNCOUNTED, "reserved": UNCOUNTED} | why
    return Peak(*found, reasons, len(x), dtype, str(place))


def _pass(module: nn.Module, x, dtype: str) -> None:
    """One forward pass whose output is dropped."""
    with torch.autocast(x.device.type, getattr(torch, dtype), enabled=dtype != "float32"):
        module(x)


def _on_gpu(module: nn.Module, x, place: torch.device, dtype: str, threads: int) -> tuple[tuple, dict]:
    """(allocated, reserved, process) and the reason for what is not known."""
    with prepared([module], place, threads):
        x = x.to(place)
        torch.cuda.synchronize(place)
        torch.cuda.empty_cache()                             # what others left reserved is not this model's
        torch.cuda.reset_peak_memory_stats(place)
        for _ in range(PASSES):
            _pass(module, x, dtype)
        torch.cuda.synchronize(place)
        held = process_memory(place)                         # the allocator still holds all that it took
        found = torch.cuda.max_memory_allocated(place), torch.cuda.max_memory_reserved(place), held["byte"]
    return found, {} if held["byte"] is not None else {"process": held["reason"]}


# --------------------------------------------------------------------------------------------- on the CPU
def _growth(data: bytes) -> tuple[int | None, dict]:
    """In the new process: bytes by which resident memory rose above where it stood before the passes, or why not."""
    module, x, dtype, threads = pickle.loads(data)
    del data
    with prepared([module], torch.device("cpu"), threads):
        _tidy()
        before, resets = _resident("VmRSS"), _reset_peak()
        if not resets or before is None:
            return None, {"process": "this kernel does not let a process reset the peak of its resident memory"}
        for _ in range(PASSES):
            _pass(module, x, dtype)
        return _resident("VmHWM") - before, {}


def _tidy() -> None:
    """Give freed memory back, or the passes would take from it unseen."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):      # glibc's
        trim(0)


def _reset_peak() -> bool:
    """Set the peak of resident memory to what is resident now; whether the kernel did."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(field: str) -> int | None:
    """Bytes of resident memory now (`VmRSS`) or at the peak (`VmHWM`); None without Linux's /proc."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None
