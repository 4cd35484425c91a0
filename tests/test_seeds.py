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
                    score(0.02, "calibration_error", suffix="tempered"), score(0.03, "calibration_floor"),
                    score(0.01, "calibration_floor", suffix="tempered")]
            results.record(f"phantom.same.{name}", rows, to=place, seed=seed, images=100)
        results.record(f"phantom.same.{name}.mean", score(0.51 + i / 10, low=0.5, high=0.7), to=place, seeds=count)


def test_nothing_recorded_is_shown_as_not_run(place):
    found = seeds.over_seeds("tiny", "cpu")
    for page in (found.page(), found.calibration(), found.verdicts(), found.sizes(), found.tries()):
        assert page.to_dict() == {"not run": {"to run it": "python -m medbench campaign tiny"}}
    assert found.limits() == ["not run: python -m medbench campaign tiny"]
    for ax in (found.forest(), found.curve()):
        assert "not run" in ax.texts[0].get_text()
    assert list(seeds.over_seeds("rare", "cpu").choices()) == ["not run"]


def test_the_best_comes_first_with_its_interval_and_its_rate(place):
    fill(place)
    assert list(seeds.over_seeds("tiny", "cpu").page()) == ["the recipe's rate", "seeds"]
    results.record("phantom.tuned.xca", {"quantity": "rate_factor", "value": 2.0, "unit": "1"}, to=place)
    page = seeds.over_seeds("tiny", "cpu").page()
    assert list(page.index) == ["none", "xca", "softmax"]
    assert page.loc["xca", "the recipe's rate"] == "0.610 [0.500, 0.700]"
    assert page.loc["xca", "its rate"] == "x 2" and page.loc["none", "its rate"] == "not run"
    assert page.loc["xca", "seeds"] == "0.600\u20130.620"
    assert set(page["its own rate"]) == {"not run"} and set(page["seeds, own rate"]) == {"-"}


def test_models_are_compared_on_the_seeds_that_all_have(place):
    fill(place, count=2)
    results.record("phantom.same.xca", score(0.9), to=place, seed=2, images=100)        # the others lack the third
    found = seeds.over_seeds("tiny", "cpu")
    page = found.page()
    assert page.loc["xca", "the recipe's rate"] == "0.605 (2 of 3 seeds)" and found.common() == [0, 1]
    assert page.loc["xca", "seeds"] == "0.600\u20130.610" and list(page.index)[0] == "none"
    assert set(found.verdicts()["the recipe's rate"]) == {"2 of 3 seeds"}
    assert found.forest().texts[0].get_text() == "2 of 3 seeds: python -m medbench campaign tiny"


def test_without_a_seed_that_all_have_nobody_is_ranked(place):
    fill(place, MODELS[:2], 2)
    page = seeds.over_seeds("tiny", "cpu").page()
    assert set(page["the recipe's rate"]) == {"not run"} and list(page.index) == list(MODELS)


def test_calibration_is_the_mean_over_seeds(place):
    fill(place)
    assert list(seeds.over_seeds("tiny", "cpu").calibration().loc["softmax"]) == [
        "0.0400", "0.0300", "0.0200", "0.0100", "1.5000", 3]


def test_comparisons_and_their_sentences(place):
    fill(place)
    about = {"first": "xca", "second": "softmax", "verdict": "better", "seeds": 3}
    row = {"quantity": "balanced_accuracy_difference", "value": 3.0, "low": 1.0, "high": 5.0,
           "unit": "percentage point", "text": "xca is better.", "context": about}
    results.record("phantom.planned.same.xca", row, to=place)
    rates = {"rates": "softmax same, xca twice, none same"}
    own = row | {"value": 4.0, "text": "Also tuned.", "context": about | rates}
    results.record("phantom.planned.tuned.xca", own, to=place)
    results.record("phantom.tuned.xca", {"quantity": "rate_factor", "value": 2.0, "unit": "1"}, to=place)
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
    results.record("phantom.tuned.none", {"quantity": "rate_factor", "value": 0.5, "unit": "1"}, to=place)
    few = seeds.over_seeds("tiny", "cpu")
    assert few.comparisons("tuned").empty                    # of rates that are no longer chosen
    assert few.verdicts().loc["xca - softmax", "its own rate"] == "not run"
    assert few.comparisons().empty and few.verdicts().loc["xca - softmax", "the recipe's rate"] == few.state()


def test_a_model_that_kept_its_rate_has_the_same_runs_for_both(place):
    """It is not trained twice, and has no records of its own: runs are named after their rate."""
    fill(place)
    for name, factor in (("softmax", 1.0), ("xca", 2.0), ("none", 0.5)):
        results.record(f"phantom.tuned.{name}", {"quantity": "rate_factor", "value": factor, "unit": "1"}, to=place)
    for name, rate in (("xca", "twice"), ("none", "half"), ("softmax", "twice")):        # the last was not chosen
        for seed in (0, 1):
            results.record(f"phantom.{rate}.{name}", score(0.7 + seed / 100), to=place, seed=seed)
    found = seeds.over_seeds("tiny", "cpu")
    page = found.page()
    assert found.common("tuned") == [0, 1] and list(page["its rate"]) == ["x 0.5", "x 2", "x 1"]
    assert page.loc["softmax", "its own rate"] == "0.505 (2 of 3 seeds)"
    assert page.loc["xca", "its own rate"] == "0.705 (2 of 3 seeds)"
    assert page.loc["softmax", "seeds, own rate"] == "0.500\u20130.510"
    assert set(found.verdicts()["its own rate"]) == {"2 of 3 seeds"}
    results.record("phantom.twice.xca", score(0.72), to=place, seed=2)
    results.record("phantom.half.none", score(0.72), to=place, seed=2)
    page = seeds.over_seeds("tiny", "cpu").page()
    assert page.loc["softmax", "seeds, own rate"] == page.loc["softmax", "seeds"]


def test_a_curve_has_a_line_a_model_over_the_sizes(place):
    for name in MODELS[:2]:
        for size in (100, 1000):
            row = score(0.4 + size / 5000, low=0.3, high=0.7)
            results.record(f"phantom.n{size}.{name}", row, to=place, seed=0, images=size)
    page = seeds.over_seeds("tiny", "cpu").sizes()
    assert page.to_dict("index") == dict.fromkeys(MODELS[:2], {
        "100": "0.420", "1,000": "0.600", "last step (points)": "+18.0"}) and page.columns.name == "images"
    ax = seeds.over_seeds("tiny", "cpu").curve()
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert len(lines) == 2 and list(lines[0].get_xdata()) == [100, 1000]
    assert np.allclose(lines[0].get_ydata(), [0.42, 0.6]) and ax.get_xscale() == "log"
    assert len(ax.collections) == 2                                              # a band each
    plots.look.plt.close("all")


def test_ways_to_treat_rare_classes_are_compared_on_the_same_seeds(place, monkeypatch):
    monkeypatch.setitem(seeds.CAMPAIGNS, "rare", Campaign("rare", "10_rare", models=MODELS[:2], seeds=(0, 1),
                                                          choices=(("focal", (("loss", "focal"),)),)))
    to = results.here("10_rare", "cpu")
    for name, seed in (("softmax", 0), ("softmax", 1), ("xca", 0)):
        results.record(f"phantom.focal.{name}", score(0.5 + seed / 10), to=to, seed=seed)
    table = seeds.over_seeds("rare", "cpu").choices()
    assert table.loc["focal", ["seeds", "softmax", "xca"]].tolist() == [1, "0.500", "0.500"]


def test_ways_to_treat_rare_classes_are_rows(place):
    to = results.here("10_rare", "cpu")
    for seed in (0, 1):
        rows = [score(0.5 + seed / 10), score(0.1, "calibration_error"),
                score(0.05, "calibration_error", suffix="tempered")]
        results.record("phantom.focal.softmax", rows, to=to, seed=seed)
    table = seeds.over_seeds("rare", "cpu").choices()
    assert list(table.loc["focal"]) == [2, "0.500, 0.600", "0.1000 \u2192 0.0500"]
    assert list(table.loc["as is"]) == [0, "not run", "not run"]


def test_how_a_rate_was_chosen_stands_beside_what_seeds_differ_by(place, monkeypatch):
    monkeypatch.setitem(seeds.CAMPAIGNS, "tiny", Campaign("tiny", "10_tiny", models=MODELS, seeds=(0, 1, 2), tuned=2))
    fill(place)
    assert list(seeds.over_seeds("tiny", "cpu").tries()) == ["not run"]
    for seed, (before, after) in enumerate([(0.90, 0.50), (0.92, 0.51), (0.94, 0.52)]):
        results.record("phantom.same.xca", score(before, "val_macro_auroc"), to=place, seed=seed)
        results.record("phantom.half.xca", score(after), score(after + 0.4, "val_macro_auroc"), to=place, seed=seed)
    diverged = score(None, "val_macro_auroc", reason="NaN")
    results.record("phantom.twice.xca", diverged, to=place, seed=0)
    results.record("phantom.twice.xca", score(0.9, "val_macro_auroc"), to=place, seed=1)
    results.record("phantom.half.none", score(0.9, "val_macro_auroc"), to=place, seed=0)      # the second is to come
    for name, factor in (("xca", 0.5), ("none", 1.0), ("softmax", 1.0)):
        results.record(f"phantom.tuned.{name}", score(factor, "rate_factor"), to=place)
    page = seeds.over_seeds("tiny", "cpu").tries()
    assert page.loc["xca"].to_dict() == {"x 0.5": "0.905", "x 1": "0.910", "x 2": "diverged", "over seeds": "0.020",
                                         "chosen": "x 0.5", "brought (points)": "-10.0"}
    assert page.loc["none"].to_dict() == {"x 0.5": "not run", "x 1": "not run", "x 2": "not run", "over seeds": "-",
                                          "chosen": "x 1", "brought (points)": "-"}
