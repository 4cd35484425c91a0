"""What the mechanism chapters share tells the truth about the layers it shows."""

import math
import types

import pytest
import torch

import medbench as mb
from medbench import config, machine
from medbench.book import mechanism

BOOK = types.SimpleNamespace(profile=config.profile("smoke"), device=torch.device("cpu"), seed=0)


def test_counted_cost_is_the_closed_form_for_variants_of_one_mechanism():
    variants = {"softmax": ("softmax", {}), "r = 4": ("linformer", {"r": 4}),
                "study": ("linformer", {"setting": "seed"})}
    table = mechanism.cost_table(variants, sides=(4, 8), dim=24, num_heads=3)
    assert (table.closed_form == table.counted).all() and len(table) == 6
    assert list(table[table.model == "r = 4"].closed_form) == [4 * 4 * 16 * 24, 4 * 4 * 64 * 24]
    names = mechanism.cost_table(config.MECHANISMS, sides=(8,))
    assert (names.closed_form == names.counted).all()


def test_time_table_has_one_interval_a_variant_and_size():
    quick = types.SimpleNamespace(profile=BOOK.profile.replace(latency_seconds=0.9, latency_rounds=2), device="cpu")
    table = mechanism.time_table(["softmax", "none"], (2, 3), quick, dim=12, num_heads=3)
    assert list(table.num_tokens) == [4, 4, 9, 9] and (table.latency_ms > 0).all()
    told = table.assign(verdict=["reference", "slower", "reference", "faster"])
    assert mechanism.verdicts(told) == "none beside softmax: slower at 4 tokens; faster at 9 tokens"


def test_the_slice_is_always_the_same_and_its_lesion_lies_on_one_side():
    batch, again = mechanism.brain_slice(), mechanism.brain_slice()
    assert torch.equal(torch.as_tensor(batch.images), torch.as_tensor(again.images))
    inside, opposite = mechanism.two_tokens(batch, (16, 16))
    assert inside // 16 == opposite // 16 and inside % 16 + opposite % 16 == 15 and abs(inside - opposite) > 4
    lesion = torch.nn.functional.adaptive_max_pool2d(batch.lesion.float(), (16, 16))[0].flatten()
    assert lesion[inside] == 1 and lesion[opposite] == 0


def test_mixing_of_a_model_is_that_of_its_layer():
    model = mb.build_model("none", preset="smoke").eval()
    matrix, grid = mechanism.mixing_of(model, mechanism.brain_slice().images)
    assert grid == (16, 16) and torch.count_nonzero(matrix - matrix.diagonal().diag()) == 0
    numbers = {row["quantity"]: row["value"] for row in mechanism.mixing_rows(matrix, grid)}
    assert numbers["share_of_self"] == 1 and numbers["mean_distance"] == 0
    table = mechanism.mixing_table(mechanism.mixing_rows(matrix, grid), grid)
    assert list(table.iloc[:, 1]) == [1, round(1 / 256, 3), 1]


def test_attention_matrix_has_rows_that_sum_to_one():
    A = mechanism.attention_matrix(mb.build_model("softmax", preset="smoke"), mechanism.brain_slice().images)
    assert A.shape == (256, 256) and torch.allclose(A.sum(1), torch.ones(256))


def test_recorded_takes_this_device_first_and_says_what_to_run(tmp_path, monkeypatch):
    from medbench import results

    monkeypatch.setattr(results, "edition_root", lambda: tmp_path / "edition")
    monkeypatch.setattr(results, "results_root", lambda: tmp_path / "here")
    with pytest.raises(LookupError, match="make chapter NAME=10_training"):
        mechanism.recorded("balanced_accuracy")
    row = {"quantity": "balanced_accuracy", "unit": "1", "value": 0.7}
    per_class = row | {"value": 0.1, "suffix": "edema", "context": {"class": "edema"}}
    other, own = (tmp_path / "edition" / d / "10_training.json" for d in ("some-gpu", machine.device_name("cpu")))
    results.record("phantom.softmax", [row, per_class], to=other)
    results.record("phantom.none", [row], to=other)
    assert set(mechanism.recorded("balanced_accuracy", device="cpu").model) == {"softmax", "none"}
    results.record("phantom.xca", [row | {"value": 0.6}], to=own)
    found = mechanism.recorded("balanced_accuracy", device="cpu")
    assert list(found.model) == ["xca"] and math.isclose(found.value.iloc[0], 0.6)


def test_the_experiment_is_the_one_of_chapter_ten():
    exp = mechanism.experiment("xca", BOOK)
    same = mb.Experiment.preset("smoke", "xca", seed=0, profile="smoke", device="cpu")
    assert exp.fingerprint == same.fingerprint
