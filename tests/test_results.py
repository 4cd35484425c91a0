"""Records: exact, complete, safe for several writers, and silent about whose computer made them."""

import getpass
import json
import math
import multiprocessing
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from medbench import machine, results
from medbench.config import DataConfig, ModelConfig, TrainingConfig
from medbench.experiment import Experiment
from medbench.records import Record, ResultFile, read, write


class Measured:
    """Stands for anything with rows()."""

    def __init__(self, *rows):
        self._rows = list(rows)

    def rows(self):
        return self._rows


def row(quantity="macs", value=1.5, unit="MAC", **more):
    return {"quantity": quantity, "value": value, "unit": unit, **more}


@pytest.fixture
def to(tmp_path):
    return tmp_path / "some-device" / "11_cost.json"


@pytest.fixture
def experiment():
    return Experiment(ModelConfig("fastformer", preset="smoke", seed=3), DataConfig(), TrainingConfig())


# --------------------------------------------------------------------------------------------- writing
def test_a_record_comes_back_to_the_last_bit(to):
    exact = np.float32(0.1)
    results.record("cost.softmax", Measured(row(value=exact, low=0.05, high=np.float64(1 / 3), n=np.int64(7),
                                                samples=np.array([0.1, 0.2]))), to=to, batch=16)
    [one] = read(to).records
    assert (one.value, one.high, one.n, one.samples) == (float(exact), 1 / 3, 7, [0.1, 0.2])
    assert (one.name, one.model, one.context) == ("cost.softmax.macs", "softmax", {"batch": 16})
    assert isinstance(json.loads(to.read_text())["records"][0]["value"], float)


def test_whole_numbers_stay_whole(to):
    results.record("cost.softmax", row("params", 28_280_776, "parameters"), to=to)
    assert '"value": 28280776,' in to.read_text()


def test_same_name_and_seed_replaces_and_another_seed_adds(to, experiment):
    results.record(experiment, row("accuracy", 0.5, "1"), to=to)
    results.record(experiment, row("accuracy", 0.6, "1"), to=to)
    results.record(experiment, row("accuracy", 0.7, "1"), to=to, seed=4)
    assert [(r.name, r.seed, r.value) for r in read(to).records] == [
        ("phantom.fastformer.accuracy", 3, 0.6), ("phantom.fastformer.accuracy", 4, 0.7)]


def test_begin_drops_what_is_no_longer_measured(to):
    results.record("cost.softmax", row("old_quantity"), to=to)
    results.begin(to, profile="smoke")
    results.record("cost.softmax", row("macs"), to=to)
    file = read(to)
    assert [r.quantity for r in file.records] == ["macs"] and file.profile == "smoke"


def test_an_experiment_names_model_seed_and_fingerprints(to, experiment):
    [one] = results.record(experiment, row("recall", 0.9, "1", suffix="acute_infarct"), to=to)
    assert one.name == "phantom.fastformer.recall.acute_infarct"
    assert (one.model, one.seed, one.context["preset"]) == ("fastformer", 3, "smoke")
    assert one.fingerprints["model"] == experiment.model.fingerprint
    assert one.fingerprints["machine"] == machine.machine("cpu")["fingerprint"]


@pytest.mark.parametrize("suffix, name", [
    ("stages.0", "stages.0"), ("b16", "b16"), (16, "16"), ("Glioma I", "glioma_i")])
def test_a_suffix_ends_the_name(to, suffix, name):
    assert results.record("cost.none", row(suffix=suffix), to=to)[0].name == f"cost.none.macs.{name}"


def test_a_data_set_is_named_by_its_folder_and_no_path_is_kept(to, experiment, tmp_path):
    source = tmp_path / "Brain-tumor-MRI" / "manifest.csv"
    here = experiment.replace(data=experiment.data.replace(source=str(source)))
    [one] = results.record(here, row(), to=to)
    assert one.name.startswith("brain-tumor-mri.fastformer.")
    assert str(tmp_path) not in to.read_text()
    moved = here.replace(data=here.data.replace(source="elsewhere/Brain-tumor-MRI/manifest.csv"))
    assert results.record(moved, row(), to=to)[0].fingerprints == one.fingerprints


def test_a_source_stands_beside_every_row_and_a_rows_own_wins(to):
    results.record("cost.none", [row("a"), row("b", source="page 3")], to=to, source="somebody, CC BY 4.0")
    assert [r.source for r in read(to).records] == ["somebody, CC BY 4.0", "page 3"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan"), torch.tensor(float("-inf"))])
def test_what_is_not_a_number_becomes_null_with_a_reason(to, bad):
    results.record("cost.softmax", row(value=bad, low=math.nan, samples=[1.0, math.nan]), to=to, extra=math.nan)
    text = to.read_text()
    assert "NaN" not in text and "Infinity" not in text
    [one] = read(to).records
    assert one.value is None and "came out as" in one.reason and one.low is None and one.samples == [1.0, None]


@pytest.mark.parametrize("broken, message", [
    (row(unit="seconds"), "unit of cost.softmax.macs is 'seconds'; allowed: '1', 'ms'"),
    (row(value=None), "has no value; give the reason"),
    (row(valeu=2), "valeu"),
    ({"value": 2}, "has no 'quantity'"),
    (row(quantity="MACs of it"), "wanted lower-case parts"),
    (row(quoted=True), "is quoted; give its source"),
    (row(context={"model": "a"}), "columns already"),
])
def test_a_row_that_does_not_fit_is_refused_and_the_file_kept(to, broken, message):
    results.record("cost.softmax", row("kept"), to=to)
    before = to.read_bytes()
    with pytest.raises(ValueError, match=message):
        results.record("cost.softmax", row("fine"), broken, to=to)
    assert to.read_bytes() == before


def test_what_cannot_be_recorded_is_named(to):
    with pytest.raises(TypeError, match=r"cannot record a float; wanted an object with rows\(\)"):
        results.record("cost.softmax", 3.0, to=to)
    with pytest.raises(TypeError, match="subject is a int"):
        results.record(3, row(), to=to)


# --------------------------------------------------------------------------------------------- several writers, damage
def _write_ten(to, who):
    torch.set_num_threads(1)
    for i in range(10):
        results.record(f"cost.w{who}", row(f"q{i}", float(i)), to=to)


def test_parallel_writers_lose_nothing(to):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_ten, args=(to, who)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(read(to).records) == 40
    assert not list(to.parent.glob("*.tmp"))


@pytest.mark.parametrize("call", [
    lambda to: results.record("cost.softmax", row(), to=to), lambda to: results.begin(to),
    lambda to: results.load(to.parent.parent)])
def test_a_file_cut_in_half_is_named_and_left_alone(to, call):
    results.record("cost.softmax", row(), to=to)
    half = to.read_bytes()[: to.stat().st_size // 2]
    to.write_bytes(half)
    with pytest.raises(ValueError, match=r"11_cost\.json is cut off or damaged \(line \d+\); it was left as it"):
        call(to)
    assert to.read_bytes() == half


def test_a_crash_while_writing_leaves_the_old_file(to, monkeypatch):
    results.record("cost.softmax", row(value=1.0), to=to)
    before = to.read_bytes()

    def crash(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        results.record("cost.softmax", row(value=2.0), to=to)
    assert to.read_bytes() == before
    assert [p.name for p in to.parent.iterdir() if not p.name.endswith(".lock")] == [to.name]


def test_a_newer_schema_and_a_foreign_file_are_refused(to):
    to.parent.mkdir(parents=True)
    to.write_text('{"schema_version": 99, "device": "a", "chapter": "b"}')
    with pytest.raises(ValueError, match="schema version 99 and this medbench reads up to 1; update medbench"):
        read(to)
    to.write_text('{"hello": 1}')
    with pytest.raises(ValueError, match="does not fit the schema"):
        read(to)


# --------------------------------------------------------------------------------------------- reading
@pytest.mark.parametrize("recipes, moments, stays", [
    (("6", "6"), ("2026-01-01", "2026-02-01"), "made"), (("6", "6"), ("2026-02-01", "2026-01-01"), "committed"),
    (("6", "6"), ("2026-01-01", "2026-01-01"), "made"), (("6", "5"), ("2026-01-01", "2026-02-01"), "committed"),
    (("5", "6"), ("2026-02-01", "2026-01-01"), "made")])
def test_of_two_records_that_of_the_later_recipe_stays_and_then_that_of_the_later_file(
        tmp_path, monkeypatch, recipes, moments, stays):
    monkeypatch.setattr(results, "edition_root", lambda: tmp_path / "committed")
    for place, recipe, moment in zip(("committed", "made"), recipes, moments):
        print_of = {"fingerprints": {"recipe": recipe}}
        both = [Record(name="x.right", quantity="right", value=1.0, unit="1", text=place, **print_of),
                Record(name=f"x.{place}", quantity="right", value=1.0, unit="1", **print_of)]
        write(tmp_path / place / "some-device" / "10_x.json",
              ResultFile(device="some-device", chapter="10_x", created=moment, records=both))
    to = tmp_path / "made" / "some-device" / "10_x.json"
    results.resume(to)
    found = {r.name: r.text for r in read(to).records}
    assert found == {"x.right": stays, "x.committed": None, "x.made": None}


@pytest.fixture
def roots(tmp_path):
    edition, made = tmp_path / "edition", tmp_path / "made"
    here = machine.device_name()
    for root, device, chapter, value in ((edition, here, "12_latency", 1.0), (made, here, "12_latency", 2.0),
                                         (edition, "other-gpu", "12_latency", 3.0)):
        to = root / device / f"{chapter}.json"
        results.record("latency.softmax", row("latency", value, "ms", suffix="b1"), to=to, batch=1)
        results.record("latency.window", row("latency", value + 1, "ms", suffix="b1"), to=to, batch=1)
    results.record("cost.softmax", row("macs", 1910000000.0, "MAC", quoted=True, source="a study"),
                   to=edition / results.STUDY / "11_cost.json")
    return edition, made


def test_load_is_one_tidy_table_and_the_later_folder_wins(roots):
    table = results.load(*roots)
    assert len(table) == 5
    assert list(table.loc[table.model == "softmax", "value"]) == [2.0, 3.0, 1910000000.0]
    assert {"device", "chapter", "name", "quantity", "value", "unit", "batch", "quoted"} <= set(table.columns)
    assert "context" not in table.columns


def test_load_of_nothing_is_an_empty_table(tmp_path):
    table = results.load(tmp_path)
    assert len(table) == 0 and "quantity" in table.columns


def test_wide_puts_units_in_column_names_and_refuses_to_choose(roots):
    table = results.load(*roots)
    with pytest.raises(ValueError, match=r"2 rows for one place of the table.*'device'"):
        results.wide(table[table.quantity == "latency"])
    wide = results.wide(table, index=["device", "model"])
    assert list(wide.columns) == ["device", "model", "latency_ms", "macs"]
    assert list(results.wide(table, "model", aggregate="mean")["latency_ms"]) == [2.5, 3.5]
    with pytest.raises(ValueError, match="index is 'modle'; allowed"):
        results.wide(table, "modle")


@pytest.mark.parametrize("quantity, unit, column", [
    ("latency", "ms", "latency_ms"), ("macs_fvcore", "MAC", "macs_fvcore"), ("params", "parameters", "params"),
    ("peak_memory", "byte", "peak_memory_byte"), ("throughput", "images/s", "throughput_images_per_s"),
    ("flops", "FLOP", "flops"), ("matmul", "FLOP/s", "matmul_flop_per_s"), ("accuracy", "1", "accuracy"),
    ("gain", "percentage point", "gain_points"), ("seconds", "s", "seconds"), ("loss", "s", "loss_s"),
    ("latency_ms", "ms", "latency_ms")])
def test_column_names(quantity, unit, column):
    assert results.column_name(quantity, unit) == column


def test_find_prefers_this_device_and_asks_when_in_doubt(roots):
    name = "latency.softmax.latency.b1"
    assert results.value(name, roots=roots) == 2.0
    assert results.value(name, device="other-gpu", roots=roots) == 3.0
    assert results.find("cost.softmax.macs", device=results.STUDY, roots=roots).quoted
    with pytest.raises(LookupError, match="it is in study-2022/11_cost"):
        results.find("cost.softmax.macs", roots=roots)
    with pytest.raises(LookupError, match="near it: latency.softmax.latency.b1"):
        results.find("latency.sofmax.latency.b1", roots=roots)
    with pytest.raises(LookupError, match="there are no records; run the chapter"):
        results.find("anything.at_all", chapter="99_none", roots=roots)


def test_find_takes_the_summary_of_several_seeds_and_else_asks(to, experiment):
    for seed in (0, 1):
        results.record(experiment, row("accuracy", seed / 10, "1"), to=to, seed=seed)
    root = (to.parent.parent,)
    assert results.value("phantom.fastformer.accuracy", seed=1, roots=root) == 0.1
    with pytest.raises(LookupError, match="2 records .*seed 0.*seed 1.*say which"):
        results.find("phantom.fastformer.accuracy", roots=root)
    results.record("phantom.fastformer", row("accuracy", 0.05, "1"), to=to)
    assert results.value("phantom.fastformer.accuracy", roots=root) == 0.05


def test_a_null_says_why_when_its_value_is_asked_for(to):
    results.record("cost.softmax", row("energy", None, "J", reason="no NVML here"), to=to)
    with pytest.raises(LookupError, match="has no value: no NVML here"):
        results.value("cost.softmax.energy", roots=(to.parent.parent,))


# --------------------------------------------------------------------------------------------- machine
def test_where_results_go(monkeypatch, tmp_path):
    assert results.here("05_performer").relative_to(machine.ROOT).parts[:2] == ("_build", "results")
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path))
    assert results.here("05_performer", "cpu") == tmp_path / machine.device_name("cpu") / "05_performer.json"
    with pytest.raises(ValueError, match="chapter is '../x'; wanted lower-case"):
        results.here("../x")


@pytest.mark.parametrize("name, short", [
    ("Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", "intel-xeon-platinum-8488c"), ("AMD EPYC", "amd-epyc"),
    ("AMD Ryzen 9 5950X 16-Core Processor", "amd-ryzen-9-5950x"), ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3")])
def test_device_slugs(name, short):
    assert machine.slug(name) == short


def test_an_absent_gpu_is_an_error_not_a_fallback():
    with pytest.raises(ValueError, match="device is 'tpu'; allowed: 'auto', 'cpu', 'cuda'"):
        machine.device_name("tpu")
    index = torch.cuda.device_count()
    with pytest.raises(RuntimeError, match=f"device is 'cuda:{index}' but torch sees {index} CUDA GPUs; use"):
        machine.device_name(f"cuda:{index}")


def test_the_fingerprint_names_hardware_and_nobody(to):
    results.record("cost.softmax", row(), to=to)
    file = read(to)
    assert file.machine["cpu"]["name"] and file.machine["memory"]["total_byte"] > 0
    assert file.machine["torch"]["threads"] == torch.get_num_threads() and file.versions["torch"]
    text = to.read_text()
    private = {platform.node(), str(Path.home()), os.getcwd(), str(machine.ROOT)} - {""}
    assert not [word for word in private if word in text]
    assert f'"{getpass.getuser()}"' not in text


def test_git_says_commit_and_dirt_and_only_where_it_matters(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
                       check=True, capture_output=True)
    assert machine.git_state(tmp_path)["reason"] == "not a git repository"
    git("init")
    assert machine.git_state(tmp_path)["reason"] == "no commit yet"
    (tmp_path / "requirements.txt").write_text("torch\n")
    git("add", ".")
    git("commit", "-m", "first")
    clean = machine.git_state(tmp_path)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "README.md").write_text("a reader's note")
    assert machine.git_state(tmp_path)["dirty"] is False
    (tmp_path / "medbench").mkdir()
    (tmp_path / "medbench" / "new.py").write_text("")
    assert machine.git_state(tmp_path)["dirty"] is True
    assert "not a git checkout of its own" in machine.git_state(tmp_path / "medbench")["reason"]


def test_without_git_the_commit_is_null_with_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.git_state() == {"commit": None, "dirty": None, "reason": "git is not installed"}


def test_a_quoted_record_needs_a_source():
    assert Record(name="a.b", quantity="b", value=1, quoted=True, source="page 3").source == "page 3"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not bind processes to processors")
def test_processors_that_this_process_may_not_use_do_not_count(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5})          # as a scheduler of jobs sets it
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    assert machine.cores() == 3
    monkeypatch.setattr(machine, "cpu_quota", lambda: 1.6)
    assert machine.cores() == 2


def test_a_record_of_the_second_gpu_is_stamped_with_the_second(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(results, "device_name", lambda place: {"cuda:0": "gpu-a", "cuda:1": "gpu-b"}.get(place, "cpu"))
    monkeypatch.setattr(results, "machine", lambda place: {"name": place, "fingerprint": "x"})
    for name, place in (("gpu-a", "cuda:0"), ("gpu-b", "cuda:1"), ("cpu", "cpu"), ("elsewhere", "auto")):
        to = tmp_path / name / "10_training.json"
        results.record("a.b", {"quantity": "top1", "value": 0.5, "unit": "1"}, to=to)
        assert read(to).machine["name"] == place
