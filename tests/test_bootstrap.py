"""Intervals with few patients: as wide as they have to be, or none with the reason; without patients as they were."""

import json
import math
import re
import types

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from medbench import families, metrics, planned, results
from medbench.bootstrap import Patients, resamples
from medbench.classwise import wilson
from medbench.scoring import Task

pytestmark = pytest.mark.filterwarnings("error")


def clinic(patients, each=10, seed=0, grouped=True, both=False):
    """Two runs of a model that answers some patients better than others; `patients` (k,): of each class, 80 % of whose
    images are answered right on average. `both`: each patient has images of every class."""
    rng, k = np.random.default_rng(seed), len(patients)
    of = np.repeat(np.arange(sum(patients)), each)
    labels = np.arange(len(of)) % k if both else np.repeat(np.arange(k), patients)[of]
    chance = rng.beta(0.8 * 1.5, 0.2 * 1.5, sum(patients))
    runs = [4.0 * np.eye(k)[np.where(rng.random(len(of)) < chance[of], labels, (labels + 1) % k)] for _ in range(2)]
    classes = tuple("abcdefghij"[:k])
    return runs, types.SimpleNamespace(labels=labels, classes=classes, prior=np.ones(k) / k, population=None,
                                       groups=of if grouped else None)


def equals(rng, patients, each=20, seeds=8, both=True):
    """The comparison of two models that are equal in the population of patients, and each suits patients of its own."""
    of = np.repeat(np.arange(patients if both else 2 * patients), each)
    labels = (np.arange(len(of)) if both else of) % 2
    split = types.SimpleNamespace(labels=labels, classes=("a", "b"), prior=np.ones(2) / 2, population=None, groups=of)

    def runs():
        suits = rng.normal(0.8, 1.0, of.max() + 1)[of]
        sure = [(2 * labels - 1) * suits + rng.normal(0, 0.5, len(of)) for _ in range(seeds)]
        return [np.column_stack([-z, z]) for z in sure]
    return planned.compare({"m0": runs(), "m1": runs()}, split, reference="m0", bootstrap=300).comparisons[0]


# --------------------------------------------------------------------------------------------- none, and why
ONE_EACH = "only 1 patient of class a, b, c, d, e, f, g, h, i, j"
ALONE = "only 1 patient of class a, b"


@pytest.mark.parametrize("patients, both, why", [
    (10 * [1], False, ONE_EACH), ([1, 0], True, ALONE), ([30, 1], False, "only 1 patient of class b"),
    ([30, 2], False, r"\d+% of the resamples have no value, with 2 patients of class b")])
def test_where_patients_say_nothing_there_is_no_interval_and_no_verdict(patients, both, why, tmp_path):
    """However equal, or however far apart, the models are."""
    runs, split = clinic(patients, both=both)
    wrong = [np.roll(z, 1, axis=1) for z in runs]
    score = metrics.evaluate(runs[0], split, bootstrap=200)
    assert math.isnan(score.balanced_accuracy.low) and 0 < score.balanced_accuracy.value <= 1
    assert re.fullmatch(why, score.balanced_accuracy.reason)
    assert f"(no interval: {score.balanced_accuracy.reason})" in str(score.balanced_accuracy)
    one = metrics.compare(runs[0], wrong[0], split, bootstrap=200)
    family = planned.compare({"m0": runs * 4, "m1": wrong * 4, "m2": runs * 4}, split, reference="m0", bootstrap=200)
    assert one.verdict == "undecided" and one.p is None and re.search(f"no interval: {why}", one.sentence)
    for found in family.comparisons:
        assert found.verdict == "undecided" and found.p_images == found.p == 1
        assert re.search(rf"percentage points \(no interval: {why}, 8 seeds", found.sentence)
    assert all(math.isinf(least) for least in family.detectable.values())
    assert re.search(f"No difference, .*: {why}", family.sentence)
    measured = (score, one, *family.comparisons, family, *family.scores)
    kept = {record.name: record for record in results.record("x", *measured, to=tmp_path / "cpu" / "10_x.json")}
    for name in ("balanced_accuracy", "balanced_accuracy_difference", "detectable_difference"):
        record = kept[f"x.{name}"]
        assert record.low is None and record.high is None and re.fullmatch(why, record.reason), record
    assert kept["x.balanced_accuracy_difference"].context["p"] is None
    table = {row["model"]: row for row in families.rows({families.PLANNED: family})}
    assert table["m1"]["p"] is table["m1"]["detectable_points"] is None and table["m1"]["verdict"] == "undecided"
    assert math.isnan(table["m1"]["difference_points_low"]) and math.isnan(table["m0"]["balanced_accuracy_high"])
    json.dumps(table)


def test_a_class_by_itself_counts_its_own_patients():
    """One patient of class b takes the AUROC its interval, and leaves the sensitivity of b that of a single image."""
    runs, split = clinic([30, 1])
    found = metrics.evaluate(runs[0], split, bootstrap=300).per_class
    for key, name in (("b", "sensitivity"), ("a", "specificity")):
        one = found[key][name]
        assert (one.low, one.high) == pytest.approx(wilson(one.value, 1)[1:]) and one.high - one.low > 0.6
    assert found["a"]["sensitivity"].low > 0.5
    assert {found[key]["auroc"].reason for key in "ab"} == {"only 1 patient of class b",
                                                            "only 1 patient of classes other than a"}
    assert metrics.evaluate(runs[0], split, bootstrap=0).balanced_accuracy.reason is None           # none was wanted


def test_patients_of_each_class_are_counted_where_they_have_several():
    split = types.SimpleNamespace(labels=np.array([0, 0, 1, 0, 2, 1, 1]), classes=tuple("abcd"),
                                  groups=np.array([7, 7, 7, 3, 3, 9, 9]))
    patients = Patients(split)
    assert patients.own.tolist() == [2, 2, 1, 0] and patients.others.tolist() == [3, 2, 3, 3]
    assert (patients.fewest, patients.rare) == (1, "class c")


# --------------------------------------------------------------------------------------------- as wide as it has to be
def test_what_patients_spread_is_stretched_as_student_has_it():
    runs, split = clinic([5, 7], both=False)
    draws = np.concatenate(list(resamples(split.labels, 400, 0, split.groups)))
    task, other = Task(runs[0], split), Task(runs[1], split)
    wide = t.ppf(0.975, 4) / norm.ppf(0.975)

    def by_hand(drawn, value, least=0):
        return np.clip(value + (np.nanpercentile(drawn, (2.5, 97.5)) - value) * wide, least, 1)
    one = metrics.evaluate(runs[0], split, bootstrap=400).balanced_accuracy
    drawn, beside = (one.statistic("balanced_accuracy", draws) for one in (task, other))
    assert [one.low, one.high] == pytest.approx(by_hand(drawn, one.value))
    two = metrics.compare(runs[0], runs[1], split, bootstrap=400)
    assert [two.low, two.high] == pytest.approx(by_hand(drawn - beside, two.difference, -1))
    three = planned.compare({"m0": runs[1:], "m1": runs[:1]}, split, reference="m0", bootstrap=400)
    [found], mean = three.comparisons, three.scores[1]
    assert [found.low, found.high] == pytest.approx(by_hand(drawn - beside, two.difference, -1), abs=1e-6)
    assert [mean.low, mean.high] == pytest.approx(by_hand(drawn, one.value), abs=1e-6)
    assert found.p_images == metrics.far_side(two.difference + (drawn - beside - two.difference) * wide)
    assert three.spread[0, 1] == pytest.approx(wide * np.nanstd(drawn - beside))             # what would be found


def test_without_patients_intervals_are_the_plain_percentiles():
    runs, split = clinic([5, 2], grouped=False)
    draws = np.concatenate(list(resamples(split.labels, 300, 0)))
    drawn = Task(runs[0], split).statistics(draws)
    found = metrics.evaluate(runs[0], split, bootstrap=300)
    for name in ("balanced_accuracy", "macro_auroc", "top1", "kappa"):
        score = found.overall[name]
        assert (score.low, score.high) == tuple(np.nanpercentile(drawn[name], share) for share in (2.5, 97.5))
    assert found.caveats == () and found.balanced_accuracy.reason is None


@pytest.mark.parametrize("fewest, caveats", [(3, ("only 3 patients of class b: intervals are uncertain",)), (10, ())])
def test_few_patients_of_a_class_are_said_with_every_score(fewest, caveats):
    runs, split = clinic([12, fewest])
    split.caveats = ("enlarged",)
    family = planned.compare({"m0": runs, "m1": runs[::-1]}, split, reference="m0", bootstrap=50)
    found = (metrics.evaluate(runs[0], split, bootstrap=20), metrics.compare(*runs, split, bootstrap=20),
             *family.comparisons, *family.scores)
    assert {one.caveats for one in found} == {("enlarged", *caveats)}
    assert all(row["context"]["caveats"] == ["enlarged", *caveats] for one in (*found, family) for row in one.rows())


@pytest.mark.parametrize("grouped", [False, True])
def test_no_interval_leaves_what_a_score_can_be(grouped):
    runs, split = clinic([4, 4], grouped=grouped)
    right = [4.0 * np.eye(2)[split.labels], runs[0]]                     # two seeds far apart: +- 12.7 standard errors
    for quantity, least in (("balanced_accuracy", 0), ("mcc", -1)):
        family = planned.compare({"m0": right, "m1": right[::-1]}, split, reference="m0", quantity=quantity)
        assert all(least <= mean.low < mean.value < mean.high == 1 for mean in family.scores)
    score = metrics.evaluate(runs[0], split, bootstrap=200)
    assert all(least <= one.low and one.high <= 1 for name, least in (("top1", 0), ("macro_auroc", 0), ("mcc", -1))
               for one in [score.overall[name]])


# --------------------------------------------------------------------------------------------- what it promises
def test_few_patients_make_few_false_winners():
    """Of 150 pairs of equal models on five patients about one in seven had a winner without Student's distribution."""
    rng = np.random.default_rng(0)
    winners = sum(equals(rng, 5).verdict in ("better", "worse") for _ in range(150))
    assert 1 <= winners <= 10, winners


def test_intervals_of_few_patients_cover():
    """Thirty patients of one class and three of the other."""
    covered = 0
    for seed in range(100):
        runs, split = clinic([30, 3], seed=seed)
        found = planned.compare({"m0": runs[:1], "m1": runs[:1]}, split, reference="m0", bootstrap=200).scores[0]
        covered += found.low <= 0.8 <= found.high
    assert covered >= 86, covered


@pytest.mark.slow
@pytest.mark.parametrize("patients, both, most", [(2, True, 0.09), (3, True, 0.06), (5, True, 0.06), (10, True, 0.08),
                                                  (5, False, 0.06), (10, False, 0.06)])
def test_of_1000_pairs_of_equal_models_few_have_a_winner(patients, both, most):
    """The upper 95 % bound (Clopper-Pearson, one-sided) of the rate of false winners."""
    rng = np.random.default_rng(1)
    winners = sum(equals(rng, patients, both=both).verdict in ("better", "worse") for _ in range(1000))
    assert binomtest(winners, 1000).proportion_ci(0.90, "exact").high <= most, winners


@pytest.mark.slow
@pytest.mark.parametrize("patients", [(30, 3), (30, 5), (30, 10), (5, 5), (10, 10)])
def test_intervals_of_few_patients_cover_nine_times_in_ten(patients):
    covered = np.zeros(500)
    for seed in range(500):
        runs, split = clinic(patients, seed=seed)
        found = planned.compare({"m0": runs[:1], "m1": runs[:1]}, split, reference="m0", bootstrap=300).scores[0]
        covered[seed] = found.low <= 0.8 <= found.high
    assert covered.mean() >= 0.88, covered.mean()


# --------------------------------------------------------------------------------------------- images in their place
@pytest.mark.parametrize("each, said", [(1, "only 1 image of class a, b"), (2, "only 2 images of class a, b"),
                                        (9, "only 9 images of class a, b"), (10, None)])
def test_few_images_without_patients_are_told(each, said):
    (logits, _), split = clinic([1, 1], each=each, grouped=False)
    scores = metrics.evaluate(logits, split, bootstrap=50)
    accuracy = scores.balanced_accuracy
    assert scores.caveats == ((f"{said}: intervals are uncertain",) if said else ())
    assert math.isnan(accuracy.low) == (each == 1) and accuracy.reason == (said if each == 1 else None)
