"""Exercises of chapter 01: what always giving the same answer scores, and a split that keeps patients apart."""

from __future__ import annotations

import numpy as np

from .judging import Exercise, Mistake, as_number, demand

COUNTS = ([12, 5, 3], [513, 272, 2307, 125, 1259, 751, 1721, 27374, 83, 10266], [0, 7, 2, 0, 1])


def majority(answer) -> str:
    """`answer(counts)`: (accuracy, balanced accuracy) of always answering the most frequent class."""
    for counts in COUNTS:
        result = answer(list(counts))
        demand(isinstance(result, (tuple, list)) and len(result) == 2,
               f"wanted the pair (accuracy, balanced accuracy) but received {result!r:.60}")
        accuracy, balanced = as_number(result[0], "the accuracy"), as_number(result[1], "the balanced accuracy")
        right, present = max(counts) / sum(counts), sum(c > 0 for c in counts)
        what = f"for counts {counts}"
        demand(abs(accuracy - 1 / present) > 1e-9 or abs(balanced - right) > 1e-9, f"{what} the two are exchanged: "
               "accuracy counts images, balanced accuracy is the mean over classes")
        demand(abs(accuracy - counts[0] / sum(counts)) > 1e-9 or counts[0] == max(counts),
               f"{what} the first class is answered; wanted the most frequent one")
        demand(abs(accuracy - right) <= 1e-9, f"{what} the accuracy is {right:.4f}, not {accuracy:.4f}")
        demand(abs(balanced - 1 / len(counts)) > 1e-9 or present == len(counts),
               f"{what} classes without images are counted: nothing of them could be found, so they have no share")
        demand(abs(balanced - right) > 1e-9, f"{what} the balanced accuracy is the accuracy again; it is the mean of "
                                             "what is found of each class")
        demand(abs(balanced - 1 / present) <= 1e-9, f"{what} the balanced accuracy is {1 / present:.4f}, not "
                                                    f"{balanced:.4f}: one class is found wholly, the others not at all")
    return "the share of the largest class, and one over the number of classes that have images"


def split_by_group(answer) -> str:
    """`answer(groups, share, seed)`: booleans, True for test, about that share of images and no group on both sides."""
    rng = np.random.default_rng(0)
    groups = np.array([f"p{i}" for i in rng.integers(0, 80, 600)])
    for share in (0.2, 0.5):
        test = _booleans(answer(groups, share, 0), len(groups))
        both = set(groups[test]) & set(groups[~test])
        demand(not both, f"{len(both)} patients stand on both sides, such as {min(both, default='')}: draw patients, "
                         "not images")
        demand(test.any() and not test.all(), f"with a share of {share} one side is empty")
        demand(abs(test.mean() - share) <= 0.05, f"the share of test images is {test.mean():.2f}; wanted about "
                                                 f"{share}. Is it the share of train, or of patients?")
        demand(np.array_equal(test, _booleans(answer(groups, share, 0), len(groups))),
               "the same seed gives two different splits: let all randomness come from the seed")
    others = [_booleans(answer(groups, 0.2, seed), len(groups)) for seed in range(4)]
    demand(any(not np.array_equal(others[0], other) for other in others[1:]), "every seed gives the same split")
    mixed = groups[np.argsort(rng.permutation(600))]
    test = _booleans(answer(mixed, 0.2, 1), 600)
    demand(not set(mixed[test]) & set(mixed[~test]), "when a patient's images do not stand next to each other, the "
                                                     "patient is torn apart")
    return "no patient on both sides, the share within 5 points, the same for the same seed"


def _booleans(answer, count: int) -> np.ndarray:
    demand(answer is not None and answer is not Ellipsis, "the function returns nothing yet")
    try:
        test = np.asarray(answer)
    except ValueError:
        raise Mistake(f"wanted one boolean for each image but received a {type(answer).__name__}") from None
    demand(test.shape == (count,) and test.dtype == bool,
           f"wanted {count} booleans, one for each image, but received {test.dtype} of shape {test.shape}")
    return test


EXERCISES = {"data.majority": Exercise(majority), "data.split_by_group": Exercise(split_by_group)}
