"""What chapter 12 shows: the machine, times and rooflines, as records and as tables.

What lives here, top to bottom: records of comparisons; the machine's facts; times; the roof over every timed model.
"""

from __future__ import annotations

from .. import latency, results
from .tables import with_interval


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
