"""Scores of finished runs: each told apart, compared over seeds, class by class, calibrated, and on other hospitals'
images."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import medbench as mb
from medbench import (
    calibration,
    classwise,
    decoding,
    evaluating,
    finished,
    grid,
    metrics,
    planned,
    results,
    tested,
    training,
)
from medbench.__main__ import main
from medbench.files import read_json, write_json

CLASSES, MODELS, SEEDS = ("cyst", "normal", "tumour"), ("softmax", "xca", "none"), (0, 1)
SMALL = dict(epochs=1, threads=1, device="cpu", batch_size=12)


def manifest(folder, count=108, seed=0, head="path,label,split,group", labels=CLASSES, split=None):
    """Images in three classes, those of a patient side by side: half to train, the rest to val and test."""
    rng, lines = np.random.default_rng(seed), [head]
    folder.mkdir(parents=True)
    for i in range(count):
        label, part = labels[i % len(labels)], split or ("train", "train", "val", "test")[i // 3 % 4]
        grey = rng.integers(0, 120, (40, 40)) + 45 * CLASSES.index(label) * (i // 6 % 2) if label in CLASSES else \
            rng.integers(0, 250, (40, 40))
        Image.fromarray(grey.astype(np.uint8)).save(folder / f"{i}.png")
        cells = {"path": f"{i}.png", "label": label, "split": part, "group": f"{part}{i // 12}"}
        lines.append(",".join(cells[name] for name in head.split(",")))
    (folder / "manifest.csv").write_text("\n".join(lines))
    return str(folder / "manifest.csv")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three models with two seeds each, trained on a hospital's images, and a table that names them."""
    folder = tmp_path_factory.mktemp("study")
    source = manifest(folder / "mine")
    patch = pytest.MonkeyPatch()
    patch.setenv("MEDBENCH_CACHE", str(folder / "cache"))
    named = {}
    for name in MODELS:
        for seed in SEEDS:
            one = mb.Experiment.preset("smoke", name, seed, source=source, **SMALL)
            data = mb.load_data(one.data, show=False)
            named[name, seed] = grid.fit(one.on(3, len(data.train), keep_epochs=True), data, False).directory.name
    lines = ["model,seed,run,state", *(f"{name},{seed},{run},finished" for (name, seed), run in named.items())]
    (folder / "runs.csv").write_text("\n".join([*lines, "softmax,2,0123456789abcdef,failed"]))
    yield SimpleNamespace(folder=folder, source=source, named=named, runs=str(folder / "runs.csv"), data=data)
    patch.undo()


@pytest.fixture(autouse=True)
def place(study, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDBENCH_CACHE", str(study.folder / "cache"))
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path / "results"))


def scored(*names, **more):
    return evaluating.evaluate(list(names), **{"bootstrap": 20, "device": "cpu"} | more)


def logits(study, name, seed, split="test"):
    run = training.load_run(study.folder / "cache" / "runs" / study.named[name, seed])
    return training.predict(run.model, getattr(study.data, split)), run.prior


# --------------------------------------------------------------------------------------------- a row a run
def test_each_row_says_which_run_it_is_of_and_failed_ones_are_left_out(study, capsys):
    rows = scored(study.runs)
    assert [(row["model"], row["seed"]) for row in rows] == list(study.named)
    assert [row["run"] for row in rows] == list(study.named.values())
    assert "1 of 7 trainings failed and are left out" in capsys.readouterr().err
    want = metrics.evaluate(logits(study, "xca", 1)[0], study.data.test, prior=logits(study, "xca", 1)[1], bootstrap=0)
    assert rows[3]["balanced_accuracy"] == pytest.approx(want.balanced_accuracy.value) and rows[3]["n"] == 27


def test_data_are_opened_once_and_answers_computed_once(study, monkeypatch):
    opened, load = [], tested.load_data
    monkeypatch.setattr(tested, "load_data", lambda config: opened.append(config) or load(config))
    first = scored(study.runs)
    assert len(opened) == 1
    monkeypatch.setattr(training, "predict", lambda *_, **__: pytest.fail("looked at the test set again"))
    assert scored(study.runs) == first


def test_runs_that_may_not_be_written_are_scored_too(study, monkeypatch):
    monkeypatch.setattr(evaluating.os, "access", lambda path, mode: False)
    monkeypatch.setattr(grid, "answers", lambda *_: pytest.fail("written"))
    assert len(scored(study.named["none", 0])) == 1


@pytest.mark.parametrize("text, said", [("path,label\na.png,cyst", "no rows with a column 'run'.*--format csv"),
                                        (None, "there is no table of runs"),
                                        ("run,state\nx,failed", "names no finished run"),
                                        ("model,run\nxca,a\nsoftmax", "t.csv', line 3, names no run"),
                                        ("model,run\nxca,", "t.csv', line 2, names no run"),
                                        (b"\xff\xfer\0u\0n\0", "t.csv' is no table of runs .*wanted UTF-8 text")])
def test_a_table_that_names_no_runs(tmp_path, text, said):
    if text:
        (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        scored(str(tmp_path / "t.csv"))


# --------------------------------------------------------------------------------------------- compared
def test_runs_are_compared_with_a_model_as_the_book_does(study, capsys):
    runs = {name: [logits(study, name, seed)[0] for seed in SEEDS] for name in MODELS}
    want = planned.compare(runs, study.data.test, models=["xca"], priors={name: logits(study, name, 0)[1] for name in
                                                                          MODELS}, bootstrap=200)
    capsys.readouterr()
    rows = {row["model"]: row for row in scored(study.runs, reference="softmax", bootstrap=200)}
    said = capsys.readouterr().err
    [one] = want.comparisons
    assert rows["xca"]["against"] == "softmax" and rows["xca"]["verdict"] == one.verdict and rows["xca"]["p"] == one.p
    assert [rows["xca"][f"difference_points{end}"] for end in ("", "_low", "_high")] == pytest.approx(
        [100 * one.difference, 100 * one.low, 100 * one.high])
    for mean in want.scores:
        row = rows[mean.name]
        assert (row["seeds"], row["balanced_accuracy"], row["balanced_accuracy_low"]) == (2, mean.value, mean.low)
    assert rows["softmax"]["against"] == "none" and rows["none"]["against"] is None      # the control is no rival
    assert said.index(want.sentence) < said.index(one.sentence) and rows["xca"]["detectable_points"] is None
    assert one.groups == len(np.unique(study.data.test.groups)) and "groups" in one.sentence


def test_a_comparison_is_recorded(study):
    scored(study.runs, reference="softmax", chapter="mine")
    found = {name.split(".", 1)[1] for name in results.load(results.results_root()).name}
    assert {"softmax.mean.balanced_accuracy", "none.mean.balanced_accuracy", "planned.xca.balanced_accuracy_difference",
            "control.softmax.balanced_accuracy_difference", "planned.detectable_difference"} <= found


def test_the_command_prints_what_can_be_found_above_the_table(study, capsys):
    assert main(["evaluate", study.runs, "--compare", "softmax", "--calibration", "--bootstrap", "20"]) == 0
    printed = capsys.readouterr()
    assert "No difference, however large, could be called one: only 2 seeds." in printed.err.replace("\n", " ")
    head, *_, last = printed.out.splitlines()
    assert last.startswith("caveats: images enlarged") and head.split() == [
        "model", "seeds", "balanced_accuracy", "against", "difference_points", "p", "verdict", "detectable_points",
        "calibration_error", "calibration_floor", "temperature", "tempered_error", "tempered_floor"]


def fake(model="softmax", seed=0, data="d", classes=("a", "b"), preset="small", name=None, **training):
    info = {"model": {"name": model, "preset": preset, "seed": seed}, "data": data, "classes": list(classes),
            "training": {"seed": seed, "lr": 0.1, "threads": 1} | training}
    return finished.Finished(Path(name or f"{model}{seed}"), info, None, mb.config.DataConfig())


PAIR = [fake(), fake("xca")]


@pytest.mark.parametrize("runs, said", [
    ([*PAIR, fake("none", data="e")], "differ in data: 2 are like softmax, seed 0 .softmax0.; 1 are like none, seed 0"),
    ([*PAIR, fake("none", classes=("a", "c"))], "differ in classes"),
    ([*PAIR, fake("none", preset="paper")], "differ in preset: .*compare runs of one grid"),
    ([*PAIR, fake("xca", 1), fake("xca", 2), fake(seed=3)],
     "softmax has no run with seed 1, 2; xca has no run with seed 3; train these, or leave the others' out"),
    ([*PAIR, fake("xca", 1, lr=0.2)], r"runs of xca differ in lr \(0.1, 0.2\); a model's runs may differ in their"),
    ([*PAIR, fake("xca", name="other", threads=2)], r"xca has 2 runs with seed 0 \(xca0, other\); name one"),
    ([fake(), fake(seed=1)], "all 2 runs are of softmax; wanted runs of at least two models"),
    ([fake("none"), fake("xca")], "compare is 'softmax'; allowed: 'none', 'xca'")])
def test_what_cannot_be_compared_is_refused(runs, said):
    with pytest.raises(ValueError, match=said):
        finished.refuse_unlike(runs, "softmax")
    finished.refuse_unlike(PAIR, "softmax")


def test_it_is_said_in_which_numbers_the_models_differ():
    runs = [fake(), fake("xca", lr=0.2, threads=2)]
    finished.refuse_unlike(runs, "softmax")
    runs[1].info["model"]["embed_dims"], runs[0].info["model"]["embed_dims"] = (8, 16), (16, 32)
    assert finished.told_apart(runs) == ["The models differ in embed_dims ((16, 32), (8, 16)).",
                                         "The models differ in lr (0.1, 0.2)."]
    assert finished.told_apart(PAIR) == []


def test_two_runs_are_not_recorded_under_one_name(study, tmp_path):
    name = study.named["softmax", 0]
    shutil.copytree(study.folder / "cache" / "runs" / name, tmp_path / "again")
    with pytest.raises(ValueError, match=f"runs {name} and again are both softmax with seed 0, and would be recorded"):
        scored(name, str(tmp_path / "again"), chapter="my_study")
    assert not results.here("my_study").exists()


def test_data_of_one_short_name_are_not_recorded_under_one_name():
    one, other, third = (replace(fake("xca"), data=mb.config.DataConfig(source=f"/{folder}/manifest.csv"))
                         for folder in ("a/mri", "b/mri", "b/ct"))
    finished.refuse_one_name([one, third])
    with pytest.raises(ValueError, match="are both xca with seed 0, and would be recorded under one name"):
        finished.refuse_one_name([one, third, other])


@pytest.mark.parametrize("more, said", [({"with_baselines": True}, "leave --baselines and --per-class out"),
                                        ({"per_class": True}, "leave --baselines and --per-class out"),
                                        ({"bootstrap": 0}, "bootstrap is 0")])
def test_what_does_not_go_together_is_refused_before_any_work(study, monkeypatch, more, said):
    monkeypatch.setattr(tested, "load_data", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match=said):
        scored(study.runs, reference="softmax", **more)


# --------------------------------------------------------------------------------------------- classes, calibration
def test_each_class_has_a_row_with_its_interval_and_its_patients(study):
    run = study.named["softmax", 0]
    rows = scored(run, per_class=True)
    answers, prior = logits(study, "softmax", 0)
    want = classwise.class_table(metrics.evaluate(answers, study.data.test, prior=prior, bootstrap=0))
    assert [row["class"] for row in rows] == list(CLASSES) and {row["run"] for row in rows} == {run}
    for row in rows:
        assert {name: row[name] for name in want.columns} == want.loc[row["class"]].to_dict()
    json.dumps(rows)


def test_calibration_stands_beside(study):
    [row] = scored(study.named["softmax", 0], calibration=True, chapter="mine")
    data, (answers, prior) = study.data, logits(study, "softmax", 0)
    want = calibration.calibrated(logits(study, "softmax", 0, "val")[0], data.val, answers, data.test, prior=prior)
    plain = metrics.calibration_scores(answers, data.test, prior=prior)
    assert row["calibration_error"] == pytest.approx(plain["calibration_error"].value)
    assert row["temperature"] == pytest.approx(want.temperature, rel=1e-3)
    assert row["tempered_error"] == pytest.approx(want.scores["calibration_error"].value, abs=1e-4)
    assert row["tempered_floor"] == pytest.approx(want.scores["calibration_floor"].value, abs=1e-4)
    table = results.load(results.results_root())
    assert {"temperature", "calibration_error"} <= set(table.quantity) and table.name.str.endswith("tempered").any()


# --------------------------------------------------------------------------------------------- other data
def test_another_hospital_s_images_are_scored_without_any_to_train_on(study, tmp_path, capsys):
    other = manifest(tmp_path / "other", 24, seed=9, labels=("normal", "tumour"), split="test")
    run = study.named["softmax", 0]
    [row] = scored(run, source=other, chapter="there")
    said = capsys.readouterr().err
    assert "24 of 24 images" in said and "Class frequencies in training: cyst 0.333, normal 0.333" in said
    assert "balanced_accuracy is undefined: no image of class cyst in the split" in said
    assert row["n"] == 24 and np.isnan(row["balanced_accuracy"]) and "for those of training" in row["caveats"]
    table = results.load(results.results_root()).set_index("name")
    assert table.loc["other.softmax.balanced_accuracy"].reason == "no image of class cyst in the split"
    assert all("for those of training" in "".join(said) for said in table.caveats)
    assert row["caveats"].endswith("only 2 patients of class normal, tumour: intervals are uncertain")
    rows = {row["class"]: row for row in scored(run, source=other, per_class=True)}
    assert rows["cyst"]["support"] == 0 and np.isnan(rows["cyst"]["sensitivity"]) and rows["tumour"]["support"] == 12
    with pytest.raises(ValueError, match="balanced accuracy needs every class, but no test image is of cyst"):
        scored(study.runs, source=other, reference="softmax")


def test_the_images_of_a_single_patient_have_no_interval_and_this_is_said(study, tmp_path, capsys):
    source = manifest(tmp_path / "one", 12, seed=9, split="test")
    why = "only 1 patient of class cyst, normal, tumour"
    assert main(["evaluate", study.named["softmax", 0], "--data", source]) == 0
    printed = capsys.readouterr()
    assert f"balanced_accuracy has no interval: {why}." in printed.err.replace("\n", " ")
    assert "[" not in printed.out and "nan" not in printed.out and f"{why}: intervals are uncertain" in printed.out
    rows = {row["model"]: row for row in scored(study.runs, source=source, reference="softmax", bootstrap=50)}
    said = capsys.readouterr().err
    assert f"No difference, however large, could be called one: {why}." in said
    assert f"percentage points (no interval: {why}, 2 seeds, 12 images in 1 groups)" in said
    assert rows["xca"]["verdict"] == "undecided" and rows["xca"]["p"] is None


def test_decisions_and_answers_on_other_data_are_those_of_the_run_s_own_prior(study, tmp_path):
    """Not of the frequencies in the other file, which trained nobody."""
    run = training.load_run(study.folder / "cache" / "runs" / study.named["softmax", 0])
    source = manifest(tmp_path / "other", 24, seed=9, labels=("tumour", "tumour", "normal"), split="test")
    prior = np.array([0.6, 0.3, 0.1])
    split, _ = mb.data.load_test(mb.config.DataConfig(source=source), CLASSES, 10 * prior)
    assert split.prior == pytest.approx(prior) and split.population is None and split.class_counts["tumour"] == 16
    answers = training.predict(run.model, split)
    want = (answers - np.log(run.prior) + np.log(prior)).argmax(1) == split.labels
    found = metrics.evaluate(answers, split, prior=run.prior, bootstrap=0)
    assert found.top1.value == pytest.approx(want.mean()) and found.majority_top1.value == 0      # cysts, of which none


@pytest.mark.parametrize("head, every, n, said", [
    ("path,label,split", False, 9, "9 of 36 images of .* are tested on: those of its split 'test'."),
    ("path,label,split", True, 36, "36 of 36 images"),
    ("path,label", True, 36, "36 of 36 images"),
    ("path,label", False, None, "no split is named, and a hash of names sends these to the test")])
def test_which_of_other_images_are_tested_on(study, tmp_path, capsys, head, every, n, said):
    source = manifest(tmp_path / "other", 36, seed=5, head=head)
    [row] = scored(study.named["none", 1], source=source, every=every)
    assert re.search(said, capsys.readouterr().err)
    assert row["n"] == n if n else 0 < row["n"] < 20
    assert "no patient ids: intervals take images for independent" in row["caveats"]
    assert "slice-level" not in row["caveats"] and "pixel by pixel" not in row["caveats"]


def test_images_that_a_run_was_trained_on_are_found_elsewhere(study, tmp_path, capsys):
    shutil.copytree(Path(study.source).parent, tmp_path / "copy")
    source = str(tmp_path / "copy" / "manifest.csv")
    [row] = scored(study.named["none", 0], source=source)    # the split of the copy is that of the original
    assert row["n"] == 27 and "pixel by pixel" not in row["caveats"]
    [row] = scored(study.named["none", 0], source=source, every=True)
    assert row["n"] == 108 and "81 images are among those of the training, pixel by pixel" in row["caveats"]
    with pytest.raises(ValueError, match="was trained on .*--every-image is for images that it never saw"):
        scored(study.named["none", 0], source=study.source, every=True)


@pytest.mark.parametrize("change, said", [
    ({"labels": ("normal", "polyp")}, "the model knows the classes cyst, normal, tumour but .* has images of polyp"),
    ({"split": "train"}, r"has no image in split 'test' \(24 in others\); name some in a column split, or count all"),
    ({"split": "testing"}, "line 2, is 'testing'; allowed: 'train', 'val', 'test'")])
def test_other_data_that_do_not_fit_are_refused(study, tmp_path, change, said):
    source = manifest(tmp_path / "other", 24, **{"split": "test"} | change)
    with pytest.raises(ValueError, match=said):
        scored(study.named["none", 0], source=source)


@pytest.mark.parametrize("spoilt, said", [(("cyst",), None), (CLASSES, "all test images are set aside .*replace them")])
def test_a_class_of_which_every_image_is_damaged_is_named(study, alone, tmp_path, spoilt, said):
    source = manifest(tmp_path / "other", 24, seed=3, split="test")
    for i in (i for i in range(24) if CLASSES[i % 3] in spoilt):
        (tmp_path / "other" / f"{i}.png").write_bytes(b"no image")
    noted = read_json(alone / grid.EXPERIMENT)
    noted["data"]["max_damaged"] = 1.0
    write_json(alone / grid.EXPERIMENT, noted)
    if said:
        with pytest.raises(ValueError, match=said):
            scored(str(alone), source=source)
    else:
        [row] = scored(str(alone), source=source)
        assert row["n"] == 16 and "all test images of class 'cyst' are damaged or blank" in row["caveats"]


def test_what_is_said_of_splits_to_train_on_is_not_said_of_images_to_test_on(study, tmp_path, capsys):
    scored(study.named["none", 0], source=manifest(tmp_path / "other", 9, seed=3, head="path,label"), every=True)
    said = capsys.readouterr().err
    assert "9 of 9 images" in said and "No test image" not in said and "the epoch is chosen" not in said


def test_too_many_damaged_images_elsewhere_come_with_advice_that_can_be_followed(study, tmp_path):
    source = manifest(tmp_path / "other", 24, seed=3, split="test")
    (tmp_path / "other" / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 of 24 images .*replace them, or take them out of the data set$"):
        scored(study.named["none", 0], source=source)


def test_the_phantom_elsewhere_is_scored_for_the_frequencies_of_the_training():
    small = mb.config.DataConfig(img_size=24, num_train=10, num_val=10, num_test_per_class=1)
    classes = mb.phantom.CLASSES
    split, notes = mb.data.load_test(small, classes, np.arange(1, 11), show=False)
    assert split.prior == pytest.approx(np.arange(1, 11) / 55) and split.population is None
    assert mb.data.ASSUMED in split.caveats and "in training: " in notes[-1]
    with pytest.raises(ValueError, match="as many images as you like; leave --every-image out"):
        mb.data.load_test(small, classes, np.ones(10), every=True)


def test_baselines_need_images_to_learn_from(study):
    with pytest.raises(ValueError, match="--baselines learn from the training images; leave --data out"):
        scored(study.named["none", 0], source="phantom", with_baselines=True)
    for name, more in (("--every-image", {"every": True}), ("--subset", {"subset": "MR"})):
        with pytest.raises(ValueError, match=f"{name} is for other data"):
            scored(study.named["none", 0], **more)


# --------------------------------------------------------------------------------------------- data that went away
def test_the_first_of_two_sources_of_the_same_images_counts_while_it_holds_them(study, tmp_path):
    for folder in ("first", "second"):
        shutil.copytree(Path(study.source).parent, tmp_path / folder)
    sources = [str(tmp_path / folder / "manifest.csv") for folder in ("first", "second")]
    one = mb.Experiment.preset("smoke", "none", 0, source=sources[0], **SMALL)

    def noted(source):
        now = one.replace(data=one.data.replace(source=source))
        grid.note(now, mb.load_data(now.data, show=False), tmp_path)
        return read_json(tmp_path / grid.EXPERIMENT)["data"]["source"]
    assert [noted(source) for source in sources] == sources[:1] * 2
    (tmp_path / "first").rename(tmp_path / "moved")
    assert noted(sources[1]) == sources[1]


@pytest.fixture
def alone(study, tmp_path):
    """One run whose data can be moved and changed, in a folder of its own."""
    shutil.copytree(Path(study.source).parent, tmp_path / "gone")
    folder = tmp_path / "run"
    shutil.copytree(study.folder / "cache" / "runs" / study.named["none", 0], folder)
    noted = read_json(folder / grid.EXPERIMENT)
    noted["data"]["source"] = str(tmp_path / "gone" / "manifest.csv")
    write_json(folder / grid.EXPERIMENT, noted)
    return folder


def test_a_run_whose_data_went_away_says_how_to_name_them(study, alone, capsys):
    shutil.rmtree(alone.parent / "gone")
    with pytest.raises(ValueError, match="cannot be scored: its own data cannot be opened, .*does not exist.*--data"):
        scored(str(alone))
    [row] = scored(str(alone), source=study.source, calibration=True)       # they lie there
    assert row["n"] == 27 and row["temperature"] and "class frequencies" not in row["caveats"]
    assert "could not be checked" not in capsys.readouterr().err
    with pytest.raises(ValueError, match="was trained on .*--every-image is for images that it never saw"):
        scored(str(alone), source=study.source, every=True)


def test_a_run_whose_data_cannot_be_read_this_time_says_so(alone, monkeypatch):
    def closed(_):
        raise decoding.Unreachable("0.png cannot be read")
    monkeypatch.setattr(tested, "load_data", closed)
    with pytest.raises(ValueError, match="cannot be scored: its own data cannot be opened, 0.png cannot be read; if"):
        scored(str(alone))


def test_that_a_leak_could_not_be_looked_for_goes_with_the_score(study, alone, tmp_path, capsys):
    """Whichever run is named first."""
    shutil.rmtree(alone.parent / "gone")
    shutil.copytree(Path(study.source).parent, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.csv").write_text(Path(study.source).read_text().replace(
        "0.png,cyst,train,train0\n", ""))
    source, other = str(tmp_path / "copy" / "manifest.csv"), study.named["none", 1]
    for order in ((str(alone), other), (other, str(alone))):
        rows = {row["run"]: row for row in scored(*order, source=source, every=True, calibration=True)}
        assert tested.UNCHECKED in rows["run"]["caveats"] and rows["run"]["temperature"] is None
        assert "80 images are among those of the training" in rows[other]["caveats"] and rows[other]["temperature"]
        assert "trained on any of these images could not be checked: its own data" in capsys.readouterr().err


def test_data_that_changed_since_the_training_are_scored_with_a_caveat(alone):
    [row] = scored(str(alone), calibration=True)
    assert "caveats" not in row or tested.CHANGED not in row["caveats"]
    file = alone.parent / "gone" / "manifest.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-4]))
    (alone / grid.LOGITS).unlink(missing_ok=True)
    [row] = scored(str(alone), calibration=True)
    assert tested.CHANGED in row["caveats"] and row["temperature"] is None
    assert not (alone / grid.LOGITS).exists()                # what it keeps are answers on its own test set


def test_in_data_that_changed_a_leak_is_looked_for_all_the_same(alone, tmp_path):
    shutil.copytree(alone.parent / "gone", tmp_path / "copy")
    file = alone.parent / "gone" / "manifest.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-4]))
    [row] = scored(str(alone), source=str(tmp_path / "copy" / "manifest.csv"), every=True)
    assert "at least 80 images are among those of the training" in row["caveats"]            # of 81
    [row] = scored(str(alone), source=manifest(tmp_path / "other", 24, seed=9, split="test"))
    assert tested.UNCHECKED in row["caveats"]                # some that are gone may have been


def test_patients_whose_names_occur_in_the_training_are_told(study, tmp_path):
    source = manifest(tmp_path / "other", 36, seed=9)        # other images of patients of the same names
    [row] = scored(study.named["none", 0], source=source, every=True)
    assert "6 of 9 patients have names that occur in the training: the same people, unless" in row["caveats"]
    [row] = scored(study.named["none", 0], source=source)
    assert "patients have names" not in row["caveats"]       # those of its test split are not among them


def test_where_a_recipe_evens_classes_out_scores_elsewhere_are_for_their_frequencies_in_training(study, tmp_path):
    """As they are at home."""
    source = manifest(tmp_path / "mine", 108, labels=("tumour", "tumour", "normal", "cyst"))
    one = mb.Experiment.preset("smoke", "none", 0, source=source, **SMALL, loss="class_weights")
    data = mb.load_data(one.data, show=False)
    name = grid.fit(one.on(3, len(data.train), keep_epochs=True), data, False).directory.name
    rows = Path(source).read_text().splitlines()
    for number, chosen in enumerate(([rows[0], *(row for row in rows if ",test," in row)], rows[:1] + rows[1::7])):
        (tmp_path / "mine" / f"other{number}.csv").write_text("\n".join(chosen))
    [home], [away] = scored(name, calibration=True), scored(
        name, source=str(tmp_path / "mine" / "other0.csv"), every=True, calibration=True)
    assert [away[key] for key in ("n", "top1", "calibration_error")] == [
        home[key] for key in ("n", "top1", "calibration_error")]
    (study.folder / "cache" / "runs" / name / grid.EXPERIMENT).unlink()
    [row] = scored(name, source=str(tmp_path / "mine" / "other0.csv"), every=True)
    assert tested.EVENED in row["caveats"]


def test_a_run_that_does_not_know_its_data_can_be_scored_on_others(study, alone, tmp_path, capsys):
    (alone / grid.EXPERIMENT).unlink()
    with pytest.raises(ValueError, match="does not say which data it was trained on; name them with --data"):
        scored(str(alone))
    [row] = scored(str(alone), source=study.source)          # its own, as their bytes tell
    assert row["n"] == 27 and tested.UNCHECKED not in row["caveats"]
    [row] = scored(str(alone), source=manifest(tmp_path / "other", 24, seed=9, split="test"))
    assert tested.UNCHECKED in row["caveats"] and "it does not say which data those were" in capsys.readouterr().err
