"""`check(name, answer)`: is this answer to an exercise right, and if not, what is the mistake?

One module a chapter; `judging` holds what they share. The table of exercises is `EXERCISES`.
"""

from __future__ import annotations

from . import (
    backbone,
    cost,
    data,
    fastformer,
    latency,
    linformer,
    performer,
    resnet50,
    saliency,
    softmax,
    training,
    window,
    xca,
)
from .judging import Exercise, Mistake, Verdict

EXERCISES: dict[str, Exercise] = {
    name: exercise
    for chapter in (data, backbone, softmax, linformer, performer, fastformer, xca, window,
                    resnet50, training, cost, latency, saliency)
    for name, exercise in chapter.EXERCISES.items()
}

__all__ = ["EXERCISES", "Mistake", "Verdict", "check", "judge"]


def judge(name: str, answer) -> Verdict:
    """Judge an answer without printing.

    Args: `name` of the exercise, such as "softmax.streaming"; `answer` the function (or value) the exercise asks for.
    Returns: a `Verdict`. Never raises: whatever an answer does wrong, the verdict says so.
    """
    if name not in EXERCISES:
        return Verdict(False, f"there is no exercise {name!r}; the exercises are: {', '.join(sorted(EXERCISES))}")
    exercise = EXERCISES[name]
    if exercise.wanted is None and not callable(answer):
        return Verdict(False, f"this exercise wants a function, but received a {type(answer).__name__}")
    try:
        return Verdict(True, exercise.judge(answer))
    except Mistake as mistake:
        return Verdict(False, str(mistake))
    except Exception as broken:
        return Verdict(False, f"the answer raises {type(broken).__name__}: {broken}")


def check(name: str, answer) -> None:
    """Print whether an answer passes and what was verified, or what the mistake is. Never raises."""
    verdict = judge(name, answer)
    print(f"{'pass' if verdict.passed else 'not yet'} · {name}: {verdict.message}")
