"""The report of a device: keeps to its budget, goes on where it was, and stays small."""

import json
from pathlib import Path

import pytest

from medbench import config, measuring, report, results, runtimes
from medbench.commands import seconds_in
from medbench.models import build_model
from medbench.report import Step, TooShort


class Clock:
    """Time that passes only when a step takes it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A clock, a list of what was run, and steps that take their seconds and some more."""
    monkeypatch.setattr(report, "device_name", lambda device: "mine")
    clock, ran = Clock(), []

    def step(name, seconds, kind="k", around=2.0, error=None, why=None, **more):
        def run(timing):
            ran.append((name, timing))
            clock.now += timing + around
            if error:
                raise error
            if why:
                return why
            results.record(name, {"quantity": "latency", "value": timing, "unit": "ms", "text": f"{name} done"},
                           to=results.results_root() / "mine" / "12_latency.json")
            return None
        return Step(name, kind, seconds, run, **more)

    def go(steps, budget, folder=tmp_path / "report"):
        ran.clear()
        rows = report.device_report(folder, profile="smoke", budget=budget, device="cpu", clock=clock, steps=steps)
        return [(row["step"], row["state"]) for row in rows], list(ran), folder
    return step, go


def test_the_budget_is_kept_and_what_did_not_fit_is_said(world):
    step, go = world
    states, ran, folder = go([step("a", 20), step("b", 20), step("c", 20)], 60.0)
    assert states == [("a", "done"), ("b", "done"), ("c", "done")]
    assert ran == [("a", 20), ("b", 20), ("c", 14)]             # 60 less two steps of 22, less the 2 s around
    states, ran, folder = go([step("a", 20), step("b", 20), step("c", 20)], 36.0, folder.parent / "short")
    assert states == [("a", "done"), ("b", "done"), ("c", "not run")] and ran == [("a", 20), ("b", 12)]
    text = (folder / report.SUMMARY).read_text()
    assert "- not run: c (needs about 12 s, 0 s of the budget are left)" in text


def test_with_less_than_half_of_its_time_a_step_waits_for_the_next_report(world):
    step, go = world
    assert go([step("a", 20), step("b", 40)], 40.0)[0] == [("a", "done"), ("b", "not run")]     # 16 of 40 s
    states, ran, _ = go([step("a", 20), step("b", 40)], 40.0)
    assert states == [("a", "done"), ("b", "done")] and ran == [("b", 38)]


def test_it_goes_on_where_it_was_and_tries_again_what_failed(world):
    step, go = world
    steps = [step("a", 20), step("b", 20, error=RuntimeError("out of memory")), step("c", 20)]
    states, _, folder = go(steps, 50.0)
    assert states == [("a", "done"), ("b", "failed"), ("c", "not run")]
    assert "- failed: b (RuntimeError: out of memory)" in (folder / report.SUMMARY).read_text()
    states, ran, _ = go([step(name, 20) for name in "abc"], 100.0)
    assert states == [(name, "done") for name in "abc"] and [name for name, _ in ran] == ["b", "c"]
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "12_latency.json", report.DIARY, report.SUMMARY]
    assert {r["name"] for r in results.load(folder).to_dict("records")} == {f"{name}.latency" for name in "abc"}


def test_a_step_that_ends_early_does_not_lend_its_time_to_the_next(world):
    step, go = world
    _, ran, _ = go([step("a", 20, around=-15.0), step("b", 50)], 60.0)
    assert ran == [("a", 20), ("b", 50)]
    states, _, folder = go([step("a", 20, around=-15.0), step("b", 90)], 60.0)
    assert sum(s["seconds"] for s in json.loads((folder / report.DIARY).read_text())["steps"].values()) <= 62


def test_each_kind_has_its_own_time_around_and_some_steps_take_all_or_nothing(world):
    step, go = world
    states, ran, _ = go([step("a", 10, "small"), step("b", 10, "large", around=60.0)], 60.0)
    assert ran == [("a", 10), ("b", 10)]                     # nobody knew
    states, ran, _ = go([step("c", 10, "large"), step("d", 30, whole=True), step("e", 30)], 35.0)
    assert states == [("c", "not run"), ("d", "not run"), ("e", "done")] and ran == [("e", 25)]


def test_a_full_report_takes_no_more_and_says_so(world, monkeypatch):
    step, go = world
    monkeypatch.setattr(report, "MOST_BYTE", report.STEP_BYTE + 10)
    states, _, folder = go([step("a", 20), step("b", 20)], 90.0)
    assert states == [("a", "done"), ("b", "not run")]
    assert "bytes already)" in (folder / report.SUMMARY).read_text()


def test_what_is_not_complete_is_tried_again(world):
    step, go = world
    states, _, folder = go([step("a", 20, why="not installed: openvino")], 60.0)
    assert states == [("a", "not complete")]
    assert "- not complete: a (not installed: openvino)" in (folder / report.SUMMARY).read_text()
    assert go([step("a", 20)], 60.0)[0] == [("a", "done")]


def test_what_had_too_little_time_gets_twice_as_much_after_all_else(world):
    step, go = world
    steps = [step("a", 20, why=TooShort("3 quiet rounds, 6 are needed")), step("b", 20)]
    states, ran, folder = go(steps, 120.0)
    assert ran == [("a", 20), ("b", 20), ("a", 40)] and states == [("a", "not complete"), ("b", "done")]
    assert go(steps, 30.0)[1] == []                                      # 80 s are wanted, half of that at least
    assert "- not complete: a (3 quiet rounds, 6 are needed; needs about 42 s, 30 s of the budget are left)" in (
        folder / report.SUMMARY).read_text()
    assert go([step("a", 20), step("b", 20), step("c", 20)], 120.0)[1] == [("c", 20), ("a", 80)]     # what is new first


def test_more_time_is_no_help_where_a_package_is_missing(world):
    step, go = world
    steps = [step("a", 20, why="not installed: openvino")]
    assert go(steps, 120.0)[1] == [("a", 20)] and go(steps, 120.0)[1] == [("a", 20)]


@pytest.mark.parametrize("error", [TypeError("odd"), KeyError("x"), MemoryError(), ImportError("no such thing")])
def test_no_error_of_a_step_ends_the_report(world, error):
    step, go = world
    assert go([step("a", 20, error=error), step("b", 5)], 60.0)[0] == [("a", "failed"), ("b", "done")]


def test_an_error_names_no_folder(world):
    step, go = world
    error = RuntimeError(f"g++ /tmp/torchinductor_ann/ab/cabc.cpp failed in {Path.home()}, see ~/logs/x/y.txt, "
                         "https://a.org/b/c/d.html")
    _, _, folder = go([step("a", 20, error=error)], 60.0)
    text = (folder / report.SUMMARY).read_text()
    assert "_ann" not in text and "g++ cabc.cpp failed in ~, see y.txt, https://a.org/b/c/d.html" in text


def test_only_the_folder_of_a_report_is_gone_on_with(world, monkeypatch, tmp_path):
    step, go = world
    go([step("a", 20)], 60.0)
    monkeypatch.setattr(report, "device_name", lambda device: "other")
    with pytest.raises(ValueError, match="holds the report of mine with profile 'smoke', this is other with 'smoke'"):
        go([], 60.0)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "uv.lock").touch()
    with pytest.raises(ValueError, match="holds files and no report"):
        go([], 60.0, tmp_path / "work")
    assert (tmp_path / "work" / "uv.lock").exists()


@pytest.mark.parametrize("text, seconds", [("9m", 540), ("1h30m", 5400), ("540s", 540), ("540", 540), ("1h", 3600)])
def test_budgets(text, seconds):
    assert seconds_in(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "9 minutes", "-5m"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="wanted a time such as 9m"):
        seconds_in(text)


def test_the_plan_has_what_matters_first_and_fits_the_device(monkeypatch):
    names = [step.name for step in report.plan(config.profile("laptop"), "cpu", 540.0)]
    assert names[:3] == ["costs", "latency float32 b1", "latency bfloat16 b1"]
    assert names.index("openvino int8 b1") < names.index("compile float32 b1") < names.index("best float32 b1")
    assert names.index("best bfloat16 b1") < names.index("latency float32 b16") < names.index("eager float32 b16")
    assert {"energy", "openvino int8 b16", "best float32 b16", "best int8 b1", "peers xca"} <= set(names)
    assert names[-1] == "peers window" and "best bfloat16 b1" in names and "memory of layers" in names
    assert not [name for name in names if name.startswith("cudagraph") or name == "onnxruntime bfloat16 b1"]
    monkeypatch.setattr(report, "resolve_device", lambda device: type("Device", (), {"type": "cuda"}))
    names = [step.name for step in report.plan(config.profile("full"), "cuda", 540.0)]
    assert {"energy", "cudagraph bfloat16 b256", "compile float32 b1"} <= set(names)
    assert "best float32 b256" in names and "best int8 b1" not in names
    assert names.index("best bfloat16 b64") < names.index("self-test") < names.index("latency float32 b16")
    assert not [name for name in names if name.startswith(("openvino", "onnxruntime", "scaling threads", "peers"))]


def test_the_first_steps_record_what_chapters_11_and_12_show(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path))
    steps = {step.name: step for step in report.plan(config.profile("smoke"), "cpu", 12.0)}
    for name in ("costs", "latency float32 b1"):
        steps[name].run(2.0)
    [folder] = tmp_path.iterdir()
    names = {record["name"] for path in folder.glob("*.json") for record in json.loads(path.read_text())["records"]}
    assert {"cost.softmax.macs", "device.matrix_rate.float32", "latency.xca.latency.b1", "latency.run.conclusion.b1",
            "latency.window.roofline_share.b1"} <= names
    assert f"# {folder.name}" in report.summary(folder, [])
    samples = [record["samples"] for path in folder.glob("12*.json")
               for record in json.loads(path.read_text())["records"] if record["quantity"] == "latency"]
    assert samples and all(0 < len(own) <= 40 for own in samples)


def test_the_best_runtimes_are_timed_again_where_they_got_no_order(monkeypatch):
    def line(runtime, rank):
        return {"runtime": runtime, "latency_ms": 1.0, "rank": rank, "reason": None}
    timed = {"softmax": [{"quantity": "latency", "value": 1.0}]}
    monkeypatch.setattr(runtimes, "recorded", lambda _: {(r, "float32", 1): timed for r in ("eager", "openvino")})
    monkeypatch.setattr(results, "here", lambda chapter, device: Path(__file__))
    monkeypatch.setattr(results, "read", lambda path: type("File", (), {"records": []}))
    asked, ranks = [], iter((None, 1))
    monkeypatch.setattr(measuring, "runtimes", lambda *args: asked.append(args) or
                        [line("eager", None), line(runtimes.BEST, next(ranks))])
    for why in (TooShort("too few quiet rounds for an order"), None):
        found = report._best({}, "float32", 1, "cpu", 5.0)
        assert (found, type(found)) == (why, type(why))
    assert {(*args[3], *args[8]) for args in asked} == {("eager", "openvino", runtimes.BEST)}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_whole_report_has_at_most_eight_files(device, monkeypatch):
    """Each step asks where its records go, and here gets no answer."""
    chapters = set()

    def here(chapter, device):
        chapters.add(chapter)
        raise BlockingIOError
    monkeypatch.setattr(results, "here", here)
    monkeypatch.setattr(report, "build_model", lambda name, preset: build_model(name, "smoke"))
    monkeypatch.setattr(report, "resolve_device", lambda _: type("Device", (), {"type": device}))
    for step in report.plan(config.profile("full"), device, 540.0):
        with pytest.raises(BlockingIOError):
            step.run(5.0)
    wanted = {"11_cost", "12_latency", "12_runtimes", "12_selftest", "12_scaling"}
    assert chapters == wanted | ({"12_peers"} if device == "cpu" else set())
    assert len(chapters | {report.DIARY, report.SUMMARY}) <= 8
