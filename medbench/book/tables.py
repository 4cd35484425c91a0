"""What several chapters share: whose records they show, how numbers and verdicts are written."""

from __future__ import annotations

import math

from .. import machine

ABSENT = "-"                 # in a cell without a number
SHORT = {"float32": "fp32", "bfloat16": "bf16"}              # number types, where a table has no room


def of_one_device(table, device="auto"):
    """Records of one device: the chapter's if it has any, else the device with the most.

    Args: `table` rows of `results.load()`, at least one; `device` the chapter's, as for `machine.device_name`.
    """
    own = machine.device_name(device)
    chosen = own if (table.device == own).any() else table.device.value_counts().idxmax()
    return table[table.device == chosen]


def with_interval(value, low, high, digits: int) -> str:
    """`0.812 [0.790, 0.834]`; without a known interval the value alone, without a known value `-`."""
    def known(number) -> bool:
        return number is not None and math.isfinite(number)
    if not known(value):
        return ABSENT
    text = f"{value:.{digits}f}"
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]" if known(low) and known(high) else text


def in_words(verdicts: dict[str, str], words: dict[str, str]) -> str:
    """Who got which verdict, as a clause: `performer, xca scored above it; linformer tied with it`.

    Args: `verdicts` {name: verdict}; `words` {verdict: what is said of those names}, in the order of the clause.
    """
    parts = {said: ", ".join(name for name, found in verdicts.items() if found == verdict)
             for verdict, said in words.items()}
    return "; ".join(f"{names} {said}" for said, names in parts.items() if names)
