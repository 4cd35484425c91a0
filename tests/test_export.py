"""A model in several runtimes: each computes the same, says what it is, and a wrong one is found out."""

import copy
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

from medbench import config, export, latency, onnxfile
from medbench.models import build_model

SIZE = (2, 1, 112, 112)
CELLS = [(name, dtype) for name, kind in export.RUNTIMES.items() for dtype in export.DTYPES
         if not {dtype, "cpu"} & set(kind.lacks)]
QUICK = [cell for cell in CELLS if cell[0] != "compile"]


def needs(runtime):
    for package in export.RUNTIMES[runtime].packages:
        if not export.installed(package):
            pytest.skip(f"{package} is not installed")
    if runtime == "compile" and not shutil.which("g++"):
        pytest.skip("g++ is not installed")


class Tiny(nn.Module):
    """A convolution, a linear map, a softmax over tokens, quickly compiled."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.proj, self.mid, self.head = nn.Conv2d(1, 12, 16, stride=16), nn.Linear(12, 12), nn.Linear(12, 7)

    def forward(self, x):
        x = self.proj(x).flatten(2).transpose(1, 2)
        return self.head(x + self.mid(x).softmax(1)).mean(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder a model, so that each is exported once for all runtimes."""
    return {name: tmp_path_factory.mktemp(name) for name in config.ALL_MODELS}


# --------------------------------------------------------------------------------------------- the same function
@pytest.mark.parametrize("runtime, dtype", QUICK)
@pytest.mark.parametrize("name", config.ALL_MODELS)
def test_every_model_computes_the_same_in_every_runtime(name, runtime, dtype, folders):
    needs(runtime)
    model = build_model(name, "smoke")
    if (name, dtype) == ("resnet50", "int8"):
        with pytest.raises(export.NotSupported, match="matrix products, which hold [0-9]+% of this model's weights"):
            export.export(model, SIZE, runtime, dtype, 1, folders[name])
        return
    made = export.export(model, SIZE, runtime, dtype, 1, folders[name])
    x = torch.randn(SIZE, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        error = export.deviation(made.run(x), copy.deepcopy(model).eval().double()(x.double()))
    assert made.reason is None and made.error <= latency.BUDGETS[dtype]
    assert error <= latency.BUDGETS[dtype] and (error > 1e-4 or dtype == "float32")
    assert made.run(x).dtype == torch.float32 and not made.run(x).requires_grad
    assert made.reported["threads"] == 1
    assert made.reported["precision"] == (dtype if dtype == "bfloat16" else "float32")
    assert made.seconds["export"] > 0 and made.seconds["first_call"] > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_compiled_model_computes_the_same(dtype):
    needs("compile")
    made = export.export(Tiny(), SIZE, "compile", dtype, 1)
    assert made.reason is None and made.error <= latency.BUDGETS[dtype]
    assert made.seconds["export"] > made.seconds["first_call"]
    assert made.reported["precision"] == dtype


def test_models_of_one_class_are_each_compiled_and_do_not_mix(monkeypatch):
    needs("compile")
    monkeypatch.setattr("torch._dynamo.config.recompile_limit", 1)       # as if there were more models than it allows
    models = [nn.Sequential(nn.Linear(3, 2)).requires_grad_(False) for _ in range(3)]
    made = [export.export(model, (2, 3), "compile", threads=1) for model in models]
    x = torch.randn(2, 3)
    for model, one in zip(models, made):
        assert torch.allclose(model(x), one.run(x), atol=1e-6)


def test_neither_the_module_nor_torch_is_changed():
    model, threads = Tiny().train(), torch.get_num_threads()
    before = copy.deepcopy(model.state_dict())
    made = export.export(model, SIZE, "eager", "bfloat16", threads + 1)
    assert made.reported["threads"] == threads + 1 and torch.get_num_threads() == threads
    made.run(torch.zeros(SIZE))
    assert torch.get_num_threads() == threads and model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# --------------------------------------------------------------------------------------------- a wrong one
class Spoiled(Tiny):
    """Computes something else as soon as it is not in float64, as an export with a wrong weight would."""

    def forward(self, x):
        return super().forward(x) + (0 if x.dtype == torch.float64 else 0.01)


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
def test_a_wrong_export_is_found_out_and_not_timed(runtime):
    needs(runtime)
    made = export.export(Spoiled(), SIZE, runtime, threads=1)
    assert made.error > 1e-3 and "output differs from float64 by" in made.reason
    right = export.export(Tiny(), SIZE, "eager", threads=1)
    models = {"right": right.candidate(copy.deepcopy(Tiny()).double()),
              "wrong": made.candidate(copy.deepcopy(Tiny()).double())}
    found = latency.compare(models, SIZE, rounds=1, seconds=0.1, threads=1, device="cpu")
    assert found["right"].median > 0 and found["right"].runtime == "eager"
    assert found["wrong"].median is None and "output differs from float64" in found["wrong"].reason


def test_a_build_that_computes_something_wrong_gives_way_to_the_next(monkeypatch):
    wrong = lambda module, *rest: export._eager(Spoiled(), *rest)                                       # noqa: E731
    kind = export.RUNTIMES["eager"]
    monkeypatch.setitem(export.RUNTIMES, "eager", export.Runtime((wrong, *kind.builds)))
    assert export.export(Tiny(), SIZE, "eager", threads=1).error < 1e-6


def test_openvino_without_its_fused_attention_where_that_is_wrong(folders):
    needs("openvino")
    made = export.export(build_model("softmax", "smoke"), SIZE, "openvino", "float32", 1, folders["softmax"])
    assert made.error < 1e-4 and made.reported["fusions"] in (True, False)


def test_models_in_openvino_leave_signals_as_they_were():
    """Two models that go in the order in which they came; then Ctrl+C, with a stack for handlers set up before."""
    needs("openvino")
    script = """
import faulthandler, os, signal, tempfile
import torch
from medbench import export
faulthandler.enable()                                    # puts the stack in place
signal.signal(signal.SIGINT, lambda *_: print("handled"))
with tempfile.TemporaryDirectory() as folder:
    made = [export.export(torch.nn.Flatten(), (2, 1, 8, 8), "openvino", "float32", 1, folder) for _ in range(2)]
    assert made.pop(0).reason is None and made.pop(0).reason is None
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr[-2000:]


def test_a_cold_start_counts_the_file_that_was_found_ready(tmp_path):
    needs("onnxruntime")
    [first, second] = [onnxfile.onnx_file(Tiny(), torch.zeros(SIZE), tmp_path) for _ in range(2)]
    assert first[0] == second[0] and first[1] == 0 < second[1]
    assert export.export(Tiny(), SIZE, "onnxruntime", "float32", 1, tmp_path).seconds["export"] > second[1]


def test_agreement_counts_decisions_and_fills_up_the_last_batch():
    model = Tiny().eval()
    made = export.export(model, SIZE, "eager", threads=1)
    images = torch.randn(5, *SIZE[1:], generator=torch.Generator().manual_seed(0))
    same = export.agreement(made, images, export.decisions(model, images, batch=2))
    assert (same.value, same.n) == (1.0, 5) and 0.5 < same.low < 0.6 and same.high == 1
    other = Tiny().eval()
    with torch.no_grad():
        other.head.bias[model(images).argmax(1)[0]] -= 100
        alike = int((model(images).argmax(1) == other(images).argmax(1)).sum())
    assert alike < 5 and export.agreement(made, images, export.decisions(other, images)).value == alike / 5


# --------------------------------------------------------------------------------------------- what cannot be
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_missing_package_raises_in_direct_use_and_is_a_reason_in_a_table(runtime, monkeypatch):
    monkeypatch.setattr(export, "installed", lambda package: package != runtime)
    with pytest.raises(ModuleNotFoundError, match=rf"{runtime} not installed; .* pip install \.\[runtimes\]"):
        export.export(Tiny(), SIZE, runtime)
    made = export.attempt(Tiny(), SIZE, runtime)
    assert made.run is None and made.reason.startswith(f"not installed: {runtime}")
    with pytest.raises(ValueError, match="cannot be timed: not installed"):
        made.candidate(Tiny())
    with pytest.raises(ValueError, match="has nothing to call: not installed"):
        export.agreement(made, torch.zeros(SIZE), torch.zeros(SIZE[0]))


def test_a_device_that_a_runtime_does_not_have_is_a_reason():
    assert export.attempt(Tiny(), SIZE, "cudagraph").reason == "not supported: a CUDA graph needs a GPU"
    if not torch.cuda.is_available():
        why = export.attempt(Tiny(), SIZE, "eager", device="cuda").reason
        assert why.startswith("not supported: device is 'cuda' but torch sees 0 CUDA GPUs")


def test_without_a_compiler_there_is_a_reason(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    made = export.attempt(Tiny(), SIZE, "compile", threads=1)
    assert made.reason.startswith("not supported: torch.compile needs a C++ compiler and there is no g++")


@pytest.mark.parametrize("runtime, dtype, words", [
    ("eager", "int8", "no maintained dynamic quantisation"), ("compile", "int8", "torchao"),
    ("onnxruntime", "bfloat16", "CPU provider has no bfloat16")])
def test_what_a_runtime_lacks_is_said(runtime, dtype, words):
    needs(runtime)
    with pytest.raises(export.NotSupported, match=words):
        export.export(Tiny(), SIZE, runtime, dtype)
    assert words in export.attempt(Tiny(), SIZE, runtime, dtype).reason


@pytest.mark.parametrize("options, words", [
    ({"runtime": "tvm"}, "runtime is 'tvm'; allowed: 'eager', 'compile', 'cudagraph', 'onnxruntime', 'openvino'"),
    ({"dtype": "float16"}, "dtype is 'float16'; allowed: 'float32', 'bfloat16', 'int8'"),
    ({"threads": -1}, "threads is -1; wanted a whole number from 0 on")])
def test_wrong_names_are_refused_before_any_work(options, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        export.export(None, SIZE, **{"runtime": "eager", **options})


def test_another_size_than_the_exported_one_is_refused():
    made = export.export(Tiny(), SIZE, "eager", threads=1)
    with pytest.raises(ValueError, match=r"exported for an input of \(2, 1, 112, 112\) but received \(1, 1, 112, 112"):
        made.run(torch.zeros(1, 1, 112, 112))
