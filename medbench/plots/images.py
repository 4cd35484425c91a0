"""Pictures of images: a gallery, the failures of a model, saliency in three columns."""

from __future__ import annotations

import numpy as np

from .look import figure, outline, picture


def gallery(images, titles=None, masks=None, *, columns: int = 5):
    """A page of images, lesions outlined. Args: `images` (n, H, W); `titles` n strings; `masks` (n, H, W).

    Returns: the array of Axes, one an image.
    """
    count = len(images)
    columns = min(columns, count)
    rows = -(-count // columns)
    titles = [""] * count if titles is None else list(map(str, titles))
    lines = max((title.count("\n") + 1 if title else 0 for title in titles), default=0)
    side = min(1.9, 9 / columns)                                                     # inches
    _, axes = figure(rows, columns, width=side * columns, height=rows * (side + 0.1 + 0.17 * lines))
    axes = np.atleast_1d(axes).ravel()
    axes[0].figure.set_dpi(70)                                         # about the pixels that the images have
    for place, ax in enumerate(axes):
        if place >= count:
            ax.set_axis_off()
            continue
        picture(ax, images[place], titles[place])
        outline(ax, masks[place] if masks is not None else None)
    return axes


def failures(logits, split, classes, *, prior=None, count: int = 3):
    """The images that a model gets wrong with the greatest confidence, lesions outlined.

    Args: `logits` (n, k); `split` with `.images`, `.labels` and perhaps `.masks`; `classes` k names; `prior` (k,)
    train prior, so that decisions are logits minus log prior. Returns: the array of Axes.
    Raises: ValueError if nothing is wrong.
    """
    scores = np.asarray(logits, float) - (0 if prior is None else np.log(np.asarray(prior)))
    scores -= scores.max(1, keepdims=True)
    chance = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    labels, chosen = np.asarray(split.labels), chance.argmax(1)
    wrong = np.flatnonzero(chosen != labels)
    if not len(wrong):
        raise ValueError("no image of this split is classified wrongly; there is no failure to show")
    worst = wrong[np.argsort(-chance[wrong, chosen[wrong]])][:count]
    named = [str(c).replace("_", " ") for c in classes]
    titles = [f"{named[labels[i]]}\ntaken for\n{named[chosen[i]]} ({chance[i, chosen[i]]:.2f})" for i in worst]
    masks = getattr(split, "masks", None)
    return gallery([split.images[i] for i in worst], titles,
                   None if masks is None else [masks[i] for i in worst], columns=count)


def saliency_grid(images, maps, masks=None, titles=None):
    """Three columns a row: the image, its saliency map, the map over the image with the lesion outlined.

    Args: `images` (n, H, W); `maps` (n, H, W), shown by magnitude, each scaled to its own 99.5th percentile;
    `masks` (n, H, W) or None; `titles` n names, one a row. Returns: the (n, 3) array of Axes.
    """
    count = len(images)
    _, axes = figure(count, 3, width=6, height=2.05 * count)
    axes = np.atleast_2d(axes)
    for place, (left, middle, right) in enumerate(axes):
        image, heat = np.asarray(images[place]).squeeze(), np.abs(np.asarray(maps[place], float)).squeeze()
        top = max(np.percentile(heat, 99.5), 1e-30)
        picture(left, image, "image" if place == 0 else None)
        left.set_ylabel(titles[place] if titles is not None else "", fontsize=9)
        picture(middle, heat / top, "saliency" if place == 0 else None, cmap="magma", vmin=0, vmax=1)
        picture(right, image, ("both" if masks is None else "both, lesion outlined") if place == 0 else None)
        right.imshow(heat / top, cmap="magma", vmin=0, vmax=1, alpha=np.clip(heat / top, 0, 1) * 0.85)
        outline(right, masks[place] if masks is not None else None)
    return axes
