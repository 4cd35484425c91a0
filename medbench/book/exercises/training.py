"""Exercises of chapter 10: a split that leaks, and the least difference that so many images can show."""

from __future__ import annotations

from statistics import NormalDist

from .judging import Exercise, as_number, demand

SPLITS = (                                        # patients of train, of test, and those on both sides
    (["a1", "a2", "b1", "b1"], ["c1", "b1", "a1", "a1"], {"a1", "b1"}),
    (["p1", "p10", "p3"], ["p2", "p4", "p100"], set()),
    ([3, 1, 4, 1, 5], [9, 2, 6, 5], {5}),
)


def leaks(answer) -> str:
    """`answer(train, test)`: the set of patients that stand on both sides of a split."""
    for train, test, shared in SPLITS:
        got = answer(list(train), list(test))
        what = f"for train {train} and test {test}"
        demand(not isinstance(got, bool), f"{what} the answer is {got}; wanted the patients, so that they can be moved")
        demand(got is not None and got is not Ellipsis, "the function returns nothing yet")
        demand(not isinstance(got, str) and hasattr(got, "__iter__"), f"{what} the answer is a {type(got).__name__}; "
                                                                      "wanted a set of patients")
        got = set(got)
        demand(got == shared or got != {t for t, other in zip(train, test) if t == other} or not shared,
               f"{what} slices are compared place by place; a patient may stand anywhere on the other side")
        demand(got == shared or got != set(train) | set(test), f"{what} these are all patients; wanted those on both "
                                                                "sides")
        demand(got <= set(train) | set(test), f"{what} {sorted(map(str, got))} are no patients: wanted ids, not "
                                              "positions or counts")
        demand(got <= shared, f"{what} {sorted(map(str, got - shared))} stand on one side only; ids must be equal, not "
                              "alike")
        demand(got == shared, f"{what} {sorted(map(str, shared - got))} stand on both sides and are not found")
    return "the patients on both sides, for three splits, one of them clean"


def minimal_difference(answer) -> str:
    """`answer(s, n)`: the difference that a two-sided paired z-test at 0.05 on n images finds with power 0.8."""
    z = NormalDist().inv_cdf
    for s, n in ((0.4, 5000), (0.55, 400), (1.0, 25)):
        wanted = (z(0.975) + z(0.8)) * s / n**0.5
        got = as_number(answer(s, n), "the difference")
        named = {"the power is missing: a difference of this size is found in half of the cases only":
                 z(0.975) * s / n**0.5,
                 "the test has two sides: each tail gets half of alpha": (z(0.95) + z(0.8)) * s / n**0.5,
                 "the spread of a mean is s / sqrt(n), not s": (z(0.975) + z(0.8)) * s,
                 "the spread of a mean is s / sqrt(n), not s / n": (z(0.975) + z(0.8)) * s / n,
                 "s is already that of the paired differences; sqrt(2) belongs to two independent groups":
                 (z(0.975) + z(0.8)) * s * (2 / n)**0.5}
        for mistake, value in named.items():
            demand(abs(got - value) > 5e-3 * value, mistake)
        demand(abs(got - wanted) <= 5e-3 * wanted, f"for s = {s} and n = {n} the answer is {wanted:.4f}, not {got:.4f}")
    return "(z(0.975) + z(0.8)) s / sqrt(n), for three studies"


EXERCISES = {"training.leaks": Exercise(leaks), "training.minimal_difference": Exercise(minimal_difference)}
