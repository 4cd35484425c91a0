"""medbench, and timm after it, can be imported where torchvision's compiled operators do not load."""

import subprocess
import sys

import pytest

HIDE_OPERATORS = """
import torch
def refuse(path):
    raise OSError("built for another torch")
torch.ops.load_library = refuse
"""


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_without_operators_timm_alone_dies_and_medbench_first_cures_it():
    alone = in_a_fresh_process(HIDE_OPERATORS + "import timm")
    assert alone.returncode != 0 and "operator torchvision::nms does not exist" in alone.stderr
    cured = in_a_fresh_process(HIDE_OPERATORS + """
import medbench, timm
from torchvision.transforms import v2
assert medbench._torchvision.DECLARED is not None
x = v2.Resize(64)(torch.zeros(1, 3, 80, 80))
for name in ("resnet18", "medbench_softmax"):
    size = {"preset": "smoke", "in_chans": 3, "img_size": 64} if "medbench" in name else {}
    assert timm.create_model(name, num_classes=3, **size)(x).shape == (1, 3)
""")
    assert cured.returncode == 0, cured.stderr


def test_as_installed_medbench_imports_and_leaves_working_operators_alone():
    result = in_a_fresh_process("""
import medbench, torch
loaded = medbench._torchvision.operators_load()
assert (medbench._torchvision.DECLARED is None) == loaded
import torchvision
assert torchvision.extension._has_ops() == loaded
""")
    assert result.returncode == 0, result.stderr


def test_importing_medbench_needs_torch_timm_and_numpy_alone():
    """Nor does counting and timing need more: everything else is refused here as if it were not installed."""
    result = in_a_fresh_process("""
import sys
others = ("pandas pydantic sklearn scipy captum matplotlib fvcore nilearn nibabel psutil typer papermill nbformat "
          "platformdirs pynvml onnx onnxruntime openvino linformer sphinx docutils").split()
class Rest:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in others else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Rest(finder) for finder in sys.meta_path]
import medbench as mb
model = mb.build_model("softmax", "smoke")
mb.Experiment.preset("smoke", model="xca")
assert mb.cost.profile(model, (1, 1, 112, 112)).macs > 0
found = mb.latency.compare({"softmax": model}, (1, 1, 112, 112), rounds=1, seconds=0.1, device="cpu")
assert found["softmax"].median > 0
print(*[name for name in others if name in sys.modules])
""")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_an_unknown_public_name_is_refused_with_the_known_ones():
    import medbench as mb

    with pytest.raises(AttributeError, match="medbench has no 'trian'; it has: .*build_model.*"):
        mb.trian  # noqa: B018
    assert set(mb.__all__) <= set(dir(mb))
