"""What the commands share: errors in one line, tables in the terminal, values typed as `name=value`.

What lives here, top to bottom: `guarded`, which turns an error into one line and an exit code; `show` and `save`;
`assignments`.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import sys
from pathlib import Path

from .checks import one_of
from .files import write_bytes

FORMATS = ("table", "csv", "json")
# what --set cannot set
ELSEWHERE = {"seed": "--seed 3 (or --seeds 0-7)", "model": "--model", "name": "--model", "preset": "--preset",
             "profile": "--profile", "options": "each option by its name", "source": "--data", "subset": "--subset",
             "device": "--device",
             "num_classes": "--num-classes where a command has it (a training has the classes of its data)"}
WRONG, INTERRUPTED = 2, 130
NOTHING = 1e-14                # what rounding leaves of a sum that is 0
EXPECTED = (ValueError, LookupError, OSError, RuntimeError, ImportError, FloatingPointError)


# --------------------------------------------------------------------------------------------- errors
def guarded(command, arguments: list[str] | None = None) -> int:
    """Run a command; an error becomes one line and exit code 2 (with `MEDBENCH_DEBUG=1` it keeps its traceback).

    Args:
        command: what `typer.main.get_command` returns. arguments: in place of `sys.argv[1:]`.
    Returns:
        0, 2 after an error, 130 when interrupted.
    """
    import typer
    try:
        code = command.main(args=arguments, prog_name="python -m medbench", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except EXPECTED as error:
        if os.environ.get("MEDBENCH_DEBUG") or isinstance(error, (KeyError, IndexError)):
            raise                                            # the last two are errors of the program, not of the input
        return fail(str(error) or type(error).__name__)
    except Exception as error:
        if not hasattr(error, "format_message"):             # what typer's parser raises
            raise
        return fail(_allowed(error))
    if code == INTERRUPTED:                                  # typer turns the signal into this number
        print("interrupted; the same command goes on where this one was", file=sys.stderr)
    return code if isinstance(code, int) else 0


def fail(message: str) -> int:
    """Print an error as one line and return its exit code."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return WRONG


def _allowed(error) -> str:
    """A complaint of the parser, with what is allowed in that place."""
    message, command = error.format_message().rstrip("."), getattr(error.ctx, "command", None)
    if getattr(error, "option_name", None):
        options = [p.opts[0] for p in command.params if p.opts[0].startswith("--")]
        return f"{error.ctx.command_path} has no option {error.option_name}; allowed: {', '.join(options)}"
    if message.startswith("No such command"):
        return f"{message.split('.')[0].lower()}; allowed: {', '.join(command.commands)}"
    return f"{message}; see {error.ctx.command_path} --help" if error.ctx else message


# --------------------------------------------------------------------------------------------- output
def show(rows: list[dict], form: str = "table", stream=None) -> None:
    """Print rows as an aligned table, as CSV or as JSON.

    Only the table rounds, to four significant digits, writes `x_low` and `x_high` behind `x` as its interval, and has
    caveats that all rows share below it.
    """
    one_of("format", form, FORMATS)
    stream = stream or sys.stdout
    rows = [{key: None if value != value else value for key, value in row.items()} for row in rows]      # NaN
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if form == "json":
        print(json.dumps(rows, indent=1, allow_nan=False), file=stream)
    elif form == "csv":
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif not rows:
        print("nothing to show", file=stream)
    else:
        bounds = {f"{column}_{end}" for column in columns for end in ("low", "high")}
        shared = {row.get("caveats") for row in rows}
        beneath = shared.pop() if len(shared) == 1 else None
        columns = [column for column in columns if column not in bounds and not (beneath and column == "caveats")]
        cells = [columns] + [[_cell(row, column) for column in columns] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells)]
        for line in cells:
            first, *rest = (f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
                            for i, (cell, width) in enumerate(zip(line, widths)))
            print("  ".join([first, *rest]).rstrip(), file=stream)
        if beneath:
            print(f"caveats: {beneath}", file=stream)


def save(rows: list[dict], path: str) -> None:
    """Write rows into a CSV file, whole or not at all."""
    stream = io.StringIO()
    show(rows, "csv", stream)
    write_bytes(Path(path), stream.getvalue().encode())


def _cell(row: dict, column: str) -> str:
    """A value, and its interval where the row has one."""
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    return _short(row.get(column)) + (f" [{_short(low)}, {_short(high)}]" if low is not None else "")


def _short(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value if abs(value) > NOTHING else 0:.4g}"


# --------------------------------------------------------------------------------------------- input
def assignments(given: list[str]) -> dict:
    """`["r=16", "lpi=true"]` as a dict; numbers, tuples and booleans are read as such, the rest stays text.

    Raises: ValueError for what is no `name=value`, or has an option of its own.
    """
    return {name: _value(text) for name, text in _pairs(given, "--set", "such as --set epochs=3")}


def choices(given: list[str]) -> dict[str, list]:
    """`["lr=0.001,0.002"]` as a dict of lists, its values read as those of `assignments`, each once."""
    example = "such as --vary lr=0.001,0.002"
    found = {name: [_value(part) for part in text.split(",") if part.strip()]
             for name, text in _pairs(given, "--vary", example)}
    if empty := [name for name, values in found.items() if not values]:
        raise ValueError(f"--vary got {empty[0]}=; wanted values, {example}")
    return {name: [value for i, value in enumerate(values) if value not in values[:i]]
            for name, values in found.items()}


def _pairs(given: list[str], option: str, example: str) -> list[tuple[str, str]]:
    found = []
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise ValueError(f"{option} got {text!r}; wanted name=value, {example}")
        if name in ELSEWHERE:
            raise ValueError(f"{option} got {name}; say {ELSEWHERE[name]} in its place")
        found.append((name, value))
    return found


def _value(text: str):
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text
