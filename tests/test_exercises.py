"""Every check accepts two different right answers, rejects three planted wrong ones by name, and never raises."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from medbench.book.exercises import EXERCISES, check, judge

torch.set_num_threads(1)
CHAPTERS = sorted({name.split(".")[0] for name in EXERCISES})
ANSWERS = [importlib.import_module(f"answers.{chapter}") for chapter in CHAPTERS]
RIGHT = {name: answers for module in ANSWERS for name, answers in module.RIGHT.items()}
WRONG = {name: answers for module in ANSWERS for name, answers in module.WRONG.items()}
UNFINISHED = {"none": lambda *a, **k: None, "ellipsis": lambda *a, **k: ..., "text": lambda *a, **k: "text",
              "no arguments": lambda: 1, "not a function": None, "a number": 3}
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SOLUTION = re.compile(r"^# `{3,}\{solution\}.*?^# ```python\n(.*?)^# ```$", re.M | re.S)
STUB = re.compile(r'^check\("[a-z0-9_.]+", \w+\)$', re.M)


def test_every_exercise_has_planted_answers():
    assert set(RIGHT) == set(WRONG) == set(EXERCISES)
    for name in EXERCISES:
        assert len(RIGHT[name]) >= 2 and len(WRONG[name]) >= 3, name


def every(planted):
    return [pytest.param(name, answer, id=f"{name}-{i}") for name in sorted(planted)
            for i, answer in enumerate(planted[name])]


@pytest.mark.parametrize("name, answer", every(RIGHT))
def test_right_answers_pass(name, answer):
    verdict = judge(name, answer)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize("name, planted", every(WRONG))
def test_wrong_answers_are_named(name, planted):
    answer, mistake = planted
    verdict = judge(name, answer)
    assert not verdict.passed
    assert mistake in verdict.message, verdict.message


@pytest.mark.parametrize("name", sorted(EXERCISES))
@pytest.mark.parametrize("answer", UNFINISHED.values(), ids=UNFINISHED)
def test_an_unfinished_answer_is_told_so(name, answer):
    verdict = judge(name, answer)
    assert not verdict.passed and verdict.message


def test_check_prints_and_never_raises(capsys):
    check("softmax.streaming", lambda *a: 1 / 0)
    check("softmax.no_such", None)
    check("softmax.crossover_tokens", lambda channels: 6 * channels)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("not yet · softmax.streaming") and "ZeroDivisionError" in first
    assert "the exercises are" in second and third.startswith("pass · ")


def solutions():
    """The code of every hidden solution in the chapters, with the check that it or the stub before it ends in."""
    for path in sorted(NOTEBOOKS.glob("*.py")):
        text = path.read_text()
        for place, found in enumerate(SOLUTION.finditer(text)):
            code = re.sub(r"^# ?", "", found.group(1), flags=re.M)
            stubs = STUB.findall(text[:found.start()])
            if "check(" in code or stubs:
                yield pytest.param(code if "check(" in code else f"{code}\n{stubs[-1]}", id=f"{path.stem}-{place}")


@pytest.mark.parametrize("code", list(solutions()))
def test_hidden_solutions_pass_their_own_check(code, capsys):
    space = {}
    exec("import math\nimport torch\nimport medbench as mb\n"
         "from medbench.book.exercises import check\n" + code, space)
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.startswith("pass") for line in lines), lines


def test_every_check_of_a_chapter_is_an_exercise():
    texts = [path.read_text() for path in NOTEBOOKS.glob("*.py")]
    asked = {name for text in texts for name in re.findall(r'check\("([a-z0-9_.]+)"', text)}
    assert asked <= set(EXERCISES), f"no exercise {asked - set(EXERCISES)}"
