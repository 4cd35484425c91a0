"""What chapter 12 shows: the machine's facts, times under the right name."""

import torch

import medbench as mb
from medbench import results
from medbench.book import timings


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
