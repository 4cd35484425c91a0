"""Exercises of chapter 10: a split that leaks, and the least difference that so many runs can show."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from .judging import Exercise, Mistake, as_number, demand


def leaks(answer) -> str:
    """`answer(train, test)`: positions in `test` that leak from `train`.

    Both are dicts with `images` (n, H, W) uint8 and `patients` (n,) names. A test image leaks if its patient is in
    train, or if train has the same pixels, or the same pixels mirrored left to right.
    """
    train, test, why = _planted_split()
    got = answer(train, test)
    try:
        got = {int(i) for i in np.asarray(list(got)).ravel()}
    except (TypeError, ValueError):
        raise Mistake(f"wanted positions in the test set but received a {type(got).__name__}") from None
    outside = sorted(i for i in got if not 0 <= i < len(test["patients"]))
    demand(not outside, f"{outside[0] if outside else ''} is no position in the test set: return test positions, not "
                        "those of train or names")
    for kind, words in {"patient": "share a patient with train, though their pixels differ",
                        "pixels": "have exactly the pixels of a training image under another patient's name",
                        "mirrored": "are training images mirrored left to right"}.items():
        missed = why[kind] - got
        demand(not missed, f"{len(missed)} test images {words}, and are not found: {sorted(missed)}")
    innocent = got - set().union(*why.values())
    demand(not innocent, f"test images {sorted(innocent)} do not leak: alike is not equal, and a patient's name must "
                         "be the same, not begin the same")
    return "all three kinds of leak are found, and nothing else"


def detectable(answer) -> str:
    """`answer(sd, runs, alpha, power)`: the least true mean difference that a paired z-test finds with that power."""
    for sd, runs, alpha, power in ((1.5, 8, 0.05, 0.8), (0.9, 5, 0.01, 0.9), (2.0, 30, 0.05, 0.5)):
        z = NormalDist().inv_cdf
        error = sd / runs**0.5
        wanted = (z(1 - alpha / 2) + z(power)) * error
        got = as_number(answer(sd, runs, alpha, power), "the difference")
        if abs(got - wanted) <= 1e-3 * wanted:
            continue
        named = {"power is missing: such a difference is found in half of the studies only": z(1 - alpha / 2) * error,
                 "the test looks both ways: alpha is shared between two tails": (z(1 - alpha) + z(power)) * error,
                 "the spread of a mean is sd / sqrt(runs), not sd": (z(1 - alpha / 2) + z(power)) * sd,
                 "the spread of a mean is sd / sqrt(runs), not sd / runs": (z(1 - alpha / 2) + z(power)) * sd / runs,
                 "sd is that of paired differences already; sqrt(2) belongs to two independent groups":
                     (z(1 - alpha / 2) + z(power)) * error * 2**0.5}
        for mistake, value in named.items():
            demand(abs(got - value) > 1e-3 * abs(wanted) or abs(value - wanted) < 2e-3 * wanted, mistake)
        demand(False, f"for sd {sd}, {runs} runs, alpha {alpha}, power {power} the answer is {wanted:.3f}, not {got:.3f}")
    return "(z(1 - alpha/2) + z(power)) sd / sqrt(runs), at three designs"


def _planted_split():
    rng = np.random.default_rng(0)
    train = {"images": rng.integers(0, 256, (12, 8, 8), dtype=np.uint8), "patients": [f"p{i // 2}" for i in range(12)]}
    images = rng.integers(0, 256, (9, 8, 8), dtype=np.uint8)
    patients = ["q0", "p3", "q1", "p10", "q2", "q3", "p5", "q4", "q5"]       # p10 begins like p1 and is another patient
    images[2], images[5] = train["images"][7], train["images"][9]
    images[4], images[7] = train["images"][0][:, ::-1], train["images"][1][:, ::-1]
    images[8] = train["images"][2]
    images[8, 0, 0] ^= 255                                                   # nearly the same, but not the same
    return train, {"images": images, "patients": patients}, {"patient": {1, 6}, "pixels": {2, 5}, "mirrored": {4, 7}}


EXERCISES = {"training.leaks": Exercise(leaks), "training.detectable": Exercise(detectable)}
