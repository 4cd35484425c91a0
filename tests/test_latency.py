"""The timing protocol, played with a clock and a machine of our own, so that no noise can decide a test."""

import copy
import math
import os
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import medbench as mb
from medbench import cost, latency, results
from medbench.latency import limits, timing
from medbench.latency.comparison import Round
from medbench.latency.judging import judged
from medbench.latency.timing import Load

SIZE = (3, 2, 5)


class Clock:
    """Time that passes only when a model says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Sleeper(nn.Module):
    """Takes `seconds` by the clock, a little more or less each time; `wrong` spoils what it computes."""

    def __init__(self, clock, seconds, spread=0.02, seed=0, wrong=0.0):
        super().__init__()
        self.clock, self.seconds, self.wrong = clock, seconds, wrong
        self.rng, self.spread, self.calls = np.random.default_rng(seed), spread, 0
        self.linear = nn.Linear(5, 4)

    def forward(self, x):
        self.calls += 1
        self.clock.now += self.seconds * math.exp(self.spread * self.rng.normal())
        exact = x.dtype == torch.float64
        return self.linear(x) + (0.0 if exact else self.wrong)


class Machine:
    """Load counters: `busy(round)` says which share of each round others took."""

    def __init__(self, clock, busy=lambda reading: 0.0, steal=0.0):
        self.clock, self.busy, self.steal, self.readings, self.stalled, self.last = clock, busy, steal, 0, 0.0, 0.0

    def __call__(self):
        if self.readings % 2:                                # the end of a round
            self.stalled += self.busy(self.readings // 2) * (self.clock() - self.last)
        self.readings, self.last = self.readings + 1, self.clock()
        return Load(self.stalled, self.steal * self.clock() * (os.cpu_count() or 1))


def play(takes, busy=lambda r: 0.0, steal=0.0, wrong=None, spread=0.02, **options):
    """Compare models that take these seconds: {name: seconds}."""
    clock = Clock()
    models = {name: Sleeper(clock, s, spread, seed=i, wrong=(wrong or {}).get(name, 0.0))
              for i, (name, s) in enumerate(takes.items())}
    options = {"rounds": 30, "seconds": 1e6, "precision": 0.0, "clock": clock, **options}
    return latency.compare(models, SIZE, load=Machine(clock, busy, steal), device="cpu", **options), models


# --------------------------------------------------------------------------------------------- verdicts
def test_verdicts_follow_the_seconds():
    found, _ = play({"a": 0.100, "fast": 0.080, "slow": 0.130, "same": 0.1001}, spread=0.005)
    assert {name: t.verdict for name, t in found.timings.items()} == {
        "a": "reference", "fast": "faster", "slow": "slower", "same": "tie"}
    assert found["fast"].ratio == pytest.approx(0.8, rel=0.02)
    assert found["slow"].ratio_low < 1.3 < found["slow"].ratio_high
    assert found["a"].ratio == 1 and found["a"].median == pytest.approx(0.1, rel=0.02)
    assert found["a"].low <= found["a"].median <= found["a"].high
    assert found.text.startswith("Faster than a: fast; slower than a: slow; tied with it: same.")


def test_the_control_times_the_reference_twice_and_sets_the_floor():
    found, models = play({"a": 0.1, "b": 0.2}, reference="b", spread=0.002)
    middle, low, high = found.control
    assert low < middle < high and middle == pytest.approx(1, abs=0.02)
    assert found.floor >= max(latency.MIN_FLOOR, high - 1, 1 / low - 1) - 1e-12
    assert all(sorted(r.order) == ["a", "b", "b (again)"] for r in found.rounds)
    assert "b (again)" not in found.timings
    assert models["b"].calls - models["a"].calls == 2 * 30   # in each round one more turn of two calls, one timed


def test_a_noisy_control_makes_small_differences_ties_or_undecided():
    clock = Clock()
    models = {"a": Sleeper(clock, 0.1, spread=0.5), "b": Sleeper(clock, 0.104, spread=0.5, seed=1)}
    found = latency.compare(models, SIZE, rounds=20, seconds=300, clock=clock, load=Machine(clock), device="cpu")
    assert found.floor > 0.05 and found["b"].verdict in ("tie", "inconclusive")


@pytest.mark.parametrize("low, high, floor, verdict", [
    (0.80, 0.90, 0.05, "faster"), (0.80, 0.97, 0.05, "inconclusive"), (0.97, 1.03, 0.05, "tie"),
    (1.06, 1.20, 0.05, "slower"), (0.97, 1.20, 0.05, "inconclusive"), (0.80, 1.20, 0.05, "inconclusive")])
def test_a_verdict_needs_the_whole_interval(low, high, floor, verdict):
    assert latency.judge(low, high, floor) == verdict


# --------------------------------------------------------------------------------------------- rounds and budget
def test_rounds_are_complete_and_in_random_order():
    found, _ = play({"a": 0.1, "b": 0.1, "c": 0.1}, rounds=40)
    orders = [r.order for r in found.rounds]
    assert len(orders) == 40 and all(len(set(order)) == 4 for order in orders)
    first = [order[0] for order in orders]
    assert min(first.count(name) for name in orders[0]) >= 3 and len(set(orders)) > 10
    again, _ = play({"a": 0.1, "b": 0.1, "c": 0.1}, rounds=40)
    assert [r.order for r in again.rounds] == orders
    other, _ = play({"a": 0.1, "b": 0.1, "c": 0.1}, rounds=40, seed=1)
    assert [r.order for r in other.rounds] != orders


def test_the_budget_is_kept_and_said():
    found, models = play({"a": 0.1, "b": 0.3}, rounds=10_000, seconds=60.0)
    assert found.stopped == "seconds" and 40 < found.seconds <= 60
    assert found["b"].verdict == "slower"
    assert models["a"].clock.now <= 60


def test_a_budget_for_less_than_one_round_still_gives_one_and_no_verdict():
    found, _ = play({"a": 10.0, "b": 20.0}, seconds=1.0)
    assert len(found.rounds) == 1 and found["b"].verdict == "inconclusive"
    assert "rounds were quiet and 6 are needed" in found["b"].reason
    assert found["b"].median == pytest.approx(20, rel=0.1) and not found["b"].warm


@pytest.mark.parametrize("confidence, rounds", [(0.95, 6), (0.99, 8), (0.9, 5)])
def test_so_few_rounds_as_have_no_such_interval_give_no_verdict(confidence, rounds):
    assert latency.fewest_rounds(confidence) == rounds
    for given, verdict in ((rounds, "slower"), (rounds - 1, "inconclusive")):
        found, _ = play({"a": 0.1, "b": 0.3}, rounds=given, confidence=confidence)
        assert len(found.rounds) == given and found["b"].verdict == verdict


def test_it_ends_when_every_interval_is_narrow():
    found, _ = play({"a": 0.1, "b": 0.3}, rounds=10_000, precision=0.02)
    assert found.stopped == "precise" and 10 <= len(found.rounds) < 200
    for t in found.timings.values():
        assert t.high - t.low <= 2 * 0.02 * t.median


def test_quick_models_are_called_more_often_in_a_row():
    found, _ = play({"quick": 0.0004, "slow": 0.3}, rounds=6)
    assert len(found.rounds[0].calls["quick"]) >= 20 and len(found.rounds[0].calls["slow"]) == 1
    assert found["quick"].n == sum(len(r.calls["quick"]) for r in found.rounds)


def test_warm_up_goes_on_until_windows_agree():
    class Warming(Sleeper):
        def forward(self, x):
            self.seconds = 0.1 * (1 + 5 * 0.5**self.calls)
            return super().forward(x)
    clock = Clock()
    model = Warming(clock, 0.1, spread=0.0)
    found = latency.compare({"a": model}, SIZE, rounds=5, seconds=1e6, clock=clock, load=Machine(clock), device="cpu")
    assert found["a"].warm and found["a"].first_call == pytest.approx(0.6)
    assert max(found["a"].samples) < 0.1 * (1 + 5 * 0.5**7)


def test_a_model_that_never_settles_is_timed_and_said_to_be_cold():
    clock = Clock()
    model = Sleeper(clock, 0.1, spread=0.5)
    found = latency.compare({"a": model}, SIZE, rounds=5, seconds=60, clock=clock, load=Machine(clock), device="cpu")
    assert found["a"].warm is False and found["a"].median and found["a"].rows()[0]["context"]["warm"] is False


def test_every_timed_call_is_timeit_s_own_after_one_that_does_not_count(monkeypatch):
    seen, real = [], timing.Timer

    class Watched(real):
        def timeit(self, number):
            seen.append((number, super().timeit(number)))
            return seen[-1][-1]
    monkeypatch.setattr(timing, "Timer", Watched)
    found, _ = play({"a": 0.1}, rounds=5)
    assert {number for number, *_ in seen} == {1}
    assert [taken for *_, taken in seen][-20:][1::2] == [taken for r in found.rounds for name in r.order
                                                          for taken in r.seconds_of(name)]


def test_confidence_widens_every_interval():
    wide, _ = play({"a": 0.1, "b": 0.103}, confidence=0.99)
    narrow, _ = play({"a": 0.1, "b": 0.103}, confidence=0.8)
    for name in ("a", "b"):
        assert wide[name].low < narrow[name].low and wide[name].high > narrow[name].high
    assert wide["b"].ratio_high > narrow["b"].ratio_high and wide.floor >= narrow.floor and wide.confidence == 0.99
    assert wide.control[2] - wide.control[1] > narrow.control[2] - narrow.control[1]


# --------------------------------------------------------------------------------------------- the quiet gate
def test_disturbed_rounds_are_marked_repeated_and_kept():
    found, _ = play({"a": 0.1, "b": 0.2}, rounds=12, busy=lambda r: 0.5 if r % 3 == 0 else 0.0)
    assert found.stopped == "rounds" and len(found.rounds) > 12
    assert sum(not r.load.disturbed for r in found.rounds) == 12
    assert [r.load.disturbed for r in found.rounds] == [i % 3 == 0 for i in range(len(found.rounds))]
    assert found["a"].n == 12 and len(found["a"].samples) == len(found.rounds)
    assert found["b"].verdict == "slower" and f"{found.disturbed} of {len(found.rounds)}" in found.text


def test_no_quiet_window_means_no_verdict():
    found, _ = play({"a": 0.1, "b": 0.9}, rounds=6, busy=lambda r: 0.9)
    assert found.stopped == "disturbed" and len(found.rounds) == 18
    assert found["b"].verdict == "inconclusive" and found["b"].reason.startswith("0 of 18 rounds were quiet")
    assert found["b"].ratio == pytest.approx(9, rel=0.1)     # still shown


def test_steal_disturbs_too_and_unreadable_counters_do_not():
    found, _ = play({"a": 0.1, "b": 0.2}, rounds=5, steal=0.2)
    assert found.disturbed == 15
    clock = Clock()
    models = {"a": Sleeper(clock, 0.1), "b": Sleeper(clock, 0.2)}
    found = latency.compare(models, SIZE, rounds=6, seconds=1e6, clock=clock, load=lambda: Load(), device="cpu")
    assert found["b"].verdict == "slower" and found.rounds[0].load.pressure is None
    assert found.text.endswith("whether others used the processors is not known on this system.")
    assert not timing.Disturbance(None, None).known and timing.Disturbance(None, 0.0).known


def test_disturbance_is_a_share_of_the_time():
    cores = os.cpu_count() or 1
    quiet = timing.between(Load(3.0, 1.0), Load(3.5, 1.0 + 0.2 * cores), seconds=10.0)
    assert (quiet.pressure, quiet.steal, quiet.disturbed) == (pytest.approx(0.05), pytest.approx(0.02), False)
    assert timing.between(Load(3.0), Load(3.5), seconds=2.0).disturbed
    assert timing.between(Load(steal=0.0), Load(steal=0.2 * cores), seconds=2.0).disturbed


@pytest.mark.parametrize("convolutions, products, allowed", [
    (True, False, 1e-2), (False, True, 1e-2), (False, False, 1e-4)])
def test_float32_may_differ_by_more_on_a_gpu_that_rounds_to_tf32(convolutions, products, allowed, monkeypatch):
    flags = types.SimpleNamespace
    monkeypatch.setattr(torch.backends, "cudnn", flags(allow_tf32=convolutions))
    monkeypatch.setattr(torch.backends, "cuda", flags(matmul=flags(allow_tf32=products)))
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert latency.budget("float32", gpu) == allowed and latency.budget("float32", cpu) == 1e-4
    assert latency.budget("bfloat16", gpu) == latency.budget("bfloat16", cpu) == 1e-1


def test_load_is_read_from_this_machine():
    load = timing.read_load()
    for value in (load.stalled, load.steal):
        assert value is None or value >= 0
    if os.path.exists("/proc/pressure/cpu"):
        assert load.stalled is not None


# --------------------------------------------------------------------------------------------- correct before timed
def test_a_wrong_model_is_not_timed():
    found, models = play({"a": 0.1, "bad": 0.01, "nan": 0.01}, wrong={"bad": 0.5, "nan": float("nan")})
    assert found["bad"].median is None and "differs from float64 by" in found["bad"].reason
    assert found["nan"].median is None and found["nan"].reason == "24 of 24 outputs are not finite"
    assert models["bad"].calls == 1 and found["a"].error < 1e-6
    with pytest.raises(ValueError, match="the reference 'a' cannot be timed: output differs from float64"):
        play({"a": 0.1}, wrong={"a": 0.5})


def test_a_candidate_brings_its_own_runtime_and_what_it_must_agree_with():
    clock = Clock()
    model = Sleeper(clock, 0.1)
    exact = copy.deepcopy(model).double()
    models = {"eager": model, "other": latency.Candidate("x", lambda x: model(x), exact, runtime="other"),
              "shape": latency.Candidate("x", model, lambda x: torch.zeros(2, 2, 9))}
    found = latency.compare(models, SIZE, rounds=5, seconds=1e6, clock=clock, load=Machine(clock), device="cpu")
    assert found["other"].runtime == "other" and found["other"].median and found["other"].error < 1e-6
    assert found["shape"].median is None and found["shape"].reason == "output is (2, 2, 4), wanted (2, 2, 9)"


@pytest.mark.parametrize("name", mb.config.ALL_MODELS)
def test_every_model_passes_the_gate_in_every_dtype(name):
    model = mb.build_model(name, "smoke")
    for dtype in ("float32", "bfloat16"):
        found = latency.compare({name: model}, (2, 1, 112, 112), rounds=1, seconds=0.05, dtype=dtype, threads=1)
        assert found[name].reason is None or "rounds were quiet" in found[name].reason
        assert 0 < found[name].error < latency.BUDGETS[dtype]


# --------------------------------------------------------------------------------------------- statistics
def test_percentiles_only_where_the_sample_allows():
    assert [timing.samples_needed(p) for p in (90, 95, 99)] == [29, 59, 299]
    few, _ = play({"a": 0.1}, rounds=28)
    some, _ = play({"a": 0.1}, rounds=60)
    assert list(few["a"].percentiles) == [] and list(some["a"].percentiles) == [90, 95]
    row = {r["quantity"]: r for r in some["a"].rows()}["latency_p99"]
    assert row["value"] is None and row["reason"] == "p99 needs 299 calls, there are 60"


def test_the_interval_covers_the_median_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    draws = timing.resampled_rounds(40, seed=1)
    for _ in range(300):
        _, low, high = timing.median_interval(rng.lognormal(size=40), draws)
        hits += low <= 1 <= high
    assert 0.90 <= hits / 300 <= 0.99


def test_resampled_rounds_keep_neighbours_together():
    draws = timing.resampled_rounds(27, seed=0)
    assert draws.shape == (timing.RESAMPLES, 27) and draws.min() == 0 and draws.max() == 26
    assert (np.diff(draws, axis=1) == 1).mean() > 0.6        # blocks of three


def play_processes(effects, rounds=8, spread=0.002, seed=0):
    """Rounds of a reference and of a second model whose ratio to it differs from process to process."""
    rng, done = np.random.default_rng(seed), []
    for process, effect in enumerate(effects):
        for _ in range(rounds):
            taken = {name: scale * math.exp(spread * rng.normal())
                     for name, scale in {"a": 0.1, "a (again)": 0.1, "b": 0.1 * effect}.items()}
            done.append(Round(tuple(taken), 0.3, timing.Disturbance(0.0, 0.0),
                              {name: [(t, t)] for name, t in taken.items()}, process))
    blank = {name: latency.Timing(name, 1, "float32", "eager") for name in ("a", "b")}
    timings, _, _ = judged(blank, done, "a", 0, 0.95)
    return timings["b"]


def test_from_five_processes_on_their_differences_are_in_the_interval():
    effects = (0.94, 1.06, 0.97, 1.05, 1.02)
    among, within = play_processes(effects), play_processes(effects[:4])
    assert among.ratio_low < 0.98 and among.ratio_high > 1.04
    same = play_processes([1.01] * 5)
    assert 1.005 < same.ratio_low < same.ratio_high < 1.015
    assert within.n == 32 and among.n == 40


def test_draws_take_whole_processes_or_stay_within_each():
    many = timing.resampled([0] * 6 + [1] * 6 + [2] * 6 + [3] * 6 + [4] * 4, seed=0)
    counted = [np.bincount(np.repeat(np.arange(5), [6, 6, 6, 6, 4])[row], minlength=5) for row in many]
    assert many.shape == (timing.RESAMPLES, 30) and all((c % 6 == 0).all() for c in counted)
    assert len({tuple(c) for c in counted}) > 50
    few = timing.resampled([0] * 6 + [3] * 4, seed=0)
    assert few.shape == (timing.RESAMPLES, 10) and (few[:, :6] < 6).all() and (few[:, 6:] >= 6).all()
    assert np.array_equal(timing.resampled([2] * 27, seed=4), timing.resampled_rounds(27, seed=4))


# --------------------------------------------------------------------------------------------- manners
def test_everything_is_put_back():
    clock = Clock()
    model = Sleeper(clock, 0.1).train()
    model.linear.eval()
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    latency.compare({"a": model}, SIZE, rounds=5, seconds=1e6, threads=threads + 1, clock=clock, load=Machine(clock),
                    device="cpu")
    assert model.training and not model.linear.training
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), random)
    model(torch.zeros(SIZE)).sum().backward()                # inference mode is over


def test_the_input_is_random_and_the_model_in_evaluation_mode():
    seen = []

    class Spy(Sleeper):
        def forward(self, x):
            seen.append((float(x.float().std()), self.training, torch.is_inference_mode_enabled(), x.shape))
            return super().forward(x)
    clock = Clock()
    latency.compare({"a": Spy(clock, 0.1)}, (64, 2, 5), rounds=5, seconds=1e6, clock=clock, load=Machine(clock),
                    device="cpu")
    assert all(0.8 < std < 1.2 and not training and inference for std, training, inference, _ in seen)


def test_rows_become_records(tmp_path):
    found, _ = play({"softmax": 0.1, "window": 0.2, "bad": 0.1}, wrong={"bad": 0.5})
    to = tmp_path / "cpu" / "12_latency.json"
    for name in ("softmax", "window"):
        results.record(f"latency.{name}", found[name], to=to)
    results.record("latency", found, to=to)
    table = results.load(tmp_path).set_index("name")
    assert table.loc["latency.window.latency.b3", "value"] == pytest.approx(200, rel=0.05)
    assert table.loc["latency.window.latency.b3", "unit"] == "ms"
    assert table.loc["latency.window.latency.b3", "model"] == "window"
    assert len(table.loc["latency.window.latency.b3", "samples"]) == 30
    assert table.loc["latency.window.verdict.b3", "text"] == "slower"
    assert table.loc["latency.window.throughput.b3", "value"] == pytest.approx(15, rel=0.05)
    assert "differs from float64" in table.loc["latency.latency.bad.b3", "reason"]
    assert table.loc["latency.noise_floor.b3", "value"] == found.floor
    assert table.loc["latency.conclusion.b3", "text"] == found.text
    by_round = table.loc["latency.rounds.b3", "by_round"]
    assert by_round["seconds"] == [r.seconds for r in found.rounds] and by_round["process"] == [0] * 30
    assert by_round["pressure"] == [0.0] * 30 and by_round["disturbed"] == [False] * 30 and len(by_round["steal"]) == 30
    assert {"load_1min", "cpu_pressure"} <= set(table.loc["latency.rounds.b3", "machine_before"])
    assert set(found.after) == set(found.before) and to.stat().st_size < 60_000
    assert list(found.frame().columns[:5]) == ["model", "batch", "dtype", "runtime", "latency_ms"]
    assert "<table" in found._repr_html_() and len(found) == 3 and list(found) == ["softmax", "window", "bad"]


def test_a_model_that_runs_out_of_memory_is_left_out_and_the_others_go_on(tmp_path):
    class Hungry(nn.Linear):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has 8 GiB.")
    clock = Clock()
    found = latency.compare({"softmax": Sleeper(clock, 0.01), "hungry": Hungry(5, 4)}, (3, 2, 5), rounds=8,
                            seconds=100.0, device="cpu", clock=clock, load=Machine(clock))
    assert found["hungry"].reason == "out of memory: CUDA out of memory. Tried to allocate 9.00 GiB"
    assert found["softmax"].median > 0
    made = results.record("latency.hungry", found["hungry"], to=tmp_path / "mine" / "12_latency.json")
    assert {r.reason for r in made} == {found["hungry"].reason} and all(r.value is None for r in made)


@pytest.mark.parametrize("models, options, words", [
    ({}, {}, "models is {}; wanted a dict of at least one"),
    ([nn.Linear(5, 4)], {}, "wanted a dict of at least one"),
    ({"a": lambda x: x}, {}, "models['a'] is a function; wanted a torch.nn.Module, or a Candidate"),
    ({"a": nn.Linear(7, 4)}, {}, "a does not take an input of (3, 2, 5)"),
    ({"a": nn.Linear(5, 4)}, {"reference": "b"}, "reference is 'b'; allowed: 'a'"),
    ({"a": nn.Linear(5, 4)}, {"dtype": "int8"}, "dtype is 'int8'; allowed: 'float32'"),
    ({"a": nn.Linear(5, 4)}, {"rounds": 0}, "rounds is 0; wanted a number from 1"),
    ({"a": nn.Linear(5, 4)}, {"seconds": -1}, "seconds is -1"),
    ({"a": nn.Linear(5, 4)}, {"processes": 0}, "processes is 0; wanted a whole number from 1"),
    ({"a": nn.Linear(5, 4)}, {"confidence": 95}, "confidence is 95; wanted a number from 0.5"),
    ({"a": nn.Linear(5, 4)}, {"device": "tpu"}, "device is 'tpu'; allowed"),
])
def test_errors_say_what_came_and_what_was_wanted(models, options, words):
    with pytest.raises((TypeError, ValueError)) as error:
        latency.compare(models, SIZE, **options)
    assert words in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error():
    with pytest.raises(RuntimeError, match="use device='cpu' or 'auto'"):
        latency.compare({"a": nn.Linear(5, 4)}, SIZE, device="cuda")
    with pytest.raises(RuntimeError, match="use device='cpu' or 'auto'"):
        latency.ceilings("cuda")


def test_an_unknown_model_of_a_comparison_is_named():
    found, _ = play({"a": 0.1}, rounds=5)
    with pytest.raises(ValueError, match="model is 'z'; allowed: 'a'"):
        found["z"]


# --------------------------------------------------------------------------------------------- ceilings and roofline
@pytest.mark.parametrize("side", [4, 64])
@pytest.mark.parametrize("way", [limits._matrices, limits._convolution])
def test_what_is_timed_for_the_ceilings_has_the_flop_that_torch_counts(way, side):
    run, x, flop = way(side, torch.rand)
    with FlopCounterMode(display=False) as counter:
        run(x)
    assert counter.get_total_flops() == flop


def test_ceilings_measure_something_and_keep_what_they_measured(tmp_path):
    found = latency.ceilings("cpu", seconds=0.2, side=64, copy_byte=2**16, threads=1)
    assert set(found.flops) == {"float32", "bfloat16"}
    assert found.flops["float32"] == max(found.samples["float32"]) and len(found.samples["copy"]) >= 3
    assert 1e6 < found.flops["float32"] < 1e15 and 1e6 < found.bandwidth < 1e14
    results.record("ceilings", found, to=tmp_path / "cpu" / "12_latency.json")
    table = results.load(tmp_path).set_index("name")
    assert table.loc["ceilings.matrix_rate.bfloat16", "unit"] == "FLOP/s"
    assert table.loc["ceilings.bandwidth", "value"] == found.bandwidth


@pytest.mark.parametrize("way", ["_matrices", "_convolution"])
def test_on_a_cpu_the_faster_kind_of_products_is_the_ceiling(way, monkeypatch):
    """Played: one of the two has far more FLOP than it takes time for."""
    monkeypatch.setattr(limits, way, lambda side, rand: (torch.neg, rand(2), 10**18))
    found = latency.ceilings("cpu", dtypes=("float32",), seconds=0.1, side=64, copy_byte=2**16, threads=1)
    assert found.flops["float32"] > 1e18


def test_ceilings_take_the_fastest_repetition():
    clock = Clock()
    times = iter([9, 4, 2, 5] + [9, 3, 3, 1])

    class Turns(timing.CpuTimer):
        def series(self, run, x, calls):
            taken = [next(times) for _ in range(1 + calls)][1:]
            clock.now += sum(taken)
            return [(seconds, seconds) for seconds in taken]
    rates = [latency_rates(Turns(), clock) for _ in range(2)]
    assert rates == [[25, 50, 20], [pytest.approx(100 / 3)] * 2 + [100]]


def latency_rates(timer, clock):
    from medbench.latency.limits import _rates
    return _rates(timer, None, None, 100, 1e-9, clock)


def test_the_roof_is_the_larger_of_arithmetic_and_memory():
    model = nn.Sequential(nn.Linear(50, 200), nn.GELU(), nn.Linear(200, 10))
    costs = cost.profile(model, (1, 50))
    weights, moved = 50 * 200 + 200 + 200 * 10 + 10, 50 + 200 + 200 + 10
    quiet = timing.Disturbance(0.0, 0.0)
    slow = latency.Ceilings({"float32": 1e3}, 1e12, "cpu", 1, quiet, {})
    found = latency.roofline(costs, slow, batch=8, latency=400.0)
    assert found.bound == "compute" and found.seconds == pytest.approx(8 * 2 * (50 * 200 + 200 * 10) / 1e3)
    assert found.share == pytest.approx(found.seconds / 400)
    narrow = latency.Ceilings({"float32": 1e12, "bfloat16": 1e12}, 1e3, "cpu", 1, quiet, {})
    found = latency.roofline(costs, narrow, batch=8)
    assert found.bound == "memory" and found.moved_byte == 4 * (weights + 8 * moved)
    assert latency.roofline(costs, narrow, batch=8, dtype="bfloat16").seconds == pytest.approx(found.seconds / 2)
    assert found.share is None and found.rows()[3]["reason"] == "no latency was given"
    with pytest.raises(ValueError, match="dtype is 'float16'; allowed: 'float32', 'bfloat16'"):
        latency.roofline(costs, narrow, dtype="float16")


def test_on_a_large_gpu_softmax_has_the_same_floor_as_windows():
    """At batch 64 memory decides, not arithmetic: about 0.32 ms with 790 TFLOP/s and 4.3 TB/s."""
    gpu = latency.Ceilings({"bfloat16": 790e12}, 4.3e12, "gpu", 1, timing.Disturbance(None, None), {})
    floors = {}
    for name in ("softmax", "window", "fastformer"):
        costs = cost.profile(mb.build_model(name), (1, 3, 224, 224))
        floors[name] = latency.roofline(costs, gpu, batch=64, dtype="bfloat16").seconds
    assert all(0.29e-3 < seconds < 0.36e-3 for seconds in floors.values())
    assert max(floors.values()) / min(floors.values()) < 1.15
