"""Planned comparisons: no winners among equals, real differences found, equals called equal, and why when undecided."""

import math
import types

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm, t

from medbench import metrics, planned, results
from medbench.bootstrap import Patients
from medbench.scoring import Task


def study(seed, gaps=(0.0, 0.0), patients=150, each=4, k=3, seeds=8, own=1.0, luck=0.3, grouped=True):
    """Runs of models that answer right where z > 0: images differ in difficulty, models in which images suit them,
    seeds in luck. With equal `gaps` all models are equal in the population of images and seeds."""
    rng, n = np.random.default_rng(seed), patients * each
    labels, groups = np.repeat(rng.integers(0, k, patients), each), np.repeat(np.arange(patients), each)

    def images():
        return np.repeat(rng.normal(size=patients), each) + 0.5 * rng.normal(size=n)
    hard, runs = images(), {}
    for number, gap in enumerate(gaps):
        suits = 0.5 * own * images()
        runs[f"m{number}"] = []
        for _ in range(seeds):
            z = rng.logistic(size=n) * 0.5 + 1.5 + gap + luck * rng.normal() + hard + suits
            runs[f"m{number}"].append(3.0 * np.eye(k)[np.where(z > 0, labels, (labels + 1) % k)])
    return runs, types.SimpleNamespace(labels=labels, classes=tuple("abcd"[:k]), prior=np.ones(k) / k, population=None,
                                       groups=groups if grouped else None)


def compared(seed, bootstrap=500, **more):
    runs, split = study(seed, **more)
    return planned.compare(runs, split, reference="m0", bootstrap=bootstrap, seed=seed)


# --------------------------------------------------------------------------------------------- what it promises
KINDS = ({}, {"own": 0.0, "luck": 0.5}, {"luck": 0.05}, {"luck": 0.15, "own": 0.5},
         {"grouped": False, "each": 1}, {"grouped": False, "each": 1, "patients": 60, "luck": 0.05},
         {"patients": 40, "luck": 0.1}, {"patients": 60, "each": 1, "own": 0.5})


def test_of_2000_pairs_of_equal_models_few_have_a_winner():
    """The upper 95 % bound (Clopper-Pearson, one-sided) of the rate of false winners is at most 6 %; with patients and
    without, many images and few, and none of these kinds hides a bad one behind the others."""
    winners = np.zeros(len(KINDS), int)
    for seed in range(2000):
        kind = seed % len(KINDS)
        winners[kind] += compared(seed, **KINDS[kind]).comparisons[0].verdict in ("better", "worse")
    bound = binomtest(int(winners.sum()), 2000).proportion_ci(0.90, "exact").high
    assert bound <= 0.06 and winners.max() <= binom.ppf(0.999, 2000 // len(KINDS), 0.05), winners
    assert winners.sum() >= 5                                # the simulation can make winners at all


def test_of_families_of_equal_models_few_have_any_winner():
    """Six models beside one: Holm's correction holds the chance of any."""
    families = [compared(seed, gaps=7 * (0.0,), patients=60, each=1, luck=0.5, own=0.0) for seed in range(200)]
    winners = sum(any(one.verdict in ("better", "worse") for one in family.comparisons) for family in families)
    alone = sum(max(one.p_seeds, one.p_images) < 0.05 for family in families for one in family.comparisons)
    assert winners <= binom.ppf(0.99, 200, 0.05) < alone, (winners, alone)


def test_either_half_alone_would_not_do():
    """Why a difference has to stand against seeds and against images: with little luck, seeds alone are sure of it."""
    found = [compared(seed, luck=0.02).comparisons[0] for seed in range(150)]
    assert np.mean([c.p_seeds < 0.05 for c in found]) > 0.2 > 0.06 > np.mean([c.p_images < 0.05 for c in found])


@pytest.mark.parametrize("gap, verdict", [(0.6, "better"), (-0.6, "worse")])
def test_a_real_difference_is_found_and_has_its_sign(gap, verdict):
    found = [compared(seed, gaps=(0.0, gap), luck=0.1, own=0.3).comparisons[0] for seed in range(20)]
    assert sum(c.verdict == verdict for c in found) >= 19
    assert all(c.low <= c.difference <= c.high and (c.low > 0 if gap > 0 else c.high < 0) for c in found
               if c.verdict == verdict)


def test_a_difference_as_large_as_detectable_is_found_about_four_times_in_five():
    """One that were 40 % off would be found in two of five, or in all."""
    many = dict(patients=60, each=8, luck=0.02, bootstrap=200)
    found = [compared(seed, gaps=(0.0, 0.46), **many) for seed in range(60)]
    real = np.mean([100 * family.comparisons[0].difference for family in found])
    assert real == pytest.approx(np.mean([family.detectable["m1"] for family in found]), rel=0.05)
    power = np.mean([family.comparisons[0].verdict == "better" for family in found])
    assert 0.7 < power < 0.9, power


def test_equal_models_with_little_noise_are_equivalent():
    runs, split = study(3, gaps=(2.5, 2.5), patients=1500, each=1, own=0.1, luck=0.05)
    found = planned.compare(runs, split, reference="m0", bootstrap=500).comparisons[0]
    assert found.verdict == "equivalent" and "within 2 points" in found.sentence
    narrow = planned.compare(runs, split, reference="m0", bootstrap=500, margin=0.0005).comparisons[0]
    assert narrow.verdict == "undecided"


@pytest.mark.parametrize("seeds, why", [(1, True), (5, True), (6, False)])
def test_too_few_seeds_can_have_no_winner_and_this_is_said(seeds, why):
    family = compared(1, gaps=(0.0, 3.0), seeds=seeds, luck=0.02)
    found = family.comparisons[0]
    assert (found.verdict == "undecided") == why and ("cannot make a winner among 2 models" in found.sentence) == why
    assert np.isinf(family.detectable["m1"]) == why
    assert (family.rows()[0]["value"] is None) == why and ("reason" in family.rows()[0]) == why


def test_intervals_of_means_over_seeds_cover_what_would_be_found_with_all_seeds():
    """Luck of the seeds alone makes the difference; equal models, so the true difference is 0."""
    covered = 0
    for number in range(100):
        found = compared(number, patients=60, luck=0.5, own=0.0, bootstrap=300).comparisons[0]
        covered += found.low <= 0 <= found.high
    assert covered >= 88


def test_models_that_differ_by_the_margin_are_rarely_called_equivalent():
    """Two one-sided tests at 5 %: with the true difference at the margin, at most about one in twenty."""
    gap = 0.25
    far = [compared(1000 + number, gaps=(0.0, gap), patients=150, bootstrap=10).comparisons[0].difference
           for number in range(150)]
    margin, called = float(np.mean(far)), 0
    for number in range(150):
        runs, split = study(5000 + number, gaps=(0.0, gap))
        found = planned.compare(runs, split, reference="m0", bootstrap=300, margin=margin).comparisons[0]
        called += found.verdict == "equivalent"
    assert called <= binom.ppf(0.99, 150, 0.05), called      # 14


def few(each, wrong, classes=3, seeds=8, groups=None):
    """Two models that are right on all of `each` images of each class, but the second on `wrong` of the first."""
    labels = np.repeat(np.arange(classes), each)
    split = types.SimpleNamespace(labels=labels, classes=tuple("abcdefghij"[:classes]), population=None,
                                  prior=np.ones(classes) / classes, groups=groups)
    said = np.where(np.arange(len(labels)) < wrong, 1, labels)
    return {"m0": seeds * [np.eye(classes)[labels]], "m1": seeds * [np.eye(classes)[said]]}, split


@pytest.mark.parametrize("each, verdict", [(5, "undecided"), (20, "undecided"), (200, "equivalent")])
@pytest.mark.parametrize("grouped", [False, True])
def test_models_that_agree_on_all_of_few_images_are_not_equivalent(each, verdict, grouped):
    """They may differ in the next: a model that finds nine in ten is right on five images of a class in 59 %."""
    runs, split = few(each, 0, groups=np.arange(3 * each) if grouped else None)
    family = planned.compare(runs, split, reference="m0", bootstrap=300)
    [found], p = family.comparisons, 1 / (each + 2)
    spread = math.sqrt(p * (1 - p) / each / 3)
    assert found.verdict == verdict and found.difference == 0 and found.p == 1
    assert found.inner == pytest.approx([norm.ppf(share) * spread for share in (0.05, 0.95)])
    assert (found.low, found.high) == pytest.approx([norm.ppf(share) * spread for share in (0.025, 0.975)])
    assert family.detectable["m1"] == pytest.approx(100 * (norm.ppf(0.975) + norm.ppf(0.8)) * spread)
    one = metrics.compare(runs["m0"][0], runs["m1"][0], split, bootstrap=300)
    assert (one.low, one.high) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize("each, apart", [(8, 0.1), (25, 0.04)])
def test_models_that_differ_beyond_the_margin_are_rarely_equivalent_on_few_images(each, apart):
    """All right or nearly so: what the bootstrap spreads is nothing, and one in two was then called equivalent."""
    rng, called = np.random.default_rng(0), 0
    for _ in range(200):
        runs, split = few(each, rng.binomial(each, 3 * apart), seeds=2)          # of the first class; the others right
        called += planned.compare(runs, split, reference="m0", bootstrap=100).comparisons[0].verdict == "equivalent"
    assert called <= binom.ppf(0.99, 200, 0.05), called


def test_the_inner_interval_is_of_two_tests_at_five_percent():
    runs, split = study(4, seeds=2)
    both = planned.compare({name: found[:1] for name, found in runs.items()}, split, reference="m0", bootstrap=400)
    counts = np.concatenate(list(metrics.resamples(split.labels, 400, 0, split.groups)))
    first, second = (Task(runs[name][0], split).statistic("balanced_accuracy", counts) for name in ("m1", "m0"))
    stretch = t.ppf(0.975, Patients(split).fewest - 1) / norm.ppf(0.975)
    [found] = both.comparisons
    assert found.inner == pytest.approx(
        found.difference + stretch * (np.percentile(first - second, (5, 95)) - found.difference), abs=1e-5)


@pytest.mark.parametrize("S", [2, 4, 8])
def test_seeds_add_the_variance_of_a_mean_over_few(S):
    """Images that spread nothing: s^2 / S from the seeds, and (t/z)^2 as that is known from S values."""
    each = np.random.default_rng(S).normal(size=S)
    drawn = planned._seeds_too(np.broadcast_to(each, (40_000, 1, S)), 0)[:, 0]
    stretch = t.ppf(0.975, S - 1) / norm.ppf(0.975)
    assert drawn.var() == pytest.approx(each.var(ddof=1) / S * stretch**2, rel=0.04)
    assert drawn.mean() == pytest.approx(each.mean(), abs=5 * drawn.std() / 200)


@pytest.mark.parametrize("quantity", ["balanced_accuracy", "macro_auroc"])
def test_what_is_undefined_has_no_verdict(quantity):
    rng, labels = np.random.default_rng(0), np.repeat([0, 1, 3], 20)                       # no image of class c
    split = types.SimpleNamespace(labels=labels, classes=tuple("abcd"), prior=np.ones(4) / 4, population=None)
    runs = {name: [rng.normal(size=(60, 4)) for _ in range(2)] for name in ("m0", "m1")}
    with pytest.raises(ValueError, match=f"{quantity} cannot be compared: no image of class c"):
        planned.compare(runs, split, reference="m0", quantity=quantity, bootstrap=10)
    with pytest.raises(ValueError, match=f"{quantity} cannot be compared: no image of class c"):
        metrics.compare(runs["m0"][0], runs["m1"][0], split, quantity=quantity, bootstrap=10)


def test_a_single_seed_shows_no_equivalence_either():
    """The same answers twice: no difference at all, and still another seed might have brought one."""
    runs, split = few(200, 0)
    assert planned.compare(runs, split, reference="m0", bootstrap=50).comparisons[0].verdict == "equivalent"
    alone = planned.compare({name: found[:1] for name, found in runs.items()}, split, reference="m0", bootstrap=50)
    assert alone.comparisons[0].verdict == "undecided" and alone.comparisons[0].inner[1] < 0.02


@pytest.mark.parametrize("resamples, enough", [(50, False), (79, False), (80, True)])
def test_too_few_resamples_can_have_no_winner_and_this_is_said(resamples, enough):
    """With two rivals the least p of the images is 4 / (R + 1)."""
    runs, split = few(50, 50)
    family = planned.compare(runs | {"m2": runs["m1"]}, split, reference="m0", bootstrap=resamples)
    assert {one.verdict for one in family.comparisons} == {"worse" if enough else "undecided"}
    why = f"; {resamples} resamples cannot make a winner among 3 models"
    assert all((why in one.sentence) != enough for one in family.comparisons)
    assert all(math.isinf(least) != enough for least in family.detectable.values())
    assert (f"could be called one: only {resamples} resamples." in family.sentence) != enough
    assert (family.rows()[0].get("reason") == f"only {resamples} resamples") != enough


def test_as_many_right_answers_in_other_classes_are_no_difference_at_all():
    """Seven right answers of 21 either way, in other classes. Rounding must not give the difference a sign."""
    labels = np.repeat(np.arange(3), 7)
    split = types.SimpleNamespace(labels=labels, classes=tuple("abc"), prior=np.ones(3) / 3, population=None)
    right = {"m0": (0, 0, 7), "m1": (2, 4, 1)}               # of each class; in float32 these differ by 1e-8
    runs = {}
    for name, counts in right.items():
        hit = np.arange(21) % 7 < np.repeat(counts, 7)
        runs[name] = [np.eye(3)[np.where(hit, labels, (labels + 1) % 3)]]
    found = planned.compare(runs, split, reference="m0", bootstrap=5).comparisons[0]
    assert abs(found.differences[0]) < 1e-12                 # as sums within this count as equal


@pytest.mark.parametrize("S, alpha", [(8, 0.05), (8, 0.05 / 6), (12, 0.05 / 6)])
def test_what_seeds_allow_is_found_by_the_sign_flip_test_four_times_in_five(S, alpha):
    drawn = np.random.default_rng(1).standard_normal((1000, S)) + planned._detectable_by_seeds(S, alpha, trials=1000)
    assert np.mean([planned.sign_flip(d) < alpha for d in drawn]) == pytest.approx(0.8, abs=0.06)


def test_the_detectable_difference_is_known_for_many_seeds_too():
    assert 0.5 < planned._detectable_by_seeds(16, 0.05 / 6, trials=500) < 1.5


# --------------------------------------------------------------------------------------------- how it computes
def test_scores_are_those_of_evaluate_and_resamples_those_of_a_task():
    runs, split = study(0, seeds=2)
    family = planned.compare(runs, split, reference="m0", bootstrap=50)
    want = [metrics.evaluate(b, split, bootstrap=0).balanced_accuracy.value
            - metrics.evaluate(a, split, bootstrap=0).balanced_accuracy.value for a, b in zip(runs["m0"], runs["m1"])]
    assert family.comparisons[0].differences == pytest.approx(want, abs=1e-6)
    tasks = [Task(logits, split) for logits in runs["m0"]]
    counts = next(metrics.resamples(split.labels, 30, 1))
    slow = np.column_stack([task.statistic("balanced_accuracy", counts) for task in tasks])
    assert planned.balanced(counts, tasks) == pytest.approx(slow, abs=1e-5)


def test_another_quantity_goes_the_long_way():
    runs, split = study(0, gaps=(0.0, 1.0), patients=40, seeds=6)
    found = planned.compare(runs, split, reference="m0", quantity="macro_auroc", bootstrap=40).comparisons[0]
    want = np.mean([metrics.evaluate(b, split, bootstrap=0).macro_auroc.value
                    - metrics.evaluate(a, split, bootstrap=0).macro_auroc.value
                    for a, b in zip(runs["m0"], runs["m1"])])
    assert found.difference == pytest.approx(want) and found.low < want < found.high


def test_seven_seeds_cannot_make_a_winner_of_seven_models():
    runs, split = study(1, gaps=(0.0, *6 * (3.0,)), seeds=7, luck=0.02, patients=60)
    family = planned.compare(runs, split, reference="m0", bootstrap=200)
    assert {c.verdict for c in family.comparisons} == {"undecided"} and np.isinf(list(family.detectable.values())).all()
    assert "7 seeds cannot make a winner among 7 models" in family.comparisons[0].sentence
    runs, split = study(1, gaps=(0.0, *6 * (3.0,)), seeds=8, luck=0.02, patients=60)
    family = planned.compare(runs, split, reference="m0", bootstrap=2000)
    assert {c.verdict for c in family.comparisons} == {"better"} and np.isfinite(list(family.detectable.values())).all()


def test_patients_widen_the_interval():
    runs, split = study(5, luck=0.02, each=8)
    by_patient = planned.compare(runs, split, reference="m0", bootstrap=500).comparisons[0]
    split.groups = None
    by_image = planned.compare(runs, split, reference="m0", bootstrap=500).comparisons[0]
    assert by_patient.high - by_patient.low > 1.3 * (by_image.high - by_image.low)
    assert by_patient.groups == 150 and "in 150 groups" in by_patient.sentence and by_image.groups is None


def test_the_family_is_corrected_together():
    runs, split = study(2, gaps=(0.0, 0.5, 0.0, 0.0), luck=0.1, own=0.3)
    family = planned.compare(runs, split, reference="m0", bootstrap=1000)
    assert [c.first for c in family.comparisons] == ["m1", "m2", "m3"]
    raw = [max(c.p_seeds, c.p_images) for c in family.comparisons]
    assert [c.p for c in family.comparisons] == pytest.approx(metrics.holm(raw))
    one = planned.compare(runs, split, reference="m0", models=["m1"], bootstrap=1000)
    assert one.comparisons[0].p <= family.comparisons[0].p and one.detectable["m1"] < family.detectable["m1"]


def test_what_would_be_found_is_told_of_each_comparison():
    """A pair that varies more from seed to seed needs a larger difference."""
    runs, split = study(2, gaps=(0.0, 0.0, 0.0), luck=0.02, own=0.3)
    calm = planned.compare(runs, split, reference="m0", bootstrap=500)
    spoilt = np.random.default_rng(0).random(len(split.labels)) < 0.15    # every second seed answers these wrong
    runs["m2"] = [np.where(spoilt[:, None] & bool(s % 2), np.roll(np.eye(3)[split.labels], 1, axis=1), z)
                  for s, z in enumerate(runs["m2"])]
    family = planned.compare(runs, split, reference="m0", bootstrap=500)
    assert family.detectable["m1"] == pytest.approx(calm.detectable["m1"])
    assert family.detectable["m2"] > 1.2 * calm.detectable["m2"]
    low, high = sorted(family.detectable.values())
    assert family.sentence.startswith(f"From {low:.1f} percentage points (m1) to {high:.1f} (m2) on, ")
    assert [row["value"] for row in family.rows()] == [*family.detectable.values(), high]


def test_a_class_in_few_patients_is_not_held_for_evidence():
    """Draws without any image of a class have no score, in one rule and in the other; they count for nobody."""
    runs, split = study(4, patients=12, each=4, luck=0.1, own=0.3)
    tasks = [Task(logits, split) for logits in (runs["m0"][0], runs["m1"][0])]
    counts = np.concatenate(list(metrics.resamples(split.labels, 2000, 0, split.groups)))
    drawn = planned.balanced(counts, tasks)
    slow = np.column_stack([task.statistic("balanced_accuracy", counts) for task in tasks])
    lacking = np.any([counts[:, split.labels == c].sum(1) == 0 for c in range(3)], axis=0)
    assert 0.02 < lacking.mean() < 0.6
    assert (np.isnan(drawn).all(1) == lacking).all() and (np.isnan(slow).all(1) == lacking).all()
    apart = drawn[:, 1] - drawn[:, 0]
    assert metrics.far_side(apart) == metrics.far_side(apart[~lacking])
    assert metrics.far_side(np.full(100, np.nan)) == 1.0


def test_many_seeds_use_random_signs():
    differences = np.random.default_rng(0).normal(0.3, 1, 20)
    exact = metrics.sign_flip(differences)
    assert planned.sign_flip(differences) == pytest.approx(exact, abs=0.01)
    assert planned.sign_flip(differences[:7]) == metrics.sign_flip(differences[:7])


def test_what_does_not_fit_is_refused():
    runs, split = study(0, patients=20)
    for change, words in (({"reference": "m9"}, "reference is 'm9'"), ({"models": ["m7"]}, "model is 'm7'"),
                          ({"quantity": "luck"}, "quantity is 'luck'"), ({"margin": -1}, "margin is -1")):
        with pytest.raises(ValueError, match=words):
            planned.compare(runs, split, **{"reference": "m0", **change})
    with pytest.raises(ValueError, match="m0': 8, 'm1': 3.*same seeds"):
        planned.compare(runs | {"m1": runs["m1"][:3]}, split, reference="m0")


def test_its_records_say_everything(tmp_path):
    runs, split = study(0, patients=60)
    split.caveats = ("no patient ids: slice-level split",)
    family = planned.compare(runs, split, reference="m0", bootstrap=100)
    records = results.record("planned.m1", *family.comparisons, family, to=tmp_path / "here" / "10_training.json")
    difference, each, detectable = records
    assert each.name == "planned.m1.detectable_difference.m1" and each.value == detectable.value
    assert len(difference.samples) == 8 and difference.context["verdict"] in planned.VERDICTS
    assert difference.context["caveats"] == detectable.context["caveats"] == list(split.caveats)
    assert {"p", "p_seeds", "p_images", "seeds", "margin_points"} <= set(difference.context)
    assert detectable.text == family.sentence


def test_eight_seeds_of_seven_models_take_seconds():
    import time
    rng, n = np.random.default_rng(0), 5000
    split = types.SimpleNamespace(labels=np.arange(n) % 10, classes=tuple("abcdefghij"), prior=np.ones(10) / 10,
                                  population=None)
    runs = {name: [rng.normal(size=(n, 10)) + 2 * np.eye(10)[split.labels] for _ in range(8)] for name in "abcdefg"}
    began = time.process_time()
    planned.compare(runs, split, reference="a", bootstrap=1000)
    assert time.process_time() - began < 90
