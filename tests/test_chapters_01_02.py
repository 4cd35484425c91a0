"""What chapters 01 and 02 show: the pyramid's parts, its shared weights, leaking copies, the quiz, the figure."""

import matplotlib

matplotlib.use("agg")

import io
import math
import types

import numpy as np
import pytest
import torch

import medbench as mb
from medbench import metrics
from medbench.book import drawings, overview, patients, pyramid

torch.set_num_threads(1)


@pytest.mark.parametrize("name", (*mb.config.MECHANISMS, "none"))
def test_parts_sum_up_to_the_model_without_its_classifier(name):
    model = mb.build_model(name, preset="smoke")
    size = (1, model.config.in_chans, *model.config.img_size)
    parts, head = pyramid.parts(model, size), model.head.in_features * model.head.out_features
    assert int(parts[list(pyramid.PARTS)].to_numpy().sum()) == mb.cost.profile(model, size).macs - head
    assert (parts[list(pyramid.PARTS)] >= 0).all(axis=None)
    counted = mb.cost.profile(model, size).mixing_macs
    assert int(parts.mixing.sum()) == counted and (counted > 0) == (name != "none")


def test_stages_are_those_of_the_model():
    stages = pyramid.stages(mb.build_model("softmax", preset="smoke", img_size=(112, 224)))
    assert stages.tokens.tolist() == [512, 128, 32, 8] and stages["columns"].tolist() == [32, 16, 8, 4]
    assert stages.channels.tolist() == [16, 32, 48, 64] and stages.blocks.tolist() == [2, 1, 1, 1]


def test_shared_weights_are_compared_by_name_and_value():
    first, other = (mb.build_model("softmax", preset="smoke", seed=seed) for seed in (0, 1))
    assert pyramid.shared_weights(first, mb.build_model("xca", preset="smoke"))[2]
    assert not pyramid.shared_weights(first, other)[2]


def test_share_by_size_grows_with_the_tokens():
    table = pyramid.parts_by_size("softmax", "smoke", sizes=(112, 224))
    assert table.tokens.tolist() == [256, 1024] and table.share.is_monotonic_increasing
    assert math.isclose(table.mixing.iloc[1] / table.mixing.iloc[0], 16)


def test_copies_of_a_head_are_alike_and_named_after_it():
    heads = drawings.drawn(6, seed=1).images.numpy()
    pixels, patients = drawings.slices_of(heads, 3, seed=0)
    assert pixels.shape == (18, heads[0].size) and (patients == np.repeat(np.arange(6), 3)).all()
    apart = np.linalg.norm(pixels[:, None] - pixels, axis=-1) + np.eye(18) * 1e9
    assert (patients[apart.argmin(1)] == patients).mean() >= 0.75


def test_the_quiz_holds_every_class_and_is_not_in_order():
    batch = drawings.quiz(20, seed=3)
    labels = batch.labels.numpy()
    assert len(labels) == 20 and set(labels) == set(range(10)) and (np.diff(labels) < 0).any()
    assert (drawings.quiz(20, seed=3).images == batch.images).all()
    assert (drawings.quiz(20, seed=4).labels != batch.labels).any()


def test_half_of_the_heads_are_normal():
    labels = drawings.half_normal(36, seed=0).labels.numpy()
    assert (labels == drawings.NORMAL).sum() == 18 and len(set(labels)) == 10


def test_without_cures_the_slice_gives_the_pituitary_class_away():
    rows = {}
    for name, cures in (("before", drawings.UNCURED), ("after", {})):
        train, test = drawings.drawn(160, seed=3, **cures), drawings.drawn(80, drawings.TEST, seed=3, **cures)
        rows[name] = drawings.shortcut_rows(train, test, bootstrap=0)
    table = drawings.before_and_after(rows["before"], rows["after"])
    pituitary = table.loc["height: AUROC, pituitary"]
    assert pituitary["before"] > 0.97 and pituitary["after"] < pituitary["before"]
    assert len(table) == 13


def test_a_mark_of_the_site_shines_at_home_and_fails_elsewhere():
    rows = drawings.confounding_rows((1.0,), 80, seed=4)
    value = {row["context"]["tested"]: row["value"] for row in rows}
    assert value["home"] > 0.9 and value["elsewhere"] < 0.75


def test_the_fall_from_slices_to_patients_has_its_interval_and_what_has_to_be_said():
    patient = np.arange(2000) // 5
    batch = types.SimpleNamespace(images=torch.arange(2000).reshape(-1, 1, 1, 1), labels=torch.from_numpy(patient % 10))
    splits = {by: patients.divided(batch, patient, by, seed=0) for by in ("slice", "patient")}
    told = {}
    for by, wrong in (("slice", 5), ("patient", 2)):         # every fifth image wrong, and every second
        test = splits[by].test
        off = np.where(np.arange(len(test)) % wrong == 0, 1, 0)
        told[by] = metrics.evaluate(4.0 * np.eye(10)[(test.labels + off) % 10], test, prior=np.ones(10) / 10,
                                    bootstrap=200)
    rows, table = patients.fall(told, splits)
    one, other = (told[by].balanced_accuracy for by in told)
    kept = {row["quantity"]: row for row in rows}
    assert kept["balanced_accuracy_by_slice"]["value"] == one.value
    assert kept["fall"]["value"] == pytest.approx(100 * (one.value - other.value))
    assert kept["fall"]["low"] < kept["fall"]["value"] < kept["fall"]["high"]
    assert kept["fall"]["context"] == kept["balanced_accuracy_by_patient"]["context"]
    assert "patients of class" in kept["fall"]["context"]["caveats"][0]
    assert table["in both"].tolist()[1] == 0 < 200 < table["in both"].tolist()[0]
    assert table["patients in training"].tolist()[1] == 280 < table["patients in training"].tolist()[0]
    apart = patients._apart(metrics.Score(0.9, 0.87, 0.92, 50), metrics.Score(0.5, 0.4, 0.54, 40))
    assert (apart.value, apart.low, apart.n) == pytest.approx((40, 35, 40))
    assert apart.high == pytest.approx(40 + 100 * math.hypot(0.02, 0.1))


@pytest.mark.slow
def test_the_committed_figure_is_what_the_program_draws():
    from PIL import Image
    drawn = io.BytesIO()
    overview.main(drawn)
    drawn, committed = (np.asarray(Image.open(f).convert("L"), float) for f in (drawn, overview.PLACE))
    assert drawn.shape == committed.shape and np.abs(drawn - committed).mean() < 2


def test_slices_or_patients_are_dealt_out():
    batch, patient = patients.scans(40, 5, seed=7)
    by_slice, by_patient = (patients.divided(batch, patient, by, seed=0) for by in ("slice", "patient"))
    for data in (by_slice, by_patient):
        parts = (data.train, data.val, data.test)
        assert [len(part) for part in parts] == [140, 20, 40]
        assert sorted(np.concatenate([part.indices for part in parts])) == list(range(200))
        for part in parts:
            assert (part.images == batch.images.numpy()[part.indices]).all()
            assert (part.groups == part.indices // 5).all() and (part.labels == part.groups % 10).all()
        assert data.prior == pytest.approx(np.bincount(data.train.labels, minlength=10) / 140)
    groups = [set(part.groups) for part in (by_patient.train, by_patient.val, by_patient.test)]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    other = patients.divided(batch, patient, "patient", seed=1)
    assert len({by_slice.fingerprint, by_patient.fingerprint, other.fingerprint}) == 3


def test_what_the_check_found_is_shown_from_records(tmp_path, monkeypatch):
    from medbench import results
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path))
    monkeypatch.setattr(results, "edition_root", lambda: tmp_path / "none")
    with pytest.raises(LookupError, match="data check SOURCE --record 01_check"):
        patients.checked("cpu")
    rows = [{"quantity": "images", "value": 7, "unit": "1"},
            {"quantity": "near_copies", "value": 2, "unit": "1", "suffix": "in_another_split"},
            {"quantity": "groups_in_two_splits", "value": None, "unit": "1", "reason": "no groups"}]
    results.record("breastmnist", rows, to=results.here(patients.CHECK, "cpu"))
    table = patients.checked("cpu")
    assert table.breastmnist.to_dict() == {"images": 7, "near copies, in another split": 2}
