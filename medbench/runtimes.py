r"""Which order of the models do you get? The same models in every runtime and dtype, and each in its best one.

What lives here, top to bottom: `Group`, all models in one runtime, dtype and batch, and `measure`, which makes it from
one interleaved run; `ranks`, the order with ties; the rows of one model; `recorded`, the way back from records;
`lines`, from rows, fresh or recorded, to a table; `best` and `ranking`, which read that table.

A ratio is to the reference in the same runtime and the same run. A model's rank is 1 + the number of models that are
faster than it beyond doubt, so models that cannot be told apart share one. Times of different runtimes come from
different runs; `BEST` is a run of its own, each model in the runtime that was fastest for it.
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from . import cost, latency
from .export import Exported, agreement, attempt
from .latency import BYTES, Ceilings
from .latency.judging import paired
from .latency.timing import milliseconds, resampled
from .rows import finding

BEST = "best"                # the name of the group in which each model has its own runtime
REFERENCE = "softmax"
RATE_SECONDS = 3.0           # for the device's ceilings, before each group
ROW = {"quantity", "value", "unit", "low", "high", "n", "samples", "text", "reason", "context"}   # of a record


# --------------------------------------------------------------------------------------------- one group
@dataclass(frozen=True)
class Group:
    """All models in one runtime: `rows` {model: its records' rows}, and what may be concluded in `text`."""

    runtime: str
    dtype: str
    batch: int
    rows: dict[str, list[dict]]
    text: str

    def lines(self) -> list[dict]:
        """The group's lines of the table."""
        return lines(self.runtime, self.dtype, self.batch, self.rows)


def measure(models: dict[str, nn.Module], runtime: str, dtype: str, input_size: tuple[int, ...], *, seconds: float,
            threads: int = 0, images: Tensor | None = None, decided: dict[str, Tensor] | None = None, workdir=None,
            chosen: dict[str, str] | None = None, device="cpu", seed: int = 0) -> Group:
    """Export all models, time those that are right side by side, and hold them to the roofline.

    Args:
        models: {name: module}; the reference is softmax if it is right, else the first that is.
        runtime: one of `export.RUNTIMES`, or `BEST` with `chosen` {name: runtime}. dtype: one of `export.DTYPES`.
        input_size: (batch, channels, height, width) in pixels. seconds: for the timing alone. threads: 0 for all.
        images, decided: (n, channels, height, width), and {name: (n,)} of `export.decisions` of each model, with which
            those of its export are compared; none by default.
        workdir: a folder in which each model gets its own for ONNX files. device: as for `export`. seed: of inputs and
            orders.
    Returns: `Group`, rows for every model, those that could not be timed too.
    """
    made = {name: attempt(model, input_size, (chosen or {}).get(name, runtime), dtype, threads,
                          None if workdir is None else Path(workdir) / name, device)
            for name, model in models.items()}
    right = {name: one.candidate(functools.partial(_exactly, models[name])) for name, one in made.items()
             if one.reason is None}
    found, limits = None, None
    if right:
        limits = latency.ceilings(device, dtypes=(dtype,), seconds=RATE_SECONDS, threads=threads) if dtype in BYTES \
            else None
        found = latency.compare(right, input_size, seconds=seconds, threads=threads, device=device, seed=seed,
                                rounds=10_000, reference=REFERENCE if REFERENCE in right else next(iter(right)))
    places = ranks(found) if found else {}
    rows = {name: _rows(one, found[name] if name in right else None, places.get(name),
                        _same(one, images, (decided or {}).get(name)), limits, models[name])
            for name, one in made.items()}
    why = "" if found else "; ".join(dict.fromkeys(str(one.reason) for one in made.values()))
    return Group(runtime, dtype, input_size[0], rows, found.text if found else f"Nothing could be timed: {why}.")


def alone(runtime: str, dtype: str, batch: int, rows: dict[str, list[dict]]) -> Group:
    """The group of the best runtimes where one runtime is the best for every model: that runtime's, not timed again."""
    return Group(BEST, dtype, batch, rows, f"Every model was fastest in {runtime}, so its times are those of the best.")


def _exactly(model: nn.Module, x: Tensor) -> Tensor:
    """The model in float64; the copy is dropped afterwards, since eight of them would need 2 GB."""
    return copy.deepcopy(model).eval().double()(x)


def _same(made: Exported, images: Tensor | None, decided: Tensor | None):
    """How often the export decides as the model did; None where it cannot be asked."""
    return None if decided is None or made.run is None else agreement(made, images, decided)


# --------------------------------------------------------------------------------------------- the order
def ranks(found: latency.Comparison) -> dict[str, int]:
    """1 + the number of models faster beyond doubt, for each model; nothing if too few rounds were quiet.

    One model is faster than another if `latency.judge` says so of their paired ratios over the quiet rounds.
    """
    names = [name for name in found if found[name].median is not None]
    if not found.judged:
        return {}
    rounds = found.used
    draws = resampled([r.process for r in rounds], 0)

    def faster(other: str, name: str) -> bool:
        return latency.judge(*paired(rounds, other, name, draws)[1:], found.floor) == "faster"
    return {name: 1 + sum(faster(other, name) for other in names if other != name) for name in names}


def order(table: list[dict]) -> str | None:
    """The models of one group from fastest to slowest: `window = xca < softmax`; None without ranks."""
    ranked = sorted((line for line in table if line["rank"] is not None), key=lambda line: line["rank"])
    if not ranked:
        return None
    parts = [ranked[0]["model"]]
    for before, line in zip(ranked, ranked[1:]):
        parts += ["=" if before["rank"] == line["rank"] else "<", line["model"]]
    return " ".join(parts)


# --------------------------------------------------------------------------------------------- rows of one model
def _rows(made: Exported, timing, rank: int | None, same, limits: Ceilings | None, model: nn.Module) -> list[dict]:
    """What is wanted of one model in one runtime, as rows for `results.record`; what is missing with its reason. A file
    holds some two hundred of these, so what follows from other rows is left out."""
    seconds = timing.median if timing else None
    why = made.reason or (timing.reason if timing else None) or "not timed"
    first = made.seconds.get("first_call")
    rows = [row for row in timing.thinned().rows() if row["quantity"] in ("latency", "latency_ratio", "verdict")] \
        if timing else [_row(*missing, why) for missing in (("latency", None, "ms"), ("latency_ratio", None, "1"),
                                                            ("verdict", None, "1"))]
    rows += _roof(made, model, limits, seconds, why)
    few = f"fewer than {latency.fewest_rounds()} rounds were quiet"
    rows += [_row("rank", rank, "1", why if seconds is None else few),
             _row("output_error", made.error, "1", why), _row("export", made.seconds.get("export"), "s", why),
             _row("first_call", milliseconds(first), "ms", why),
             same.row("class_agreement") if same else
             _row("class_agreement", None, "1", "no images were given" if made.run else why),
             finding(made.runtime, "runtime", context=made.reported)]
    context = {"batch": made.input_size[0], "dtype": made.dtype, "runtime": made.runtime}
    return [row | {"suffix": f"b{made.input_size[0]}", "context": row.get("context", {}) | context}
            for row in rows]


def _row(quantity: str, value, unit: str, why: str) -> dict:
    """A number, or null with the reason; one that is not finite is none."""
    value = value if value is None or math.isfinite(value) else None
    return {"quantity": quantity, "value": value, "unit": unit} | ({"reason": why} if value is None else {})


def _roof(made: Exported, model: nn.Module, limits: Ceilings | None, seconds: float | None, why: str) -> list[dict]:
    """The least time under this device's ceilings, and which share of the measured time it is."""
    if seconds is None or limits is None:
        reason = why if seconds is None else f"no rate of products is measured for {made.dtype}"
        return [_row("roofline_share", None, "1", reason)]
    found = latency.roofline(cost.profile(model, made.input_size), limits, dtype=made.dtype, latency=seconds)
    rates = {"matrix_rate": limits.flops[made.dtype], "bandwidth": limits.bandwidth}
    return [row | {"context": row["context"] | rates} for row in found.rows()
            if row["quantity"] in ("roofline_share", "intensity", "moved")]


# --------------------------------------------------------------------------------------------- back from records
def recorded(records) -> dict[tuple[str, str, int], dict[str, list[dict]]]:
    """{(runtime, dtype, batch): {model: its rows}} of the groups among the records of a file, in their order."""
    found = {}
    for r in records:
        parts = r.name.split(".")
        if r.model and parts[0] == "runtime":
            key = parts[1], parts[2], int(parts[-1].removeprefix("b"))
            row = r.model_dump(include=ROW) | {"suffix": parts[-1]}
            found.setdefault(key, {}).setdefault(r.model, []).append(row)
    return found


# --------------------------------------------------------------------------------------------- the table
def lines(runtime: str, dtype: str, batch: int, rows: dict[str, list[dict]]) -> list[dict]:
    """One line a model from its rows, times in ms: fresh ones of `Group`, or recorded ones."""
    table = []
    for model, own in rows.items():
        found = {row["quantity"]: row for row in own}
        line = {"model": model, "batch": batch, "dtype": dtype, "runtime": runtime, "by": found["runtime"]["text"]}
        for quantity, column in (("latency", "latency_ms"), ("latency_ratio", "ratio"), ("rank", "rank"),
                                 ("roofline_share", "roofline_share"), ("output_error", "output_error"),
                                 ("class_agreement", "class_agreement"), ("export", "export_s"),
                                 ("first_call", "first_call_ms")):
            row = found[quantity]
            line[column] = row["value"]
            if quantity in ("latency", "latency_ratio", "class_agreement"):
                line |= {f"{column}_{end}": row.get(end) for end in ("low", "high")}
        table.append(line | {"verdict": found["verdict"].get("text"), "reason": found["latency"].get("reason") or
                             found["verdict"].get("reason")})
    return table


def best(table: list[dict], batch: int, dtype: str) -> dict[str, str]:
    """{model: the runtime that was fastest for it}, of those that were right, for one batch and dtype."""
    found = [line for line in table if (line["batch"], line["dtype"]) == (batch, dtype)
             and line["runtime"] != BEST and line["latency_ms"] is not None]
    return {line["model"]: line["runtime"] for line in sorted(found, key=lambda line: -line["latency_ms"])}


def ranking(table: list[dict]) -> list[dict]:
    """Which order you get: one line a runtime, dtype and batch, the models from fastest to slowest, ties as `=`."""
    groups = dict.fromkeys((line["runtime"], line["dtype"], line["batch"]) for line in table)
    found = []
    for key in groups:
        own = [line for line in table if (line["runtime"], line["dtype"], line["batch"]) == key]
        placed = order(own)
        why = None if placed else "; ".join(dict.fromkeys(line["reason"] or "too few quiet rounds" for line in own))
        found.append(dict(zip(("runtime", "dtype", "batch"), key)) | {"order": placed, "reason": why})
    return found
