"""How an answer is judged: an exercise runs the answer on cases and raises `Mistake` at the first thing wrong.

A message names the mistake and what to look at; it never prints the solution. The tests hold every exercise to this:
it rejects three planted wrong answers, each with its own message, and accepts two different right ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class Mistake(Exception):
    """What is wrong with an answer, in a sentence for the student."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: `judge(answer)` returns a sentence on what was verified, or raises `Mistake`."""

    judge: Callable[[object], str]
    wanted: type | None = None              # None: a function


@dataclass(frozen=True)
class Verdict:
    """Whether an answer passed, and the sentence to print."""

    passed: bool
    message: str


def demand(condition, mistake: str) -> None:
    """Raise `Mistake` unless the condition holds."""
    if not condition:
        raise Mistake(mistake)


def as_tensor(answer, like: Tensor, name: str = "the result") -> Tensor:
    """The answer as a tensor of the shape of `like`; anything else is a mistake that says what came."""
    demand(answer is not None and answer is not Ellipsis, f"{name} is missing: the function returns nothing yet")
    try:
        tensor = torch.as_tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(f"{name} is a {type(answer).__name__}; wanted a tensor of shape {tuple(like.shape)}") from None
    demand(tensor.shape == like.shape, f"{name} has shape {tuple(tensor.shape)}; wanted {tuple(like.shape)}")
    return tensor


def as_number(answer, name: str = "the answer") -> float:
    """The answer as a float; anything else is a mistake that says what came."""
    demand(answer is not None and answer is not Ellipsis, f"{name} is missing: nothing is returned yet")
    try:
        return float(answer)
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(f"{name} is a {type(answer).__name__}; wanted a number") from None


def error(got: Tensor, wanted: Tensor) -> float:
    """The largest absolute difference; infinite when something is not finite."""
    difference = (got.double() - wanted.double()).abs().max()
    return float(difference) if torch.isfinite(difference) else float("inf")


def randn(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    """Normal numbers that are the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
