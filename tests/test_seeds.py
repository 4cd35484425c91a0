"""What chapter 10 shows of the long runs: numbers from records alone, and "not run" where there are none."""

import numpy as np
import pytest

from medbench import plots, results
from medbench.book import seeds
from medbench.book.campaigns import Campaign

MODELS = ("softmax", "xca", "none")
HERE = Campaign("tiny", "10_tiny", models=MODELS, seeds=(0, 1, 2))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "edition_root", lambda: tmp_path / "edition")
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path / "made"))
    monkeypatch.setitem(seeds.CAMPAIGNS, "tiny", HERE)
    monkeypatch.setitem(seeds.CAMPAIGNS, "rare", Campaign("rare", "10_rare", models=MODELS[:1], seeds=(0, 1),
                                                          choices=(("as_is", ()), ("focal", (("loss", "focal"),)))))
    return results.here("10_tiny", "cpu")


def score(value, quantity="balanced_accuracy", **more):
    return {"quantity": quantity, "value": value, "unit": "1", **more}


def fill(place, names=MODELS, count=3):
    for i, name in enumerate(names):
        for seed in range(count):
            rows = [score(0.5 + i / 10 + seed / 100), score(0.04, "calibration_error"), score(1.5, "temperature"),
                    score(0.02, "calibration_error", suffix="tempered")]
            results.record(f"phantom.same.{name}", rows, to=place, seed=seed, images=100)
        results.record(f"phantom.same.{name}.mean", score(0.51 + i / 10, low=0.5, high=0.7), to=place, seeds=count)


def test_nothing_recorded_is_shown_as_not_run(place):
    found = seeds.over_seeds("tiny", "cpu")
    assert set(found.page().stack()) == set(found.calibration().stack()) == {"not run"}
    assert list(found.page().index) == list(MODELS)
    assert set(found.verdicts().stack()) == {"not run"}
    assert found.limits()[1] == "Its own rate: not run: python -m medbench campaign tiny"
    for ax in (found.forest(), found.curve()):
        assert "not run" in ax.texts[0].get_text()
    assert set(seeds.over_seeds("rare", "cpu").choices().stack()) == {"not run"}


def test_the_best_comes_first_with_its_interval_and_its_rate(place):
    fill(place)
    results.record("phantom.tuned.xca", {"quantity": "rate_factor", "value": 2.0, "unit": "1"}, to=place)
    page = seeds.over_seeds("tiny", "cpu").page()
    assert list(page.index) == ["none", "xca", "softmax"]
    assert page.loc["xca", "the recipe's rate"] == "0.610 [0.500, 0.700]"
    assert page.loc["xca", "its rate"] == "x 2" and page.loc["none", "its rate"] == "not run"
    assert set(page["its own rate"]) == {"not run"}


def test_some_seeds_are_shown_as_some(place):
    fill(place, MODELS[:2], 2)
    page = seeds.over_seeds("tiny", "cpu").page()
    assert page.loc["xca", "the recipe's rate"] == "0.605 (2 of 3 seeds)"
    assert page.loc["none", "the recipe's rate"] == "not run" and list(page.index)[-1] == "none"


def test_calibration_is_the_mean_over_seeds(place):
    fill(place)
    assert list(seeds.over_seeds("tiny", "cpu").calibration().loc["softmax"]) == ["0.040", "0.020", "1.500"]


def test_comparisons_and_their_sentences(place):
    fill(place)
    about = {"first": "xca", "second": "softmax", "verdict": "better", "seeds": 3}
    row = {"quantity": "balanced_accuracy_difference", "value": 3.0, "low": 1.0, "high": 5.0,
           "unit": "percentage point", "text": "xca is better.", "context": about}
    results.record("phantom.planned.same.xca", row, to=place)
    results.record("phantom.planned.tuned.xca", row | {"value": 4.0, "text": "Also tuned."}, to=place)
    results.record("phantom.control.same.softmax", row | {"text": "Mixing helps."}, to=place)
    found = seeds.over_seeds("tiny", "cpu")
    assert found.comparisons().to_dict("records") == [
        {"model": "xca", "value": 3.0, "low": 1.0, "high": 5.0, "verdict": "better"}]
    assert found.comparisons("tuned").value.tolist() == [4.0]
    assert found.verdicts().to_dict("index") == {
        "xca - softmax": {"the recipe's rate": "3.0 [1.0, 5.0] better", "its own rate": "4.0 [1.0, 5.0] better"},
        "softmax - none": {"the recipe's rate": "3.0 [1.0, 5.0] better", "its own rate": "not run"}}
    limit = {"quantity": "detectable_difference", "value": 2.0, "unit": "percentage point", "text": "Of 2."}
    results.record("phantom.planned.same", limit, to=place)
    assert seeds.over_seeds("tiny", "cpu").limits()[0] == "The recipe's rate: Of 2."
    assert [text.get_text() for text in found.forest().texts] == ["better"]
    results.record("phantom.planned.same.xca", row | {"context": about | {"seeds": 2}}, to=place)
    few = seeds.over_seeds("tiny", "cpu")
    assert few.comparisons().empty and few.verdicts().loc["xca - softmax", "the recipe's rate"] == "not run"


def test_a_curve_has_a_line_a_model_over_the_sizes(place):
    for name in MODELS[:2]:
        for size in (100, 1000):
            results.record(f"phantom.n{size}.{name}", score(0.4 + size / 5000), to=place, seed=0, images=size)
    ax = seeds.over_seeds("tiny", "cpu").curve()
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert len(lines) == 2 and list(lines[0].get_xdata()) == [100, 1000]
    assert np.allclose(lines[0].get_ydata(), [0.42, 0.6]) and ax.get_xscale() == "log"
    plots.look.plt.close("all")


def test_ways_to_treat_rare_classes_are_rows(place):
    to = results.here("10_rare", "cpu")
    for seed in (0, 1):
        rows = [score(0.5 + seed / 10), score(0.1, "calibration_error"),
                score(0.05, "calibration_error", suffix="tempered")]
        results.record("phantom.focal.softmax", rows, to=to, seed=seed)
    table = seeds.over_seeds("rare", "cpu").choices()
    assert list(table.loc["focal"]) == ["0.550", "0.100 > 0.050"] and list(table.loc["as is"]) == ["not run", "not run"]
