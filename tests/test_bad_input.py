"""Bad input: a clear error before work starts, which names the thing and the fix; nothing is lost.

Every case here is one line that a reader may well type. The message is matched by what it must name.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import medbench as mb
from medbench import machine, results
from medbench.book import start
from medbench.config import ALL_MODELS, EVENING, DataConfig, TrainingConfig
from medbench.experiment import Experiment
from medbench.readers import BOXES

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def refuses(call, *named, error=ValueError):
    """The call raises `error`, and its message, in one line, holds every word of `named`."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    missing = [word for word in named if word not in message]
    assert not missing, f"the message lacks {missing}: {message}"


@pytest.fixture
def no_memory(monkeypatch):
    """Any module that is built, and any training that starts, is a failure: errors have to come before."""
    def built(self, *args, **kwargs):
        raise AssertionError("a module was built before the error came")
    monkeypatch.setattr(torch.nn.Module, "__init__", built)


# --------------------------------------------------------------------------------------------- models and settings
@pytest.mark.parametrize("call, named", [
    (lambda: mb.build_model("fastfromer"), ["model name is 'fastfromer'", "allowed", *ALL_MODELS]),
    (lambda: mb.build_model("softmax", preset="tiny"), ["preset is 'tiny'", "'paper', 'small', 'smoke'"]),
    (lambda: mb.build_model("softmax", setting="exact"), ["setting is 'exact'", "'faithful', 'seed'"]),
    (lambda: mb.build_model("softmax", stem="mlp"), ["stem is 'mlp'", "'patch', 'conv'"]),
    (lambda: mb.build_model("linformer", rank=8), ["rank", "linformer", "r"]),
    (lambda: mb.build_model("softmax", window_size=4), ["window_size", "softmax"]),
    (lambda: mb.build_model("resnet50", window_size=4), ["window_size", "resnet50"]),
    (lambda: mb.build_model("softmax", num_heads=(5, 6, 12, 24)), ["num_heads 5", "embed_dims 96", "divide"]),
    (lambda: mb.build_model("softmax", depths=(2, 2)), ["depths (2, 2)", "number"]),
    (lambda: mb.build_model("softmax", num_classes=0), ["num_classes is 0", "from 1"]),
    (lambda: mb.build_model("linformer", "small", r=4096), ["r", "4096", "256"]),
    (lambda: mb.build_model("window", "small", window_size=5), ["5", "16"]),
    (lambda: mb.build_model("softmax", img_size=225), ["img_size", "225", "patch_size", "7"]),
    (lambda: mb.build_model("softmax", img_size=(224, 230)), ["img_size", "230", "7"]),
    (lambda: mb.build_model("softmax", "small", patch_size=7), ["patch_size is 7", "stem='patch'"]),
    (lambda: mb.build_model("performer", "smoke", attn_drop=0.1), ["attn_drop", "performer"]),
])
def test_models(call, named, no_memory):
    refuses(call, *named)


@pytest.mark.parametrize("call, named", [
    (lambda: mb.profile("desktop"), ["profile is 'desktop'", "'smoke', 'laptop', 'full'"]),
    (lambda: Experiment.preset("small", "fastfromer"), ["model name is 'fastfromer'", "'fastformer'"]),
    (lambda: Experiment.preset("small", "softmax", profile="desktop"), ["profile is 'desktop'", "'laptop'"]),
    (lambda: TrainingConfig(device="tpu"), ["device is 'tpu'", "'auto', 'cpu', 'cuda'"]),
    (lambda: TrainingConfig(epochs=0), ["epochs is 0", "from 1"]),
    (lambda: TrainingConfig(lr="fast"), ["lr is 'fast'", "number"]),
    (lambda: TrainingConfig(loss="dice"), ["loss is 'dice'", "'cross_entropy'", "'focal'"]),
    *[(lambda loss=loss: TrainingConfig(loss=loss, sampling="balanced"),
       ["sampling is 'balanced'", f"loss is '{loss}'", "say sampling='as_is'", "'cross_entropy'"]) for loss in EVENING],
    (lambda: TrainingConfig().replace(learning_rate=1), ["'learning_rate'", "'lr'"]),
    (lambda: DataConfig(prior="flat"), ["prior is 'flat'", "'study', 'sqrt', 'uniform'"]),
    (lambda: DataConfig(img_size=4), ["img_size is 4", "16"]),
    (lambda: DataConfig(img_size=112.5), ["img_size is 112.5", "whole number from 16"]),
    (lambda: DataConfig(num_train=20.5), ["num_train is 20.5", "whole number from 1"]),
    (lambda: TrainingConfig(epochs=1.5), ["epochs is 1.5", "whole number from 1"]),
    (lambda: TrainingConfig(batch_size=2.5), ["batch_size is 2.5", "whole number from 1"]),
    (lambda: Experiment.preset("paper", "xca", batch_size=-1), ["batch_size is -1", "whole number from 1"]),
    (lambda: Experiment.preset("paper", "xca", batch_size="abc"), ["batch_size is 'abc'", "whole number from 1"]),
    (lambda: TrainingConfig(threads=-1), ["threads is -1", "whole number from 0 to 1024"]),
    (lambda: TrainingConfig(betas=1), ["betas is 1", "two numbers"]),
    (lambda: TrainingConfig(betas=(0.9, 2)), ["betas is 2", "from 0 to 1"]),
])
def test_configurations(call, named):
    refuses(call, *named)


def test_a_public_name_that_is_none():
    refuses(lambda: mb.bulid_model, "bulid_model", "build_model", error=AttributeError)


# --------------------------------------------------------------------------------------------- devices
@NO_GPU
@pytest.mark.parametrize("call", [
    lambda: machine.resolve_device("cuda"), lambda: results.here("12_latency", "cuda"),
    lambda: start("05_performer", {"profile": "smoke", "device": "cuda", "seed": 0})])
def test_cuda_without_a_gpu(call):
    refuses(call, "device is 'cuda'", "0 CUDA GPUs", "device='cpu'", error=RuntimeError)


# --------------------------------------------------------------------------------------------- chapters
@pytest.mark.parametrize("changed, named", [
    ({"profil": "smoke"}, ["parameter of 05_performer is 'profil'", "'profile', 'device', 'seed'"]),
    ({"profile": "desktop"}, ["profile is 'desktop'", "'laptop'"]),
    ({"device": "gpu"}, ["device is 'gpu'", "'cuda'"]),
    ({"seed": "1"}, ["seed is '1'", "whole number"]),
])
def test_chapter_parameters(changed, named):
    refuses(lambda: start("05_performer", {"profile": "smoke", "device": "cpu", "seed": 0} | changed), *named)


def test_a_chapter_whose_parameters_were_not_run():
    given = {"profile": "smoke", "device": "cpu"}
    refuses(lambda: start("05_performer", given), "no parameter seed", "first code cell")


# --------------------------------------------------------------------------------------------- real images
@pytest.fixture
def manifest(tmp_path):
    """A function that writes a manifest of twelve images and returns its path; `rows` and `header` may be spoilt."""
    from PIL import Image
    rng = np.random.default_rng(0)
    names = []
    for i in range(12):
        names.append(f"image{i}.png")
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / names[-1])
    labels, splits = ("glioma", "meningioma"), ("train", "val", "test")
    rows = [[name, labels[i % 2], splits[i // 2 % 3]] for i, name in enumerate(names)]

    def write(spoil=lambda rows: rows, header=("path", "label", "split")):
        path = tmp_path / "manifest.csv"
        with open(path, "w", newline="") as stream:
            csv.writer(stream).writerows([header, *spoil([list(row) for row in rows])])
        return str(path)
    return write


def change(row, column, value):
    def spoil(rows):
        rows[row][column] = value
        return rows
    return spoil


def load(source):
    return mb.load_data(DataConfig(source=source, img_size=32), show=False)


def test_the_unspoilt_manifest_loads(manifest):
    assert load(manifest()).classes == ("glioma", "meningioma")


@pytest.mark.parametrize("spoil, header, named, error", [
    (lambda rows: rows, ("path", "class", "split"), ["no column 'label'", "path, class, split"], ValueError),
    (change(4, 2, "holdout"), None, ["split", "line 6", "'holdout'", "'train', 'val', 'test'"], ValueError),
    (change(3, 0, "image99.png"), None, ["1 of 12 images", "image99.png", "relative to the"], FileNotFoundError),
    (lambda rows: [row for row in rows if row[1] == "glioma"], None, ["one class only", "'glioma'", "two"], ValueError),
    (lambda rows: [row for row in rows if row[2] != "val"], None, ["no image in split 'val'"], ValueError),
    (change(2, 1, ""), None, ["line 4", "label is empty"], ValueError),
    (lambda rows: [], None, ["names no image"], ValueError),
    (lambda rows: [[*row, *["0.5"] * 4] for row in rows[:-1]] + [[*rows[-1], "0.5", "0.5", "left", "0.5"]],
     ("path", "label", "split", *BOXES), ["line 13", "box_width is 'left'", "from 0 to 1"], ValueError),
    (lambda rows: [[*row, "0.5", "0.5", "40", "0.5"] for row in rows], ("path", "label", "split", *BOXES),
     ["line 2", "box_width is '40'", "share of the image's side"], ValueError),
    (lambda rows: [[*row, *["0.5"] * 3] for row in rows], ("path", "label", "split", *BOXES[:3]),
     ["no column 'box_height'", "it has path, label, split, box_x_center", "add what is missing"], ValueError),
    (lambda rows: [[*row, *["0.5"] * 4] for row in rows], ("path", "label", "split", "box_x", *BOXES[1:]),
     ["no column 'box_x_center'", "box_x, box_y_center", "misspelt"], ValueError),
])
def test_manifests(manifest, spoil, header, named, error):
    source = manifest(spoil, header or ("path", "label", "split"))
    refuses(lambda: load(source), "manifest.csv", *named, error=error)


def test_a_class_may_be_called_none(manifest):
    source = manifest(lambda rows: [[path, label.replace("glioma", "None"), split] for path, label, split in rows])
    assert load(source).classes == ("None", "meningioma")


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_broken_image_is_named_and_nothing_half_read_is_kept(manifest, tmp_path, monkeypatch, content):
    source = manifest()
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))
    whole = (tmp_path / "image5.png").read_bytes()
    (tmp_path / "image5.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    refuses(lambda: load(source), "image5.png", "1 of 12 images", "no whole image", "replace")
    (tmp_path / "image5.png").write_bytes(whole)
    assert sum(len(getattr(load(source), name)) for name in ("train", "val", "test")) == 12


@pytest.mark.parametrize("source, named, error", [
    ("nowhere.csv", ["'nowhere.csv' does not exist", "'phantom'", "path, label, split"], FileNotFoundError),
    ("phantoms", ["'phantoms' does not exist", "'phantom'"], FileNotFoundError),
])
def test_sources(source, named, error):
    refuses(lambda: load(source), *named, error=error)


@pytest.mark.parametrize("name, content, hint", [
    ("scan.nii.gz", b"\x1f\x8b", "save its slices as PNG"),
    ("scan.nii", b"a volume", "save its slices as PNG"),
    ("images.ZIP", b"PK\3\4", "unpack it"),
    ("manifest.csv.gz", b"", "unpack it"),
    ("manifest.xlsx", b"PK\3\4", "save the table as CSV"),
    ("scan.png", b"", "list images in a manifest"),
    ("scan", b"", "list images in a manifest"),
])
def test_files_that_are_no_manifests(tmp_path, name, content, hint):
    (tmp_path / name).write_bytes(content)
    refuses(lambda: load(str(tmp_path / name)), name, "no manifest (.csv, .tsv, .txt)", "MedMNIST file (.npz)", hint)


@pytest.mark.parametrize("suffix", [".CSV", ".txt", ".tsv"])
def test_a_manifest_may_be_called_otherwise(manifest, tmp_path, suffix):
    renamed = Path(manifest()).rename(tmp_path / f"m{suffix}")
    assert load(str(renamed)).classes == ("glioma", "meningioma")


def test_a_data_folder_that_is_none(monkeypatch):
    monkeypatch.setenv("MEDBENCH_DATA", "/nowhere/at/all")
    refuses(mb.data.data_root, "MEDBENCH_DATA", "/nowhere/at/all", "set it to the folder", error=FileNotFoundError)


# --------------------------------------------------------------------------------------------- records
def test_a_record_file_cut_in_half(tmp_path):
    to = tmp_path / "device" / "11_cost.json"
    results.record("cost.softmax", {"quantity": "macs", "value": 1, "unit": "MAC"}, to=to)
    half = to.read_bytes()[: to.stat().st_size // 2]
    to.write_bytes(half)
    for call in (lambda: results.load(tmp_path), lambda: results.find("cost.softmax.macs", roots=(tmp_path,)),
                 lambda: results.record("cost.softmax", {"quantity": "n", "value": 1, "unit": "1"}, to=to)):
        refuses(call, "11_cost.json", "cut off or damaged", "left as it is", "restore it")
    assert to.read_bytes() == half


# --------------------------------------------------------------------------------------------- inputs of a model
def test_inputs_of_the_wrong_size():
    model = mb.build_model("linformer", "smoke")
    refuses(lambda: model(torch.zeros(1, 1, 128, 128)), "112", "128", "img_size")
    refuses(lambda: mb.cost.profile(model, (112, 112)), "112", "does not run through")
    refuses(lambda: mb.cost.profile("softmax", (1, 3, 224, 224)), "str", "torch.nn.Module", error=TypeError)


# --------------------------------------------------------------------------------------------- training
@pytest.fixture
def data(manifest):
    return load(manifest())


@pytest.mark.parametrize("shape, named", [
    ({"num_classes": 10, "img_size": 32}, ["num_classes=10", "2 classes", "glioma, meningioma", "num_classes=2"]),
    ({"num_classes": 2, "img_size": 64}, ["(64, 64)", "(32, 32)", "img_size"]),
])
def test_a_model_that_does_not_fit_the_data(data, tmp_path, shape, named):
    model = mb.build_model("none", "smoke", depths=(1, 1), embed_dims=(16, 32), num_heads=(1, 2), **shape)
    refuses(lambda: mb.fit(model, data, TrainingConfig(epochs=1), cache=tmp_path, progress=False), *named)
    assert not (tmp_path / "runs").exists()


@NO_GPU
def test_training_on_cuda_without_a_gpu(data, tmp_path):
    model = mb.build_model("none", "smoke", num_classes=2, depths=(1, 1), embed_dims=(16, 32), num_heads=(1, 2))
    training = TrainingConfig(device="cuda")
    refuses(lambda: mb.fit(model, data, training, cache=tmp_path), "'cuda'", "0 CUDA GPUs", "'cpu'", error=RuntimeError)


def test_a_folder_that_holds_no_run(tmp_path):
    missing = tmp_path / "x"
    refuses(lambda: mb.training.load_run(missing), "no readable run.json", "finished run", error=FileNotFoundError)
    (tmp_path / "run.json").write_text('{"finished": tru')
    refuses(lambda: mb.training.load_run(tmp_path), "no readable run.json", error=FileNotFoundError)


# --------------------------------------------------------------------------------------------- class folders
def test_class_folders(tmp_path):
    refuses(lambda: load(tmp_path), "holds no image", "<class>/<image>", ".png")
    (tmp_path / "glioma").mkdir()
    for i in range(30):
        (tmp_path / "glioma" / f"{i}.png").write_bytes(b"x")
    refuses(lambda: load(tmp_path), "one class only", "'glioma'", "two")
