"""The command line: every example of its help runs, and every error is one line that says what is allowed."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from miniature import breastmnist, radimagenet

from medbench import checks, commands, config, console, measuring, results
from medbench.__main__ import app, data_app, main
from medbench.config import ALL_MODELS, MODELS
from medbench.experiment import Experiment

# commands that take long
LONG = ("book", "campaign", "ceiling", "grid", "throughput", "peers", "scaling", "runtimes", "device-report")
TINY = "--set num_train=24 --set num_val=12 --set num_test_per_class=2 --set threads=1".split()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a manifest of 18 images and two scans; records of the module's commands go there too."""
    from PIL import Image
    folder = tmp_path_factory.mktemp("work")
    rng, lines = np.random.default_rng(0), ["path,label,split"]
    for i in range(18):
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{('glioma', 'meningioma', 'pituitary')[i % 3]},{('train', 'val', 'test')[i // 6]}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    Image.new("L", (40, 40)).save(folder / "blank.png")
    (folder / "other-hospital.csv").write_text("path,label\n" + "\n".join(f"{i}.png,edema" for i in range(4)))
    radimagenet(folder / "RadImageNet", levels=("MR/brain/normal", "MR/brain/edema"))
    breastmnist(folder / "breastmnist.npz")
    return folder


@pytest.fixture(autouse=True)
def inside(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("MEDBENCH_RESULTS", str(place / "results"))
    monkeypatch.delenv("MEDBENCH_DEBUG", raising=False)


@pytest.fixture(scope="module")
def run(place):
    """The name of one tiny trained run; it and another stand in a table."""
    rows = commands.train(["fastformer", "softmax"], "smoke", "phantom", None, 0, "cpu",
                          console.assignments(TINY[1::2]))
    (place / "runs.csv").write_text("\n".join(["run", *(row["run"] for row in rows)]))
    return rows[0]["run"]


def succeeds(capsys, *arguments) -> str:
    """Run a command that has to succeed; returns what it printed."""
    capsys.readouterr()
    code = main(list(map(str, arguments)))
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def fails(capsys, *arguments) -> str:
    """Run a command that has to fail; returns its one line of complaint, the last after any progress bars."""
    capsys.readouterr()
    code = main(list(map(str, arguments)))
    printed = capsys.readouterr()
    assert code == 2 and printed.out == "", (code, printed.out)
    *before, last = re.split(r"[\r\n]+", printed.err.strip())
    assert last.startswith("error: ") and all(re.match("|reading|drawing", line) for line in before), printed.err
    return last


# --------------------------------------------------------------------------------------------- help and its examples
def examples() -> list[str]:
    commands = [*app.registered_commands, *data_app.registered_commands]
    lines = [line for info in commands for line in (info.epilog or "").splitlines()]
    return [line.removeprefix("  python -m medbench ") for line in lines if line.startswith("  python -m medbench ")]


def shrunk(example: str, run: str) -> list[str]:
    """An example as it stands, but tiny: the smoke preset, this module's run and files, any device."""
    words = shlex.split(re.sub(r" > .*", "", example))
    swap = {"small": "smoke", "3f2a": run[:6], "runs/3f2a": run, "9c41": run, "cuda": "cpu", "all": "none,resnet50",
            "16": "2", "brain-tumor-mri/manifest.csv": "manifest.csv", "scan.png": "0.png", "scan1.png": "1.png",
            "scan2.png": "2.png", "scans/*.png": "3.png"}
    swap |= {"paper": "smoke"} if words[0] == "train" else {}
    words = [swap.get(word, word) for word in words]
    short = "--set epochs=1 --set threads=1".split() if "--data" in words else TINY
    more = {"train": short, "evaluate": ["--bootstrap", "5"], "latency": ["--rounds", "1", "--seconds", "1"]}
    if words[0] in ("train", "cost", "latency") and "--preset" not in words:
        words += ["--preset", "smoke"]
    return words + more.get(words[0], []) + (["--comparisons", "2"] if "--self-test" in words else [])


def test_help_lists_the_commands_and_each_has_examples(capsys):
    names = ("train", "data", "evaluate", "predict", "cost", "latency", "peers", "scaling", "runtimes",
             "device-report", "explain", "grid", "campaign", "ceiling", "survive", "throughput", "book")
    overview = succeeds(capsys)
    assert overview == succeeds(capsys, "--help") and "not for clinical use" in " ".join(overview.split())
    for name in names:
        assert re.search(rf"^  {name} .*\.$", overview, re.M), f"{name} has no short description that fits"
        if name not in ("book", "data"):
            assert f"Examples:\n    python -m medbench {name}" in succeeds(capsys, name, "--help")
    assert "Examples:\n    python -m medbench data check" in succeeds(capsys, "data", "check", "--help")
    assert "Examples:\n    python -m medbench train" in overview


@pytest.mark.parametrize("example", [e for e in examples() if e.split()[0] not in LONG])
def test_every_example_runs(capsys, example, run):
    printed = succeeds(capsys, *shrunk(example, run))
    assert printed or "--out" in example


@pytest.mark.parametrize("arguments", [["book"], ["book", "--help"]])
def test_the_book_explains_itself(capsys, arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0 and "Examples:\n  python -m medbench book build" in capsys.readouterr().out


def test_the_book_passes_its_arguments_on(capsys):
    with pytest.raises(SystemExit) as left:
        main(["book", "bild"])
    assert left.value.code == 2 and "invalid choice: 'bild'" in capsys.readouterr().err


def test_python_m_medbench_starts_and_fails_without_a_traceback():
    line = [sys.executable, "-m", "medbench", "cost", "--preset", "tiny"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: preset is 'tiny'; allowed: 'paper', 'small', 'smoke'\n"


# --------------------------------------------------------------------------------------------- what they print
def test_train_tells_the_run_and_a_second_time_loads_it(capsys, run):
    [row] = json.loads(succeeds(capsys, "train", "--model", "fastformer", "--preset", "smoke", "--device", "cpu", *TINY,
                                "--format", "json"))
    assert row["run"] == run and row["loaded"] is True and row["samples_seen"] == 24
    assert {"val_balanced_accuracy", "val_macro_auroc"} <= set(row)


def test_train_says_which_run_it_goes_on_with(capsys, run, monkeypatch):
    call = ["train", "--model", "fastformer", "--preset", "smoke", "--device", "cpu", *TINY]
    assert main(call) == 0
    assert f"fastformer: run {run} is finished" in capsys.readouterr().err
    monkeypatch.setattr(commands.checkpoint, "last_step", lambda folder: 7)
    assert main(call) == 0
    assert f"fastformer: run {run} goes on from step 7" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")                          # of several processes the first one speaks
    assert main(call) == 0
    assert "goes on" not in capsys.readouterr().err


def test_evaluate_scores_with_intervals_and_records(capsys, run):
    printed = succeeds(capsys, "evaluate", run, "--bootstrap", "20", "--record", "10_training", "--format", "csv")
    [row] = csv.DictReader(io.StringIO(printed))
    assert float(row["macro_auroc_low"]) <= float(row["macro_auroc"]) <= float(row["macro_auroc_high"])
    found = results.value("phantom.fastformer.macro_auroc", chapter="10_training", roots=(results.results_root(),))
    assert found == float(row["macro_auroc"])


def test_a_table_puts_the_interval_behind_its_value():
    stream = io.StringIO()
    rows = [{"model": "a", "x": 0.5, "x_low": 0.4, "x_high": 0.6}, {"model": "b", "x": float("nan")},
            {"model": "c", "x": -2.3e-16}]
    console.show(rows, stream=stream)
    assert stream.getvalue().splitlines() == ["model               x", "a      0.5 [0.4, 0.6]",
                                              "b                   -", "c                   0"]


@pytest.mark.parametrize("form, said", [("table", "nothing to show"), ("json", "[]"), ("csv", "")])
def test_no_rows_are_no_error(form, said):
    stream = io.StringIO()
    console.show([], form, stream)
    assert stream.getvalue().strip() == said


def test_caveats_of_all_rows_stand_once_below_the_table_and_in_each_row_of_a_file():
    rows, said = [{"model": name, "caveats": "no patient ids"} for name in "ab"], []
    for rows_, form in ((rows, "table"), (rows, "csv"), ([*rows, {"model": "c"}], "table")):
        stream = io.StringIO()
        console.show(rows_, form, stream)
        said.append(stream.getvalue().splitlines())
    assert said[0] == ["model", "a", "b", "caveats: no patient ids"] and said[1][1:] == ["a,no patient ids",
                                                                                         "b,no patient ids"]
    assert said[2][0].split() == ["model", "caveats"] and said[2][-1].split() == ["c", "-"]


def test_predict_gives_a_probability_for_each_class(capsys, run):
    rows = list(csv.DictReader(io.StringIO(succeeds(capsys, "predict", run, "0.png", "1.png"))))
    assert [row["path"] for row in rows] == ["0.png", "1.png"]
    for row in rows:
        chances = {key: float(value) for key, value in row.items() if key not in ("path", "decision")}
        assert len(chances) == 10 and abs(sum(chances.values()) - 1) < 1e-9
        assert row["decision"] == max(chances, key=chances.get)


def test_predict_decides_as_evaluate_does(run):
    from medbench import data, training
    images = np.stack([data.read_image(f"{i}.png", 112) for i in range(4)])
    opened = training.load_run(commands.run_folder(run))
    wanted = (training.predict(opened.model, images) - np.log(opened.prior)).argmax(1)
    rows = commands.predict(run, [f"{i}.png" for i in range(4)], "cpu")
    assert [row["decision"] for row in rows] == [opened.classes[i] for i in wanted]


def test_predict_needs_nothing_but_the_folder(capsys, run, monkeypatch, tmp_path):
    folder = commands.run_folder(run)
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path))
    assert succeeds(capsys, "predict", folder, "0.png").startswith("path,decision,")


def test_cost_reproduces_the_studys_column(capsys):
    rows = json.loads(succeeds(capsys, "cost", "--models", "linformer", "--setting", "seed", "--num-classes", "1000",
                               "--format", "json"))
    assert [row["params"] for row in rows] == [28_562_812] and abs(rows[0]["macs_fvcore"] / 1.5613e9 - 1) < 5e-3


def test_cost_and_latency_record(capsys):
    succeeds(capsys, "cost", "-m", "window,none", "--preset", "smoke", "--record", "11_cost")
    succeeds(capsys, "latency", "-m", "none", "--preset", "smoke", "--rounds", "1", "--seconds", "1", "--record",
             "12_latency", "--device", "cpu")
    table = results.load(results.results_root())
    assert set(table.loc[table.chapter == "11_cost", "model"]) == {"window", "none"}
    assert (table.quantity == "latency").any() and set(table.loc[table.chapter == "11_cost", "preset"]) == {"smoke"}


def test_explain_draws_a_png(capsys, run):
    from PIL import Image
    said = succeeds(capsys, "explain", run, "0.png", "--target", "edema", "--out", "e.png")
    assert said.startswith("e.png: integrated_gradients for 'edema' by fastformer; completeness error")
    assert Image.open("e.png").size[0] > 500


def test_names_of_models():
    assert commands.model_names(["all"]) == list(MODELS)
    others = [name for name in MODELS if name != "window"]
    assert commands.model_names(["window,none", "window", "all"]) == ["window", "none", *others]


@pytest.mark.parametrize("given, said", [
    (["seed=3"], "--set got seed; say --seed 3"), (["preset=paper"], "--set got preset; say --preset"),
    (["options=3"], "--set got options; say each option by its name")])
def test_what_has_an_option_of_its_own_is_not_set(given, said):
    with pytest.raises(ValueError, match=said):
        console.assignments(given)


@pytest.mark.parametrize("overrides, said", [
    ({"epoch": 3}, "'epoch' is no field of the model, the data or the training; did you mean 'epochs'"),
    ({"min_lr": "x"}, "min_lr is 'x'; wanted a number from 0"),
    ({"label_smoothing": 2}, "label_smoothing is 2; wanted a number from 0 to 1"),
    ({"depht": 3}, "has no option 'depht'|no such part")])
def test_a_slip_in_a_field_is_found_before_any_work(overrides, said):
    with pytest.raises(ValueError, match=said):
        commands.train(["softmax"], "smoke", "phantom", None, 0, "cpu", overrides)


@pytest.mark.parametrize("name", ALL_MODELS)
def test_no_option_of_a_mechanism_looks_like_a_slip(name):
    for preset in config.PRESETS:
        for setting in config.SETTINGS:
            given = dict(config.model_config(name, preset, setting).options)
            assert dict(Experiment.preset(preset, name, setting=setting, **given).model.options) == given


def test_a_grid_of_several_processes_is_refused():
    with pytest.raises(ValueError, match="a grid trains each run in one process; leave processes out"):
        commands.grid(["none"], [0], "smoke", "phantom", None, "cpu", {"processes": 2}, {}, False, 3, False)


def test_values_typed_on_the_command_line():
    given = ["r=16", "lpi=true", "depths=(1,2)", "lr=1e-3", "precision=float32", "loss=logit_adjustment"]
    assert console.assignments(given) == {"r": 16, "lpi": True, "depths": (1, 2), "lr": 1e-3, "precision": "float32",
                                          "loss": "logit_adjustment"}


# --------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize("line, named", [
    ("trian", ["'trian'", "allowed: train, grid, evaluate, predict, cost, latency, peers, throughput"]),
    ("cost --modle softmax", ["--modle", "allowed: --model, --preset"]),
    ("cost --models softmax,fastfromer", ["model name is 'fastfromer'", *ALL_MODELS]),
    ("cost --preset tiny", ["preset is 'tiny'", "'paper', 'small', 'smoke'"]),
    ("cost --setting exact", ["setting is 'exact'", "'faithful', 'seed'"]),
    ("cost --batch x", ["--batch", "integer", "cost --help"]),
    ("cost --batch 0", ["--batch", "greater than or equal to 1"]),
    ("cost --format xml", ["format is 'xml'", "'table', 'csv', 'json'"]),
    ("cost -m softmax --img-size 225", ["img_size", "225", "patch_size 7"]),
    ("cost -m softmax --set r", ["--set got 'r'", "name=value"]),
    ("cost -m softmax --set r=4", ["softmax", "'r'"]),
    ("cost --record ../x", ["chapter is '../x'", "10_training"]),
    ("train", ["--model", "train --help"]),
    ("train -m softmax --profile desktop", ["profile is 'desktop'", "'laptop'"]),
    ("train -m softmax --device tpu", ["device is 'tpu'", "'cuda'"]),
    ("train -m softmax --set epochs=0", ["epochs is 0", "from 1"]),
    ("train -m softmax --set num_heads=(5,5,5,5)", ["num_heads 5", "divide"]),
    ("train -m softmax --data manifest.csv --set num_train=10", ["num_train", "phantom alone", "epochs=N"]),
    ("grid -m none --data manifest.csv --vary difficulty=0.5,1", ["difficulty", "phantom alone"]),
    ("train -m softmax --set source=manifest.csv", ["--set got source", "--data"]),
    ("train -m softmax --set num_classes=3", ["--set got num_classes", "classes of its data"]),
    ("train -m , ", ["--model names no model", *ALL_MODELS]),
    ("train -m softmax --set depths=2", ["depths is 2", "each stage"]),
    ("train -m softmax --set threads=100000", ["threads is 100000", "1024"]),
    ("train -m softmax --set lr=1e999", ["lr is inf"]),
    ("train -m softmax --set qkv_bias=no", ["qkv_bias is 'no'", "True, False"]),
    ("train -m softmax --set lerning_rate=3", ["no option 'lerning_rate'", "every model has: setting"]),
    ("predict RUN 0.png --out .", ["--out cannot be written", "is a folder"]),
    ("data check manifest.csv --out 0.png/x.json", ["--out cannot be written", "0.png"]),
    ("predict RUN blank.png", ["1 of 1 images", "is blank, every pixel is 0"]),
    ("train -m softmax --data nowhere.csv", ["nowhere.csv", "does not exist", "path, label, split"]),
    ("evaluate ffff", ["no finished run 'ffff'"]),
    ("predict RUN", ["IMAGES"]),
    ("predict RUN 0.png gone.png manifest.csv", ["2 of 3 images", "gone.png", "manifest.csv"]),
    ("evaluate RUN --data manifest.csv", ["knows the classes acute_infarct", "manifest.csv' has images of glioma"]),
    ("evaluate runs.csv --compare xca", ["compare is 'xca'", "allowed: 'fastformer', 'softmax'"]),
    ("evaluate manifest.csv", ["no rows with a column 'run'", "images are named with --data"]),
    ("explain RUN 0.png --method magic", ["method is 'magic'", "'integrated_gradients'", "'occlusion'"]),
    ("explain RUN 0.png --target tumour", ["target is 'tumour'", "'edema'"]),
    ("explain RUN 0.png --out e.jpg", ["'e.jpg'", ".png"]),
    ("latency --rounds 0", ["--rounds", "greater than or equal to 1"]),
])
def test_errors(capsys, line, named, run):
    said = fails(capsys, *(run if word == "RUN" else word for word in line.split()))
    missing = [word for word in named if word not in said]
    assert not missing, f"{said!r} lacks {missing}"


@pytest.mark.parametrize("words", [["train", "-m", "none"], ["evaluate", "RUN"]])
def test_an_empty_source_is_not_the_default(capsys, words, run):
    words = [run if word == "RUN" else word for word in words]
    assert "data source '' does not exist" in fails(capsys, *words, "--data", "")


def test_a_file_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: Path(path) != tmp_path)      # root may write anywhere
    with pytest.raises(ValueError, match="--out cannot be written: nothing can be written in .*; give permission"):
        checks.writable("--out", tmp_path / "more" / "x.json")
    monkeypatch.undo()
    checks.writable("--out", tmp_path / "more" / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_a_class_called_like_a_column_is_refused(monkeypatch):
    found = SimpleNamespace(classes=("path", "x")), np.zeros((1, 8, 8), np.uint8)
    monkeypatch.setattr(commands, "_run_and_images", lambda *_: found)
    with pytest.raises(ValueError, match="a class called 'path', like a column"):
        commands.predict("run", ["x.png"], "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("command", ["train -m none", "latency -m none", "predict RUN 0.png", "explain RUN 0.png"])
def test_cuda_without_a_gpu(capsys, command, run):
    words = [run if word == "RUN" else word for word in command.split()]
    assert "device is 'cuda' but torch sees 0 CUDA GPUs" in fails(capsys, *words, "--device", "cuda")


@pytest.mark.parametrize("line", ["evaluate {}", "predict {} 0.png", "explain {} 0.png", "runtimes --run {}"])
def test_a_pickle_is_no_run(capsys, tmp_path, line):
    (tmp_path / "weights.pt").write_bytes(b"anything")
    assert "is a pickle, and reading a pickle runs any code" in fails(
        capsys, *line.format(tmp_path / "weights.pt").split())


def test_nothing_is_drawn_before_an_error(capsys, monkeypatch):
    def drawn(*_, **__):
        raise AssertionError("work began before the error")
    monkeypatch.setattr(commands, "load_data", drawn)
    assert "'rank'" in fails(capsys, "train", "-m", "softmax,linformer", "--preset", "smoke", "--set", "rank=8")


def test_an_interruption_says_that_nothing_is_lost(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(measuring, "cost", interrupted)
    assert main(["cost", "-m", "none", "--preset", "smoke"]) == 130
    assert "goes on where this one was" in capsys.readouterr().err


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch):
    def broken(*_):
        raise KeyError("a bug")
    monkeypatch.setattr(measuring, "cost", broken)
    with pytest.raises(KeyError):
        main(["cost", "-m", "none", "--preset", "smoke"])


@pytest.mark.parametrize("of, file", [("MRI", "manifest.csv"), ("BREAST", "breastmnist.npz")])
def test_real_images_are_scored_and_recorded(capsys, place, monkeypatch, of, file):
    from medbench.book import benchmark, real
    from medbench.experiment import Experiment
    of = getattr(real, of)

    def tiny(name, seed=0, device="auto", of=None):
        source = str(place / file)
        return Experiment.preset("smoke", name, seed, source=source, device="cpu", num_train=6, epochs=1)
    monkeypatch.setattr(real, "experiment", tiny)
    rows = real.record_real(of, ("none",), device="cpu", bootstrap=5)
    assert [row["name"] for row in rows] == ["intensity_statistics", "thumbnails_28", "nearest_neighbour", "none"]
    table = results.load(results.results_root())
    table = table[table.chapter == of.chapter]
    assert set(table[~table.quoted].source) == {of.source} and str(place) not in "".join(table.name)
    assert {"balanced_accuracy", "images", "training_seconds"} <= set(table.quantity)
    assert set(table.name.str.split(".").str[0]) <= {of.name, "work0", place.name.lower()}
    if of is real.BREAST:
        shown = benchmark.beside_published(benchmark.real_records("cpu", of.chapter))
        assert shown["from"].value_counts().to_dict() == {"published": 7, "here": 1, "here, no network": 4}
        assert shown.loc["google-automl-vision"].to_dict() == {"from": "published", "AUC": "0.919", "ACC": "0.861"}
        assert "[" in shown.loc["none", "AUC"]


def test_peers_are_timed_beside_ours_and_recorded(capsys, monkeypatch):
    from medbench import contests, peers
    monkeypatch.setattr(contests, "SHAPES", {"tiny": (16, 12, 3)})
    for module in (contests, peers):
        monkeypatch.setattr(module, "installed", lambda peer: peer.package == "timm")
    asked = "--mechanism xca --batch 1 --seconds 0.1 --record 12_peers --format csv".split()
    printed = succeeds(capsys, "peers", *asked)
    assert printed.count("xca,timm,tiny,1,") == 4                        # two dtypes, forward and both passes
    names = set(results.load(results.results_root()).name)
    assert {"peers.xca.timm.ratio.tiny.b1.float32.forward", "peers.mean_ratio.xca"} <= names
    assert "mechanism is 'xcit'; allowed: 'softmax'" in fails(capsys, "peers", "--mechanism", "xcit")


def test_the_ceiling_is_recorded(capsys, place, monkeypatch):
    from medbench.book import ceiling
    monkeypatch.setattr(ceiling, "EPOCHS", 1)
    assert "resnet18" in succeeds(capsys, "ceiling", "--profile", "smoke", "--device", "cpu")
    table = results.load(results.results_root())
    table = table[table.chapter == ceiling.CHAPTER].set_index("name")
    assert table.loc["phantom.resnet18.samples_seen"].value == 160 and set(table.profile) == {"smoke"}
    assert 0 <= table.loc["phantom.resnet18.balanced_accuracy"].value <= 1


def test_real_mri_says_where_to_put_the_data(capsys, monkeypatch):
    monkeypatch.setenv("MEDBENCH_DATA", "/nowhere/at/all")
    assert "MEDBENCH_DATA is '/nowhere/at/all', which is no folder; set it" in fails(capsys, "campaign", "real-mri")
