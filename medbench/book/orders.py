"""What chapter 12 shows of the runtimes: which order each gives, and how near to the limit the best one comes.

What lives here, top to bottom: `Orders`, what `python -m medbench runtimes` recorded on one device, and its pages;
`orders`, which reads it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from .. import runtimes
from ..config import ALL_MODELS, MECHANISMS
from ..export import DTYPES, RUNTIMES
from ..rows import finding
from .tables import ABSENT, SHORT
from .timings import recorded


@dataclass(frozen=True)
class Orders:
    """All groups of one device: `rows` {(runtime, dtype, batch): {model: its records' rows}}."""

    device: str
    rows: dict[tuple[str, str, int], dict[str, list[dict]]]

    @functools.cached_property
    def lines(self) -> list[dict]:
        """One line a model and group, as `runtimes.lines` makes them."""
        return _lines(self.rows)

    def of(self, batch: int, best: bool = False) -> dict[tuple[str, str], dict[str, dict]]:
        """{(runtime, dtype): {model: line}} of one batch, without or with only the best runtimes."""
        found = {}
        for line in self.lines:
            if line["batch"] == batch and (line["runtime"] == runtimes.BEST) == best:
                found.setdefault((line["runtime"], line["dtype"]), {})[line["model"]] = line
        return found

    def page(self, batch: int):
        """One row a runtime and dtype with a time, one column a model: rank and median in ms."""

        def cell(line: dict | None) -> str:
            if line is None or line["latency_ms"] is None:
                return ABSENT
            return f"{int(line['rank']) if line['rank'] else '?'} ({rounded(line['latency_ms'])})"
        found = self.of(batch) | self.of(batch, best=True)
        timed = [key for key in sorted(found, key=_place) if any(line["latency_ms"] for line in found[key].values())]
        found = {key: found[key] for key in timed}
        rows = {key: {name: cell(group.get(name)) for name in _names(group)} for key, group in found.items()}
        return _indexed(rows).fillna(ABSENT)

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
        rows = {}
        for key, group in self.of(batch).items():
            own = [line for line in group.values() if line["latency_ms"] is not None]
            if own:
                same = [line["class_agreement"] for line in own if line["class_agreement"] is not None]
                rows[key] = {"largest error (1)": f"{max(line['output_error'] for line in own):.1g}",
                             "same decisions, at least (%)": f"{100 * min(same):.1f}" if same else ABSENT,
                             "export, at most (s)": f"{max(line['export_s'] for line in own):.1f}",
                             "first call, at most (ms)": rounded(max(line["first_call_ms"] for line in own))}
        return _indexed(rows)

    def ceilings(self) -> tuple[dict[str, float], float]:
        """({dtype: FLOP/s}, byte/s), the best that was measured before any group."""
        known = [row["context"] for group in self.rows.values() for rows in group.values() for row in rows
                 if row["quantity"] == "intensity"]
        dtypes = sorted({c["dtype"] for c in known}, key=DTYPES.index)
        peaks = {dtype: max(c["matrix_rate"] for c in known if c["dtype"] == dtype) for dtype in dtypes}
        return peaks, max((c["bandwidth"] for c in known), default=0.0)

    def points(self, batch: int):
        """Each model in its best runtime, for `plots.roofline`: DataFrame with `model`, `dtype`, `intensity`
        (FLOP/byte), `rate` (FLOP/s) and `share` of what the ceilings allow at that intensity."""
        import pandas as pd
        (peaks, bandwidth), table = self.ceilings(), []
        for (runtime, dtype, size), group in self.rows.items():
            for name, rows in group.items() if (runtime, size) == (runtimes.BEST, batch) else ():
                found = {row["quantity"]: row["value"] for row in rows}
                if found.get("intensity") is None:
                    continue
                rate = found["intensity"] * found["moved"] / found["latency"] * 1000
                share = rate / min(peaks[dtype], found["intensity"] * bandwidth)
                table.append({"model": name, "dtype": dtype, "intensity": found["intensity"], "rate": rate,
                              "share": share})
        return pd.DataFrame(table, columns=["model", "dtype", "intensity", "rate", "share"])

    def best_page(self, batch: int):
        """Each model in the runtime that was fastest for it: which, median in ms, share of the roofline."""
        import pandas as pd
        columns, shares = {}, self.points(batch).set_index(["dtype", "model"]).share
        for (_, dtype), group in self.of(batch, best=True).items():
            own = {name: line for name, line in group.items() if line["latency_ms"] is not None}
            columns[dtype, "runtime"] = {name: line["by"] for name, line in own.items()}
            columns[dtype, "ms"] = {name: rounded(line["latency_ms"]) for name, line in own.items()}
            if dtype in shares:
                columns[dtype, "roofline (%)"] = {name: f"{100 * share:.0f}" for name, share in shares[dtype].items()}
        table = pd.DataFrame(columns)
        return table.reindex(_names(table.index)).fillna(ABSENT)

    def spreads(self, batch: int) -> dict[str, float]:
        """Times over times, the largest there are, of mechanisms: `runtime`, one in its slowest over its fastest
        runtime in float32; `dtype`, the same over all number types too; `mechanism`, the slowest over the fastest in
        one runtime and number type. 1 where there is nothing to compare."""
        times = self._times(batch)
        single = [own for (_, dtype), own in times.items() if dtype == "float32"]
        sets = {"runtime": [[own[name] for own in single if name in own] for name in MECHANISMS],
                "dtype": [[own[name] for own in times.values() if name in own] for name in MECHANISMS],
                "mechanism": [list(own.values()) for own in times.values()]}
        return {what: max((max(own) / min(own) for own in each if own), default=1.0) for what, each in sets.items()}

    def quickest(self, batch: int) -> dict[str, str]:
        """{runtime: the number type in which the mechanisms take the least time, by the geometric mean of the medians
        of those that were timed in all}; runtimes with one number type have none."""
        found = {}
        for (runtime, dtype), own in self._times(batch).items():
            if own:
                found.setdefault(runtime, {})[dtype] = own
        common = {runtime: set.intersection(*map(set, own.values())) for runtime, own in found.items() if len(own) > 1}
        return {runtime: min(found[runtime], key=lambda dtype: math.prod(found[runtime][dtype][name] for name in names))
                for runtime, names in common.items() if names}

    def _times(self, batch: int) -> dict[tuple[str, str], dict[str, float]]:
        """{(runtime, dtype): {mechanism: median in ms}} of those that were timed."""
        return {key: {name: group[name]["latency_ms"] for name in MECHANISMS
                      if name in group and group[name]["latency_ms"] is not None}
                for key, group in self.of(batch).items()}

    def row(self, batch: int) -> dict:
        """How often each model is first, where ResNet-50 stands beside softmax attention, which number type is the
        quickest, and what matters more, the runtime or the mechanism: as sentences."""
        images = "one image" if batch == 1 else f"{batch} images"
        groups = {key: group for key, group in self.of(batch).items() if any(line["rank"] for line in group.values())}
        if not groups:
            return finding(f"On {self.device}, nothing has a rank with {images} at a time.", suffix=f"b{batch}")
        first = {name: sum(group.get(name, {}).get("rank") == 1 for group in groups.values()) for name in ALL_MODELS}
        said = ", ".join(f"{name} in {n}" for name, n in sorted(first.items(), key=lambda one: -one[1]) if n)
        beside = {}
        for (runtime, dtype), group in groups.items():
            beside.setdefault(group.get("resnet50", {}).get("verdict"), []).append(f"{runtime} {dtype}")
        words = {"faster": "faster than softmax attention", "tie": "tied with softmax attention",
                 "inconclusive": "not told apart from softmax attention",
                 "slower": "slower than softmax attention"}
        cnn = "; ".join(f"{words[v]} in {', '.join(beside[v])}" for v in words if v in beside)
        spread, types = self.spreads(batch), {}
        for runtime, dtype in self.quickest(batch).items():
            types.setdefault(dtype, []).append(runtime)
        kinds = "; ".join(f"{dtype} in {', '.join(types[dtype])}" for dtype in DTYPES if dtype in types)
        return finding(
            f"On {self.device}, with {images} at a time, in {len(groups)} combinations of runtime and number type, "
            f"first or sharing the first place are: {said}." + (f" ResNet-50 is {cnn}." if cnn else "") +
            (f" The quickest number type is {kinds}." if kinds else "") +
            f" In float32 the runtime changes a mechanism's time up to {spread['runtime']:.1f} times, runtime and "
            f"number type together up to {spread['dtype']:.1f} times; within one of the combinations the slowest "
            f"mechanism takes up to {spread['mechanism']:.1f} times as long as the fastest.", suffix=f"b{batch}")


def orders(device="auto", batches: tuple[int, ...] = ()) -> Orders:
    """What the command recorded on this device, else on the device with the most records; with all of the `batches`.

    Raises: LookupError: nobody has run it.
    """
    file = recorded("12_runtimes", device, tuple(f"runtime.*.b{batch}" for batch in batches) or ("*",))
    found = runtimes.recorded(file.records)
    found = _best_unranked(found) | found
    rows = {key: found[key] for key in sorted(found, key=_place)}
    return Orders(file.device, rows)


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


def _indexed(rows: dict[tuple[str, str], dict]):
    """A DataFrame of rows by (runtime, dtype); an empty one of none."""
    import pandas as pd
    keys = [(runtime, SHORT.get(dtype, dtype)) for runtime, dtype in rows]
    index = pd.MultiIndex.from_arrays([*zip(*keys)] or [[], []], names=["runtime", "dtype"])
    return pd.DataFrame(list(rows.values()), index)


def _place(key: tuple) -> tuple[int, int]:
    """Where a (runtime, dtype, ...) stands: by dtype, and within it as `export.RUNTIMES` has them, the best last."""
    return DTYPES.index(key[1]), (*RUNTIMES, runtimes.BEST).index(key[0])


def _names(known) -> list[str]:
    """The models that are known, in the book's order."""
    return [name for name in ALL_MODELS if name in known]


def rounded(value: float) -> str:
    """Milliseconds for the page: three digits."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
