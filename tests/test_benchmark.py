"""What chapter 10 stands on: several trainings side by side give what each gives alone."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import medbench as mb
from medbench import machine, metrics, training
from medbench.book import benchmark

SMALL = dict(num_train=24, num_val=12, num_test_per_class=2, epochs=1, threads=1, device="cpu")


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "cores", lambda: 2)
    return [mb.Experiment.preset("smoke", name, **SMALL) for name in ("none", "softmax")]


@pytest.mark.slow
def test_models_trained_side_by_side_are_those_trained_alone(experiments, tmp_path):
    data = mb.load_data(experiments[0].data, show=False)
    told = benchmark.train_together(experiments)
    for exp, logits in zip(experiments, told, strict=True):
        beside = training.fit(mb.build_model(exp.model), data, exp.training, progress=False)
        alone = training.fit(mb.build_model(exp.model), data, exp.training, cache=tmp_path / "alone", progress=False)
        assert beside.loaded and not alone.loaded and beside.fingerprint == alone.fingerprint
        np.testing.assert_allclose(logits, training.predict(alone.model, data.test), rtol=1e-4, atol=1e-5)
        weights = alone.model.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in beside.model.state_dict().items())


@pytest.mark.slow
def test_a_training_that_fails_beside_others_says_why(experiments):
    broken = [exp.replace(training=exp.training.replace(lr=1e30, clip_grad=0.0, warmup=0.0)) for exp in experiments]
    with pytest.raises(RuntimeError, match="training of none, seed 0 failed: FloatingPointError.*became NaN or"):
        benchmark.train_together(broken)


def test_a_training_that_was_given_up_is_tried_again(experiments, monkeypatch):
    asked = {}
    monkeypatch.setattr(benchmark.places, "Here", lambda training: SimpleNamespace(room=2))
    monkeypatch.setattr(benchmark.grid, "train", lambda jobs, place, **how: asked.update(how) or [])
    assert benchmark.train_together(experiments) == [] and asked["again"]


def test_one_at_a_time_where_there_is_no_second_core(experiments, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(benchmark.grid, "train", lambda *_, **__: pytest.fail("trained"))
    assert benchmark.train_together(experiments) == [None, None]


def test_scores_are_tabled_with_their_intervals_best_first(experiments):
    data = mb.load_data(experiments[0].data, show=False)
    trained = benchmark.train_all(experiments[:1], data)
    right = torch.nn.functional.one_hot(torch.as_tensor(data.test.labels), 10).double().numpy() * 20
    scores = {"model": [mb.evaluate(trained[0].logits, data.test, bootstrap=20)],
              "oracle": [mb.evaluate(right, data.test, bootstrap=20)]}
    table = benchmark.score_table(scores)
    assert list(table.index) == ["oracle", "model"]
    assert table.loc["oracle", "balanced accuracy"].startswith("1.000 [1.0")
    assert list(benchmark.run_table(trained).index) == ["none"]


def test_the_class_page_has_wilson_intervals():
    labels = np.repeat([0, 1, 2], [10, 10, 5])
    decided = labels.copy()
    decided[[0, 1, 20]] = [1, 2, 0]
    split = SimpleNamespace(labels=labels, classes=("a", "b", "c"), prior=np.ones(3) / 3, population=None)
    scores = metrics.evaluate(np.eye(3)[decided], split, bootstrap=0)
    page = benchmark.class_page({"softmax": scores, "none": scores}, ["A", "B", "C"])
    assert list(page.columns) == ["images", "softmax, sensitivity", "softmax, specificity", "none, sensitivity"]
    assert page.loc["A"].tolist() == [10, "0.80 [0.49, 0.94]", "0.93 [0.70, 0.99]", "0.80 [0.49, 0.94]"]
    assert page.loc["C", "images"] == 5


def test_what_mixing_is_worth_is_said_from_the_verdicts():
    def gain(name, low, high):
        return metrics.Comparison(name, "none", "balanced_accuracy", (low + high) / 2, low, high, 100)
    gains = [gain("softmax", 0.01, 0.03), gain("xca", -0.01, 0.01), gain("window", 0.01, 0.02),
             gain("performer", -0.03, -0.01), gain("resnet50", 0.1, 0.2)]
    assert benchmark.worth(gains)["text"] == (
        "Against the control without mixing, in these runs: softmax, window scored above it; xca could "
        "not be told from it; performer scored below it.")


def test_a_detectable_difference_is_found_four_times_in_five():
    """Gaussian differences with the interval's standard error, as far from zero as the function says."""
    found = metrics.Comparison("a", "b", "balanced_accuracy", 0.0, -0.0196, 0.0196, 100)
    true = benchmark.detectable([found, found]) / 100
    drawn = np.random.default_rng(0).normal(true, 0.0196 / 1.95996, 200_000)
    assert np.mean(np.abs(drawn) > 0.0196) == pytest.approx(0.8, abs=0.005)


def test_the_classes_most_often_confused():
    page = benchmark.confused([[8, 2, 0], [0, 4, 0], [5, 1, 4]], ["x", "y", "z"], count=2)
    assert page.values.tolist() == [["z", "x", 50.0], ["x", "y", 20.0]]


def test_real_images_beside_the_phantom():
    def scores(value):
        return SimpleNamespace(balanced_accuracy=SimpleNamespace(value=value))
    phantom = {"softmax": [scores(0.8)], "xca": [scores(0.9)], "none": [scores(0.7)]}
    real = pd.DataFrame({"model": ["softmax", "xca", "none", None], "quantity": "balanced_accuracy",
                         "value": [0.75, 0.7, 0.72, 0.9], "low": [0.73, 0.66, 0.7, 0.8], "high": [0.77, 0.74, 0.74, 1]})
    alike, said = benchmark.beside_phantom(real, phantom)
    assert said["text"] == (
        "In one run of each, xca is number 1 of 3 on the phantom and number 3 on real MRI; softmax is number 2 of 3 on "
        "the phantom and number 1 on real MRI; none is number 3 of 3 on the phantom and number 2 on real MRI. The rank "
        "correlation of the two orders, -0.50, could not be told from that of two orders by lot. The intervals of "
        "all models overlap; that of none overlaps that of softmax.")
    assert alike["quantity"] == "rank_correlation" and alike["value"] == pytest.approx(-0.5) and alike["n"] == 3
    apart = real.assign(low=[0.745, 0.66, 0.7, 0.8])
    assert "The intervals of softmax and xca do not overlap; that of none lies below that of softmax." \
           in benchmark.beside_phantom(apart, phantom)[1]["text"]
    wide = real.assign(low=[0.60, 0.66, 0.71, 0.8], high=[0.9, 0.74, 0.73, 1], value=[0.75, 0.69, 0.72, 0.9])
    wide.loc[1, "high"], wide.loc[1, "value"] = 0.70, 0.69   # the best reaches low, so others are apart
    assert "The intervals of none and xca do not overlap; that of none overlaps that of softmax." \
           in benchmark.beside_phantom(wide, phantom)[1]["text"]


def behind(name, difference, p, width=0.01):
    return metrics.Comparison(name, "xca", "balanced_accuracy", difference, difference - width, difference + width, 500,
                              p=p)


def test_a_lead_stands_only_after_holms_correction():
    clear = [behind("softmax", -0.05, 0.002), behind("none", -0.1, 0.002), behind("window", -0.011, 0.04)]
    assert benchmark.lead(clear)["text"] == (
        "xca has the highest balanced accuracy of these runs and lies above every other model, after Holm's correction "
        "for 3 comparisons. The nearest is window, 1.1 percentage points behind (95 % interval 0.1 to 2.1).")
    close = [*clear[:2], behind("window", -0.011, 0.04), behind("performer", -0.012, 0.03)]
    assert all(c.verdict == "worse" for c in close)                                      # each by itself
    assert benchmark.lead(close)["text"].startswith(
        "No winner: xca has the highest balanced accuracy of these runs, but window, performer cannot be told from it.")


def test_differences_to_several_models_stand_in_one_table():
    page = benchmark.differences_page({"minus xca": [behind("none", -0.1, 0.1), behind("softmax", 0.005, 0.1)],
                                       "minus none": [behind("softmax", 0.1, 0.1)]})
    assert list(page.index) == ["softmax", "none"]
    assert page.loc["softmax"].tolist() == ["0.5 [-0.5, 1.5] undecided", "10.0 [9.0, 11.0] better"]
    assert page.loc["none"].tolist() == ["-10.0 [-11.0, -9.0] worse", "-"]


def test_where_two_models_differ_is_said_only_where_their_intervals_are_apart():
    labels = np.repeat([0, 1, 2], 100)
    split = SimpleNamespace(labels=labels, classes=("a", "b", "c"), prior=np.ones(3) / 3, population=None)
    one, other = labels.copy(), labels.copy()
    one[:60], other[100:140], other[200:205] = 1, 2, 0                       # 0.4, 1, 1 against 1, 0.6, 0.95
    scores = {name: metrics.evaluate(np.eye(3)[decided], split, bootstrap=0)
              for name, decided in (("one", one), ("other", other))}
    assert benchmark.where_they_differ(scores, "one", "other", "ABC") == (
        "one finds more of B (1.00 against 0.60) and fewer of A (0.40 against 1.00) than other.")
    assert benchmark.where_they_differ(scores, "one", "one", "ABC") == "No finding tells one from one."


def test_the_recipe_is_explained_line_by_line():
    recipe = mb.config.TrainingConfig()
    page = benchmark.recipe_page(recipe)
    assert list(page.columns) == ["value", "what it is"] and page.loc["lr", "value"] == str(recipe.lr)


def test_recorded_scores_end_with_the_answer_that_needs_no_image():
    rows = [{"name": f"set.{name}.{quantity}", "quantity": quantity, "value": value, "low": np.nan, "high": np.nan,
             "class": np.nan} for name, value in (("xca", 0.7), ("nearest", 0.8))
            for quantity, value in (("balanced_accuracy", value), ("top1", value), ("majority_top1", 0.6))]
    page = benchmark.recorded_scores(pd.DataFrame(rows))
    assert list(page.index) == ["nearest", "xca", "always the largest class"]
    assert page.iloc[-1].tolist() == ["-", "0.600"]
