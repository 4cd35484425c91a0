"""Temperature scaling: it finds the temperature that was put in, changes no decision, and lowers the error."""

import dataclasses

import numpy as np
import pytest
from scipy.special import log_softmax

import medbench as mb
from medbench import calibration
from medbench.data import Split

PRIOR = np.array([0.6, 0.3, 0.1])


def world(n=6000, heat=1.0, behind=PRIOR, prior=PRIOR, seed=0):
    """Normal clouds, one a class, with their exact log-likelihood as evidence; then too sure of it by `heat`."""
    rng = np.random.default_rng(seed)
    labels, centres = rng.choice(3, n, p=prior), 1.2 * np.eye(3)
    points = centres[labels] + rng.normal(0, 1, (n, 3))
    evidence = points @ centres.T - (centres**2).sum(1) / 2
    counts = np.bincount(labels, minlength=3) / n
    split = Split("val", np.zeros((n, 2, 2), np.uint8), labels, np.arange(n), ("a", "b", "c"), counts)
    return evidence * heat + np.log(behind), split


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("behind", [PRIOR, np.full(3, 1 / 3)], ids=["trained as is", "evened out"])
def test_the_temperature_that_was_put_in_is_found(heat, behind):
    logits, split = world(heat=heat, behind=behind)
    assert calibration.temperature(logits, split, prior=behind) == pytest.approx(heat, rel=0.06)


def test_it_is_the_one_of_least_loss_among_many():
    logits, split = world(500, heat=2.5)
    best = calibration.temperature(logits, split, prior=PRIOR)
    frequencies = np.bincount(split.labels) / 500

    def loss(T):
        z = log_softmax((logits - np.log(PRIOR)) / T + np.log(frequencies), 1)
        return -z[np.arange(500), split.labels].mean()
    assert loss(best) <= min(loss(T) for T in np.linspace(0.2, 8, 400)) + 1e-6


def test_no_decision_changes_and_the_error_falls():
    logits, split = world(heat=3.0)
    T = calibration.temperature(logits, split, prior=PRIOR)
    later, again = world(heat=3.0, seed=1)
    before = mb.evaluate(later, again, prior=PRIOR, bootstrap=0)
    after = mb.evaluate(calibration.tempered(later, T, PRIOR), again, prior=PRIOR, bootstrap=0)
    assert after.balanced_accuracy.value == before.balanced_accuracy.value
    assert (after.confusion == before.confusion).all()
    assert after.overall["calibration_error"].value < 0.5 * before.overall["calibration_error"].value
    assert after.overall["brier"].value < before.overall["brier"].value


def test_what_a_temperature_does_is_told_in_one_call():
    """The temperature is found on validation alone and scored on the test set."""
    (chosen_on, val), (logits, test) = world(heat=3.0), world(2000, heat=3.0, seed=1)
    test = dataclasses.replace(test, groups=np.arange(2000) % 5, caveats=("a small test",))
    found = calibration.calibrated(chosen_on, val, logits, test, prior=PRIOR)
    T = calibration.temperature(chosen_on, val, prior=PRIOR)
    want = mb.metrics.calibration_scores(calibration.tempered(logits, T, PRIOR), test, prior=PRIOR)
    assert (found.temperature, found.scores) == (T, want)
    assert [(row["quantity"], row.get("suffix")) for row in found.rows()] == [
        ("temperature", None), ("calibration_error", "tempered"), ("calibration_floor", "tempered")]
    said = ["a small test", "only 5 patients of class a, b, c: intervals are uncertain"]
    assert [row["context"]["caveats"] for row in found.rows()] == [said] * 3


def test_odd_cases():
    logits, split = world(200)
    sure = np.eye(3)[split.labels] * 50
    assert calibration.COLDEST <= calibration.temperature(sure, split) < 1
    few = dataclasses.replace(split, labels=np.zeros(200, int))              # classes that are not there
    assert calibration.COLDEST <= calibration.temperature(logits, few, prior=PRIOR) <= calibration.HOTTEST
    one = split.take(np.array([0]))
    assert np.isfinite(calibration.temperature(logits[:1], one, prior=PRIOR))


@pytest.mark.parametrize("T", [0, -1.0, float("nan")])
def test_no_temperature_is_refused(T):
    with pytest.raises(ValueError, match="wanted a temperature above 0"):
        calibration.tempered(np.zeros((2, 3)), T, PRIOR)


def test_logits_that_do_not_fit_are_refused():
    logits, split = world(50)
    with pytest.raises(ValueError, match="wanted \\(50, 3\\)"):
        calibration.temperature(logits[:, :2], split)
