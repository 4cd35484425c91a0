"""What chapter 13 shares: which images are explained, and what the maps together say of the study's claim."""

import numpy as np
import pytest

import medbench as mb
from medbench.book import pointing
from medbench.config import DataConfig


@pytest.fixture(scope="module")
def split():
    return mb.load_data(DataConfig(num_train=20, num_val=10, num_test_per_class=3), show=False).test


def test_explained_are_the_first_images_with_a_lesion_and_the_right_class(split):
    right = split.labels.copy()
    right[1] = (right[1] + 1) % 10
    lesion = np.flatnonzero(split.masks.any((1, 2)))
    assert pointing.explained(right, split, 5).tolist() == [i for i in lesion if i != 1][:5]
    assert pointing.explained(right[:8], split, 100).tolist() == [i for i in lesion if i != 1 and i < 8]


def test_shown_is_the_image_that_most_models_get_right(split):
    key = split.classes[4]
    of_class = np.flatnonzero(split.labels == 4)
    wrong, right = (split.labels + 1) % 10, split.labels.copy()
    right[of_class[0]] = 9
    assert pointing.shown({"a": right, "b": wrong}, split, key) == of_class[1]
    assert pointing.shown({"a": right[: of_class[0] + 1], "b": wrong[: of_class[0] + 1]}, split, key) == of_class[0]


def test_the_conclusion_follows_from_the_verdicts():
    verdicts = {"xca": "worse", "none": "undecided", "window": "worse", "linformer": "undecided"}
    rows = [{"model": name, "context": {"verdict": verdict}} for name, verdict in verdicts.items()]
    text = pointing.conclusion(rows)["text"]
    assert ": xca, window below it; none, linformer not told from it. Of 4 comparisons" in text
    assert "above" not in text


def test_the_order_by_each_method_is_said():
    def score(value):
        return {"mass": {"value": value}}
    found = {("a", "gradient"): score(0.2), ("b", "gradient"): score(0.1), ("a", "smooth_grad"): score(0.3),
             ("b", "smooth_grad"): score(0.1), ("a", "occlusion"): score(0.1), ("b", "occlusion"): score(0.2)}
    assert pointing.by_method(found)["text"] == (
        "Which model has the most mass inside the lesion depends on the method: a by gradient, smooth grad; b by "
        "occlusion.")
    same = {key: value for key, value in found.items() if key[1] != "occlusion"}
    assert pointing.by_method(same)["text"] == "By each of these methods a has the most mass inside the lesion."
