"""One JSON file per device and chapter: its schema, and how it is written and read without losing anything.

What lives here, top to bottom: `Record` and `ResultFile`; `write`, which replaces a file in one step; `read`, which
checks. Writers keep apart with `files.lock`.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .checks import one_of
from .files import write_bytes

SCHEMA_VERSION = 1
NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")
UNITS = {"1": "", "ms": "ms", "s": "s", "MAC": "mac", "FLOP": "flop", "parameters": "param", "byte": "byte", "J": "j",
         "images/s": "images_per_s", "FLOP/s": "flop_per_s", "byte/s": "byte_per_s", "percentage point": "points"}


# --------------------------------------------------------------------------------------------- schema
class Record(BaseModel):
    """One quantity: what it is, its value and unit, its spread and count, and where it comes from.

    `low` and `high` bound the 95 % interval, `n` counts what the value was computed from, `samples` are raw.
    `text` is a computed sentence. `quoted` marks a figure of somebody else's, with its `source`.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    name: str
    quantity: str
    value: int | float | None = None
    unit: str = "1"
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seed: int | None = None
    model: str | None = None
    samples: list[float | None] | None = None
    text: str | None = None
    reason: str | None = None
    quoted: bool = False
    source: str | None = None
    context: dict[str, Any] = Field(default_factory=dict)
    fingerprints: dict[str, str | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self):
        if not NAME.fullmatch(self.name):
            raise ValueError(f"record name is {self.name!r}; wanted lower-case parts joined by dots: cost.softmax.macs")
        one_of(f"unit of {self.name}", self.unit, tuple(UNITS))
        if self.value is None and self.text is None and not self.reason:
            raise ValueError(f"{self.name} has no value; give the reason why")
        if self.quoted and not self.source:
            raise ValueError(f"{self.name} is quoted; give its source")
        if clash := sorted(set(self.context) & set(COLUMNS)):
            raise ValueError(f"context of {self.name} uses {clash}, which are columns already; choose other keys")
        return self


class ResultFile(BaseModel):
    """All records of one chapter on one device, with what they were measured on."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: int = SCHEMA_VERSION
    device: str
    chapter: str
    profile: str | None = None
    created: str | None = None
    machine: dict[str, Any] = Field(default_factory=dict)
    git: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str | None] = Field(default_factory=dict)
    records: list[Record] = Field(default_factory=list)


COLUMNS = ("device", "chapter", "profile", *Record.model_fields)


# --------------------------------------------------------------------------------------------- write
def write(to: Path, file: ResultFile) -> None:
    """Write a result file: one line a record, sorted, first beside its place and then moved there in one step."""
    order = sorted(file.records, key=lambda r: (r.name, -1 if r.seed is None else r.seed))
    head = json.dumps(file.model_dump(exclude={"records"}), indent=1, allow_nan=False, ensure_ascii=False)
    lines = [json.dumps({"name": r.name, "quantity": r.quantity, "value": r.value, "unit": r.unit,
                         **r.model_dump(exclude_defaults=True)}, allow_nan=False, ensure_ascii=False) for r in order]
    body = "[\n  " + ",\n  ".join(lines) + "\n ]" if lines else "[]"
    write_bytes(to, f'{head[:-2]},\n "records": {body}\n}}\n'.encode())


# --------------------------------------------------------------------------------------------- read
def read(path: Path) -> ResultFile:
    """One result file, checked against the schema.

    Raises:
        ValueError: cut in half, written by a newer medbench, or not of this shape. The file is left as it is.
    """
    facts = Path(path).stat()
    return _read(Path(path), facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=256)
def _read(path: Path, _changed: int, _size: int) -> ResultFile:
    fix = "it was left as it is: restore it from git, or delete it and run the chapter again"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "a byte that is not text"
        raise ValueError(f"the result file {path} is cut off or damaged ({where}); {fix}") from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ValueError(f"the result file {path} has schema version {version} and this medbench reads up to "
                         f"{SCHEMA_VERSION}; update medbench")
    try:
        return ResultFile.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"the result file {path} does not fit the schema ({complaint(error)}); {fix}") from None


def complaint(error: ValidationError) -> str:
    """The first complaint of a validation error, in one line."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}".removeprefix(": ").replace("Value error, ", "")


