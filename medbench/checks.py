"""Refusing a wrong value before any work: what came, and what was wanted."""

from __future__ import annotations

from typing import Any


def one_of(field: str, value: Any, allowed: tuple) -> None:
    """Refuse a value that is not in `allowed`, naming the field, the value and what is allowed."""
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; allowed: {', '.join(map(repr, allowed))}")


def in_range(field: str, value: Any, low: float, high: float = float("inf")) -> None:
    """Refuse a number outside `[low, high]`, and anything that is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{field} is {value!r}; wanted a number from {low} to {high}")


def whole(field: str, value: Any, low: int = 1) -> None:
    """Refuse anything but a whole number from `low` on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{field} is {value!r}; wanted a whole number from {low} on")
