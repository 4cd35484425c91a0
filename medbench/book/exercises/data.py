"""Exercises of chapter 01: what always answering the same scores, and a split that keeps patients apart."""

from __future__ import annotations

import numpy as np

from .judging import Exercise, Mistake, as_number, demand


def majority(answer) -> str:
    """`answer(counts)` is (accuracy, balanced accuracy) of always answering the most frequent class."""
    for counts in ([12, 5, 3], [40, 41, 2, 7], [9, 0, 1]):
        got = answer(list(counts))
        demand(isinstance(got, (tuple, list, np.ndarray)) and len(got) == 2,
               "wanted two numbers, (accuracy, balanced accuracy)")
        accuracy, balanced = (as_number(number, name) for number, name in zip(got, ("accuracy", "balanced accuracy")))
        most, present = max(counts) / sum(counts), sum(count > 0 for count in counts)
        demand(accuracy <= 1 and balanced <= 1, "scores run from 0 to 1; these are percentages")
        demand(abs(accuracy - most) < 1e-9, f"for {counts} images the accuracy is not {accuracy:g}: how many of all "
                                            "images belong to the most frequent class?")
        demand(abs(balanced - accuracy) > 1e-9, "balanced accuracy is not accuracy: take each class's own share of "
                                                "images found, then the mean over classes")
        demand(0 not in counts or abs(balanced - 1 / len(counts)) > 1e-9,
               "a class without images has no share that could be found: leave it out of the mean")
        demand(abs(balanced - 1 / present) < 1e-9,
               f"for {counts} images the balanced accuracy is not {balanced:g}: one class is found wholly, the others "
               "not at all")
    return "right for common and rare classes, and a class without images is left out"


def split_by_group(answer) -> str:
    """`answer(groups, share, seed)` marks about `share` of the images for the test, no group on both sides."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100, 160), rng.integers(1, 12, 60))
    groups = groups[rng.permutation(len(groups))]
    for share in (0.2, 0.35):
        test = _marks(answer(groups.copy(), share, 1), len(groups))
        torn = np.intersect1d(groups[test], groups[~test])
        demand(len(torn) == 0, f"{len(torn)} of {len(np.unique(groups))} groups have images on both sides: draw "
                               "groups, not images")
        demand(0 < test.sum() < len(groups), "one side of the split is empty")
        got, slack = test.mean(), 12 / len(groups)
        demand(abs(got - (1 - share)) > slack, f"a share of {share} was asked for the test and the other side got it: "
                                               "True marks the test images")
        demand(abs(got - share) <= 3 * slack, f"{got:.2f} of the images are marked; wanted about {share}: fill the "
                                              "test side group by group until it is large enough")
    again, other = (_marks(answer(groups.copy(), 0.2, seed), len(groups)) for seed in (1, 2))
    first = _marks(answer(groups.copy(), 0.2, 1), len(groups))
    demand((first == again).all(), "the same seed gives another split: draw from np.random.default_rng(seed)")
    demand((first != other).any(), "two seeds give the same split: the order of the groups has to be drawn")
    return "no group is on both sides, the share is right, and the seed decides"


def _marks(got, count: int) -> np.ndarray:
    """The answer as one boolean for each image."""
    demand(got is not None and got is not Ellipsis, "nothing is returned yet")
    marks = np.asarray(got)
    if marks.shape != (count,) or marks.dtype != bool:
        raise Mistake(f"wanted one boolean for each of {count} images, True for test; received {marks.dtype} of shape "
                      f"{marks.shape}")
    return marks


EXERCISES = {"data.majority": Exercise(majority), "data.split_by_group": Exercise(split_by_group)}
