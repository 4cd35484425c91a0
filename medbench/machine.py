"""What a measurement ran on, in words that identify the hardware and nobody's computer.

What lives here, top to bottom: the device's short name; the processor, the memory, the GPU and torch's set-up, which
stay the same during a run; the load, the pressure and the clocks, which do not; the versions of the libraries; the
git commit. No host name, user name or path is ever read into a record.

A value that cannot be had is `None`, with the reason beside it under `reason` or `<key>_reason`.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from .checks import one_of
from .config import fingerprint

ROOT = Path(__file__).resolve().parent.parent
WATCHED = ("medbench", "notebooks", "requirements.txt")     # what "dirty" looks at
FLAGS = ("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_tile",
         "amx_bf16", "amx_int8", "neon", "asimd", "sve", "bf16")
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "fvcore", "captum", "scikit-learn", "pandas", "nilearn",
             "accelerate", "safetensors", "matplotlib", "papermill", "jupyter-book", "sphinx", "onnx", "onnxruntime",
             "openvino", "nvidia-ml-py")


# --------------------------------------------------------------------------------------------- device name
def device_name(device="auto") -> str:
    """The short name under which this device's results are kept, such as `amd-epyc-f25m17-2c`.

    Args:
        device: `"auto"` (the GPU if there is one), `"cpu"`, `"cuda"`, `"cuda:1"` or a `torch.device`.
    Returns:
        Lower-case words joined by hyphens: the processor's name, family, model and cores, or the GPU's name.
    Raises:
        ValueError: unknown device; RuntimeError: `cuda` was asked for and there is none.
    """
    kind = resolve_device(device)
    if kind.type == "cuda":
        import torch
        return slug(torch.cuda.get_device_name(kind))
    cpu = processor()
    codes = f"f{cpu['family']}m{cpu['model']}" if cpu["family"] is not None else platform.machine()
    return slug(f"{cpu['name']} {codes} {cores()}c")


def resolve_device(device="auto"):
    """The `torch.device` that a name stands for; `cuda` without a GPU is an error, never a silent fallback."""
    import torch
    name = str(device)
    one_of("device", name.split(":")[0], ("auto", "cpu", "cuda"))
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda"):
        count = torch.cuda.device_count()
        index = int(name.split(":")[1]) if name.split(":")[1:] and name.split(":")[1].isdigit() else 0
        if index >= count:
            raise RuntimeError(f"device is {name!r} but torch sees {count} CUDA GPUs; use device='cpu' or 'auto', or "
                               f"install a CUDA build of torch (this one is {torch.__version__}) and the GPU's driver")
    return torch.device(name)


def slug(text: str) -> str:
    """Lower-case words joined by hyphens, without the trade-mark signs and filler of processor names."""
    text = re.sub(r"\((r|tm|c)\)|@.*?hz|\bcpu\b|\bprocessor\b|\b\d+-core\b", " ", str(text).lower())
    return "-".join(re.findall(r"[a-z0-9]+", text))


def cores() -> int:
    """Logical processors that may be used: those that the system lets this process use, or fewer where a quota allows
    fewer."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return count if quota is None else max(1, min(count, round(quota)))


# --------------------------------------------------------------------------------------------- what stays
@functools.lru_cache(maxsize=1)
def processor() -> dict:
    """Name, vendor, family, model, stepping and the instruction sets that matter here."""
    found: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip().lower(), value.strip())
    have = (found.get("flags") or found.get("features") or "").split()

    def number(key):
        return int(found[key]) if found.get(key, "").isdigit() else None
    return {"name": found.get("model name") or _mac_brand() or platform.processor() or platform.machine() or "unknown",
            "vendor": found.get("vendor_id"), "architecture": platform.machine(), "family": number("cpu family"),
            "model": number("model"), "stepping": number("stepping"), "flags": [f for f in FLAGS if f in have]}


def cpu_quota() -> float | None:
    """Processors that the control group grants, or `None` where there is no limit."""
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")            # version 2
    if not quota:                                                                        # version 1
        quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
        period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def memory() -> dict:
    """Bytes of memory in the machine and the control group's limit."""
    import psutil
    limit = _read("/sys/fs/cgroup/memory.max").strip() or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes").strip()
    total = psutil.virtual_memory().total
    return {"total_byte": total, "limit_byte": int(limit) if limit.isdigit() and int(limit) < total else None}


def gpu(device="auto") -> dict:
    """Name, memory, driver, clocks and power limit of the GPU; `{"name": None, "reason": ...}` without one."""
    import torch
    kind = resolve_device(device)
    if kind.type != "cuda":
        why = "measured on the CPU" if torch.cuda.is_available() else "torch sees no CUDA GPU"
        return {"name": None, "reason": why}
    facts = torch.cuda.get_device_properties(kind)
    known = {"name": facts.name, "memory_byte": facts.total_memory, "capability": f"{facts.major}.{facts.minor}",
             "multiprocessors": facts.multi_processor_count, "cuda": torch.version.cuda}
    return known | _ask_nvml(kind, lambda nvml, handle: {
        "driver": nvml.nvmlSystemGetDriverVersion(),
        "max_sm_clock_mhz": nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "max_memory_clock_mhz": nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "power_limit_w": nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000})


def _ask_nvml(device, question) -> dict:
    """What NVML answers to `question(nvml, handle)`, or `{"nvml": None, "reason": ...}` where it cannot."""
    import torch
    try:
        import pynvml as nvml
    except ImportError:
        return {"nvml": None, "reason": "nvidia-ml-py is not installed"}
    try:
        nvml.nvmlInit()
        return question(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}"))
    except (nvml.NVMLError, AttributeError) as error:        # no permission, or a part that cannot tell
        return {"nvml": None, "reason": f"NVML: {error}"}


def process_memory(device="auto") -> dict:
    """Bytes that this process holds on the GPU, its context and libraries among them, or None with the reason."""
    def question(nvml, handle):
        listed = {p.pid: p.usedGpuMemory for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        held = listed.get(os.getpid())
        return {"byte": held, **({} if held is not None else
                                 {"reason": "NVML does not tell this process's memory, as in most containers"})}
    return _answer(device, question, "byte")


def energy_counter(device="auto") -> dict:
    """Joules that the GPU has used since its driver was loaded, or None with the reason."""
    return _answer(device, lambda nvml, handle: {
        "joule": nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000}, "joule")


def _answer(device, question, key: str) -> dict:
    """NVML's answer under `key`, or None there with the reason; also where there is no GPU to ask."""
    kind = resolve_device(device)
    if kind.type != "cuda":
        return {key: None, "reason": gpu(device)["reason"]}
    return {key: None} | {k: v for k, v in _ask_nvml(kind, question).items() if k != "nvml"}


def hardware(device="auto") -> dict:
    """Processor, memory, GPU and operating system: what stays the same from run to run."""
    import psutil
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cpu = processor() | {"logical": os.cpu_count(), "physical": psutil.cpu_count(logical=False), "affinity": affinity,
                         "quota": cpu_quota()}
    release = re.match(r"[\d.]*\d", platform.release())        # without a vendor's suffix, which may name a site
    system = {"system": platform.system(), "release": release and release[0], "libc": " ".join(platform.libc_ver())}
    return {"cpu": cpu, "memory": memory(), "gpu": gpu(device), "os": system}


def torch_setup() -> dict:
    """The settings of torch that change how long a sum takes or how it is split."""
    import torch
    return {"threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(), "mkldnn": torch.backends.mkldnn.is_available(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS")}


# --------------------------------------------------------------------------------------------- what changes
def state(device="auto") -> dict:
    """Load, pressure and, on a GPU, clocks, power and throttling at this moment."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    clocks = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*: ([\d.]+)", _read("/proc/cpuinfo"), re.MULTILINE)]
    now = {"load_1min": load, "cpu_pressure": pressure(), "cpu_clock_mhz": max(clocks, default=None)}
    if not clocks:
        now["cpu_clock_mhz_reason"] = "the kernel tells no clock of the processors"
    if now["cpu_pressure"] is None:
        now["cpu_pressure_reason"] = "the kernel offers no /proc/pressure/cpu"
    if resolve_device(device).type == "cuda":
        now["gpu"] = _ask_nvml(resolve_device(device), lambda nvml, handle: {
            "sm_clock_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "temperature_c": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": hex(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))})
    return now


def pressure() -> dict | None:
    """Share of time, in percent, in which some task waited for a processor: over 10, 60 and 300 s."""
    line = re.search(r"some avg10=([\d.]+) avg60=([\d.]+) avg300=([\d.]+)", _read("/proc/pressure/cpu"))
    return dict(zip(("some_avg10", "some_avg60", "some_avg300"), map(float, line.groups()))) if line else None


# --------------------------------------------------------------------------------------------- everything
def machine(device="auto") -> dict:
    """The whole fingerprint: hardware, torch's set-up, the state at this moment, and one hash of processor and GPU."""
    fixed = hardware(device)
    stamp = fingerprint(fixed["cpu"], fixed["gpu"])
    return {**fixed, "torch": torch_setup(), "state": state(device), "fingerprint": stamp}


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that shape a result; `None` for one that is not installed."""
    def version(name):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def git_state(root: Path = ROOT) -> dict:
    """The commit, and whether `medbench/`, `notebooks/` or `requirements.txt` differ from it.

    Returns:
        `{"commit", "dirty", "reason"}`; the first two are `None`, with the reason, where git cannot say.
    """
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != Path(root).resolve():
            return {"commit": None, "dirty": None, "reason": "this copy of medbench is not a git checkout of its own"}
        dirty = bool(_git(root, "status", "--porcelain", "--", *WATCHED))
        return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": dirty, "reason": None}
    except FileNotFoundError:
        return {"commit": None, "dirty": None, "reason": "git is not installed"}
    except subprocess.TimeoutExpired:
        return {"commit": None, "dirty": None, "reason": "git did not answer within 20 s"}
    except subprocess.CalledProcessError as error:
        known = {"not a git repository": "not a git repository", "HEAD": "no commit yet",
                 "dubious ownership": "git distrusts the folder's owner"}
        why = [text for sign, text in known.items() if sign in error.stderr] or [f"git exited with {error.returncode}"]
        return {"commit": None, "dirty": None, "reason": why[0]}


def _git(root, *arguments) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20,
                          env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"})
    return done.stdout.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _mac_brand() -> str | None:
    if platform.system() != "Darwin":
        return None
    done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], check=False, capture_output=True, text=True)
    return done.stdout.strip() or None
