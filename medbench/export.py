r"""One model in several runtimes: exported for one input size, checked against float64, ready to be timed.

What lives here, top to bottom: `Exported` and `export`, which raises where there is no such thing, and `attempt`, which
says so instead; the four runtimes, each a function that turns a module into something to call; the table `RUNTIMES`;
`decisions` and `agreement`, how often an export decides as the model does.

Every runtime gets a copy of the weights, a fixed input size and an explicit number of threads. Eager and compiled
bfloat16 cast the weights, which is faster than autocast: that casts the input of each operator anew. int8 is dynamic
quantisation: int8 weights of the matrix products, activations quantised as they come.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .checks import one_of, whole
from .files import without_folders
from .latency import Candidate, budget, graphed
from .latency.timing import prepared
from .machine import cores, resolve_device
from .metrics import Score
from .onnxfile import NotSupported, onnx_file

DTYPES = ("float32", "bfloat16", "int8")
NO_QUANTISATION = ("torch has no maintained dynamic quantisation of its own: torch.ao.quantization is deprecated in "
                   "favour of the package torchao")


# --------------------------------------------------------------------------------------------- what comes out
@dataclass(frozen=True)
class Exported:
    """A model in a runtime. `run` takes a tensor of exactly `input_size` and returns float32 logits.

    `seconds` {"export", "first_call"}: until it could be called, compilation included, and that call. `reported`: what
    the runtime says of itself, `precision` and `threads` at least. `error`: largest deviation from float64 on two
    images, as a share of the largest output. `reason`: None, or why there is no such thing or why it may not be timed.
    """

    runtime: str
    dtype: str
    input_size: tuple[int, ...]
    run: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    reported: dict = field(default_factory=dict)
    error: float | None = None
    reason: str | None = None
    device: str = "cpu"

    def candidate(self, exact: Callable[[Tensor], Tensor]) -> Candidate:
        """What `latency.compare` times; `exact` is the model in float64.

        Raises: ValueError: there is nothing to call.
        """
        if self.run is None:
            raise ValueError(f"{self.runtime} {self.dtype} cannot be timed: {self.reason}")
        return Candidate("", self.run, exact, self.dtype, self.runtime)


@dataclass(frozen=True)
class Built:
    """What a runtime makes of a module: `call` from a tensor to a tensor, what the runtime says of itself, and the
    seconds that a file took which was found ready: a cold start has to make it."""

    call: Callable[[Tensor], Tensor]
    reported: dict
    spared: float = 0.0


# --------------------------------------------------------------------------------------------- export
def export(module: nn.Module, input_size: tuple[int, ...], runtime: str, dtype: str = "float32", threads: int = 0,
           workdir=None, device="cpu") -> Exported:
    """Bring a model into a runtime, and measure how far its output is from float64.

    Args:
        module: with float32 weights on the CPU; neither it nor its mode is changed.
        input_size: the only size that the result takes, (batch, channels, height, width) in pixels.
        runtime: one of `RUNTIMES`. dtype: one of `DTYPES`. threads: 0 for all cores.
        workdir: a folder for this module alone, where its ONNX files stay and are found again; none by default.
        device: `"cpu"`, `"cuda"` or `"auto"`; the result takes tensors that are there.
    Returns:
        `Exported`; its `reason` says so if the error is beyond the dtype's budget.
    Raises:
        ModuleNotFoundError: the runtime's package is not installed. NotSupported: the runtime has no such dtype or
        device, or lacks what it needs on this machine. ValueError: an unknown name or number. RuntimeError: no GPU.
    """
    one_of("runtime", runtime, tuple(RUNTIMES))
    one_of("dtype", dtype, DTYPES)
    whole("threads", threads, 0)
    kind, threads, place = RUNTIMES[runtime], threads or cores(), resolve_device(device)
    if missing := [package for package in kind.packages if not installed(package)]:
        raise ModuleNotFoundError(f"{', '.join(missing)} not installed; wanted by {runtime}: pip install .[runtimes]")
    for lacking in (dtype, place.type):
        if lacking in kind.lacks:
            raise NotSupported(kind.lacks[lacking])
    module = copy.deepcopy(module).cpu().eval()
    x = torch.randn(tuple(input_size), generator=torch.Generator().manual_seed(0))
    with _folder(workdir) as folder, prepared([], place, threads):
        wanted = copy.deepcopy(module).double()(x[:2].double())
        module, x = module.to(place), x.to(place)
        for build in kind.builds:                        # the second is for where the first computes something wrong
            found = _export(build, module, x, wanted, runtime, dtype, threads, folder)
            if found.reason is None:
                break
    return found


def attempt(module: nn.Module, input_size: tuple[int, ...], runtime: str, dtype: str = "float32", threads: int = 0,
            workdir=None, device="cpu") -> Exported:
    """As `export`, but a runtime that is missing or cannot do it becomes the result's `reason`."""
    try:
        return export(module, input_size, runtime, dtype, threads, workdir, device)
    except ModuleNotFoundError as error:
        why = f"not installed: {error}"
    except (NotSupported, RuntimeError, NotImplementedError) as error:      # what the runtimes' own failures are
        why = f"not supported: {without_folders(' '.join(str(error).split()))[:300]}"
    return Exported(runtime, dtype, tuple(input_size), reason=why)


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def deviation(got: Tensor, wanted: Tensor) -> float:
    """Largest deviation as a share of the largest wanted output."""
    return float((got.double().cpu() - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))


def _export(build, module, x, wanted, runtime, dtype, threads, folder) -> Exported:
    """Build, call once, and compare with float64."""
    start = time.perf_counter()
    built = build(module, x, dtype, threads, folder)
    middle = time.perf_counter()
    got = built.call(x).cpu()                                # which waits for a GPU
    seconds = {"export": middle - start + built.spared, "first_call": time.perf_counter() - middle}
    error = deviation(got[:2], wanted) if got.shape == (len(x), *wanted.shape[1:]) else float("inf")
    allowed = budget(dtype, x.device)
    reason = None if error <= allowed else (f"output differs from float64 by {error:.2g} of its largest value; {dtype} "
                                            f"may differ by {allowed:g}")
    run = _of_size(built.call, tuple(x.shape), threads)
    return Exported(runtime, dtype, tuple(x.shape), run, seconds, built.reported, error, reason, str(x.device))


def _of_size(call, size: tuple[int, ...], threads: int):
    """The call for one input size alone, without autograd and with that many threads of torch."""
    def run(x: Tensor) -> Tensor:
        if tuple(x.shape) != size:
            raise ValueError(f"exported for an input of {size} but received {tuple(x.shape)}; export it for that size")
        before = torch.get_num_threads()
        if before != threads:
            torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                return call(x)
        finally:
            if before != threads:
                torch.set_num_threads(before)
    return run


def _folder(workdir):
    """The folder for files: the one that was given, or one that vanishes."""
    if workdir is None:
        return tempfile.TemporaryDirectory()
    Path(workdir).mkdir(parents=True, exist_ok=True)
    return contextlib.nullcontext(workdir)


# --------------------------------------------------------------------------------------------- torch
def _eager(module, x, dtype, threads, folder) -> Built:
    """torch as it is, weights in `dtype`."""
    kind = getattr(torch, dtype)
    cast = module if kind == torch.float32 else copy.deepcopy(module).to(kind)
    return Built(lambda x: cast(x.to(kind)).float(),
                 {"precision": str(next(cast.parameters()).dtype).removeprefix("torch."),
                  "threads": torch.get_num_threads()})


def _compile(module, x, dtype, threads, folder) -> Built:
    """torch.compile with its default backend, weights frozen into the graph, compiled here and not at the first call.

    All models of one class share the code that is compiled, so torch's limit on versions of it is raised: beyond it a
    model would fall back to eager.
    """
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor
    compiler = os.environ.get("CXX", "g++")
    if x.device.type == "cpu" and not shutil.which(compiler):
        raise NotSupported(f"torch.compile needs a C++ compiler and there is no {compiler}; install g++, or name "
                           f"another in CXX")
    kind = getattr(torch, dtype)
    cast = copy.deepcopy(module).to(kind)
    compiled = torch.compile(cast, fullgraph=True, dynamic=False)
    with inductor.patch({"freezing": True, "cpp.threads": threads, "compile_threads": min(threads, cores())}), \
            dynamo.patch(recompile_limit=1000, accumulated_recompile_limit=10_000), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(x.to(kind))
    return Built(lambda x: compiled(x.to(kind)).float(),
                 {"precision": str(kind).removeprefix("torch."), "threads": threads, "compiler": compiler})


def _cudagraph(module, x, dtype, threads, folder) -> Built:
    """All kernels of one call as a CUDA graph, weights in `dtype`: nothing is started one by one."""
    kind = getattr(torch, dtype)
    graph = graphed(copy.deepcopy(module).to(kind), x.to(kind), x.device)
    return Built(lambda x: graph.run(x.to(kind)).float(),
                 {"precision": str(kind).removeprefix("torch."), "threads": torch.get_num_threads()})


# --------------------------------------------------------------------------------------------- through ONNX
def _onnxruntime(module, x, dtype, threads, folder) -> Built:
    """ONNX Runtime's CPU provider. Its threads do not spin after a call: they would disturb the next model."""
    import onnxruntime
    (path, spared), options = onnx_file(module, x, folder, dtype == "int8"), onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    precision = {"tensor(float)": "float32"}.get(session.get_inputs()[0].type, session.get_inputs()[0].type)
    return Built(lambda x: torch.from_numpy(session.run(None, {"images": x.contiguous().numpy()})[0]),
                 {"precision": precision, "threads": session.get_session_options().intra_op_num_threads,
                  "weight_dtype": dtype, "version": onnxruntime.__version__}, spared)


def _openvino(module, x, dtype, threads, folder, fusions: bool = True) -> Built:
    """OpenVINO's CPU plugin, one stream, with the precision that was asked for: it would choose bfloat16 by itself."""
    import openvino
    (path, spared), wanted = onnx_file(module, x, folder, dtype == "int8"), "bf16" if dtype == "bfloat16" else "f32"
    asked = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": wanted}
    asked |= {} if fusions else {"SNIPPETS_MODE": "DISABLE"}
    core = _openvino_core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", asked)
    said = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if said != wanted:
        raise NotSupported(f"OpenVINO was asked for {wanted} and reports {said}: this processor has no {wanted}")
    request = compiled.create_infer_request()
    return Built(lambda x: torch.from_numpy(request.infer([x.contiguous().numpy()], share_inputs=True)[0]),
                 {"precision": {"f32": "float32", "bf16": "bfloat16"}[said], "weight_dtype": dtype, "fusions": fusions,
                  "threads": compiled.get_property("INFERENCE_NUM_THREADS"), "version": openvino.__version__}, spared)


@functools.cache
def _openvino_core():
    """The one core of this process, which stays to its end.

    Each core puts a stack for signal handlers in place, and puts the one before it back when it goes. With two cores
    that go in the order in which they came, what is put back is memory that is no longer there, and the next signal
    with a handler (Ctrl+C, or the end of a worker that loads images) ends the process.
    """
    import openvino
    return openvino.Core()


def _openvino_unfused(module, x, dtype, threads, folder) -> Built:
    """Without the fused attention of OpenVINO 2026.4, which is wrong by some percent for the heads of tiny models."""
    return _openvino(module, x, dtype, threads, folder, fusions=False)


# --------------------------------------------------------------------------------------------- the table
@dataclass(frozen=True)
class Runtime:
    """How to build: `builds`, tried in that order; the `packages` that takes; `lacks` {dtype or device: why}."""

    builds: tuple[Callable, ...]
    packages: tuple[str, ...] = ()
    lacks: dict[str, str] = field(default_factory=dict)


RUNTIMES = {
    "eager": Runtime((_eager,), lacks={"int8": NO_QUANTISATION}),
    "compile": Runtime((_compile,), lacks={"int8": NO_QUANTISATION}),
    "cudagraph": Runtime((_cudagraph,), lacks={"int8": NO_QUANTISATION, "cpu": "a CUDA graph needs a GPU"}),
    "onnxruntime": Runtime((_onnxruntime,), ("onnx", "onnxruntime"),
                           {"bfloat16": "ONNX Runtime's CPU provider has no bfloat16 kernels for most operators",
                            "cuda": "only ONNX Runtime's CPU provider is used here"}),
    "openvino": Runtime((_openvino, _openvino_unfused), ("onnx", "onnxruntime", "openvino"),
                        {"cuda": "OpenVINO does not run on CUDA GPUs"}),
}


# --------------------------------------------------------------------------------------------- the same decisions
def decisions(run: Callable[[Tensor], Tensor], images: Tensor, batch: int = 16, device="cpu") -> Tensor:
    """The class that a model or an export decides for, of each image `(n, channels, height, width)`; `(n,)`.

    The last batch is filled up with the first image, since an export takes one size alone. `device`: where `run` is.
    """
    found, place = [], resolve_device(device)
    for part in images.split(batch):
        filled = torch.cat([part, *[images[:1]] * (batch - len(part))])
        with torch.inference_mode():
            found.append(run(filled.to(place))[:len(part)].argmax(1).cpu())
    return torch.cat(found)


def agreement(exported: Exported, images: Tensor, decided: Tensor) -> Score:
    """Share of images on which an export decides as the model itself did in eager float32.

    Args: `images` (n, channels, height, width); `decided` (n,) from `decisions` of the model, in evaluation mode.
    Returns: `Score`, n images and Wilson's 95 % interval. Raises: ValueError: no images, or nothing to call.
    Source: Wilson 1927, Journal of the American Statistical Association 22.
    """
    from scipy.stats import binomtest
    if exported.run is None:
        raise ValueError(f"{exported.runtime} has nothing to call: {exported.reason}")
    if not len(images):
        raise ValueError(f"0 images for {exported.runtime}; wanted at least 1")
    same = int(torch.eq(decisions(exported.run, images, exported.input_size[0], exported.device), decided).sum())
    interval = binomtest(same, len(images)).proportion_ci(0.95, method="wilson")
    return Score(same / len(images), float(interval.low), float(interval.high), len(images))
