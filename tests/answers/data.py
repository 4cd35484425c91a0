"""Planted answers to the exercises of chapter 01."""

import numpy as np
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import GroupShuffleSplit


def by_hand(counts):
    return max(counts) / sum(counts), 1 / sum(c > 0 for c in counts)


def with_sklearn(counts):
    truth = np.repeat(np.arange(len(counts)), counts)
    said = np.full(len(truth), np.argmax(counts))
    return accuracy_score(truth, said), balanced_accuracy_score(truth, said)


def patients_drawn(groups, share, seed):
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.isin(groups, names[order[np.cumsum(sizes[order]) <= share * len(groups)]])


def shuffled_groups(groups, share, seed):
    split = GroupShuffleSplit(1, test_size=share, random_state=seed)
    test = np.zeros(len(groups), bool)
    test[next(split.split(groups, groups=groups))[1]] = True
    return test


def images_drawn(groups, share, seed):
    return np.random.default_rng(seed).random(len(groups)) < share


def no_seed(groups, share, seed):
    return patients_drawn(groups, share, None)


RIGHT = {"data.majority": [by_hand, with_sklearn], "data.split_by_group": [patients_drawn, shuffled_groups]}
WRONG = {
    "data.majority": [(lambda counts: by_hand(counts)[::-1], "exchanged"),
                      (lambda counts: (max(counts) / sum(counts), 1 / len(counts)), "without images are counted"),
                      (lambda counts: (max(counts) / sum(counts), max(counts) / sum(counts)), "accuracy again"),
                      (lambda counts: (counts[0] / sum(counts), by_hand(counts)[1]), "first class is answered"),
                      (lambda counts: max(counts) / sum(counts), "wanted the pair")],
    "data.split_by_group": [(images_drawn, "both sides"), (no_seed, "two different splits"),
                            (lambda groups, share, seed: patients_drawn(groups, share, 0), "same split"),
                            (lambda groups, share, seed: ~patients_drawn(groups, share, seed), "share of test images"),
                            (lambda groups, share, seed: np.flatnonzero(patients_drawn(groups, share, seed)),
                             "booleans, one for each"),
                            (lambda groups, share, seed: np.zeros(len(groups), bool), "one side is empty")],
}
