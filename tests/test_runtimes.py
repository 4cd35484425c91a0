"""All models in every runtime: the order with ties, what is missing with its reason, records that are not redone."""

import json

import numpy as np
import pytest
import torch

from medbench import commands, export, latency, results, runtimes
from medbench.__main__ import main
from medbench.latency import Ceilings, Comparison, Round, Timing
from medbench.latency.timing import Disturbance
from medbench.models import build_model

SIZE = (2, 1, 112, 112)
LIMITS = Ceilings({"float32": 1e11}, 1e10, "cpu", 1, Disturbance(0.0, 0.0), {"float32": [1e11], "copy": [1e10]})


def played(takes, rounds=20, floor=0.02, spread=0.005, pressure=0.0):
    """A comparison of models that took these seconds."""
    rng, names = np.random.default_rng(0), tuple(takes)
    done = [Round(names, 1.0, Disturbance(pressure, 0.0), {name: [(s * np.exp(spread * rng.normal()),) * 2]
                                                            for name, s in takes.items()}) for _ in range(rounds)]
    timings = {name: Timing(name, 1, "float32", "eager", median=s) for name, s in takes.items()}
    return Comparison(timings, names[0], (1.0, 1.0, 1.0), floor, tuple(done), "rounds", 1.0, 1, "cpu")


def test_ranks_share_a_place_where_models_cannot_be_told_apart():
    assert runtimes.ranks(played({"a": 1.0, "b": 1.001, "c": 0.9, "d": 2.0})) == {"c": 1, "a": 2, "b": 2, "d": 4}
    assert runtimes.ranks(played({"a": 1.0, "b": 0.9}, floor=0.2)) == {"a": 1, "b": 1}
    assert runtimes.ranks(played({"a": 1.0, "b": 0.5}, spread=2.0)) == {"a": 1, "b": 1}


def test_too_few_quiet_rounds_give_no_order():
    assert runtimes.ranks(played({"a": 1.0, "b": 2.0}, rounds=4)) == {}
    assert runtimes.ranks(played({"a": 1.0, "b": 2.0}, pressure=0.9)) == {}


def line(model, rank=None, latency=None, runtime="eager", reason=None):
    return {"model": model, "rank": rank, "latency_ms": latency, "runtime": runtime, "dtype": "float32", "batch": 1,
            "reason": reason}


def test_the_order_in_words_and_the_best_runtime():
    table = [line("softmax", 3, 9.0), line("window", 1, 3.0), line("xca", 1, 3.1), line("none", None, reason="wrong")]
    assert runtimes.order(table) == "window = xca < softmax"
    other = [line("softmax", 1, 2.0, "openvino"), line("window", 1, 4.0, "openvino"),
             line("xca", 1, 1.0, runtimes.BEST)]
    assert runtimes.best(table + other, 1, "float32") == {"softmax": "openvino", "window": "eager", "xca": "eager"}
    assert runtimes.best(table, 16, "float32") == {}
    first, second, _ = runtimes.ranking(table + other)
    assert (first["order"], first["reason"]) == ("window = xca < softmax", None)
    assert second["order"] == "softmax = window"
    assert runtimes.ranking([line("a", reason="not installed: x")])[0]["reason"] == "not installed: x"


def test_a_group_has_a_row_for_every_model_and_says_why_one_is_missing(monkeypatch, tmp_path):
    models = {name: build_model(name, "smoke") for name in ("softmax", "none")}
    attempt = export.attempt
    monkeypatch.setattr(runtimes, "attempt", lambda model, *rest: attempt(model, *rest) if model is models["softmax"]
                        else export.Exported("eager", "float32", SIZE, error=0.5, reason="output differs"))
    monkeypatch.setattr(latency, "ceilings", lambda *_, **__: LIMITS)
    images = torch.randn(3, *SIZE[1:])
    decided = {name: export.decisions(model.eval(), images) for name, model in models.items()}
    found = runtimes.measure(models, "eager", "float32", SIZE, seconds=0.3, threads=1, images=images, decided=decided)
    good, bad = found.lines()
    assert good["latency_ms"] > 0 and good["ratio"] == 1 and good["verdict"] == "reference"
    assert good["class_agreement"] == 1 and 0 < good["roofline_share"] and good["output_error"] < 1e-4
    assert bad["latency_ms"] is None and bad["reason"] == "output differs" and bad["output_error"] == 0.5
    to = tmp_path / "cpu" / "12_runtimes.json"
    for name, rows in found.rows.items():
        made = results.record(f"runtime.eager.float32.{name}", rows, to=to)
        assert {record.model for record in made} == {name} and len({record.name for record in made}) == len(made)
        assert all(len(record.samples or ()) <= 40 for record in made)
        assert f"runtime.eager.float32.{name}.latency.b2" in {record.name for record in made}


def test_samples_are_thinned_evenly():
    timing = latency.Timing("xca", 1, "float32", "eager", samples=tuple(range(1000)))
    assert timing.thinned().samples == tuple(range(0, 1000, 25))
    assert latency.thinned(range(1000), 3) == range(0, 1000, 334)
    assert latency.Timing("xca", 1, "float32", "eager").thinned().samples == ()


def test_int8_has_no_share_of_a_roofline_and_says_so():
    [row] = runtimes._roof(export.Exported("onnxruntime", "int8", SIZE), None, None, 0.1, "")
    assert row["value"] is None and row["reason"] == "no rate of products is measured for int8"


# --------------------------------------------------------------------------------------------- the command
@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path))
    monkeypatch.setattr(latency, "ceilings", lambda *_, **__: LIMITS)
    measured, measure = [], runtimes.measure
    monkeypatch.setattr(runtimes, "measure", lambda models, runtime, dtype, size, **rest: (
        measured.append((runtime, dtype, size[0])) or measure(models, runtime, dtype, size, **rest)))

    def call(*more, models="none,softmax", runtime="eager", dtype="float32,int8"):
        measured.clear()
        code = main(["runtimes", "--models", models, "--preset", "smoke", "--batch", "1", "--runtime", runtime,
                     "--dtype", dtype, "--seconds", "0.2", "--images", "3", "--format", "json", *more])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return json.loads(printed.out), list(measured), printed.err
    return call


def test_the_command_measures_each_group_once_and_records_it(command):
    table, measured, notes = command("--record", "12_runtimes")
    assert measured == [("eager", "float32", 1), ("eager", "int8", 1)]
    assert "eager float32 b1" in notes and "no maintained dynamic quantisation" in notes
    assert len(table) == 4 and table[0]["latency_ms"] > 0 and table[0]["class_agreement"] == 1
    assert table[2]["latency_ms"] is None and table[2]["reason"].startswith("not supported: torch has no maintained")
    again, measured, notes = command("--record", "12_runtimes")
    assert measured == [] and again == table and "recorded already" in notes
    _, measured, _ = command("--record", "12_runtimes", "--again")
    assert len(measured) == 2
    _, measured, _ = command("--record", "12_runtimes", models="none,linformer")
    assert len(measured) == 2
    found = results.find("runtime.eager.float32.softmax.runtime.b1", chapter="12_runtimes",
                         roots=(results.results_root(),))
    assert found.context["weights"] == "untrained, seed 0" and found.context["preset"] == "smoke"


def test_what_a_runtime_reports_does_not_hide_that_its_group_is_recorded(command):
    pytest.importorskip("onnxruntime")
    for wanted in ([("onnxruntime", "float32", 1)], []):
        _, measured, _ = command("--record", "12_runtimes", runtime="onnxruntime", dtype="float32", models="none")
        assert measured == wanted


def test_each_model_is_timed_again_in_the_runtime_that_was_best_for_it(command, monkeypatch):
    monkeypatch.setitem(export.RUNTIMES, "twin", export.RUNTIMES["eager"])
    monkeypatch.setattr(runtimes, "best", lambda *_: {"none": "eager", "softmax": "twin"})
    table, measured, notes = command(runtime="eager,twin", dtype="float32")
    assert measured == [("eager", "float32", 1), ("twin", "float32", 1), ("best", "float32", 1)]
    assert {line["model"]: line["by"] for line in table[4:]} == {"none": "eager", "softmax": "twin"}
    assert "best float32 b1: " in notes


def test_one_runtime_that_is_best_for_all_is_not_timed_twice(command, monkeypatch):
    monkeypatch.setitem(export.RUNTIMES, "twin", export.RUNTIMES["eager"])
    monkeypatch.setattr(runtimes, "best", lambda *_: {"none": "twin", "softmax": "twin"})
    for _ in range(2):                                       # fresh, and from the records of an interrupted command
        table, measured, notes = command("--record", "12_runtimes", runtime="eager,twin", dtype="float32")
        assert ("best", "float32", 1) not in measured and len(table) == 6
        assert [line | {"runtime": ""} for line in table[4:]] == [line | {"runtime": ""} for line in table[2:4]]
        for path in results.results_root().glob("*/12_runtimes.json"):
            file = results.read(path)
            kept = [r for r in file.records if not r.name.startswith("runtime.best.")]
            assert len(kept) < len(file.records)
            path.write_text(file.model_copy(update={"records": kept}).model_dump_json())
    assert "Every model was fastest in twin" in notes


def test_trained_runs_are_taken_where_they_are_named(command, tmp_path, monkeypatch):
    options = {"num_train": 24, "num_val": 12, "num_test_per_class": 1, "threads": 1}
    [row] = commands.train(["fastformer"], "smoke", "phantom", None, 0, "cpu", options)
    table, _, _ = command("--run", row["run"], "--record", "12_trained", dtype="float32")
    assert {line["model"] for line in table} == {"fastformer"}
    found = results.find("runtime.eager.float32.fastformer.runtime.b1", chapter="12_trained",
                         roots=(results.results_root(),))
    assert found.context["weights"] == f"trained, run {row['run']}"
