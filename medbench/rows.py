"""Rows as `results.record` takes them: dicts with a quantity, a value and a unit. Plain Python.

What lives here: `finding`, a sentence as a row; `interval`, its ends as fields, and `in_words`; `with_caveats`, what
has to be said of the data, on a row of a record, and `caveat_column`, the same on a row of a table.
"""

from __future__ import annotations


def finding(text: str, quantity: str = "conclusion", **more) -> dict:
    """A sentence that was computed; `more`: other fields of its record, such as `suffix`."""
    return {"quantity": quantity, "value": None, "unit": "1", "text": text, **more}


def interval(low: float, high: float, reason: str | None = None) -> dict:
    """The ends of an interval, or why there is none."""
    return {"low": low, "high": high} if low == low else {"reason": reason} if reason else {}          # NaN: none


def in_words(low: float, high: float, reason: str | None = None) -> str:
    """An interval in percentage points as part of a sentence, or why there is none."""
    return f"95 % interval {low:+.1f} to {high:+.1f}" if low == low else f"no interval: {reason}"


def with_caveats(row: dict, caveats: tuple[str, ...]) -> dict:
    """A row with what has to be said of its data, if anything, behind what it says already; nothing twice."""
    context = row.get("context", {})
    said = list(dict.fromkeys([*context.get("caveats", ()), *caveats]))
    return row | {"context": context | {"caveats": said}} if said else row


def caveat_column(caveats: tuple[str, ...]) -> dict[str, str]:
    """The same as a column of a table in the terminal; none where there is nothing to say."""
    return {"caveats": "; ".join(caveats)} if caveats else {}
