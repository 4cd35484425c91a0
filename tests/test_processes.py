"""What runs in processes of its own: sets of rounds, a cold start, the peak of memory, the self-test and its load."""

import functools
import math
import multiprocessing
import os

import numpy as np
import pytest
import torch
from torch import nn

from medbench import latency, results
from medbench.latency import judging, memory, processes, selftest
from medbench.latency.timing import Load

SIZE = (3, 5, 7)


class Clock:
    """Time that passes only when a model says so; it travels to another process with the models that hold it."""

    now = 0.0

    def __call__(self):
        return self.now


class Quiet:
    """Counters of a machine on which nobody waits."""

    def __call__(self):
        return Load(0.0, 0.0)


class Sleeper(nn.Module):
    """Takes about `seconds` by the clock."""

    def __init__(self, clock, seconds, spread=0.002):
        super().__init__()
        self.clock, self.seconds, self.spread, self.rng = clock, seconds, spread, np.random.default_rng(0)
        self.linear = nn.Linear(7, 4)

    def forward(self, x):
        self.clock.now += self.seconds * math.exp(self.spread * self.rng.normal())
        return self.linear(x)


# --------------------------------------------------------------------------------------------- sets of rounds
class Counted(nn.Linear):
    """Knows how often it was called in this process."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def test_rounds_are_split_over_new_processes():
    models = {"a": Counted(7, 4).train(), "b": nn.Sequential(nn.Linear(7, 9), nn.GELU())}
    found = latency.compare(models, SIZE, rounds=11, seconds=60, threads=1, processes=2, load=Quiet(), device="cpu")
    assert [r.process for r in found.rounds] == [0] * 6 + [1] * 5 and found.processes == 2
    assert models["a"].calls == 0 and models["a"].training   # all the work was done elsewhere
    assert [r.order for r in found.rounds[:5]] != [r.order for r in found.rounds[6:]]
    assert len(found["a"].samples) == sum(len(r.calls["a"]) for r in found.rounds)
    assert found["a"].median > 0 and found["b"].error < 1e-6 and found["b"].verdict != "reference"
    row = next(row for row in found.rows() if row["quantity"] == "rounds")
    assert row["context"]["by_round"]["process"] == [0] * 6 + [1] * 5 and row["context"]["processes"] == 2


def test_what_cannot_travel_is_named_before_any_work():
    module = nn.Linear(7, 4)
    closure = latency.Candidate("b", lambda x: module(x), module)
    with pytest.raises(TypeError, match=r"models\['b'\] cannot go to another process .* without lambdas or closures"):
        latency.compare({"a": module, "b": closure}, SIZE, processes=2, device="cpu")


def test_an_error_in_the_new_process_is_raised_here():
    with pytest.raises(ValueError, match="invalid literal for int"):
        processes.fresh(int, "seven")


def test_a_process_that_ends_by_itself_is_an_error():
    with pytest.raises(RuntimeError, match="ended without an answer"):
        processes.fresh(os._exit, 3)


# --------------------------------------------------------------------------------------------- a cold start
def test_a_cold_start_has_all_its_steps(tmp_path):
    found = latency.cold_start(functools.partial(nn.Linear, 7, 4), SIZE, device="cpu", threads=1)
    assert found.import_torch > 0.05 and found.import_medbench > 0.001 and found.build > 0
    assert found.first_call > 0 and found.second_call > 0 and found.total > found.import_torch + found.import_medbench
    made = results.record("start.softmax", found, to=tmp_path / "cpu" / "12_latency.json")
    assert {r.name for r in made} >= {"start.softmax.cold_import_torch.b3", "start.softmax.cold_total.b3"}
    assert {r.unit for r in made} == {"s"} and len(made) == 6


def test_a_cold_start_says_why_it_failed():
    with pytest.raises(TypeError, match="build cannot go to another process"):
        latency.cold_start(lambda: nn.Linear(7, 4), SIZE, device="cpu")
    with pytest.raises(RuntimeError, match="the new process failed: RuntimeError: mat1 and mat2"):
        latency.cold_start(functools.partial(nn.Linear, 6, 4), SIZE, device="cpu", threads=1)


# --------------------------------------------------------------------------------------------- memory on the CPU
class Large(nn.Module):
    """Holds `mebibytes` of float32 for a moment."""

    def __init__(self, mebibytes):
        super().__init__()
        self.mebibytes, self.linear = mebibytes, nn.Linear(7, 4)

    def forward(self, x):
        return self.linear(x) + torch.ones(self.mebibytes * 2**18).mean()


def test_the_peak_is_what_the_passes_allocate(tmp_path):
    large = memory.peak(Large(160), SIZE, device="cpu", threads=1)
    if large.process is None:
        pytest.skip(large.reasons["process"])
    assert 160 * 2**20 <= large.process < 1.15 * 160 * 2**20
    made = results.record("memory.softmax", large, to=tmp_path / "cpu" / "12_latency.json")
    values = {r.quantity: (r.value, r.unit, r.reason) for r in made}
    assert values["peak_process"] == (large.process, "byte", None)
    assert values["peak_allocated"] == values["peak_reserved"] == (None, "byte", memory.UNCOUNTED)


def test_a_kernel_that_resets_no_peak_gives_no_figure(monkeypatch):
    monkeypatch.setattr(memory, "_reset_peak", lambda: False)
    data = processes.packed("module", (Large(1), torch.zeros(SIZE), "float32", 1))
    assert memory._growth(data)[0] is None and "does not let a process reset" in memory._growth(data)[1]["process"]


# --------------------------------------------------------------------------------------------- the self-test
def play(comparisons=12, spread=0.002, rounds=8, **options):
    """The self-test of a module that takes 20 ms, a little more or less."""
    clock = Clock()
    return selftest.self_test(Sleeper(clock, 0.02, spread), SIZE, comparisons=comparisons, seconds=1e3, clock=clock,
                              load=Quiet(), loaded=False, rounds=rounds, device="cpu", **options)


def test_a_model_is_not_called_different_from_itself():
    found = play()
    assert found.count("all") == found.count("quiet") == 12 and found.count("loaded") == 0
    assert found.count("all", *selftest.FALSE) == 0 and found.count("all", "tie") == 12
    assert found.bound() == pytest.approx(1 - 0.05 ** (1 / 12)) and found.bound("loaded") is None
    assert found.text.startswith("Of 12 comparisons of a model with itself, 12 had enough quiet rounds for a verdict: "
                                 "12 were ties, 0 inconclusive, and 0 called it different (0 of 12 with the machine ")


def test_with_narrower_intervals_more_are_called_different(monkeypatch):
    """The usual intervals of 95 % lie within those that were asked for, here 99.9 %."""
    monkeypatch.setattr(judging, "MIN_FLOOR", 0.0)
    monkeypatch.setattr(judging, "judge", lambda low, high, floor: "faster" if high < 1 else "slower" if low > 1
                        else "inconclusive")
    found = play(comparisons=40, spread=0.05, confidence=0.999, rounds=12)
    asked, usual = (found.count("all", *selftest.FALSE, usual=usual) for usual in (False, True))
    assert asked < usual and found.bound() < found.bound(usual=True)
    assert f"With intervals of 95%, {usual} of 40 would call it different" in found.text


def test_without_quiet_rounds_nothing_is_judged():
    """A false call among three judged comparisons is one of three, however many were not judged."""
    trial = {"ratio": 1.0, "low": 0.9, "high": 1.1, "floor": 0.02, "rounds": 9, "loaded": False}
    few = [selftest.Trial(verdict=selftest.NOT_JUDGED, usual=selftest.NOT_JUDGED, disturbed=6, **trial)] * 97
    some = [selftest.Trial(verdict=v, usual=v, disturbed=0, **trial) for v in ("tie", "tie", "slower")]
    none, found = (selftest.SelfTest(tuple(t), 3.0, 0.99, 1, 2, "cpu") for t in (few, few + some))
    assert found.judged("all") == 3 and found.bound() == pytest.approx(0.8646, abs=1e-4)       # 1 of 3
    assert none.bound() is None and none.text == ("None of 97 comparisons of a model with itself had the 8 quiet "
                                                  "rounds of a verdict.")
    assert {row["quantity"]: row["value"] for row in none.rows() if row["suffix"] == "all"} == {
        "comparisons": 97, "not_judged": 97, "ties": 0, "inconclusive": 0, "false_calls": 0, "false_call_bound": None,
        "usual_false_calls": 0, "usual_false_call_bound": None}


def test_a_protocol_without_a_floor_is_found_out(monkeypatch):
    monkeypatch.setattr(judging, "judge", lambda low, high, floor: "faster" if high < 1 else "slower" if low > 1
                        else "tie")
    found = play(spread=0.05, confidence=0.5)
    assert found.count("all", *selftest.FALSE) >= 3
    assert found.bound() > 0.3 and f"{found.count('all', *selftest.FALSE)} called it different" in found.text


def test_a_timer_that_favours_one_name_is_found_out(monkeypatch):
    real = latency.compare

    def biased(models, *args, clock, **options):
        slower = Sleeper(clock, 1.05 * models["itself"].seconds)
        return real(models | {"itself": slower}, *args, clock=clock, **options)
    monkeypatch.setattr(selftest, "compare", biased)
    found = play(comparisons=4)
    assert found.count("quiet", "slower") == 4 and found.bound() == 1.0


def test_the_load_runs_beside_every_second_comparison_and_ends(tmp_path):
    found = selftest.self_test(nn.Linear(7, 4), SIZE, comparisons=3, seconds=0.2, rounds=2, threads=1, device="cpu")
    assert [t.loaded for t in found.trials] == [False, True, False]
    assert multiprocessing.active_children() == []
    made = {r.name: r for r in results.record("selftest.softmax", found, to=tmp_path / "cpu" / "12_selftest.json")}
    assert [made[f"selftest.softmax.comparisons.{kind}"].value for kind in selftest.KINDS] == [3, 2, 1]
    assert made["selftest.softmax.not_judged.all"].value == 3               # two rounds are too few
    assert made["selftest.softmax.false_calls.all"].n == 0
    assert len(made["selftest.softmax.self_test.b3"].context["quiet"]["ratio"]) == 2
    assert made["selftest.softmax.self_test.b3"].text == found.text
