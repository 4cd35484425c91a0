"""Other people's layers: where they say to compute the same, they do, and a contest is recorded as it was timed."""

import dataclasses

import pytest
import torch

from medbench import contests, peers, results

TINY = {"tiny": (64, 12, 3)}


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: f"{peer.mechanism}-{peer.name}")
def test_a_peer_takes_our_weights_and_computes_the_same_unless_it_says_how_it_differs(peer):
    if not peers.installed(peer):
        pytest.skip(f"{peer.package} is not installed; pip install .[peers]")
    for options in ({}, {"layer_index": 1, "window_size": 4}) if peer.mechanism == "window" else ({},):
        ours, theirs = peers.pair(peer, TINY["tiny"], **options)
        x = torch.randn(2, *TINY["tiny"][:2], dtype=torch.float64)
        error = (ours.double()(x) - theirs.double()(x)).abs().max() / ours(x).abs().max()
        assert (error > 1e-4) if peer.differs else (error < 1e-12), float(error)


def test_timms_xca_takes_its_fused_path_and_timm_its_own_settings_afterwards():
    from timm.layers import use_fused_attn
    before = use_fused_attn(experimental=True)
    _, theirs = peers.pair(next(p for p in peers.PEERS if (p.name, p.mechanism) == ("timm", "xca")), TINY["tiny"])
    assert theirs.fused_attn and use_fused_attn(experimental=True) == before


def test_a_peer_that_only_says_to_be_the_same_is_not_timed():
    liar = next(peer for peer in peers.PEERS if peer.mechanism == "performer")
    with pytest.raises(ValueError, match="differs from our performer by .* wanted at most 1e-05"):
        peers.pair(dataclasses.replace(liar, differs=""), TINY["tiny"])


def test_weights_of_theirs_that_nothing_fills_are_named():
    with pytest.raises(ValueError, match="Linear has bias, which nothing of ours fills"):
        peers._copy(torch.nn.Linear(2, 2), {"weight": torch.eye(2)})


def test_our_window_pyramid_is_timms_swin_but_for_the_positions():
    """At the real size, with shifts and biases: `pyramids` refuses where they differ by more than rounding."""
    ours, theirs = peers.pyramids(seed=3)
    assert sum(p.numel() for p in ours.parameters()) - sum(p.numel() for p in theirs.parameters()) == 64 * 96 + 96
    theirs.layers[1].downsample.norm.bias.data[0] += 1
    with pytest.raises(ValueError, match="timm SwinTransformer of timm differs from our window by"):
        spoiled = dataclasses.replace(peers.SWIN, build=lambda _: theirs)
        peers._checked(spoiled, ours, torch.randn(1, 3, 224, 224, dtype=torch.float64))


@pytest.mark.parametrize("backward", [False, True])
def test_a_contest_is_recorded_as_it_was_timed(backward, monkeypatch, tmp_path):
    monkeypatch.setattr(contests, "SHAPES", TINY)
    peer = next(peer for peer in peers.PEERS if (peer.mechanism, peer.name) == ("xca", "timm"))
    found = contests.compare(peer, "tiny", 2, "bfloat16", backward, rounds=2, seconds=1, device="cpu")
    line = found.row()
    assert line["ours_ms"] > 0 and line["theirs_ms"] > 0 and line["verdict"] == "inconclusive"  # two rounds
    assert found.found["medbench"].error < 0.1
    made = results.record("peers.xca.timm", found, to=tmp_path / "here" / "12_peers.json")
    names = [record.name for record in made]
    end = "tiny.b2.bfloat16.both" if backward else "tiny.b2.bfloat16.forward"
    assert names == [f"peers.xca.timm.{name}.{end}" for name in ("ratio", "ours", "theirs")]
    assert made[0].value == line["ratio"] and made[0].context["version"]
    rounds = len(found.found.rounds)
    assert [len(record.samples or []) for record in made] == [0, rounds, rounds]


def test_backward_reaches_the_weights(monkeypatch):
    peer = peers.PEERS[0]
    ours, _ = peers.pair(peer, TINY["tiny"])
    run = contests._candidate(ours, "float32", True)
    with torch.inference_mode():
        run.run(torch.randn(1, 64, 12))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in run.module.parameters())


@pytest.mark.parametrize("peer", [peer for peer in peers.PEERS if not peer.differs],
                         ids=lambda peer: f"{peer.mechanism}-{peer.name}")
def test_both_sides_of_a_contest_have_the_same_gradient(peer):
    """The gate of a contest looks at outputs alone, and a contest with gradients times more than those."""
    if not peers.installed(peer):
        pytest.skip(f"{peer.package} is not installed; pip install .[peers]")
    found = []
    for side in peers.pair(peer, TINY["tiny"]):
        x = torch.randn(2, *TINY["tiny"][:2], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        side.double()(x.requires_grad_()).square().sum().backward()
        found.append(x.grad)
    ours, theirs = found
    assert (ours - theirs).abs().max() < 1e-12 * theirs.abs().max()


def test_all_contests_of_a_mechanism_in_turn(monkeypatch):
    monkeypatch.setattr(contests, "installed", lambda peer: True)
    monkeypatch.setattr(contests, "SHAPES", TINY)
    asked = []
    monkeypatch.setattr(contests, "compare", lambda peer, *what, **protocol: asked.append((peer.name, *what)))
    list(contests.contests(["window"], (2,), ("float32",)))
    sides = (("timm", "tiny"), (peers.SWIN.name, "pyramid"))
    assert asked == [(name, shape, 2, "float32", both) for name, shape in sides for both in (False, True)]
    asked.clear()
    list(contests.contests(["xca"], (1, 4), ("float32",)))
    assert asked == [(name, "tiny", batch, "float32", both) for name in ("timm", "vit-pytorch")
                     for batch, both in ((1, False), (4, False), (4, True))]


def line(peer, ratio, verdict, shape="stage1", differs="", rounds=6):
    """One contest in one line, as `Contest.row` makes it."""
    return {"mechanism": "xca", "peer": peer, "shape": shape, "batch": 1, "dtype": "float32", "pass": "forward",
            "ratio": ratio, "verdict": verdict, "differs": differs, "rounds": rounds}


def test_standings_are_held_to_the_fastest_peer_of_the_same_function():
    lines = [line("slow", 0.2, "faster"), line("quick", 0.9, "tie"), line("other", 3.0, "slower", differs="in this"),
             line("slow", 0.4, "faster", "stage3"), line("whole", 1.1, "slower", peers.PYRAMID)]
    layer, pyramid = contests.standings(lines)
    assert layer["value"] == pytest.approx((0.9 * 0.4) ** 0.5) and layer["n"] == 2 and pyramid["value"] == 1.1
    assert layer["text"] == ("xca takes 0.60 of the time of the fastest peer (quick, slow) on average over 2 cases: "
                             "faster in 1, tie in 1.")
    assert contests.standings([]) == []


def test_cases_with_few_quiet_rounds_do_not_count():
    """Nor does the second fastest peer take the place of one that could not be judged."""
    lines = [line("slow", 0.2, "faster"), line("quick", 0.9, "inconclusive", rounds=5),
             line("slow", 0.4, "faster", "stage3"), line("whole", 1.1, "inconclusive", peers.PYRAMID, rounds=0)]
    layer, pyramid = contests.standings(lines)
    assert (layer["value"], layer["n"], layer["context"]["not_judged"]) == (pytest.approx(0.4), 1, 1)
    assert layer["text"].endswith("over 1 cases: faster in 1; 1 cases had fewer than 6 quiet rounds and do not count.")
    assert pyramid["value"] is None and pyramid["reason"] == "1 cases had fewer than 6 quiet rounds"


def test_the_cases_and_the_time_that_they_take():
    found = contests.cases(("xca", "window"))
    pyramids = [case for case in found if case[1] == contests.PYRAMID]
    assert len(pyramids) == 6 and {case[0].mechanism for case in found} == {"xca", "window"}
    assert contests.units(("xca", "window")) == len(found) + (contests.PYRAMID_TIMES - 1) * 6
    assert len(set(found)) == len(found)
