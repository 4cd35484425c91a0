"""What chapter 12 shows of the runtimes: which order each gives, and how near to the limit the best one comes.

What lives here, top to bottom: `Orders`, what `python -m medbench runtimes` recorded on one device, and its pages;
`orders`, which reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import runtimes
from ..config import ALL_MODELS, MECHANISMS
from ..export import DTYPES, RUNTIMES
from .timings import recorded

FEW = "-"                    # where nobody asked


@dataclass(frozen=True)
class Orders:
    """All groups of one device: `lines` as `runtimes.lines` makes them, `rows` {(runtime, dtype, batch): records}."""

    device: str
    lines: list[dict]
    rows: dict[tuple[str, str, int], dict[str, list[dict]]]

    def of(self, batch: int, best: bool = False) -> dict[tuple[str, str], dict[str, dict]]:
        """{(runtime, dtype): {model: line}} of one batch, without or with only the best runtimes."""
        found = {}
        for line in self.lines:
            if line["batch"] == batch and (line["runtime"] == runtimes.BEST) == best:
                found.setdefault((line["runtime"], line["dtype"]), {})[line["model"]] = line
        return found

    def page(self, batch: int):
        """One row a runtime and dtype, one column a model: rank (ties share one) and median in ms, or why not."""
        import pandas as pd

        def cell(line: dict | None) -> str:
            if line is None or line["latency_ms"] is None:
                return FEW if line is None else line["reason"].split(":")[0].split(" by ")[0]
            return f"{int(line['rank']) if line['rank'] else '?'} ({_ms(line['latency_ms'])})"
        found = self.of(batch) | self.of(batch, best=True)
        found = {key: found[key] for key in sorted(found, key=_place)}
        rows = {key: {name: cell(group.get(name)) for name in _names(group)} for key, group in found.items()}
        table = pd.DataFrame(list(rows.values()), pd.MultiIndex.from_tuples(rows, names=["runtime", "dtype"]))
        return table.fillna(FEW)

    def missing(self) -> list[str]:
        """Why there is nothing for some models, each reason once with its runtimes, number types and models."""
        found = {}
        for line in self.lines:
            if line["latency_ms"] is None:
                where = found.setdefault(line["reason"], {}).setdefault(f"{line['runtime']} {line['dtype']}", {})
                where[line["model"]] = None
        models = {line["model"] for line in self.lines}

        def who(where: dict) -> str:
            return ", ".join(f"{place} ({', '.join(names)})" if len(names) < len(models) else place
                             for place, names in where.items())
        return [f"{who(where)}: {reason}" for reason, where in found.items()]

    def checks_page(self, batch: int):
        """One row a runtime and dtype: how wrong the worst model is, how often the least faithful one decides as in
        eager float32, and the longest that a model took to be exported and to answer first."""
        import pandas as pd
        rows = {}
        for key, group in self.of(batch).items():
            own = [line for line in group.values() if line["latency_ms"] is not None]
            if own:
                same = [line["class_agreement"] for line in own if line["class_agreement"] is not None]
                rows[key] = {"largest error (1)": f"{max(line['output_error'] for line in own):.1g}",
                             "same decisions, at least (%)": f"{100 * min(same):.1f}" if same else FEW,
                             "export, at most (s)": f"{max(line['export_s'] for line in own):.1f}",
                             "first call, at most (ms)": _ms(max(line["first_call_ms"] for line in own))}
        return pd.DataFrame(list(rows.values()), pd.MultiIndex.from_tuples(rows, names=["runtime", "dtype"]))

    def best_page(self, batch: int):
        """Each model in the runtime that was fastest for it: which, median in ms, share of the roofline."""
        import pandas as pd
        columns = {}
        for (_, dtype), group in self.of(batch, best=True).items():
            own = {name: line for name, line in group.items() if line["latency_ms"] is not None}
            columns[dtype, "runtime"] = {name: line["by"] for name, line in own.items()}
            columns[dtype, "median (ms)"] = {name: _ms(line["latency_ms"]) for name, line in own.items()}
            if any(line["roofline_share"] for line in own.values()):
                columns[dtype, "share of the roofline (%)"] = {
                    name: f"{100 * line['roofline_share']:.0f}" for name, line in own.items() if line["roofline_share"]}
        table = pd.DataFrame(columns)
        return table.reindex(_names(table.index)).fillna(FEW)

    def points(self, batch: int):
        """Under the roof with the best runtimes, for `plots.roofline`: (table of `model`, `dtype`, `intensity`, `rate`;
        {dtype: FLOP/s}; byte/s); rates of the device are the best of those measured before each group."""
        import pandas as pd
        table, peaks, bandwidth = [], {}, 0.0
        for (runtime, dtype, size), group in self.rows.items():
            for name, rows in group.items():
                found = {row["quantity"]: row for row in rows}
                if found.get("intensity") is None:
                    continue
                peaks[dtype] = max(peaks.get(dtype, 0), found["intensity"]["context"]["matrix_rate"])
                bandwidth = max(bandwidth, found["intensity"]["context"]["bandwidth"])
                if (runtime, size) == (runtimes.BEST, batch):
                    done = found["intensity"]["value"] * found["moved"]["value"]               # FLOP
                    table.append({"model": name, "dtype": dtype, "intensity": found["intensity"]["value"],
                                  "rate": done / found["latency"]["value"] * 1000})
        return pd.DataFrame(table), peaks, bandwidth

    def spreads(self, batch: int) -> tuple[float, float]:
        """Times over times, the largest there are: one model in its slowest over its fastest runtime and dtype; the
        slowest mechanism over the fastest in one runtime and dtype. 1 where there is nothing to compare."""
        groups = [{name: line["latency_ms"] for name, line in group.items() if line["latency_ms"] is not None}
                  for group in self.of(batch).values()]
        by_model = [[group[name] for group in groups if name in group] for name in ALL_MODELS]
        by_runtime = [[group[name] for name in MECHANISMS if name in group] for group in groups]
        return tuple(max((max(own) / min(own) for own in each if own), default=1.0) for each in (by_model, by_runtime))

    def row(self, batch: int) -> dict:
        """Who comes first in each runtime, where ResNet-50 stands beside softmax attention, and whether the runtime or
        the mechanism matters more, as sentences."""
        first, beside = {}, {}
        for (runtime, dtype), group in self.of(batch).items():
            where = f"{runtime} {dtype}"
            if names := [name for name in _names(group) if group[name]["rank"] == 1]:
                first.setdefault(", ".join(names), []).append(where)
            if (verdict := group.get("resnet50", {}).get("verdict")) in ("faster", "slower", "tie"):
                beside.setdefault(verdict, []).append(where)
        said = "; ".join(f"{names} in {', '.join(places)}" for names, places in first.items())
        words = {"faster": "faster than", "slower": "slower than", "tie": "tied with"}
        cnn = "; ".join(f"{words[verdict]} softmax attention in {', '.join(beside[verdict])}"
                        for verdict in words if verdict in beside)
        images = "one image" if batch == 1 else f"{batch} images"
        text = f"On {self.device}, with {images} at a time, first are: {said or 'nobody, for want of quiet rounds'}."
        text += f" ResNet-50 is {cnn}." if cnn else ""
        runtime, mechanism = self.spreads(batch)
        text += (f" One and the same model takes up to {runtime:.1f} times as long in one runtime and number type as "
                 f"in another; within one of them the slowest mechanism takes up to {mechanism:.1f} times as long as "
                 f"the fastest.")
        return {"quantity": "conclusion", "value": None, "unit": "1", "suffix": f"b{batch}", "text": text}


def orders(device="auto") -> Orders:
    """What the command recorded on this device, else on the device with the most records.

    Raises: LookupError: nobody has run it.
    """
    file = recorded("12_runtimes", device)
    found = runtimes.recorded(file.records)
    found = _best_unranked(found) | found
    rows = {key: found[key] for key in sorted(found, key=_place)}
    return Orders(file.device, _lines(rows), rows)


def _lines(rows: dict) -> list[dict]:
    return [line for key, group in rows.items() for line in runtimes.lines(*key, group)]


def _best_unranked(found: dict) -> dict:
    """Groups of the best runtimes, put together from different runs: so their models have no rank."""
    lines, best = _lines(found), {}
    for dtype, batch in {key[1:] for key in found}:
        best[runtimes.BEST, dtype, batch] = {
            model: [row | ({"value": None, "reason": "timed in different runs"} if row["quantity"] == "rank" else {})
                    for row in found[runtime, dtype, batch][model]]
            for model, runtime in runtimes.best(lines, batch, dtype).items()}
    return {key: group for key, group in best.items() if group}


def _place(key: tuple) -> tuple[int, int]:
    """Where a (runtime, dtype, ...) stands: by dtype, and within it as `export.RUNTIMES` has them, the best last."""
    return DTYPES.index(key[1]), (*RUNTIMES, runtimes.BEST).index(key[0])


def _names(known) -> list[str]:
    """The models that are known, in the book's order."""
    return [name for name in ALL_MODELS if name in known]


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
