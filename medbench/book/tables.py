"""What the tables of several chapters share: whose records they show, and how a number with its interval is written."""

from __future__ import annotations

import math

from .. import machine


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
        return "-"
    text = f"{value:.{digits}f}"
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]" if known(low) and known(high) else text
