"""Scores equal scikit-learn's, intervals cover what they should, comparisons find what is there."""

import time
import types
import warnings

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn import metrics as reference

from medbench import classwise, metrics, scoring
from medbench.scoring import BINS, Task

pytestmark = pytest.mark.filterwarnings("error")


def task(n=300, k=7, seed=0, sharp=1.5, population=False, absent=()):
    """A split with unequal classes and logits that know something of the labels."""
    rng = np.random.default_rng(seed)
    allowed = [c for c in range(k) if c not in absent]
    labels = rng.choice(allowed, n, p=np.array([2.0**-c for c in allowed]) / sum(2.0**-c for c in allowed))
    prior = np.linspace(3, 1, k) / np.linspace(3, 1, k).sum()
    logits = rng.normal(size=(n, k)) + sharp * np.eye(k)[labels]
    target = np.linspace(1, 9, k) ** 2 / (np.linspace(1, 9, k) ** 2).sum() if population else None
    classes = tuple(f"class_{c}" for c in range(k))
    return logits, types.SimpleNamespace(labels=labels, classes=classes, prior=prior, population=target)


def posteriors(logits, split):
    """Balanced and population posteriors and the images' weights, written out the long way."""
    balanced = logits - np.log(split.prior)
    if split.population is None:
        return softmax(balanced, 1), softmax(logits, 1), np.ones(len(logits))
    share = np.bincount(split.labels, minlength=len(split.classes)) / len(split.labels)
    weight = (split.population / share)[split.labels]
    return softmax(balanced, 1), softmax(balanced + np.log(split.population), 1), weight


@pytest.mark.parametrize("population", [False, True])
def test_every_score_equals_scikit_learn(population):
    logits, split = task(population=population)
    balanced, frequent, weight = posteriors(logits, split)
    y, k = split.labels, len(split.classes)
    found = metrics.evaluate(logits, split, bootstrap=0)
    decided, answered = balanced.argmax(1), frequent.argmax(1)
    truth = np.eye(k)[y]
    want = {
        "balanced_accuracy": reference.balanced_accuracy_score(y, decided),
        "macro_auroc": np.mean([reference.roc_auc_score(truth[:, c], balanced[:, c]) for c in range(k)]),
        "macro_auprc": np.mean([reference.average_precision_score(
            truth[:, c], balanced[:, c], sample_weight=weight) for c in range(k)]),
        "top1": reference.accuracy_score(y, answered, sample_weight=weight),
        "top5": reference.top_k_accuracy_score(y, frequent, k=5, sample_weight=weight),
        "mcc": reference.matthews_corrcoef(y, answered, sample_weight=weight),
        "kappa": reference.cohen_kappa_score(y, answered, sample_weight=weight),
        "brier": reference.brier_score_loss(y, frequent, sample_weight=weight, scale_by_half=False),
    }
    for name, value in want.items():
        assert getattr(found, name).value == pytest.approx(value, abs=1e-12), name
    assert (found.confusion == reference.confusion_matrix(y, decided)).all()
    for c, key in enumerate(split.classes):
        scores = found.per_class[key]
        assert scores["sensitivity"].value == pytest.approx(reference.recall_score(y == c, decided == c))
        assert scores["specificity"].value == pytest.approx(reference.recall_score(y != c, decided != c))
        behind = [scores[name].n for name in ("sensitivity", "specificity", "auroc", "auprc")]
        assert behind == [(y == c).sum(), (y != c).sum(), len(y), len(y)] and found.support[key] == behind[0]


@pytest.mark.parametrize("population", [False, True])
def test_calibration_error_equals_a_slow_loop(population):
    logits, split = task(n=120, k=4, population=population)
    _, p, weight = posteriors(logits, split)
    gaps = []
    for c in range(4):
        for b in range(BINS):
            inside = (p[:, c] >= b / BINS) & (p[:, c] < (b + 1) / BINS)
            gaps.append(abs(np.sum(weight[inside] * (p[inside, c] - (split.labels[inside] == c)))) / weight.sum())
    assert metrics.evaluate(logits, split, bootstrap=0).calibration_error.value == pytest.approx(sum(gaps) / 4)


@pytest.mark.parametrize("reweighted", [False, True])
def test_the_calibration_error_of_a_calibrated_model_lies_about_its_floor(reweighted):
    """Its probabilities are the true ones, so all of its error is chance; of one that is too sure it is not."""
    rng, k, n, among, above = np.random.default_rng(0), 3, 450, 0, 0
    prior = np.array([0.6, 0.3, 0.1])
    for _ in range(40):
        labels = np.arange(n) % k if reweighted else rng.choice(k, n, p=prior)
        x = rng.normal(size=(n, k)) + 1.2 * np.eye(k)[labels]             # log p(x | c) is 1.2 x_c and the same for all
        split = types.SimpleNamespace(labels=labels, classes=tuple("abc"), prior=prior,
                                      population=np.array([0.2, 0.7, 0.1]) if reweighted else None)
        found = metrics.evaluate(1.2 * x + np.log(prior), split, bootstrap=1)
        among += found.calibration_floor.low <= found.calibration_error.value <= found.calibration_floor.high
        sure = metrics.evaluate(3 * 1.2 * x + np.log(prior), split, bootstrap=1)
        above += sure.calibration_error.value > sure.calibration_floor.high
        assert found.calibration_floor.low < found.calibration_floor.value < found.calibration_floor.high
    assert among >= 34 and above == 40


def test_ranking_scores_treat_ties_as_scikit_learn_does():
    logits, split = task(n=200, k=3)
    logits = logits[np.random.default_rng(1).integers(0, 25, 200)]          # each row about eight times
    balanced, _, _ = posteriors(logits, split)
    found = metrics.evaluate(logits, split, bootstrap=0)
    for c, key in enumerate(split.classes):
        assert found.per_class[key]["auroc"].value == pytest.approx(
            reference.roc_auc_score(split.labels == c, np.round(balanced[:, c], 14)))
        assert found.per_class[key]["auprc"].value == pytest.approx(
            reference.average_precision_score(split.labels == c, np.round(balanced[:, c], 14)))


def test_an_absent_class_gives_nan_with_its_support_and_the_reason():
    logits, split = task(absent=(2,))
    found = metrics.evaluate(logits, split, bootstrap=20)
    gone = found.per_class["class_2"]["sensitivity"]
    assert np.isnan(gone.value) and gone.n == 0 and "class_2" in gone.reason
    assert np.isnan(found.balanced_accuracy.value) and "class_2" in found.balanced_accuracy.reason
    assert 0 < found.top1.value < 1                               # needs no class in particular
    rows = {row["quantity"]: row for row in found.rows() if "suffix" not in row}
    assert rows["balanced_accuracy"]["value"] is None and "class_2" in rows["balanced_accuracy"]["reason"]
    logits, split = task(absent=(2,), population=True)
    assert np.isnan(metrics.evaluate(logits, split, bootstrap=0).top1.value)   # the population cannot be restored


def test_decisions_subtract_the_prior_behind_the_logits():
    _, split = task(n=400, k=7)
    logits = np.tile(np.log(split.prior), (400, 1))               # knows the prior and nothing else
    tilted = logits + 0.01 * np.eye(7)[split.labels]
    assert metrics.evaluate(tilted, split, bootstrap=0).balanced_accuracy.value == 1
    assert metrics.evaluate(tilted, split, prior=np.ones(7) / 7, bootstrap=0).balanced_accuracy.value < 0.5


def test_majority_baseline_is_the_frequency_of_the_commonest_class():
    logits, split = task(population=True)
    assert metrics.evaluate(logits, split, bootstrap=0).majority_top1.value == pytest.approx(split.population.max())


def test_rows_are_whole_and_carry_intervals():
    logits, split = task(k=3, n=90)
    without = {row["quantity"] for row in metrics.evaluate(logits, split, bootstrap=0).rows() if "low" in row}
    assert without == {"sensitivity", "specificity"}         # Wilson's need no resamples
    rows = metrics.evaluate(logits, split, bootstrap=50).rows()
    overall = {row["quantity"]: row for row in rows if "suffix" not in row}
    assert set(overall) == {*metrics.OVERALL, "calibration_floor", "confusion"}
    assert "low" not in overall["calibration_error"]
    assert "[" not in str(metrics.evaluate(logits, split, bootstrap=5).calibration_error)
    assert overall["top5"]["value"] is None and "3 classes" in overall["top5"]["reason"]
    assert overall["mcc"]["low"] < overall["mcc"]["value"] < overall["mcc"]["high"]
    assert sum(overall["confusion"]["samples"]) == 90
    assert {(row["suffix"], row["quantity"]) for row in rows if "suffix" in row} == {
        (key, name) for key in split.classes for name in metrics.PER_CLASS}


def test_interval_covers_the_truth_about_as_often_as_it_says():
    truth = metrics.evaluate(*task(n=200_000, k=3, seed=99), bootstrap=0).balanced_accuracy.value
    inside = 0
    for seed in range(100):
        score = metrics.evaluate(*task(n=240, k=3, seed=seed), bootstrap=200).balanced_accuracy
        inside += score.low <= truth <= score.high
    assert 88 <= inside <= 100


def test_resamples_keep_every_class_and_depend_on_the_seed():
    labels = np.repeat([0, 1, 2], [50, 7, 30])
    first, again, other = (next(metrics.resamples(labels, 40, seed)) for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()
    for c in range(3):
        assert (first[:, labels == c].sum(1) == (labels == c).sum()).all()
    assert first[:, labels == 0].var() == pytest.approx(1 - 1 / 50, rel=0.15)


def test_comparison_finds_a_difference_or_leaves_it_undecided():
    logits, split = task(n=800, k=5)
    worse = logits + 1.5 * np.random.default_rng(5).normal(size=logits.shape)
    gap = metrics.compare(logits, worse, split, names=("a", "b"), bootstrap=200)
    both = [metrics.evaluate(z, split, bootstrap=0).balanced_accuracy.value for z in (logits, worse)]
    assert gap.difference == pytest.approx(both[0] - both[1]) and gap.verdict == "better"
    assert metrics.compare(worse, logits, split, bootstrap=200).verdict == "worse"
    again = metrics.compare(logits, logits + 0.01, split, bootstrap=200)
    assert (again.difference, again.verdict) == (0, "undecided") and again.low == pytest.approx(-again.high)
    assert 0.001 < again.high < 0.02                         # no image of 800 tells them apart; another might
    assert gap.rows()[0]["unit"] == "percentage point" and "a lies above b" in gap.rows()[0]["text"]


def test_a_comparison_takes_the_same_balanced_accuracy_as_an_evaluation():
    logits, split = task(n=300, k=4)
    counts = np.random.default_rng(2).integers(0, 3, (5, 300)).astype(float)
    one = Task(logits, split, None)
    for quantity in ("balanced_accuracy", "macro_auroc"):
        np.testing.assert_array_equal(one.statistic(quantity, counts), one.statistics(counts)[quantity])


def test_calibration_alone_is_that_of_an_evaluation():
    logits, split = task(n=300, k=4, population=True)
    whole, alone = metrics.evaluate(logits, split, bootstrap=2), metrics.calibration_scores(logits, split)
    assert alone == {name: whole.overall[name] for name in ("calibration_error", "calibration_floor")}
    assert Task(logits, split, None).statistic("calibration_error", np.ones((1, 300))) == alone[metrics.ERROR].value


def test_pairing_narrows_the_interval():
    logits, split = task(n=600, k=4)
    near = logits + 0.2 * np.random.default_rng(1).normal(size=logits.shape)
    gap = metrics.compare(logits, near, split, bootstrap=300)
    alone = metrics.evaluate(logits, split, bootstrap=300).balanced_accuracy
    assert gap.high - gap.low < 0.7 * (alone.high - alone.low)


def test_sign_flip_and_holm():
    assert metrics.sign_flip([1, 2, 3, 4, 5, 6, 7, 8]) == pytest.approx(2 / 2**8)
    assert metrics.sign_flip([0.3, -0.3]) == 1
    assert metrics.sign_flip([1.0, 1.0, -0.5]) == pytest.approx(4 / 8)
    assert metrics.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert metrics.holm([0.9, 0.8]).max() == 1


def test_bad_logits_are_refused_with_what_came():
    logits, split = task()
    with pytest.raises(ValueError, match=r"shape \(300, 6\).*\(300, 7\)"):
        metrics.evaluate(logits[:, :6], split)
    logits[3, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 300 rows"):
        metrics.evaluate(logits, split)
    with pytest.raises(ValueError, match="prior"):
        metrics.evaluate(task()[0], split, prior=np.ones(3))
    with pytest.raises(AttributeError, match="balanced_accuracy"):
        metrics.evaluate(*task(), bootstrap=0).accuracy  # noqa: B018


def test_a_full_test_set_takes_seconds():
    logits, split = task(n=5000, k=10, population=True)
    began = time.process_time()
    metrics.evaluate(logits, split, bootstrap=200)
    assert time.process_time() - began < 4                        # 1,000 resamples within 20 s


# --------------------------------------------------------------------------------------------- patients and caveats
def hospital(seed, patients=60, each=8):
    """Logits of two classes whose errors come from the patient: a patient's images are all right or all wrong."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 2, patients), each)
    right = np.repeat(rng.random(patients) < 0.7, each)
    logits = np.eye(2)[np.where(right, labels, 1 - labels)] * 3.0
    return logits, types.SimpleNamespace(labels=labels, classes=("a", "b"), prior=np.ones(2) / 2, population=None,
                                         groups=np.repeat(rng.permutation(patients), each))


def test_intervals_over_patients_cover_and_those_over_their_images_do_not():
    covered = {"patients": 0, "images": 0}
    for seed in range(120):
        logits, split = hospital(seed)
        for name in covered:
            split.groups = split.groups if name == "patients" else None
            found = metrics.evaluate(logits, split, bootstrap=200, seed=seed).balanced_accuracy
            covered[name] += found.low <= 0.7 <= found.high
    assert covered["patients"] >= 0.89 * 120 and covered["images"] <= 0.7 * 120


def test_whole_patients_are_drawn_and_as_many_as_there_are():
    labels, groups = np.array([0, 0, 1, 1, 1, 0, 1]), np.array([9, 9, 4, 4, 4, 7, 7])
    counts = np.concatenate(list(metrics.resamples(labels, 250, 3, groups)))
    assert counts.shape == (250, 7)
    assert (counts[:, 0] == counts[:, 1]).all() and (counts[:, 2:5] == counts[:, 2:3]).all()
    assert (counts[:, [0, 2, 5]].sum(1) == 3).all() and len(np.unique(counts[:, 0])) > 2
    assert counts.mean() == pytest.approx(1, abs=0.1)


def test_a_comparison_draws_patients_too():
    logits, split = hospital(1)
    other = hospital(2)[0]
    by_patient = metrics.compare(logits, other, split, bootstrap=300)
    split.groups = None
    by_image = metrics.compare(logits, other, split, bootstrap=300)
    assert by_patient.difference == by_image.difference
    assert by_patient.high - by_patient.low > 1.5 * (by_image.high - by_image.low)


def test_what_has_to_be_said_goes_into_every_record():
    logits, split = hospital(0)
    plain = metrics.evaluate(logits, split, bootstrap=10).rows() + metrics.compare(logits, logits, split).rows()
    assert not any("caveats" in row.get("context", {}) for row in plain)
    split.caveats = ("no patient ids: slice-level split",)
    rows = metrics.evaluate(logits, split, bootstrap=10).rows() + metrics.compare(logits, logits, split).rows()
    assert len(rows) == len(plain) and all(row["context"]["caveats"] == list(split.caveats) for row in rows)
    assert rows[-1]["context"]["first"] == "first"


# --------------------------------------------------------------------------------------------- odd cases
ODD = {
    "two classes": (lambda rng: (rng.integers(0, 2, 40), 2)),
    "absent class": (lambda rng: (rng.choice([0, 1, 3], 40), 4)),
    "one class": (lambda rng: (np.full(12, 2), 4)),
    "one sample": (lambda rng: (np.array([1]), 3)),
    "one of a class": (lambda rng: (np.r_[np.zeros(20, int), np.ones(20, int), 2], 3)),
    "many classes": (lambda rng: (rng.permutation(np.arange(60) % 25), 25)),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("case", ODD)
def test_odd_cases_equal_scikit_learn_or_are_undefined(case, ties):
    rng = np.random.default_rng(4)
    labels, k = ODD[case](rng)
    logits = rng.normal(size=(len(labels), k)) + np.eye(k)[labels]
    if ties:
        logits = logits[rng.integers(0, 1 + len(labels) // 3, len(labels))]       # the same answers for several images
    warnings.simplefilter("ignore", UserWarning)                            # scikit-learn warns of the odd ones
    split = types.SimpleNamespace(labels=labels, classes=tuple(f"c{c}" for c in range(k)), prior=np.ones(k) / k,
                                  population=None)
    found = metrics.evaluate(logits, split, bootstrap=0)
    chance, decided = softmax(logits, 1), logits.argmax(1)
    present = np.unique(labels)
    whole, several = len(present) == k, len(present) > 1

    def same(score, want, defined):
        assert np.isnan(score.value) != defined, (score, want)
        assert score.value == pytest.approx(want, abs=1e-9) if defined else score.reason
    same(found.balanced_accuracy, reference.balanced_accuracy_score(labels, decided), whole)
    same(found.top1, reference.accuracy_score(labels, decided), True)
    same(found.brier, ((chance - np.eye(k)[labels]) ** 2).sum(1).mean(), True)
    agree = len(np.unique(np.r_[labels, decided])) > 1 and several and len(np.unique(decided)) > 1
    same(found.mcc, reference.matthews_corrcoef(labels, decided), agree)
    if agree:
        same(found.kappa, reference.cohen_kappa_score(labels, decided), True)
    if k > 5:
        same(found.top5, reference.top_k_accuracy_score(labels, chance, k=5, labels=np.arange(k)), True)
    else:
        assert np.isnan(found.top5.value)
    for c, key in enumerate(split.classes):
        own, scores = labels == c, found.per_class[key]
        same(scores["sensitivity"], np.mean(decided[own] == c) if own.any() else 0, own.any())
        same(scores["specificity"], np.mean(decided[~own] != c) if not own.all() else 0, not own.all())
        both = own.any() and not own.all()
        same(scores["auroc"], reference.roc_auc_score(own, chance[:, c]) if both else 0, both)
        same(scores["auprc"], reference.average_precision_score(own, chance[:, c]) if own.any() else 0, own.any())
    assert sum(found.support.values()) == len(labels)


def test_the_class_table_has_wilson_intervals_that_cover():
    logits, split = task()
    scores = metrics.evaluate(logits, split, bootstrap=0)
    table = classwise.class_table(scores)
    for c, key in enumerate(split.classes):
        hits, n = scores.confusion[c, c], scores.confusion[c].sum()
        z, p = 1.959963984540054, hits / n
        middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert table.loc[key, ["sensitivity_low", "sensitivity_high"]].tolist() == pytest.approx(
            [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)])
        assert table.loc[key, "specificity"] == pytest.approx(scores.per_class[key]["specificity"].value)
        assert table.loc[key, "sensitivity"] == pytest.approx(scores.per_class[key]["sensitivity"].value)
        one = scores.per_class[key]["specificity"]
        want = binomtest(round(one.value * one.n), one.n).proportion_ci(method="wilson")
        assert (one.low, one.high) == pytest.approx((want.low, want.high), abs=1e-12)
    assert table["support"].tolist() == list(scores.support.values())
    right = metrics.evaluate(4.0 * np.eye(7)[split.labels], split, bootstrap=0)
    for one in right.per_class["class_0"]["sensitivity"], right.per_class["class_0"]["specificity"]:
        assert one.low < one.value == one.high == 1          # all right, and still not sure
    rng, covered = np.random.default_rng(0), 0
    for _ in range(500):
        _, low, high = classwise.wilson(rng.binomial(12, 0.93), 12)
        covered += low <= 0.93 <= high
    assert covered >= 0.92 * 500 and np.isnan(classwise.wilson(0, 0)).all()
    for hits, n in ((0, 7), (3, 7), (7, 7)):
        want = binomtest(hits, n).proportion_ci(method="wilson")
        assert classwise.wilson(hits, n) == pytest.approx((hits / n, want.low, want.high), abs=1e-12)
    assert classwise.wilson(0, 7)[1] == 0 and classwise.wilson(7, 7)[2] == 1


def test_the_class_table_counts_patients_where_they_are_known():
    """Eight copies of each image tell as much as one: the interval is about that of the patients alone, not of all."""
    labels, decided = np.repeat([0, 1], [40, 30]), np.repeat([0, 1, 1, 0], [32, 8, 30, 0])
    alone, many = (types.SimpleNamespace(labels=np.repeat(labels, each), classes=("a", "b"), prior=np.ones(2) / 2,
                                         population=None, groups=groups)
                   for each, groups in ((1, None), (8, np.repeat(np.arange(70), 8))))
    want, found = (classwise.class_table(metrics.evaluate(np.eye(2)[np.repeat(decided, each)], split, bootstrap=0))
                   for each, split in ((1, alone), (8, many)))
    assert found["support"].tolist() == [320, 240] and found["groups"].tolist() == [40, 30] and "groups" not in want
    for name in ("sensitivity", "specificity"):
        for key in ("a", "b"):                               # 0.8 and, all right, 1.0
            ours, theirs = (table.loc[key, [name, f"{name}_low", f"{name}_high"]].tolist() for table in (found, want))
            assert ours == pytest.approx(theirs, abs=0.015)
            assert ours[2] - ours[1] >= theirs[2] - theirs[1]


def test_intervals_of_a_class_cover_where_the_images_of_a_patient_are_alike():
    rng, covered = np.random.default_rng(0), np.zeros((400, 2))
    for row in covered:
        sizes = rng.integers(1, 12, 25)
        hits = rng.binomial(sizes, rng.beta(2.0, 0.5, 25))                   # on average 0.8
        for place, worth in enumerate((scoring._worth(hits, sizes), sizes.sum())):
            _, low, high = classwise.wilson(hits.sum() / sizes.sum() * worth, worth)
            row[place] = low <= 0.8 <= high
    assert covered[:, 0].mean() >= 0.92 > 0.85 > covered[:, 1].mean(), covered.mean(0)


def of_class(hits, sizes):
    """The interval of a class whose patients have `sizes` images, of which `hits` are right."""
    worth = scoring._worth(hits, sizes)
    return classwise.wilson(hits.sum() / sizes.sum() * worth, worth)[1:]


@pytest.mark.parametrize("patients, each", [(5, 20), (20, 10), (50, 4), (2, 3)])
def test_one_error_hardly_moves_the_interval_of_a_class(patients, each):
    """An error among patients who were all right says that their images are not wholly alike, which is worth a little;
    it was worth 34 points in the lower limit while patients without errors counted as wholly alike."""
    sizes = np.full(patients, each)
    clean, one = of_class(sizes, sizes), of_class(sizes - np.eye(patients, dtype=int)[0], sizes)
    assert clean[0] - 1 / patients < one[0] < clean[0] + 0.01 and 0.99 < one[1] <= 1
    rng, rises = np.random.default_rng(0), []
    for _ in range(100):
        sizes = rng.integers(1, 2 * each, patients)
        hits = rng.binomial(sizes, rng.choice([0.8, 1.0], patients))
        if hits[0]:
            rises.append(of_class(hits - np.eye(patients, dtype=int)[0], sizes)[0] - of_class(hits, sizes)[0])
    assert max(rises) < 0.015, max(rises)


def covering(patients, each, p, alike, count, rng):
    """How often the interval of a class holds p, where images of a patient correlate as `alike` says."""
    a, b, sizes = p * (1 - alike) / alike, (1 - p) * (1 - alike) / alike, np.full(patients, each)
    found = [of_class(rng.binomial(each, rng.beta(a, b, patients)), sizes) for _ in range(count)]
    return np.mean([low <= p <= high for low, high in found])


def test_intervals_of_a_class_cover_where_most_patients_have_no_error():
    """They were 86 % while patients without errors counted as wholly alike."""
    assert covering(10, 20, 0.9, 0.5, 400, np.random.default_rng(0)) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("patients", [5, 10, 20, 50])
def test_intervals_of_a_class_cover_in_many_settings(patients):
    rng = np.random.default_rng(0)
    found = {(each, p, alike): covering(patients, each, p, alike, 1000, rng)
             for each in (5, 20) for p in (0.7, 0.9, 0.97) for alike in (0.1, 0.5, 0.9)}
    assert min(found.values()) >= 0.93, min(found, key=found.get)


@pytest.mark.parametrize("population", [False, True])
def test_the_reliability_of_a_calibrated_model_lies_on_the_diagonal(population):
    rng, k, n = np.random.default_rng(0), 4, 40_000
    logits = rng.normal(size=(n, k)) * 2
    chance = softmax(logits, 1)
    labels = (chance.cumsum(1) > rng.random(n)[:, None]).argmax(1)
    split = types.SimpleNamespace(labels=labels, classes=tuple("abcd"), prior=np.bincount(labels, minlength=k) / n,
                                  population=np.bincount(labels, minlength=k) / n if population else None)
    table = metrics.reliability(logits, split)
    assert table["weight"].sum() == pytest.approx(1) and table["images"].sum() == n
    assert ((table["low"] <= table["confidence"]) & (table["confidence"] <= table["high"])).all()
    assert np.average(abs(table["right"] - table["confidence"]), weights=table["weight"]) < 0.01
    sharper = metrics.reliability(3 * logits, split)
    assert np.average(abs(sharper["right"] - sharper["confidence"]), weights=sharper["weight"]) > 0.1


def test_the_majority_is_the_most_frequent_class_and_of_equals_the_one_with_most_images():
    labels = np.array([0, 1, 1])
    for prior, majority in ((np.ones(2), 2 / 3), (np.array([3.0, 1.0]), 1 / 3)):
        split = types.SimpleNamespace(labels=labels, classes=("a", "b"), prior=prior, population=None)
        found = metrics.evaluate(np.zeros((3, 2)), split, bootstrap=0)
        assert found.overall["majority_top1"].value == pytest.approx(majority)
