"""Rows as `results.record` takes them: dicts with a quantity, a value and a unit. Plain Python.

What lives here: `finding`, a sentence as a row; `with_caveats`, what has to be said of the data, on a row of a record,
and `caveat_column`, the same on a row of a table.
"""

from __future__ import annotations


def finding(text: str, quantity: str = "conclusion", **more) -> dict:
    """A sentence that was computed; `more`: other fields of its record, such as `suffix`."""
    return {"quantity": quantity, "value": None, "unit": "1", "text": text, **more}


def with_caveats(row: dict, caveats: tuple[str, ...]) -> dict:
    """A row with what has to be said of its data, if anything."""
    return row | {"context": row.get("context", {}) | {"caveats": list(caveats)}} if caveats else row


def caveat_column(caveats: tuple[str, ...]) -> dict[str, str]:
    """The same as a column of a table in the terminal; none where there is nothing to say."""
    return {"caveats": "; ".join(caveats)} if caveats else {}
