"""What chapter 12 shows: the machine's facts, times under the right name, what commands recorded."""

import pytest
import torch

import medbench as mb
from medbench import crossing, results, scaling
from medbench.book import timings
from medbench.latency import selftest


def test_the_machine_has_a_line_for_every_known_fact():
    page = timings.machine_page({"cpu": {"name": "X", "flags": ["avx", "fma"], "quota": None}, "fingerprint": "f",
                                 "state": {"load_1min": 0.123, "gpu": {"power_w": 5.0, "clock": None}}})
    assert page["this device"].to_dict() == {("cpu", "name"): "X", ("cpu", "flags"): "avx, fma",
                                             ("state", "load_1min"): "0.12", ("state", "gpu"): "power_w 5.00"}


def test_times_are_recorded_under_their_prefix(tmp_path):
    found = mb.latency.compare({"softmax": torch.nn.Linear(5, 4), "a": torch.nn.Linear(5, 3)}, (1, 5), rounds=3,
                               seconds=1, device="cpu")
    to = tmp_path / "here" / "12_latency.json"
    timings.record_times({1: found}, to=to, prefix="trained", preset="small")
    names = set(results.load(tmp_path)["name"])
    assert {"trained.softmax.latency.b1", "trained.a.verdict.b1", "trained.run.conclusion.b1"} <= names
    assert not [name for name in names if name.startswith("latency.")]


# --------------------------------------------------------------------------------------------- what commands recorded
def file(device, chapter, rows, place):
    """A result file of a device, as a command leaves it."""
    to = place / device / f"{chapter}.json"
    for name, own in rows.items():
        results.record(name, own, to=to)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Nothing committed, nothing measured here: two empty folders."""
    monkeypatch.setattr(results, "edition_root", lambda: tmp_path / "edition")
    monkeypatch.setattr(results, "results_root", lambda: tmp_path / "here")
    monkeypatch.setattr(timings, "device_name", lambda device: "mine")
    return tmp_path


def standing(name, value):
    return {"quantity": "mean_ratio", "value": value, "unit": "1", "n": 4, "suffix": name,
            "text": f"{name} is {value}.",
            "context": {"mechanism": name, "faster": 3, "tie": 1, "slower": 0, "inconclusive": 0, "not_judged": 2}}


def test_a_device_shows_its_own_records_and_else_those_of_the_fullest(places):
    with pytest.raises(LookupError, match="`python -m medbench peers --record 12_peers` makes them"):
        timings.recorded("12_peers", "cpu")
    file("other", "12_peers", {"peers": [standing("xca", 0.7)]}, places / "edition")
    file("fuller", "12_peers", {"peers": [standing("xca", 0.8), standing("window", 0.9)]}, places / "edition")
    assert timings.recorded("12_peers", "cpu").device == "fuller"
    file("mine", "12_peers", {"peers": [standing("xca", 0.6)]}, places / "here")
    found = timings.recorded("12_peers", "cpu")
    assert timings.said(found, "mean_ratio")["text"] == "On mine: xca is 0.6."
    assert timings.said(found, "mean_ratio", mechanism="window")["text"] == "On mine: "
    page = timings.peers_page(found)
    assert page.loc["xca"].to_dict() == {"our time / fastest peer's (1)": 0.6, "cases": 4, "faster": 3, "tie": 1,
                                         "inconclusive": 0, "slower": 0, "not judged": 2}


def test_every_contest_has_a_cell_with_the_sign_of_its_verdict(places):
    def ratio(shape, batch, dtype, way, value, verdict, **more):
        context = {"peer": "timm", "shape": shape, "batch": batch, "dtype": dtype, "pass": way, "differs": "",
                   "verdict": verdict} | more
        return {"quantity": "ratio", "value": value, "unit": "1", "suffix": f"{shape}.b{batch}.{dtype}.{way}",
                "context": context} | ({} if value else {"reason": "not timed"})
    rows = [ratio("stage3", 16, "bfloat16", "both", 0.71, "faster"),
            ratio("stage1", 1, "float32", "forward", 1.2, "slower"),
            ratio("stage3", 16, "bfloat16", "forward", None, "not timed")]
    other = [ratio("stage1", 1, "float32", "forward", 0.5, "faster", peer="p", differs="in this")]
    file("mine", "12_peers", {"peers.xca.timm": rows, "peers.performer.p": other}, places / "here")
    page = timings.contests_page(timings.recorded("12_peers", "cpu"))
    assert list(page.columns) == [("fp32", "1"), ("bf16", "16"), ("bf16", "16 grad")]
    assert list(page.loc[("xca", "timm", "stage1")]) == ["1.20 -", "", ""]
    assert list(page.loc[("xca", "timm", "stage3")]) == ["", "-", "0.71 +"]
    assert list(page.loc[("performer", "p*", "stage1")]) == ["0.50 +", "", ""]


def test_the_self_test_has_a_row_for_each_kind(places):
    trial = [selftest.Trial(loaded, verdict, verdict, 1.0, 0.9, 1.1, 0.02, 9, 0) for loaded, verdict in
             ((False, "tie"), (True, selftest.NOT_JUDGED), (False, "faster"))]
    file("mine", "12_selftest", {"selftest.softmax": selftest.SelfTest(tuple(trial), 3.0, 0.99, 1, 2, "cpu")},
         places / "here")
    page = timings.selftest_page(timings.recorded("12_selftest", "cpu"))
    assert page.loc["called different"].to_dict() == {"quiet": 1, "loaded": 0, "all": 1}
    assert page.loc["comparisons"].to_dict() == {"quiet": 2, "loaded": 1, "all": 3}
    assert page.loc["rate at most (%)"].to_dict() == {"quiet": "97.5", "loaded": "-", "all": "97.5"}
    assert page.loc["called different at 95 %"].to_dict() == {"quiet": 1, "loaded": 0, "all": 1}


def test_growing_sizes_come_back_from_records(places):
    def point(part, name, at, ms, reason=None):
        rounds = () if reason else (ms / 1000,) * 6
        ends = (None, None) if reason else (ms / 1000, ms / 1000)
        return scaling.Point(part, name, at, 10, 100, rounds, *ends, 0.01, reason,
                             context={"batch": 1, "dtype": "float32", "dim": 96, "num_heads": 3})
    for part, sizes in (("tokens", (64, 256)), ("sizes", (112, 224)), ("threads", (1, 2))):
        for at, xca in zip(sizes, (2.0, 0.5)):
            step = [point(part, "softmax", at, 1.0), point(part, "xca", at, xca),
                    point(part, "window", at, 1.0, "would need about 9.0 GB of 1.0 GB")]
            rows = {f"{part}.{name}": own for name, own in crossing.rows(step).items()}
            file("mine", "12_scaling", rows, places / "here")
    growing = timings.recorded("12_scaling", "cpu")
    lines, found = timings.crossings(growing)
    assert found.set_index("model").loc["xca", "value"] == pytest.approx(128)
    assert set(lines.model) == {"softmax", "xca", "window"}
    page = timings.growth_page(growing, "sizes")
    memory = timings.memory_lines(growing).set_index(["model", "tokens"]).memory_mib
    assert memory["xca", 256] == pytest.approx(100 / 2**20)
    assert page.loc["xca", "224 px"] == "0.50 [0.50, 0.50]"
    assert page.loc["window", "112 px"] == "-"
    signs = timings.growth_page(growing, "sizes", signs=True)
    assert signs["112 px"].to_dict() == {"softmax": "1.00", "xca": "2.00 -", "window": "-"}
    assert signs.loc["xca", "224 px"] == "0.50 +"
    assert timings.ran_out(growing, "sizes").splitlines() == [
        f"At {px} px: window would need about 9.0 GB of 1.0 GB." for px in (112, 224)]
    assert list(timings.growth_page(growing, "threads").columns) == ["1 thread", "2 threads"]
    for at in (4, 8):
        step = [point("threads", "softmax", at, 1.0, "would take about 9 s a call"), point("threads", "xca", at, 1.0)]
        rows = {f"threads.{name}": own for name, own in crossing.rows(step).items()}
        file("mine", "12_scaling", rows, places / "here")
    growing = timings.recorded("12_scaling", "cpu")
    assert list(timings.growth_page(growing, "threads").columns) == ["1 thread", "2 threads"]
    assert timings.ran_out(growing, "threads").splitlines()[-1] == (
        "Nothing at 4 threads, 8 threads: at the first of them softmax would take about 9 s a call.")
    for name, at, grown in (("xca", 4096, 7 * 2**20), ("xca", 64, 3 * 2**20), ("linformer", 64, None)):
        rows = [{"quantity": "counted", "value": 2**19, "unit": "byte"},
                {"quantity": "grown", "value": grown, "unit": "byte", **({} if grown else {"reason": "too much"})}]
        rows = [row | {"suffix": f"n{at}.b1", "model": name, "context": {"tokens": at}} for row in rows]
        file("mine", "12_scaling", {f"memory.{name}": rows}, places / "here")
    page = timings.memory_page(timings.recorded("12_scaling", "cpu", needed=("memory.*",)), (64, 4096))
    assert list(page.columns) == ["64 tokens", "4,096 tokens"]
    assert page.loc["linformer"].to_list() == ["- (0.5)", "-"] and page.loc["xca"].to_list() == ["3 (0.5)", "7 (0.5)"]
    with pytest.raises(LookupError, match="12_scaling with sizes.*, batches.*; `python -m medbench scaling"):
        timings.recorded("12_scaling", "cpu", needed=("sizes.*", "batches.*"))
    step = crossing.rows([point("batches", "softmax", 1, 1.0), point("batches", "xca", 1, 1.0)])
    file("other", "12_scaling", {f"batches.{name}": rows for name, rows in step.items()}, places / "edition")
    other = timings.recorded("12_scaling", "cpu", needed=("batches.*",))
    assert other.device == "other" and timings.ran_out(other, "batches") == "Everything was timed."
    assert timings.recorded("12_scaling", "cpu").device == "mine"


def test_a_device_that_did_not_run_a_model_says_so(places):
    for device, models in (("a", ("softmax", "xca")), ("b", ("softmax",))):
        for model in models:
            row = {"quantity": "latency", "value": 5.0, "unit": "ms", "suffix": "b1",
                   "context": {"batch": 1, "dtype": "float32"}}
            file(device, "12_latency", {f"latency.{model}": [row]}, places / "here")
    assert timings.everywhere(timings.devices()).loc["xca"].to_dict() == {"a": 5.0, "b": "not run"}
