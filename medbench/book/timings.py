"""What chapter 12 shows: the machine, times and rooflines, as records and as tables.

What lives here, top to bottom: records of comparisons; the machine's facts; times; the roof over every timed model;
what the commands have recorded that take too long for a chapter: the self-test, the peers, growing sizes.
"""

from __future__ import annotations

import fnmatch

from .. import crossing, latency, layers, results, scaling
from ..machine import device_name
from ..records import ResultFile
from ..rows import finding
from .tables import ABSENT, SHORT, with_interval

SIGNS = {"faster": "+", "slower": "-", "tie": "=", "inconclusive": "?"}      # of a ratio, in a cell
OTHER = "*"                                                  # of a peer that computes another function
CASES = ["fp32", "bf16", "1", "16", "16 grad"]               # in the order of the page
COMMANDS = {"12_selftest": "latency --self-test", "12_runtimes": "runtimes", "12_peers": "peers",
            "12_scaling": "scaling"}


def record_times(times, to, prefix: str = "latency", **context) -> None:
    """Record comparisons, {batch: Comparison}: each model as `<prefix>.<model>.*`, the run as `<prefix>.run.*`."""
    for found in times.values():
        for name, timing in found.timings.items():
            results.record(f"{prefix}.{name}", timing, to=to, **context)
        own = [row for row in found.rows() if "model" not in row]
        results.record(f"{prefix}.run", own, to=to, **context)


def machine_page(here: dict):
    """The machine's fingerprint for the page: one line a fact, what is not known left out."""
    import pandas as pd

    def words(value):
        if isinstance(value, dict):
            return ", ".join(f"{key} {words(v)}" for key, v in value.items() if v is not None)
        if isinstance(value, (list, tuple)):
            return ", ".join(map(words, value))
        return f"{value:.2f}" if isinstance(value, float) else str(value)
    facts = {(part, key): words(value) for part, fields in here.items() if isinstance(fields, dict)
             for key, value in fields.items() if value is not None}
    return pd.Series(facts, name="this device").to_frame()


def latency_page(found):
    """A comparison for the page: median with interval, ratio to the reference with interval, verdict, calls."""
    import pandas as pd
    table = found.frame().set_index("model").sort_values("latency_ms")

    def span(row, name, digits):
        return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], digits)
    return pd.DataFrame({"median (ms)": table.apply(span, axis=1, args=("latency_ms", 1)),
                         "ratio to softmax (1)": table.apply(span, axis=1, args=("ratio", 2)),
                         "verdict": table.verdict, "calls": table.calls})


def roofs(times, costs, ceilings) -> dict:
    """The roof over every timed model: {(model, batch): Roofline}, with the share that its median reaches."""
    return {(name, batch): latency.roofline(costs[name], ceilings, batch, timing.dtype, timing.median)
            for batch, found in times.items() for name, timing in found.timings.items() if timing.median}


def roof_page(roofs):
    """Share of the roofline for each model and batch, and what binds it."""
    import pandas as pd
    rows = [{"model": name, "batch": batch, "share of the roofline (%)": 100 * roof.share, "bound by": roof.bound,
             "least time (ms)": 1000 * roof.seconds} for (name, batch), roof in roofs.items()]
    return pd.DataFrame(rows).set_index(["model", "batch"]).unstack("batch").round(1)


def roof_points(roofs, batch: int):
    """One batch as a table for `plots.roofline`: `model`, `intensity` (FLOP/byte), `rate` (FLOP/s) as measured."""
    import pandas as pd
    return pd.DataFrame([{"model": name, "intensity": roof.intensity, "rate": roof.flops * roof.share / roof.seconds}
                         for (name, b), roof in roofs.items() if b == batch])


# --------------------------------------------------------------------------------------------- what commands recorded
def recorded(chapter: str, device="auto", needed: tuple[str, ...] = ("*",)) -> ResultFile:
    """The records of one of `COMMANDS`: of this device if it was run here, else of another device, the fullest.

    Args: `needed`: patterns such as `"sizes.*"`; a file without a record for each of them, of a run that was not
        finished, is passed over.
    Raises: LookupError: nobody has run it.
    """
    def whole(file: ResultFile) -> bool:
        return all(any(fnmatch.fnmatchcase(r.name, pattern) for r in file.records) for pattern in needed)
    found = {file.device: file for file in results.files() if file.chapter == chapter and whole(file)}
    if not found:
        raise LookupError(f"there are no records of {chapter} with {', '.join(needed)}; `python -m medbench "
                          f"{COMMANDS[chapter]} --record {chapter}` makes them")
    fullest = max(found.values(), key=lambda file: len(file.records))
    return found.get(device_name(device), fullest)


def said(file: ResultFile, *quantities: str, **context) -> dict:
    """The sentences of some records as one row, with the device that they speak of.

    Args: `quantities` of the records; `context` that they must have, such as `reference="softmax"`.
    """
    texts = [record.text for record in file.records if record.quantity in quantities and record.text
             and context.items() <= record.context.items()]
    return finding(f"On {file.device}: {' '.join(texts)}")


def selftest_page(file: ResultFile):
    """The self-test for the page: how many comparisons of a model with itself ended how, one column for the quiet
    machine, one for the loaded, one for all."""
    import pandas as pd
    columns = {"comparisons": "comparisons", "not_judged": "not judged", "ties": "ties", "inconclusive": "inconclusive",
               "false_calls": "called different", "false_call_bound": "rate at most (%)",
               "usual_false_calls": "called different at 95 %", "usual_false_call_bound": "rate at most at 95 % (%)"}
    cells = {}
    for r in file.records:
        if r.quantity in columns:
            shown = r.value if "bound" not in r.quantity else ABSENT if r.value is None else f"{100 * r.value:.1f}"
            cells.setdefault(columns[r.quantity], {})[r.name.split(".")[-1]] = shown
    table = pd.DataFrame.from_dict({row: cells[row] for row in columns.values()}, orient="index").astype(object)
    return table[["quiet", "loaded", "all"]]


def peers_page(file: ResultFile):
    """The standings beside other people's layers for the page, one row a mechanism."""
    import pandas as pd
    rows = {r.context["mechanism"].replace("_", " "): {
        "our time / fastest peer's (1)": "not judged" if r.value is None else round(r.value, 2), "cases": r.n,
        **{verdict: r.context[verdict] for verdict in ("faster", "tie", "inconclusive", "slower")},
        "not judged": r.context["not_judged"]}
        for r in file.records if r.quantity == "mean_ratio"}
    return pd.DataFrame.from_dict(rows, orient="index")


def contests_page(file: ResultFile):
    """Every contest, one row a peer and shape, one column a case: our time over theirs, and a sign for the verdict;
    peers of another function have a `*`."""
    import pandas as pd
    cells = {}
    for r in file.records:
        if r.quantity == "ratio":
            c = r.context
            row = r.name.split(".")[1], c["peer"] + (OTHER if c["differs"] else ""), c["shape"]
            case = SHORT[c["dtype"]], f"{c['batch']}{' grad' if c['pass'] == 'both' else ''}"
            cells.setdefault(case, {})[row] = _signed(r.value, c["verdict"])
    table = pd.DataFrame(cells).rename_axis(index=["mechanism", "peer", "shape"], columns=["dtype", "images"])
    return table.sort_index(axis=1, key=lambda level: level.map(CASES.index)).fillna("")


def _signed(ratio: float | None, verdict: str) -> str:
    """A ratio with the sign of its verdict: `0.88 +`; the reference's has none."""
    value = with_interval(ratio, None, None, 2)
    return value if value == ABSENT else f"{value} {SIGNS.get(verdict, '')}".rstrip()


def memory_lines(file: ResultFile):
    """Layers against the number of tokens: `model`, `tokens`, `memory_mib`, counted."""
    table = crossing.table(scaling.recorded(file.records, "tokens"))
    return table.assign(tokens=table["at"], memory_mib=table.memory_byte / 2**20)[["model", "tokens", "memory_mib"]]


def memory_page(file: ResultFile, tokens: tuple[int, ...] = (64, 1024, 4096, 16384)):
    """Memory of layers for the page, MiB: by how much it rose while they ran, and in brackets what was counted."""
    import pandas as pd
    found = {(r.quantity, r.model, r.context["tokens"]): r.value for r in file.records if r.name.startswith("memory.")}

    def cell(name: str, N: int) -> str:
        grown, counted = (found.get((quantity, name, N)) for quantity in ("grown", "counted"))
        return ABSENT if counted is None else (f"{ABSENT if grown is None else f'{grown / 2**20:.0f}'} "
                                               f"({counted / 2**20:.1f})")
    names = [name for name in layers.LAYERS if any(name == key[1] for key in found)]
    cells = {scaling.sized("tokens", N): {name: cell(name, N) for name in names} for N in tokens}
    return pd.DataFrame(cells).rename_axis(columns=file.device)


def crossings(file: ResultFile, reference: str = "softmax"):
    """Layers against the number of tokens: the tables that `plots.crossover` takes, times and crossovers."""
    points = scaling.recorded(file.records, "tokens")
    found = crossing.crossovers(points, reference)
    return crossing.table(points, reference), crossing.crossover_table(found)


def growth_page(file: ResultFile, part: str, signs: bool = False):
    """Whole models at growing sizes for the page: ratio to softmax with its interval, or with the sign of its verdict;
    sizes without any are left out, and `ran_out` says what is missing."""
    table = crossing.table(scaling.recorded(file.records, part))
    table = table[table["at"].isin(table[table.ratio.notna()]["at"])].copy()
    if table.empty:
        return table

    def cell(row):
        return _signed(row.ratio, row.verdict) if signs else with_interval(row.ratio, row.ratio_low, row.ratio_high, 2)
    table["ratio"] = table.apply(cell, axis=1)
    table["at"] = [scaling.sized(part, size) for size in table["at"]]
    page = table.pivot(index="model", columns="at", values="ratio")[list(dict.fromkeys(table["at"]))]
    return page.rename_axis(columns=file.device)


def ran_out(file: ResultFile, part: str) -> str:
    """Which ratios of one part there are not, and why: a line a size, and one for all from which on there are none."""
    table = crossing.table(scaling.recorded(file.records, part))
    found, lines = {size: own.set_index("model") for size, own in table.groupby("at")}, []
    whole = [size for size, own in found.items() if own.ratio.notna().any()]
    for size in whole:
        why = found[size][found[size].ratio.isna()].reason
        if len(why):
            said = "; ".join(f"{name} {reason}" for name, reason in why.items())
            lines.append(f"At {scaling.sized(part, size)}: {said}.")
    if rest := [size for size in found if size not in whole]:
        why = found[rest[0]].reason
        name = "softmax" if "softmax" in why else why.index[0]               # without which there is no ratio
        lines.append(f"Nothing at {', '.join(scaling.sized(part, size) for size in rest)}: at the first of them {name} "
                     f"{why[name].removeprefix('softmax: ')}.")
    return "\n".join(lines) or "Everything was timed."


def devices(batch: int = 1):
    """Records of the median latency of the large models in eager float32 on every device that was measured."""
    table = results.load()
    return table[(table.chapter == "12_latency") & (table.quantity == "latency") & table.value.notna()
                 & table["name"].str.startswith("latency.") & (table.get("batch") == batch)
                 & (table.dtype == "float32") & (table.device != results.STUDY)]


def everywhere(found):
    """The records of `devices` as a table, ms, with `not run` where a model was not timed on a device."""
    wide = found.pivot_table(index="model", columns="device", values="value")
    return wide.round(1).astype(object).where(wide.notna(), "not run")
