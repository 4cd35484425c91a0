r"""What a run decided on the test set, in so few letters that a record can hold it.

What lives here: `pack` and `unpack`; `as_logits`, which lets whatever takes logits take decisions.

A comparison of balanced accuracies needs no more than the decisions, so it can be made from records alone, on another
machine or with seeds that are trained later.
"""

from __future__ import annotations

import base64
import zlib

import numpy as np


def pack(decided) -> str:
    """Class numbers (n,), from 0 to 255, as text: deflated bytes in base 64."""
    decided = np.asarray(decided)
    if decided.ndim != 1 or decided.dtype.kind not in "iu" or ((decided < 0) | (decided > 255)).any():
        raise ValueError(f"decided is {decided.dtype} {decided.shape}; wanted class numbers (n,) from 0 to 255")
    return base64.b64encode(zlib.compress(decided.astype(np.uint8).tobytes(), 9)).decode()


def unpack(text: str) -> np.ndarray:
    """The class numbers (n,) of `pack`, int64. Raises: ValueError: it is not such a text."""
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8).astype(np.int64)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"{text[:20]!r}... holds no decisions ({error}); wanted what `pack` gave") from error


def as_logits(decided, classes: int) -> np.ndarray:
    """Logits (n, k) with equal class frequencies behind them that decide so: 1 for the class, 0 for the others."""
    return np.eye(classes, dtype=np.float32)[np.asarray(decided)]
