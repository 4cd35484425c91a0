"""Planted answers to the exercises of chapter 01."""

import numpy as np


def fill_groups(groups, share, seed):
    rng = np.random.default_rng(seed)
    names, sizes = np.unique(groups, return_counts=True)
    order = rng.permutation(len(names))
    taken = order[np.cumsum(sizes[order]) <= share * len(groups)]
    return np.isin(groups, names[taken])


def with_sklearn(groups, share, seed):
    from sklearn.model_selection import GroupShuffleSplit
    _, test = next(GroupShuffleSplit(1, test_size=share, random_state=seed).split(groups, groups=groups))
    return np.isin(np.arange(len(groups)), test)


def draw_images(groups, share, seed):
    return np.random.default_rng(seed).random(len(groups)) < share


def the_other_side(groups, share, seed):
    return ~fill_groups(groups, share, seed)


def first_groups(groups, share, seed):
    names, sizes = np.unique(groups, return_counts=True)
    return np.isin(groups, names[np.cumsum(sizes) <= share * len(groups)])


def as_indices(groups, share, seed):
    return np.flatnonzero(fill_groups(groups, share, seed))


def one_group(groups, share, seed):
    return groups == np.random.default_rng(seed).choice(groups)


def shares(counts):
    total = sum(counts)
    best = counts.index(max(counts))
    found = [float(k == best) for k, count in enumerate(counts) if count]
    return max(counts) / total, sum(found) / len(found)


RIGHT = {
    "data.majority": [shares, lambda counts: (max(counts) / sum(counts), 1 / np.count_nonzero(counts))],
    "data.split_by_group": [fill_groups, with_sklearn],
}
WRONG = {
    "data.majority": [(lambda c: (max(c) / sum(c), max(c) / sum(c)), "not accuracy"),
                      (lambda c: (max(c) / sum(c), 1 / len(c)), "leave it out"),
                      (lambda c: (100 * max(c) / sum(c), 100 / len(c)), "percentages"),
                      (lambda c: (min(c) / sum(c), 1 / len(c)), "most frequent class"),
                      (lambda c: max(c) / sum(c), "two numbers")],
    "data.split_by_group": [(draw_images, "draw groups"), (the_other_side, "other side"), (first_groups, "two seeds"),
                            (as_indices, "one boolean"), (one_group, "until it is large enough")],
}
