"""Refusing a wrong value before any work: what came, and what was wanted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def one_of(field: str, value: Any, allowed: tuple) -> None:
    """Refuse a value that is not in `allowed`, naming the field, the value and what is allowed."""
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; allowed: {', '.join(map(repr, allowed))}")


def in_range(field: str, value: Any, low: float, high: float = float("inf")) -> None:
    """Refuse a number outside `[low, high]` or without end, and anything that is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high \
            or value == float("inf"):
        raise ValueError(f"{field} is {value!r}; wanted a number from {low} to {high}")


def whole(field: str, value: Any, low: int = 1, high: float = float("inf")) -> None:
    """Refuse anything but a whole number in `[low, high]`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        span = f"from {low} on" if high == float("inf") else f"from {low} to {high}"
        raise ValueError(f"{field} is {value!r}; wanted a whole number {span}")


def writable(field: str, path) -> None:
    """Refuse a file that could not be written, before there is something to write; folders above it may be missing."""
    path = Path(path).absolute()
    place = next(folder for folder in path.parents if folder.exists())
    if path.is_dir() or not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        what = f"{str(path)!r} is a folder" if path.is_dir() else f"nothing can be written in {str(place)!r}"
        raise ValueError(f"{field} cannot be written: {what}; give permission there, or name another file")
