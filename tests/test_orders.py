"""What chapter 12 shows of the runtimes: ranks with times, the best runtime, points under the roof, sentences."""

import pytest

from medbench import measuring, results, runtimes
from medbench.book import orders, timings
from medbench.models import build_model

FLOP, BYTE = 6e9, 2e8


def rows(ms, rank, verdict, batch=1, dtype="float32", runtime="eager", reason=None):
    """A model's records in one runtime, as `runtimes.measure` makes them."""
    context = {"batch": batch, "dtype": dtype, "runtime": runtime}
    found = [{"quantity": "latency", "value": ms, "unit": "ms", "low": ms, "high": ms},
             {"quantity": "latency_ratio", "value": ms and ms / 2, "unit": "1"},
             {"quantity": "verdict", "text": verdict, "unit": "1"}, {"quantity": "rank", "value": rank, "unit": "1"},
             {"quantity": "roofline_share", "value": ms and 20 / ms, "unit": "1"},
             {"quantity": "runtime", "text": runtime, "unit": "1"}]
    found += [{"quantity": name, "value": ms and 0.0, "unit": "1"}
              for name in ("output_error", "class_agreement", "export", "first_call")]
    found += [{"quantity": "intensity", "value": FLOP / BYTE, "unit": "1",
               "context": {"matrix_rate": 2e11 if runtime == "eager" else 2.5e11, "bandwidth": 3e10}},
              {"quantity": "moved", "value": BYTE, "unit": "byte"}] if ms else []
    return [{"reason": None if row.get("value") is not None or row.get("text") else reason, **row,
             "suffix": f"b{batch}", "context": row.get("context", {}) | context} for row in found]


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Three groups: eager, a runtime that is not there, and the best."""
    monkeypatch.setattr(results, "edition_root", lambda: tmp_path / "edition")
    monkeypatch.setattr(results, "results_root", lambda: tmp_path)
    monkeypatch.setattr(timings, "device_name", lambda device: "mine")
    groups = {("eager", "float32"): {"softmax": rows(40.0, 1, "reference"), "xca": rows(41.0, 1, "tie"),
                                     "resnet50": rows(200.0, 3, "slower")},
              ("onnxruntime", "bfloat16"): {name: rows(None, None, None, reason="not installed: x", dtype="bfloat16")
                                            for name in ("softmax", "xca")},
              (runtimes.BEST, "float32"): {"softmax": rows(30.0, 2, "reference", runtime="openvino"),
                                           "xca": rows(25.0, 1, "faster", runtime="compile")}}
    for (runtime, dtype), group in groups.items():
        for model, own in group.items():
            results.record(f"runtime.{runtime}.{dtype}.{model}", own, to=tmp_path / "mine" / "12_runtimes.json")
    return orders.orders("cpu")


def test_a_cell_has_the_rank_and_the_time(found):
    page = found.page(1)
    assert page.loc[("eager", "fp32")].to_dict() == {"softmax": "1 (40)", "xca": "1 (41)", "resnet50": "3 (200)"}
    assert page.loc[(runtimes.BEST, "fp32"), "xca"] == "1 (25)"
    assert page.loc[(runtimes.BEST, "fp32"), "resnet50"] == "-"
    assert list(page.index) == [("eager", "fp32"), (runtimes.BEST, "fp32")]
    assert found.missing() == ["onnxruntime bfloat16 (softmax, xca): not installed: x"]


def test_a_model_without_a_rank_still_has_its_time(found):
    for line in found.lines:
        line["rank"] = None
    assert found.page(1).loc[("eager", "fp32"), "softmax"] == "? (40)"


def test_the_checks_show_the_worst_of_each_runtime(found):
    eager = next(line for line in found.lines if (line["runtime"], line["model"]) == ("eager", "xca"))
    eager |= {"output_error": 2e-7, "class_agreement": 0.996, "export_s": 12.34, "first_call_ms": 150.0}
    assert found.checks_page(1).loc[("eager", "fp32")].to_dict() == {
        "largest error (1)": "2e-07", "same decisions, at least (%)": "0.0", "export, at most (s)": "12.3",
        "first call, at most (ms)": "150"}
    assert list(found.checks_page(1).index) == [("eager", "fp32")]


def test_points_under_the_roof_have_the_rate_that_was_measured_and_its_share(found):
    assert found.ceilings() == ({"float32": 2.5e11}, 3e10)
    table = found.points(1).set_index("model")
    assert table.rate.to_dict() == {"softmax": pytest.approx(FLOP / 0.030), "xca": pytest.approx(FLOP / 0.025)}
    assert table.share["xca"] == pytest.approx(FLOP / 0.025 / 2.5e11)
    assert found.points(16).empty and list(found.points(16).columns) == list(found.points(1).columns)


def test_the_best_runtime_of_each_model_with_its_share_of_the_roofline(found):
    page = found.best_page(1)
    assert page.loc["xca"].to_dict() == {("float32", "runtime"): "compile", ("float32", "ms"): "25",
                                         ("float32", "roofline (%)"): "96"}
    assert list(page.index) == ["softmax", "xca"]


def test_the_sentence_says_who_is_first_and_where_the_cnn_stands(found):
    assert found.row(1)["text"] == (
        "On mine, with one image at a time, in 1 combinations of runtime and number type, first or sharing the first "
        "place are: softmax in 1, xca in 1. ResNet-50 is slower than softmax attention in eager float32. In float32 "
        "the runtime changes a mechanism's time up to 1.0 times, runtime and number type together up to 1.0 times; "
        "within one of the combinations the slowest mechanism takes up to 1.0 times as long as the fastest.")
    assert found.row(16)["text"] == "On mine, nothing has a rank with 16 images at a time."
    assert found.page(16).empty and found.checks_page(16).empty


def test_spreads_compare_like_with_like(found):
    for runtime, dtype, model, ms in (("compile", "float32", "xca", 10.0), ("compile", "float32", "softmax", 30.0),
                                      ("compile", "bfloat16", "xca", 5.0), ("compile", "float32", "resnet50", 1.0),
                                      ("openvino", "int8", "xca", None)):
        found.lines.append({"runtime": runtime, "dtype": dtype, "batch": 1, "model": model, "latency_ms": ms,
                            "rank": None, "verdict": None})
    wanted = {"runtime": 4.1, "dtype": 8.2, "mechanism": 3.0}
    assert found.quickest(1) == {"compile": "bfloat16"}                    # by XCA, the one timed in both
    assert " The quickest number type is bfloat16 in compile. In float32" in found.row(1)["text"]
    assert found.spreads(1) == {name: pytest.approx(value) for name, value in wanted.items()}


def test_without_a_run_of_the_best_each_model_has_its_fastest_time_and_no_rank(found, tmp_path):
    for path in tmp_path.glob("mine/*.json"):
        file = results.read(path)
        kept = [r for r in file.records if not r.name.startswith("runtime.best.")]
        path.write_text(file.model_copy(update={"records": kept}).model_dump_json())
    again = orders.orders("cpu")
    assert again.page(1).loc[(runtimes.BEST, "fp32"), "xca"] == "? (41)"
    assert again.best_page(1).loc["xca", ("float32", "runtime")] == "eager" and len(again.points(1)) == 3


def test_what_is_measured_is_what_is_shown(tmp_path, monkeypatch):
    """From the models through the file to the page, nothing played."""
    monkeypatch.setattr(results, "edition_root", lambda: tmp_path / "edition")
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path))
    monkeypatch.setattr(runtimes, "RATE_SECONDS", 0.3)
    models = {name: build_model(name, "smoke") for name in ("softmax", "xca")}
    table = measuring.runtimes(models, measuring.untrained(models), (1, 2), ["eager", "onnxruntime"], ["float32"], 0.5,
                               20, "12_runtimes")
    with pytest.raises(LookupError, match="no records of 12_runtimes with .*runtime.[*].b16; `python"):
        orders.orders("cpu", batches=(1, 16))
    found = orders.orders("cpu", batches=(1, 2))
    shown = {(line["runtime"], line["batch"], line["model"]): line["latency_ms"] for line in found.lines}
    assert shown == {(line["runtime"], line["batch"], line["model"]): line["latency_ms"] for line in table}
    assert len(shown) == 2 * 3 * 2 and all(shown.values())
    fastest = min(shown["eager", 1, "xca"], shown["onnxruntime", 1, "xca"])
    assert found.page(1).loc[("onnxruntime", "fp32"), "xca"].endswith(
        f" ({orders.rounded(shown['onnxruntime', 1, 'xca'])})")
    by = found.best_page(1).loc["xca", ("float32", "runtime")]
    assert shown[by, 1, "xca"] == fastest and list(found.best_page(1).index) == ["softmax", "xca"]
    assert 0 < found.points(2).share.max() < 1.5 and found.checks_page(2).shape == (2, 4)
    assert found.row(2)["text"].startswith("On ") and found.spreads(2)["mechanism"] > 1


def test_nobody_has_run_it(tmp_path, monkeypatch):
    for root in ("edition_root", "results_root"):
        monkeypatch.setattr(results, root, lambda: tmp_path)
    with pytest.raises(LookupError, match="`python -m medbench runtimes --record 12_runtimes` makes them"):
        orders.orders("cpu")
