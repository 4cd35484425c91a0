"""What chapter 12 shows of the runtimes: which order each gives, and how near to the limit the best one comes.

What lives here, top to bottom: `Orders`, what `python -m medbench runtimes` recorded on one device, and its pages;
`orders`, which reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import runtimes
from ..config import ALL_MODELS
from ..export import DTYPES, RUNTIMES
from .timings import recorded

FEW = "-"                    # for a model that could not be timed, or whose rank nobody knows


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
        """One row a runtime and dtype, one column a model: its rank, ties share one, and its median in ms."""
        import pandas as pd

        def cell(line: dict | None) -> str:
            if line is None or line["latency_ms"] is None:
                return FEW
            return f"{int(line['rank']) if line['rank'] else '?'} ({_ms(line['latency_ms'])})"
        found = self.of(batch) | self.of(batch, best=True)
        found = {key: found[key] for key in sorted(found, key=_place)}
        rows = {key: {name: cell(group.get(name)) for name in _names(group)} for key, group in found.items()}
        table = pd.DataFrame(list(rows.values()), pd.MultiIndex.from_tuples(rows, names=["runtime", "dtype"]))
        return table.fillna(FEW)

    def missing(self) -> list[str]:
        """Why there is nothing for some runtime and dtype, each reason once."""
        found = {}
        for runtime, dtype, _ in self.rows:
            own = [line for line in self.lines if (line["runtime"], line["dtype"]) == (runtime, dtype)]
            if all(line["latency_ms"] is None for line in own):
                found[f"{runtime} {dtype}: {own[0]['reason']}"] = None
        return list(found)

    def checks_page(self, batch: int):
        """One row a runtime and dtype: how wrong the worst model is, how often the least faithful one decides as in eager
        float32, and the longest that a model took to be exported and to answer first."""
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

    def row(self, batch: int) -> dict:
        """Who comes first in each runtime, and where ResNet-50 stands beside softmax attention, as a sentence."""
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
        return {"quantity": "conclusion", "value": None, "unit": "1", "suffix": f"b{batch}",
                "text": text + (f" ResNet-50 is {cnn}." if cnn else "")}


def orders(device="auto") -> Orders:
    """What the command recorded on this device, else on the device with the most records.

    Raises: LookupError: nobody has run it.
    """
    file = recorded("12_runtimes", device)
    found = runtimes.recorded(file.records)
    rows = {key: found[key] for key in sorted(found, key=_place)}
    return Orders(file.device, [line for key, group in rows.items() for line in runtimes.lines(*key, group)], rows)


def _place(key: tuple) -> tuple[int, int]:
    """Where a (runtime, dtype, ...) stands: by dtype, and within it as `export.RUNTIMES` has them, the best last."""
    return DTYPES.index(key[1]), (*RUNTIMES, runtimes.BEST).index(key[0])


def _names(known) -> list[str]:
    """The models that are known, in the book's order."""
    return [name for name in ALL_MODELS if name in known]


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
