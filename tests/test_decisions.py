"""Decisions in a record: they come back as they were, small, and a comparison takes them for logits."""

import numpy as np
import pytest

from medbench import decisions, planned
from medbench.data import Split


@pytest.mark.parametrize("decided", [[], [0], [255, 0, 7], np.arange(5000) % 10], ids=["none", "one", "ends", "many"])
def test_decisions_come_back_as_they_were(decided):
    text = decisions.pack(np.array(decided, np.int64))
    assert text.isascii() and (decisions.unpack(text) == np.array(decided)).all()
    assert decisions.unpack(text).dtype == np.int64


def test_decisions_of_5000_images_take_few_letters():
    rng = np.random.default_rng(0)
    labels = np.arange(5000) % 10
    decided = np.where(rng.random(5000) < 0.8, labels, rng.integers(0, 10, 5000))
    assert len(decisions.pack(decided)) < 4000


@pytest.mark.parametrize("decided", [[-1], [256], [0.5], [[1, 2]]])
def test_what_are_no_class_numbers_is_refused(decided):
    with pytest.raises(ValueError, match="wanted class numbers"):
        decisions.pack(np.array(decided))


@pytest.mark.parametrize("text", ["", "not base 64", "AAAA"])
def test_a_damaged_text_is_refused(text):
    with pytest.raises(ValueError, match="holds no decisions"):
        decisions.unpack(text)


def test_comparing_decisions_is_comparing_logits():
    rng = np.random.default_rng(1)
    labels, prior = rng.integers(0, 3, 400), np.array([0.7, 0.2, 0.1])
    split = Split("test", np.zeros((400, 2, 2), np.uint8), labels, np.arange(400), ("a", "b", "c"), prior)
    runs = {name: [np.eye(3)[labels] * gain + rng.normal(0, 1, (400, 3)) + np.log(prior) for _ in range(3)]
            for name, gain in (("softmax", 1.0), ("xca", 1.4))}
    packed = {name: [decisions.as_logits(decisions.unpack(decisions.pack((z - np.log(prior)).argmax(1))), 3)
                     for z in logits] for name, logits in runs.items()}
    a = planned.compare(runs, split, priors=dict.fromkeys(runs, prior), bootstrap=200)
    b = planned.compare(packed, split, priors=dict.fromkeys(runs, np.full(3, 1 / 3)), bootstrap=200)
    assert a.comparisons[0].rows() == b.comparisons[0].rows() and a.comparisons[0].difference > 0.02
