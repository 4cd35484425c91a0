"""Where lines cross, played with our own clock: crossings are known, what runs out says so, a killed run goes on."""

import dataclasses
import itertools
import math
import re

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
import torch
from test_latency import Clock, Machine, Sleeper
from torch import nn

from medbench import cost, crossing, latency, layers, plots, records, results, scaling
from medbench.__main__ import main
from medbench.attention import ATTENTION
from medbench.latency import Peak
from medbench.scaling import Point, Setup

SIZES = (64, 128, 256, 512, 1024)
QUICK = {"seconds": 1e6, "rounds": 12, "precision": 0.0}


# --------------------------------------------------------------------------------------------- a played device
def play(takes, at=SIZES, *, macs=None, memory=None, spread=0.02, clock=None, reference="softmax", **options):
    """Steps of contenders that take these seconds at each size: {name: seconds(N)}."""
    clock = clock or Clock()

    def setup(N):
        models = {name: Sleeper(clock, seconds(N), spread, seed=N + i) for i, (name, seconds) in
                  enumerate(takes.items())}
        return Setup(models, (3, 2, 5), {name: (macs or {}).get(name, lambda N: N)(N) for name in takes},
                     {name: (memory or {}).get(name, lambda N: N)(N) for name in takes})
    options = {**QUICK, "memory_byte": 10**9, **options}
    return list(scaling.over("tokens", takes, at, setup, reference=reference, device="cpu", clock=clock,
                             load=Machine(clock), **options))


def flat(steps):
    return [point for step in steps for point in step]


def power(crossing, exponent):
    """Seconds of softmax and of one that crosses it at `crossing` tokens."""
    return {"softmax": lambda N: 1e-3 * N / 64, "other": lambda N: 1e-3 * N / 64 * (N / crossing) ** exponent}


def drawn(rng, ratio, at=SIZES, rounds=12, spread=0.05, floor=0.01):
    """Points whose times scatter about known ones, without a protocol: {N: other's time over softmax's}."""
    points = []
    for N in at:
        noise = np.exp(spread * rng.normal(size=(2, rounds)))
        points += [Point("tokens", "softmax", N, N, N, tuple(noise[0]), floor=floor),
                   Point("tokens", "other", N, N, N, tuple(ratio(N) * noise[1]), floor=floor)]
    return points


# --------------------------------------------------------------------------------------------- the measured crossover
def test_a_known_crossing_is_found_with_its_interval():
    found = crossing.crossover(flat(play(power(300, -0.5), rounds=30)), "other", closed_form=7)
    assert found.outcome == "gains" and found.low < 300 < found.high
    assert found.tokens == pytest.approx(300, rel=0.05) and found.high / found.low < 1.2
    assert found.text.startswith(f"other is faster than softmax from about {found.tokens:,.0f} tokens (95 % interval ")
    assert found.text.endswith("It needs fewer multiply-adds from 7 on.")


@pytest.mark.parametrize("takes, outcome, words", [
    (lambda N: 0.5, "always", "is faster than softmax from 64 tokens on, the fewest measured"),
    (lambda N: 1.0 if N < 100 else 0.5, "always", "from 128 tokens on, at fewer no difference was shown"),
    (lambda N: 2.0, "never", "is not faster than softmax anywhere within 64 to 1,024 tokens; slower at 64, 128"),
    (lambda N: 0.5 if N < 300 else 2.0, "loses", "is faster than softmax only up to about 362 tokens"),
    (lambda N: 2.0 if N < 100 or N == 512 else 0.5, "several",
     "crosses softmax more than once: faster at 128, 256, 1,024 tokens, slower at 64, 512"),
    (lambda N: 1.0, "undecided", "was not told apart from softmax within 64 to 1,024 tokens")])
def test_every_outcome_is_said_as_it_is(takes, outcome, words):
    found = crossing.crossover(drawn(np.random.default_rng(0), takes, spread=0.004, floor=0.02), "other")
    assert found.outcome == outcome and words in found.text
    assert (found.tokens is None) == (outcome not in ("gains", "loses"))
    assert (found.rows()[0]["reason"] is None) == (found.tokens is not None)


def test_the_interval_holds_the_true_crossing_about_as_often_as_it_says():
    rng, hits, runs = np.random.default_rng(1), 0, 200
    for _ in range(runs):
        true = math.exp(rng.uniform(math.log(110), math.log(600)))
        found = crossing.crossover(drawn(rng, lambda N, true=true: (N / true) ** -0.4), "other")
        hits += found.outcome == "gains" and found.low <= true <= found.high
    assert 0.84 <= hits / runs <= 1.0, hits


def test_of_several_crossings_the_middle_one_is_taken():
    x = np.log([1, 2, 4, 8])
    got = crossing._passes_zero(x, np.array([[3, 1, -1, -1], [1, -1, 1, -1], [1, 1, 2, 3]]))
    assert np.exp(got[:2]) == pytest.approx([8**0.5, 8**0.5]) and math.isnan(got[2])


def test_a_busy_machine_decides_nothing():
    clock = Clock()
    takes = power(300, -0.5)
    setup = {name: Sleeper(clock, s(64)) for name, s in takes.items()}
    steps = scaling.over("tokens", takes, (64,), lambda N: Setup(setup, (3, 2, 5), *[dict.fromkeys(takes, 1)] * 2),
                         device="cpu", clock=clock, load=Machine(clock, lambda r: 0.5), memory_byte=10, **QUICK)
    [step] = steps
    assert all(len(p.rounds) == 36 and "were quiet" in p.reason for p in step)
    assert crossing.ratio(step, "other", 64).verdict == "inconclusive"
    assert crossing.crossover(step, "other").outcome == "undecided"


def test_any_contender_can_be_the_reference():
    points = flat(play(power(300, -0.5)))
    back = crossing.crossover(points, "softmax", "other")
    assert back.outcome == "loses" and back.tokens == pytest.approx(crossing.crossover(points, "other").tokens)
    with pytest.raises(ValueError, match="name is 'xcit'; allowed: 'softmax', 'other'"):
        crossing.crossover(points, "xcit")


# --------------------------------------------------------------------------------------------- counted
@pytest.mark.parametrize("name, tokens", [
    ("linformer", 217),            # 4 r N C + 2 r C^2 < 2 N^2 C + 2 N C^2 with r = 128: N > 216.7
    ("performer", 222),            # 4 r C + r h < 2 N C with r = 110: N > 221.7
    ("fastformer", 19),            # C d + 4 C < 2 N C with d = 32: N > 18
    ("xca", 33),                   # 2 C d < 2 N C: N > 32
    ("window", 65),                # 2 M C < 2 N C with M = 64; the same up to 64
    ("softmax", None), ("softmax_written_out", None)])
def test_multiply_adds_cross_where_pencil_and_paper_say(name, tokens):
    assert crossing.closed_form_crossover(name) == tokens


def test_the_closed_form_knows_the_layer_of_each_n():
    assert crossing.layer_macs("linformer", 64) == 4 * 64 * 64 * 96 + 4 * 64 * 96**2
    assert crossing.layer_macs("linformer", 1024) == 4 * 128 * 1024 * 96 + 2 * (1024 + 128) * 96**2
    assert crossing.layer_macs("window", 49) == 2 * 49**2 * 96 + 4 * 49 * 96**2            # one window
    assert crossing.layer_macs("window", 65) == 2 * 65 * 64 * 96 + 4 * 65 * 96**2
    assert crossing.closed_form_crossover("xca", dim=96, num_heads=6) == 17
    with pytest.raises(ValueError, match="mechanism is 'xcit'"):
        crossing.closed_form_crossover("xcit")


# --------------------------------------------------------------------------------------------- memory
def memory(name, N):
    return layers.setup([name], N, 96, 3, 1, "float32").memory_byte[name]


@pytest.mark.parametrize("name", layers.LAYERS)
def test_memory_grows_with_n_and_only_the_written_out_matrix_with_its_square(name):
    grows = memory(name, 16384) / memory(name, 8192)
    assert 3.9 < grows < 4.0 if name == layers.WRITTEN_OUT else 1.9 < grows < 2.02
    if name == layers.WRITTEN_OUT:
        assert memory(name, 4096) > 4 * 2 * 3 * 4096**2                    # h matrices before and after the softmax


@pytest.mark.parametrize("fused", [True, False])
def test_counted_memory_is_what_torch_s_profiler_sees(fused):
    from torch.profiler import ProfilerActivity, profile
    layer, x = ATTENTION["softmax"](96, 3, (16, 32)).eval(), torch.randn(1, 512, 96)
    run = layer if fused else layers.written_out(layer).run
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run(x)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    peak = max(itertools.accumulate(e.nbytes() for e in events))
    held = 4 * (sum(p.numel() for p in layer.parameters()) + x.numel())
    counted = memory("softmax" if fused else layers.WRITTEN_OUT, 512) - held
    assert counted == pytest.approx(peak, rel=0.4 if fused else 0.2)       # the kernels have a little of their own


def test_the_written_out_layer_is_softmax():
    here = layers.setup(layers.LAYERS, 128, 96, 3, 1, "float32")
    x = torch.randn(1, 128, 96)
    with torch.no_grad():
        assert torch.allclose(here.models["softmax"](x), here.models[layers.WRITTEN_OUT].run(x), atol=1e-5)
    assert here.macs["softmax"] == here.macs[layers.WRITTEN_OUT] == 128 * 4 * 96**2 + 2 * 128**2 * 96


# --------------------------------------------------------------------------------------------- what runs out
def test_what_would_take_too_long_is_left_out_and_says_so():
    takes = {"softmax": lambda N: 0.01 * (N / 64) ** 2, "other": lambda N: 0.01}
    steps = play(takes, macs={"softmax": lambda N: N**2}, seconds=60.0, spread=0.0)
    left = {p.at: p.reason for p in flat(steps) if p.name == "softmax" and not p.rounds}
    assert left == {1024: "would take about 2.6 s a call, too long for a step of 60 s"}
    assert all(p.rounds for p in flat(steps) if p.name == "other")         # goes on alone, without a ratio
    last = crossing.table(flat(steps)).iloc[-1]
    assert math.isnan(last.ratio) and last.reason.startswith("softmax: would take about 2.6 s")
    found = crossing.crossover(flat(steps), "other")
    assert found.text.endswith("At 1,024 tokens softmax would take about 2.6 s a call, too long for a step of 60 s.")
    assert found.outcome == "always" and 1024 not in found.verdicts


def test_what_would_need_too_much_memory_is_never_run():
    ran = []

    class Spy(Sleeper):
        def forward(self, x):
            ran.append(self.N)
            return super().forward(x)
    clock = Clock()

    def setup(N):
        models = {"softmax": Sleeper(clock, 0.1), "big": Spy(clock, 0.1)}
        models["big"].N = N
        return Setup(models, (3, 2, 5), {"softmax": 1, "big": 1}, {"softmax": 1, "big": 10**6 * N**2})
    steps = list(scaling.over("tokens", ("softmax", "big"), (64, 128), setup, device="cpu", clock=clock,
                              load=Machine(clock), memory_byte=6 * 10**9, **QUICK))
    assert steps[1][1].reason == "would need about 16.4 GB of 6.0 GB" and set(ran) == {64}
    assert "big would need about 16.4 GB" in crossing.summary(steps[1])


def test_a_busy_machine_leaves_nothing_out_too_soon():
    busy = Point("tokens", "softmax", 64, 1, 1, (1.0,), reason="0 of 9 rounds were quiet")
    here = Setup({"softmax": None}, (), {"softmax": 2}, {"softmax": 1})
    assert scaling.left_out(here, {"softmax": busy}, "softmax", 20.0, 10) == {}
    quiet = {"softmax": Point("tokens", "softmax", 64, 1, 1, (1.0,))}
    assert "about 2 s a call" in scaling.left_out(here, quiet, "softmax", 20.0, 10)["softmax"]


@pytest.mark.parametrize("tokens, shape", [(64, (8, 8)), (128, (8, 16)), (8192, (64, 128)), (16384, (128, 128))])
def test_grids_are_square_or_twice_as_wide(tokens, shape):
    assert layers.grid(tokens) == shape


@pytest.mark.parametrize("call, words", [
    (lambda: layers.over_tokens(["xcit"]), "mechanism is 'xcit'; allowed: 'softmax'"),
    (lambda: layers.over_tokens(tokens=[100]), "tokens is 100; wanted H x H or H x 2H with H a multiple of 8"),
    (lambda: next(layers.over_tokens(["xca"])), "reference is 'softmax'; allowed: 'xca'"),
    (lambda: next(layers.over_tokens(seconds=0)), "seconds is 0; wanted a number"),
    (lambda: next(scaling.over("token", ("softmax",), (1,), None)), "part is 'token'; allowed: 'tokens'"),
    (lambda: scaling.recorded([], "token"), "part is 'token'; allowed: 'tokens'")])
def test_errors_say_what_came_and_what_was_wanted(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


# --------------------------------------------------------------------------------------------- a killed run goes on
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    clock, to = Clock(), tmp_path / "cpu" / "12_scaling.json"
    whole = flat(play(power(300, -0.5)))
    for step in (whole[:2], whole[2:4]):                                   # killed after 128 tokens
        for name, rows in crossing.rows(step).items():
            results.record(f"tokens.{name}", rows, to=to)
    back = scaling.recorded(records.read(to).records, "tokens")
    assert [(p.name, p.at) for p in sorted(back, key=lambda p: p.at)] == [
        (name, N) for N in (64, 128) for name in ("other", "softmax")]
    assert sorted(back, key=str)[0].rounds == pytest.approx(sorted(whole[:4], key=str)[0].rounds)
    more = play(power(300, -0.5), clock=clock, done=back)
    assert [step[0].at for step in more] == [256, 512, 1024]
    found = crossing.crossover(back + flat(more), "other")
    assert found.tokens == pytest.approx(crossing.crossover(whole, "other").tokens, rel=1e-9)
    assert play(power(300, -0.5), done=back + flat(more)) == []
    assert len(play(power(300, -0.5), done=back, dtype="bfloat16")) == 5   # another run


def test_a_step_that_was_too_short_is_timed_again_where_it_gets_more_seconds(tmp_path):
    takes = {"softmax": lambda N: 0.01 * (N / 64) ** 2, "other": lambda N: 0.01}
    macs, to = {"softmax": lambda N: N**2}, tmp_path / "cpu" / "12_scaling.json"
    for step in play(takes, macs=macs, seconds=60.0, spread=0.0):
        for name, rows in crossing.rows(step).items():
            results.record(f"tokens.{name}", rows, to=to)
    back = scaling.recorded(records.read(to).records, "tokens")
    assert {(p.name, p.at): p.too_short for p in back if p.too_short} == {("softmax", 1024): 60.0}
    assert play(takes, macs=macs, seconds=60.0, done=back) == []
    [again] = play(takes, macs=macs, seconds=600.0, spread=0.0, done=back)
    assert {p.name: (p.at, bool(p.rounds), p.too_short) for p in again} == {"softmax": (1024, True, None),
                                                                           "other": (1024, True, None)}


def test_a_step_that_is_too_short_again_takes_no_verdict_away():
    takes = {"softmax": lambda N: 0.01 * (N / 64) ** 2, "other": lambda N: 0.01}
    [good] = play(takes, at=(64,))
    good = [good[0], dataclasses.replace(good[1], rounds=(), reason="would take about 9 s a call", too_short=3.0)]
    [again] = play({name: lambda N: 1.0 for name in takes}, at=(64,), seconds=8.0, done=good)
    assert [p.rounds for p in again] == [p.rounds for p in good]
    assert [p.too_short for p in again] == [None, 8.0]


def test_what_lacks_memory_was_not_too_short():
    [step] = play({"softmax": lambda N: 0.01, "other": lambda N: 0.01}, at=(64,), memory={"other": lambda N: 10**10})
    assert [p.too_short for p in step] == [None, None] and step[1].reason.startswith("would need")


def test_half_a_step_is_timed_again():
    whole = flat(play(power(300, -0.5)))
    assert [step[0].at for step in play(power(300, -0.5), done=whole[1:])] == [64]


def test_records_are_named_by_size_and_batch(tmp_path):
    [step] = play(power(300, -0.5), at=(1024,), context={"dim": 96, "num_heads": 3, "batch": 1})
    made = results.record("tokens.softmax", crossing.rows(step)["softmax"], to=tmp_path / "cpu" / "12_scaling.json")
    assert [r.name for r in made] == [f"tokens.softmax.{q}.n1024.b1" for q in
                                      ("latency", "memory", "macs", "latency_ratio")]
    assert made[0].unit == "ms" and len(made[0].samples) == 12 and made[0].value == pytest.approx(16, rel=0.05)
    about = made[0].context
    assert (about["tokens"], about["dim"], about["num_heads"], about["batch"], about["dtype"]) == (
        1024, 96, 3, 1, "float32")
    found = crossing.crossover(step, "other")
    made = results.record("tokens.other", found, to=tmp_path / "cpu" / "12_scaling.json")
    assert [r.name for r in made] == [f"tokens.other.{q}.to_softmax.b1" for q in
                                      ("crossover", "crossover_closed_form", "conclusion")]
    assert made[2].text == found.text and made[0].reason


# --------------------------------------------------------------------------------------------- the real thing, tiny
class Net(nn.Module):
    """Images to logits, of any size."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


TICKS = itertools.count()
TINY = {"rounds": 1, "device": "cpu", "clock": lambda: next(TICKS) / 50}  # no call takes longer on a busy machine


def test_layers_sizes_threads_and_batches_run():
    steps = list(layers.over_tokens(("softmax", "xca"), (64, 128), dim=12, **TINY))
    assert [(p.at, p.name) for p in flat(steps)] == [(64, "softmax"), (64, "xca"), (128, "softmax"), (128, "xca")]
    nets, thin = {"thin": Net(4), "wide": Net(8)}, TINY | {"reference": "thin"}
    found = flat(scaling.sizes(lambda name, px: nets[name], nets, (16, 32), **thin))
    assert [p.suffix for p in found] == ["s16.b1", "s16.b1", "s32.b1", "s32.b1"]
    assert found[3].macs == 32**2 * 27 * 8 + 16 and all(p.rounds for p in found)
    found = flat(scaling.threads(nets, (2, 3, 16, 16), (1, 2), **thin))
    assert [p.suffix for p in found] == ["t1.b2"] * 2 + ["t2.b2"] * 2
    found = flat(scaling.batches(nets, (3, 16, 16), (1, 4), **thin))
    assert [p.suffix for p in found] == ["b1", "b1", "b4", "b4"] and found[2].macs == 4 * found[0].macs
    assert crossing.summary(found[:2], "thin").startswith("At 1 image: ")


def test_memory_is_measured_beside_the_count(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(layers.latency, "peak_memory", lambda module, size, device, seed: Peak(
        None, None, 7 * size[1], dict.fromkeys(("allocated", "reserved"), "no GPU"), size[0], "float32", "cpu"))
    found = list(layers.peaks(("xca", "window"), (64, 128), dim=12, memory_byte=40_000, done=[("xca", 128)],
                              device="cpu"))
    rows = {(name, row["context"]["tokens"], row["quantity"]): row for step in found for name, own in step.items()
            for row in own}
    assert {key[:2] for key in rows} == {("xca", 64), ("window", 64), ("window", 128)}
    assert rows["xca", 64, "grown"]["value"] == 7 * 64 and rows["xca", 64, "counted"]["suffix"] == "n64.b1"
    size = (1, 64, 12)
    costs = cost.profile(layers.setup(["xca"], 64, 12, 3, 1, "float32").models["xca"], size)
    assert rows["xca", 64, "counted"]["value"] == 4 * costs.activation_elements
    assert rows["window", 128, "grown"]["value"] is None
    assert rows["window", 128, "grown"]["reason"].startswith("would need about 0.0 GB")
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path))
    monkeypatch.setattr(scaling, "TOKENS", (64,))
    line = "scaling --part memory --record 12_scaling --device cpu --format csv".split()
    assert main(line) == 0 and capsys.readouterr().out.count("memory,") == 7
    monkeypatch.setattr(layers.latency, "peak_memory", None)             # not asked again, shown all the same
    assert main(line) == 0 and capsys.readouterr().out.count("memory,") == 7
    [to] = tmp_path.glob("*/12_scaling.json")
    assert {r.name for r in records.read(to).records if r.model == "xca"} == {
        f"memory.xca.{quantity}.n64.b1" for quantity in ("counted", "grown")}


def test_memory_on_a_gpu_is_what_rose_above_weights_and_input_and_a_failure_is_said(monkeypatch):
    module = torch.nn.Linear(3, 3)
    found = Peak(1000, 2000, 3000, {}, 1, "float32", "cuda")
    monkeypatch.setattr(layers.latency, "peak_memory", lambda *_, **__: found)
    assert layers._grown(module, (1, 3), torch.device("cuda"), 300, 0) == (700, None)
    assert layers._grown(module, (1, 3), torch.device("cpu"), 300, 0) == (3000, None)

    def failing(*_, **__):
        raise RuntimeError("the new process ended without an answer")
    monkeypatch.setattr(layers.latency, "peak_memory", failing)
    assert layers._grown(module, (1, 3), torch.device("cpu"), 0, 0) == (None, "the new process ended without an answer")


def test_the_written_out_layer_can_go_to_another_process():
    module = layers.setup((layers.WRITTEN_OUT,), 64, 12, 3, 1, "float32").models[layers.WRITTEN_OUT].module
    assert latency.peak_memory(module, (1, 64, 12), device="cpu").process > 0


def test_the_command_records_each_step_and_a_second_time_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path))
    monkeypatch.setattr(scaling, "TOKENS", (128,))
    line = "scaling --part tokens --seconds 0.3 --record 12_scaling --device cpu --format csv".split()
    assert main(line) == 0
    first = capsys.readouterr()
    assert first.out.count("tokens,") == 7 and "At 128 tokens:" in first.err
    table = results.load(tmp_path).set_index("name")
    assert table.loc["tokens.softmax.latency.n128.b1", "value"] > 0
    assert "tokens.xca.crossover.to_softmax.b1" in table.index
    assert "conclusion" in set(table[table.model == "softmax_written_out"].quantity)
    assert main(line) == 0
    second = capsys.readouterr()
    assert not re.search("^At 128", second.err, re.M)
    assert [line.split(",")[:3] for line in second.out.split()] == [line.split(",")[:3] for line in first.out.split()]
    assert main([*line, "--again"]) == 0 and "At 128 tokens:" in capsys.readouterr().err
    assert main(["scaling", "--part", "token"]) == 2
    assert "part is 'token'; allowed: 'tokens', 'sizes', 'threads', 'batches'" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------- the figure
def test_the_figure_marks_crossings_and_ends():
    takes = power(300, -0.5) | {"dear": lambda N: 0.01 * (N / 64) ** 2}
    points = flat(play(takes, macs={"dear": lambda N: N**2}, seconds=30.0))
    found = [crossing.crossover(points, "other", closed_form=100), crossing.crossover(points, "dear")]
    upper, lower = plots.crossover(crossing.table(points), crossing.crossover_table(found))
    upper.figure.canvas.draw()
    words = [t.get_text() for t in lower.get_legend().get_texts()]
    assert len(words) == 1 and words[0].startswith("dear at 1,024: would take about")
    assert sum(line.get_marker() == "x" and len(line.get_xdata()) for line in upper.lines) == 1
    assert {t.get_text() for t in upper.texts} == {"other", "dear"}
    assert upper.get_xscale() == upper.get_yscale() == "log"
    drawn = [line.get_xdata() for line in lower.lines]
    assert any(np.allclose(x, [found[0].low, found[0].high]) for x in drawn if len(x) == 2)
    assert [line.get_xdata()[0] for line in lower.lines if line.get_markerfacecolor() == "none"] == [100]
    assert "nowhere faster" in [t.get_text() for t in lower.texts]
    assert lower.get_xlabel() == "number of tokens $N$"
    with pytest.raises(ValueError, match="the table lacks ratio"):
        plots.crossover(crossing.table(points).drop(columns="ratio"))
