"""Records: what was measured, on what, from which code, in one JSON file per device and chapter.

What lives here, top to bottom: where a chapter's file lies (`here`); writing (`begin`, `resume`, `record`), atomic and
safe for parallel writers; reading (`load`, `wide`, `find`, `value`). The file's schema is in `records.py`.

A record is one number with its unit, spread and count, never rounded. Its name is a path, from the general to the
particular: `phantom.softmax.balanced_accuracy`, `cost.softmax.macs`, `data.images.edema`. A record of the same name
and seed replaces the older one. A number that cannot be had is null with a reason, never NaN, never 0.
"""

from __future__ import annotations

import math
import os
import re
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from .checks import one_of
from .config import ALL_MODELS
from .experiment import Experiment
from .files import lock
from .machine import ROOT, device_name, git_state, machine, versions
from .records import COLUMNS, UNITS, Record, ResultFile, complaint, read, write

STUDY = "study-2022"


# --------------------------------------------------------------------------------------------- places
def results_root() -> Path:
    """The folder of the records made here: `MEDBENCH_RESULTS`, or `_build/results` in the checkout."""
    return Path(os.environ.get("MEDBENCH_RESULTS") or ROOT / "_build" / "results")


def edition_root() -> Path:
    """The folder of the committed records, `book/results`."""
    return ROOT / "book" / "results"


def here(chapter: str = "console", device="auto") -> Path:
    """The file for this device's records of a chapter; nothing is created.

    Args:
        chapter: such as `"10_training"`. device: as for `machine.device_name`.
    """
    if not re.fullmatch(r"[a-z0-9_-]+", chapter):
        raise ValueError(f"chapter is {chapter!r}; wanted lower-case letters, digits, _ and -, such as '10_training'")
    return results_root() / device_name(device) / f"{chapter}.json"


# --------------------------------------------------------------------------------------------- write
def begin(to: Path, profile: str | None = None) -> None:
    """Start a chapter's file afresh: the machine and the code of this moment, and no records.

    Without this, `record` adds to what is there, and a quantity that is no longer measured would stay for ever.
    """
    to = Path(to)
    with lock(to):
        if to.exists():
            read(to)                                         # a damaged file is reported, not replaced
        write(to, _stamped(ResultFile(device=to.parent.name, chapter=to.stem, profile=profile)))


def resume(to: Path) -> None:
    """Let a file made here hold what the committed one of the same device and chapter holds.

    Of two records for one name and seed the one of the later recipe stays, of one recipe that of the later file.
    """
    to = Path(to)
    committed = edition_root() / to.parent.name / to.name
    if not committed.exists() or to.resolve() == committed.resolve():
        return
    with lock(to):
        begun = read(committed)
        own = read(to) if to.exists() else begun.model_copy(update={"records": []})
        older, newer = sorted([begun, own], key=lambda file: file.created or "")
        both = sorted([*older.records, *newer.records], key=lambda r: int(r.fingerprints.get("recipe") or 0))
        merged = {(r.name, r.seed): r for r in both}
        write(to, newer.model_copy(update={"records": list(merged.values())}))


def record(subject, *measured, to: Path, seed: int | None = None, profile: str | None = None,
           source: str | None = None, **context) -> list[Record]:
    """Add measured quantities to a result file, replacing those of the same name and seed.

    Args:
        subject: an `Experiment`, or a prefix such as `"cost.softmax"`; a record is called prefix.quantity(.suffix).
        measured: objects with `rows()` and perhaps `fingerprints`, lists of rows, or single rows. A row is a dict with
            `quantity`, `value` and `unit`, and optionally `low, high, n, samples, text, reason, suffix, model, context,
            quoted, source`.
        to: the file, from `here(chapter)`. seed: of the run; an `Experiment` brings its own.
        profile: the profile of the chapter; without it the file keeps the one it has.
        source: where the data or a quoted figure come from, with their licence.
        context: what else tells this row from others, such as `batch=16`.
    Returns:
        The records as they were written.
    Raises:
        ValueError: a row that does not fit the schema, or a file that cannot be read (it is left as it is).
    """
    to = Path(to)
    prefix, model, seed, context, fingerprints = _describe(subject, seed, context)
    with lock(to):
        file = read(to) if to.exists() else ResultFile(device=to.parent.name, chapter=to.stem)
        file = _stamped(file.model_copy(update={"profile": profile or file.profile}))
        for item in measured:
            fingerprints |= getattr(item, "fingerprints", {})
        fingerprints |= {"machine": file.machine["fingerprint"], "commit": file.git["commit"]}
        shared = {"model": model, "seed": seed, "source": source, "fingerprints": fingerprints}
        new = [_to_record(row, prefix, shared, context) for item in measured for row in _rows(item)]
        merged = {(r.name, r.seed): r for r in [*file.records, *new]}
        write(to, file.model_copy(update={"records": list(merged.values())}))
    return new


def _stamped(file: ResultFile) -> ResultFile:
    """The same file with the machine, the code and the time of this moment."""
    import torch
    places = ("cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count())))
    device = next((place for place in places if device_name(place) == file.device), "auto")
    return file.model_copy(update={"machine": machine(device), "git": git_state(), "versions": versions(),
                                   "created": datetime.now(UTC).isoformat(timespec="seconds")})


def _describe(subject, seed, context) -> tuple[str, str | None, int | None, dict, dict]:
    """Prefix, model, seed, context and fingerprints of a subject."""
    if isinstance(subject, str):
        return subject, _model_in(subject), seed, context, {}
    if not isinstance(subject, Experiment):
        raise TypeError(f"subject is a {type(subject).__name__}; wanted an Experiment or a prefix: 'cost.softmax'")
    model, data, training = subject.model, subject.data, subject.training
    name = source_slug(data.source, data.subset)
    known = {"preset": model.preset, "setting": model.setting, "num_classes": model.num_classes, "data": name}
    prints = {"model": model.fingerprint, "data": data.replace(source=name).fingerprint,
              "training": training.fingerprint}
    return f"{name}.{model.name}", model.name, model.seed if seed is None else seed, known | context, prints


def source_slug(source: str, subset: str = "") -> str:
    """A data set's short name from where it lies: the manifest's folder or the folder itself, never the path."""
    path = Path(source)
    name = path.parent.name if path.stem == "manifest" and path.parent.name else path.stem
    return _part(f"{name} {subset}") or "data"


def _rows(item) -> list[dict]:
    rows = item.rows() if hasattr(item, "rows") else [item] if isinstance(item, dict) else item
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TypeError(f"cannot record a {type(item).__name__}; wanted an object with rows(), a list of rows or a row")
    return rows


def _to_record(row: dict, prefix: str, shared: dict, context: dict) -> Record:
    """A row with what all rows of this call share, checked and in Python's own numbers."""
    row = dict(row)
    if "quantity" not in row:
        raise ValueError(f"a row of {prefix} has no 'quantity'; it has {', '.join(row)}")
    suffix = row.pop("suffix", None)
    parts = [prefix, row["quantity"], *([] if suffix is None else map(_part, str(suffix).split(".")))]
    merged = {key: _plain(value) for key, value in {**context, **row.pop("context", {})}.items()}
    merged = {key: None if isinstance(value, float) and not _finite(value) else value for key, value in merged.items()}
    row = {key: _plain(value) for key, value in row.items()}
    if row.get("value") is not None and not _finite(row["value"]):
        row["reason"] = row.get("reason") or f"came out as {row['value']}"
        row["value"] = None
    for bound in ("low", "high"):
        row[bound] = row.get(bound) if _finite(row.get(bound)) else None
    if row.get("samples") is not None:
        row["samples"] = [x if _finite(x) else None for x in row["samples"]]
    fields = {"name": ".".join(parts), **shared, "context": merged, **row}
    try:
        return Record(**fields)
    except ValidationError as error:
        raise ValueError(f"cannot record {fields['name']}: {complaint(error)}") from None


def _plain(value):
    """Python's own numbers, strings and lists in place of NumPy's and torch's, exactly."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _part(text) -> str:
    return re.sub(r"[^a-z0-9_-]+", "_", str(text).lower()).strip("_")


def _model_in(prefix: str) -> str | None:
    return next((part for part in reversed(prefix.split(".")) if part in ALL_MODELS), None)


# --------------------------------------------------------------------------------------------- read
def files(*roots: Path) -> list[ResultFile]:
    """All result files below some folders; of two for the same device and chapter, the one in the later folder."""
    found = {}
    for root in roots or (edition_root(), results_root()):
        for path in sorted(Path(root).glob("*/*.json")):
            found[path.parent.name, path.stem] = path
    return [read(path) for _, path in sorted(found.items())]


def load(*roots: Path):
    """Every record as one row of a tidy table.

    Args:
        roots: folders that hold `<device>/<chapter>.json`; the committed ones and then those made here if none is
            given. A later folder's file takes the place of an earlier one's for the same device and chapter.
    Returns:
        DataFrame with a record's fields, `device`, `chapter`, `profile`, and a column for each key of the contexts.
    """
    import pandas as pd
    rows = []
    for file in files(*roots):
        place = {"device": file.device, "chapter": file.chapter, "profile": file.profile}
        rows += [place | r.model_dump(exclude={"context"}) | r.context for r in file.records]
    table = pd.DataFrame(rows, columns=None if rows else [c for c in COLUMNS if c != "context"])
    return table.drop(columns="context", errors="ignore").astype({"seed": "Int64", "n": "Int64"})


def wide(table, index="model", aggregate: str | None = None):
    """One row for each value of `index`, one column for each quantity, its unit in the column's name (`latency_ms`).

    Args:
        table: rows of `load()`. index: a column or a list of columns. aggregate: how several rows for the same
            place become one (`"mean"`, `"median"`); without it they are refused.
    Raises:
        ValueError: an unknown column, or several rows for one place, naming the columns that tell them apart.
    """
    index = [index] if isinstance(index, str) else list(index)
    for column in index:
        one_of("index", column, tuple(table.columns))
    units = {"unit": [column_name(q, u) for q, u in zip(table["quantity"], table["unit"], strict=True)]}
    table = table.assign(**units).dropna(subset=index)
    keys = [*index, "unit"]
    twice = table[table.duplicated(keys, keep=False)]
    if len(twice) and aggregate is None:
        group = next(iter(twice.groupby(keys)))[1]
        apart = [c for c in table.columns if c not in ("name", "value", "samples", "fingerprints", "low", "high", *keys)
                 and group[c].astype(str).nunique() > 1]
        raise ValueError(f"{group.iloc[0]['name']} has {len(group)} rows for one place of the table; filter the table, "
                         f"add one of {apart} to index, or pass aggregate='mean'")
    pivot = table.pivot_table(index=index, columns="unit", values="value", aggfunc=aggregate or "first", sort=False)
    return pivot.rename_axis(columns=None).reset_index()


def column_name(quantity: str, unit: str) -> str:
    """The quantity with its unit, unless its name says it already: `latency_ms`, `macs_fvcore`, `params`."""
    suffix = UNITS[unit]
    says = {suffix, f"{suffix}s", *(("seconds",) if unit == "s" else ())}
    said = says & set(quantity.split("_")) or quantity.endswith(f"_{suffix}")
    return quantity if not suffix or said else f"{quantity}_{suffix}"


def find(name: str, device: str | None = None, chapter: str | None = None, seed: int | None = None,
         roots: tuple[Path, ...] = ()) -> Record:
    """The one record of that name.

    Args:
        name: such as `"phantom.softmax.balanced_accuracy"`. device, chapter: where to look. Without a device: this
            one if it has the record, else the only one that does (the study's own figures only when asked for).
        seed: of several runs; the record without a seed comes first. roots: as for `load`.
    Raises:
        LookupError: no such record, with the names nearest to it, or several, with what tells them apart.
    """
    places = [f for f in files(*roots) if chapter in (None, f.chapter) and device in (None, f.device)]
    hits = [(f, r) for f in places for r in f.records if r.name == name and seed in (None, r.seed)]
    if device is None:
        hits = [h for h in hits if h[0].device != STUDY]
        hits = [h for h in hits if h[0].device == device_name()] or hits
    if any(r.seed is None for _, r in hits):
        hits = [h for h in hits if h[1].seed is None]
    if len(hits) == 1:
        return hits[0][1]
    where = {"device": device, "chapter": chapter, "seed": seed}
    asked = name + "".join(f", {key} {given!r}" for key, given in where.items() if given is not None)
    if hits:
        have = "; ".join(f"{f.device}/{f.chapter} seed {r.seed}" for f, r in hits)
        raise LookupError(f"{asked}: {len(hits)} records ({have}); say which device, chapter or seed")
    raise LookupError(f"no record {asked}; {_near(name, places, roots)}")


def _near(name: str, places: list[ResultFile], roots) -> str:
    """What to say about a name that was not found: where else it is, or which names are like it."""
    import difflib
    elsewhere = sorted({f"{f.device}/{f.chapter}" for f in files(*roots) for r in f.records if r.name == name})
    if elsewhere:
        return f"it is in {', '.join(elsewhere)}"
    near = difflib.get_close_matches(name, sorted({r.name for f in places for r in f.records}), n=5, cutoff=0.5)
    if near:
        return f"near it: {', '.join(near)}"
    have = ", ".join(f"{f.device}/{f.chapter}" for f in places)
    return f"there are records in {have}" if have else "there are no records; run the chapter that makes it"


def value(name: str, device: str | None = None, chapter: str | None = None, seed: int | None = None,
          roots: tuple[Path, ...] = ()) -> float:
    """The number of the one record of that name, in its unit; see `find`. A null raises with its reason."""
    found = find(name, device, chapter, seed, roots)
    if found.value is None:
        raise LookupError(f"{name} has no value: {found.reason or 'it is a sentence, read its text'}")
    return found.value
