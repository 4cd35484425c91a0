r"""What can be scored without looking properly: shortcut baselines and the nearest neighbour.

What lives here, top to bottom: the features (42 intensity statistics, thumbnails), the linear model on them,
`shortcuts` and `shortcut_scores`, what a masked lesion leaves behind, the slice's height alone, the nearest neighbour.

A model is worth its cost only where it beats these. All of them get what the models get: the same training images, the
same prior, and decisions by $\arg\max(z - \log\pi)$.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from . import metrics

HISTOGRAM_BINS = 32
PERCENTILES = (5, 25, 50, 75, 95)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)                  # tried on validation: inverse strength of the penalty
SIDES = (16, 24, 32, 48, 64)                               # px, tried on validation by the nearest neighbour
HEIGHT_BINS = np.arange(-31.0, 51.0, 3.0)                  # mm


# --------------------------------------------------------------------------------------------- features
def intensity_statistics(images, keep=None) -> np.ndarray:
    """42 numbers an image that know how bright its pixels are and nothing about where they lie.

    The shares of 32 equal bins, mean, standard deviation, skewness, kurtosis, entropy (nat), and five percentiles.

    Args: `images` (n, H, W) uint8; `keep` (n, H, W) bool: the pixels that count (default: all).
    Returns: (n, 42) float64. Raises: ValueError if an image keeps no pixel.
    """
    images = np.asarray(images).reshape(len(images), -1)
    counts = np.zeros((len(images), 256))
    for row, image in enumerate(images):
        counts[row] = np.bincount(image if keep is None else image[np.asarray(keep[row]).ravel()], minlength=256)
    total = counts.sum(1, keepdims=True)
    if (total == 0).any():
        raise ValueError(f"image {int(np.argmin(total))} keeps no pixel; its mask covers everything")
    share, level = counts / total, np.arange(256) / 255
    mean = share @ level
    spread = np.sqrt(np.maximum((share * (level - mean[:, None]) ** 2).sum(1), 1e-12))
    z = (level - mean[:, None]) / spread[:, None]
    bins = share.reshape(len(images), HISTOGRAM_BINS, -1).sum(2)
    entropy = -(bins * np.log(np.maximum(bins, 1e-12))).sum(1)
    ranks = share.cumsum(1)
    quantiles = [level[(ranks < p / 100).sum(1).clip(max=255)] for p in PERCENTILES]
    return np.column_stack([bins, mean, spread, (share * z**3).sum(1), (share * z**4).sum(1), entropy, *quantiles])


def thumbnails(images, side: int = 28) -> np.ndarray:
    """Images shrunk to `side` x `side` by averaging areas, as rows of numbers between 0 and 1.

    Args: `images` (n, H, W) uint8. Returns: (n, side * side) float32.
    """
    import torch
    import torch.nn.functional as F
    parts = []
    for start in range(0, len(images), 512):
        part = torch.from_numpy(np.array(images[start:start + 512])).float()[:, None] / 255
        parts.append(F.adaptive_avg_pool2d(part, side).flatten(1).numpy())
    return np.concatenate(parts)


# --------------------------------------------------------------------------------------------- linear model
def _fit_linear(features, labels, strength: float):
    """Standardised features into scikit-learn's multinomial logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=400, tol=1e-3)).fit(features, labels)


def _logits(model, features, k: int) -> np.ndarray:
    """Log-probabilities (n, k); a class that training never saw gets the lowest number of all."""
    known = np.log(np.maximum(model.predict_proba(features), 1e-12))
    logits = np.full((len(features), k), np.log(1e-12))
    logits[:, model.classes_.astype(int)] = known
    return logits


def linear_probe(train, train_labels, test, k: int, seed: int = 0) -> np.ndarray:
    """Log-probabilities (n, k) of a logistic regression; its penalty is chosen on a fifth of the training rows.

    Args: `train` (m, d) and `test` (n, d) features; `train_labels` (m,) in 0..k-1.
    """
    train, train_labels = np.asarray(train), np.asarray(train_labels)
    order = np.random.default_rng(seed).permutation(len(train))
    held, used = order[:len(order) // 5], order[len(order) // 5:]

    def loss(strength):
        logits = _logits(_fit_linear(train[used], train_labels[used], strength), train[held], k)
        return -logits[np.arange(len(held)), train_labels[held]].mean()
    best = min(STRENGTHS, key=loss)
    return _logits(_fit_linear(train, train_labels, best), test, k)


# --------------------------------------------------------------------------------------------- shortcuts
def shortcuts(train_images, train_labels, test_images, test_labels, *, classes, population=None, groups=None,
              caveats=(), seed: int = 0, bootstrap: int = 0):
    """What two linear models make of images whose anatomy they cannot see.

    Args: images (n, H, W) uint8 and labels (n,) in 0..k-1, for training and for the test; `classes`: the k keys;
        `population` (k,), `groups` (n,), `caveats`: of the test, as in `data.Split`; `bootstrap`: resamples for the
        intervals.
    Returns: {"intensity_statistics": Scores, "thumbnails_28": Scores}.
    """
    features = {"intensity_statistics": intensity_statistics, "thumbnails_28": thumbnails}
    k = len(classes)
    split = _split(test_labels, classes, np.bincount(train_labels, minlength=k) + 1e-9, population, groups, caveats)
    return {name: metrics.evaluate(linear_probe(f(train_images), train_labels, f(test_images), k, seed), split,
                                   bootstrap=bootstrap, seed=seed) for name, f in features.items()}


def shortcut_scores(data, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, metrics.Scores]:
    """`shortcuts` on a data set, trained on its training images and scored on its test set."""
    return shortcuts(data.train.images, data.train.labels, data.test.images, data.test.labels, classes=data.classes,
                     population=data.test.population, groups=data.test.groups, caveats=data.test.caveats, seed=seed,
                     bootstrap=bootstrap)


def _split(labels, classes, counts, population=None, groups=None, caveats=()):
    """What `metrics.evaluate` needs to know about a split."""
    counts = np.asarray(counts, float)
    return SimpleNamespace(labels=np.asarray(labels), classes=tuple(classes), prior=counts / counts.sum(),
                           population=population, groups=groups, caveats=tuple(caveats))


def slice_level(train_heights, train_labels, test_heights, test_labels, *, classes, bootstrap: int = 0):
    """What the slice's height says alone: Bayes' rule on the frequencies of 3 mm bins.

    Args: heights in mm (n,) and labels (n,), for training and for the test. Returns: Scores.
    """
    k = len(classes)
    counts = np.ones((len(HEIGHT_BINS) + 1, k))
    np.add.at(counts, (np.digitize(train_heights, HEIGHT_BINS), train_labels), 1)
    logits = np.log(counts / counts.sum(0))[np.digitize(test_heights, HEIGHT_BINS)]
    return metrics.evaluate(logits, _split(test_labels, classes, np.ones(k)), bootstrap=bootstrap)


def masked_lesions(images, labels, masks, *, normal: int, classes, seed: int = 0) -> dict[str, float]:
    """What is left when the lesion is covered: for each class its AUROC against normals, from intensity statistics.

    Lesion pixels are left out of the statistics. Each normal head loses the pixels under a mask borrowed from a random
    image of the class, mirrored: like in shape, on tissue that is healthy. Half of the images train, half are scored.

    Args: `images` (n, H, W) uint8, `labels` (n,), `masks` (n, H, W) bool, `normal`: the label of normal heads.
    Returns: {class: AUROC}; 0.5 means that nothing is left. Pairs within 0.5 of chance either way.
    """
    from sklearn.metrics import roc_auc_score
    labels, rng, found = np.asarray(labels), np.random.default_rng(seed), {}
    healthy = np.flatnonzero(labels == normal)
    for label in np.setdiff1d(np.unique(labels), [normal]):
        sick = np.flatnonzero(labels == label)
        borrowed = np.asarray(masks[rng.choice(sick, len(healthy))])[:, :, ::-1]
        rows = np.concatenate([intensity_statistics(images[sick], ~np.asarray(masks[sick])),
                               intensity_statistics(images[healthy], ~borrowed)])
        truth = np.repeat([1, 0], [len(sick), len(healthy)])
        order = rng.permutation(len(rows))
        train, test = order[::2], order[1::2]
        logits = linear_probe(rows[train], truth[train], rows[test], 2, seed)
        found[classes[label]] = float(roc_auc_score(truth[test], logits[:, 1] - logits[:, 0]))
    return found


# --------------------------------------------------------------------------------------------- nearest neighbour
def nearest_neighbour(data, *, sides=SIDES, bootstrap: int = 1000, seed: int = 0) -> metrics.Scores:
    """The label of the nearest training image, pixel by pixel; the image side is chosen on validation.

    Equation: the score of class c is minus the squared distance to the nearest training image of class c.

    Args: `data` with `train`, `val`, `test`; `sides` in px.
    Returns: Scores of the test set; `scores_side` in `nearest_side` tells which side was taken.
    """
    best = nearest_side(data, sides)
    split = _split(data.test.labels, data.classes, np.ones(len(data.classes)), groups=data.test.groups,
                   caveats=data.test.caveats)
    logits = _nearest(data.train, data.test, best, len(data.classes))
    return metrics.evaluate(logits, split, bootstrap=bootstrap, seed=seed)


def nearest_side(data, sides=SIDES) -> int:
    """The image side in px with the best balanced accuracy on validation."""
    def balanced(side):
        decided = _nearest(data.train, data.val, side, len(data.classes)).argmax(1)
        labels = np.asarray(data.val.labels)
        return np.mean([np.mean(decided[labels == c] == c) for c in np.unique(labels)])
    return max((s for s in sides if s <= data.train.images.shape[-1]), key=balanced)


def _nearest(train, test, side: int, k: int) -> np.ndarray:
    """Minus the squared distance to the nearest training image of each class, (n, k)."""
    known, asked, labels = thumbnails(train.images, side), thumbnails(test.images, side), np.asarray(train.labels)
    scores = np.full((len(asked), k), -float(side * side))
    for label in np.unique(labels):
        these = known[labels == label]
        for start in range(0, len(asked), 512):
            part = asked[start:start + 512]
            squares = (part**2).sum(1)[:, None] + (these**2).sum(1) - 2 * part @ these.T
            scores[start:start + 512, label] = -squares.min(1)
    return scores
