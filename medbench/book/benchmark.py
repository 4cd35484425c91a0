"""What the benchmark chapters share: the models that are trained, their scores, the comparisons and their tables.

What lives here, top to bottom: `train_all`; the scores of several runs of one model as one; the comparison of every
model with one of them; tables for the page.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from .. import config, latency, machine, metrics, recipe, results
from .. import data as data_module
from ..checks import one_of
from ..files import environment, progress
from ..models import build_model
from ..training import Run, fit, predict
from .tables import of_one_device, with_interval

REAL = "10_real"                                               # where the records of real MRI are kept
GIGABYTE = 2**30
KEEP_MEMORY = ":".join(f"glibc.malloc.{name}={value}" for name, value in dict(
    hugetlb=1, mmap_threshold=4 * GIGABYTE, trim_threshold=16 * GIGABYTE, top_pad=GIGABYTE // 4).items())


@dataclass(frozen=True, eq=False)
class Trained:
    """One finished run: what was asked, what came of it, and its logits (n, k) on the test set, computed once."""

    experiment: config.Experiment
    run: Run
    logits: np.ndarray

    @property
    def name(self) -> str:
        """The model's name."""
        return self.experiment.model.name


def train_all(experiments, data) -> list[Trained]:
    """Train every experiment, or load it where it is finished, and let it see the test set once.

    Args: `experiments` of the same data; `data` from `load_data`.
    """
    found = []
    train_together(experiments)
    for exp in experiments:
        run = fit(build_model(exp.model), data, exp.training)
        found.append(Trained(exp, run, predict(run.model, data.test)))
    return found


def train_together(experiments) -> None:
    """Train what is not finished, each in a process of its own, as many at a time as there are cores for their threads.

    Why: small models leave a second thread half idle. On two cores softmax attention trains on 201 images a second with
    one thread and on 270 with two; two models at a time make 400. The processes keep the memory that they free, in huge
    pages: without that a step of softmax attention takes 63 ms, with it 58. On a GPU nothing is done here.
    """
    training = recipe.resolve(experiments[0].training)
    at_a_time = machine.cores() // training.threads if training.device == "cpu" else 1
    if min(at_a_time, len(experiments)) < 2:
        return
    processes = {"mp_context": get_context("spawn"), "initializer": _end_with, "initargs": (os.getpid(),)}
    with environment(GLIBC_TUNABLES=KEEP_MEMORY), ProcessPoolExecutor(at_a_time, **processes) as pool:
        jobs = [pool.submit(_train, exp) for exp in experiments]
        with progress(len(jobs), f"training, {at_a_time} at a time", "model") as bar:
            for job in as_completed(jobs):
                job.result()
                bar.update()


def _end_with(parent: int) -> None:
    """End this process soon after its parent is gone: whoever is killed must not leave trainings behind."""
    def watch():
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def _train(exp: config.Experiment) -> None:
    """One training, in its own process; the run is left in the cache."""
    fit(build_model(exp.model), data_module.load_data(exp.data), exp.training, progress=False)


def by_name(trained) -> dict[str, list[Trained]]:
    """Model name -> its runs, one a seed, in the order given."""
    found: dict[str, list[Trained]] = {}
    for one in trained:
        found.setdefault(one.name, []).append(one)
    return found


# --------------------------------------------------------------------------------------------- comparison
def compare_all(trained, data, *, reference: str = "softmax", quantity: str = "balanced_accuracy",
                bootstrap: int = 1000) -> list[metrics.Comparison]:
    """Every model against one of them, on the same images; the first seed of each.

    Args: `trained` from `train_all`; `reference` the model compared with; `quantity` one of `metrics.OVERALL`.
    """
    first = {name: runs[0] for name, runs in by_name(trained).items()}
    one_of("reference", reference, tuple(first))
    return [metrics.compare(one.logits, first[reference].logits, data.test, quantity=quantity,
                            names=(name, reference), bootstrap=bootstrap)
            for name, one in first.items() if name != reference]


def detectable(comparisons) -> float:
    """The smallest difference that such an interval could tell from 0, in percentage points: its mean half-width."""
    return 100 * float(np.mean([(c.high - c.low) / 2 for c in comparisons]))


def worth(gains) -> dict:
    """What mixing was worth in these runs, as a row with a computed sentence.

    Args: `gains` comparisons of every model with the control; only those of mechanisms count.
    """
    found = {verdict: [c.first for c in gains if c.verdict == verdict and c.first in config.MECHANISMS]
             for verdict in ("better", "tie", "worse")}
    words = {"better": "scored above it", "tie": "tied with it", "worse": "scored below it"}
    parts = [f"{', '.join(names)} {words[verdict]}" for verdict, names in found.items() if names]
    return {"quantity": "conclusion", "value": None, "unit": "1",
            "text": f"Against the control without mixing, in these runs: {'; '.join(parts)}."}


def differences(comparisons):
    """Comparisons as a table for `plots.forest`: percentage points with interval and verdict."""
    import pandas as pd
    rows = [{"model": c.first, "verdict": c.verdict, **row} for c in comparisons for row in c.rows()]
    return pd.DataFrame(rows, columns=["model", "value", "low", "high", "verdict"])


# --------------------------------------------------------------------------------------------- tables
def score_table(named_scores, quantities=("balanced_accuracy", "macro_auroc", "macro_auprc", "mcc", "top1"), digits=3):
    """Scores with their 95 % intervals, one row a model or baseline, the best balanced accuracy on top.

    Args: `named_scores` {name: Scores or list of Scores}; of a list, one a run, the mean of the values is shown with
        the mean of the interval's ends.
    """
    import pandas as pd
    rows = {}
    for name, scores in named_scores.items():
        runs = scores if isinstance(scores, list) else [scores]
        rows[name] = {q: _interval([run.overall[q] for run in runs], digits) for q in quantities}
        rows[name]["_order"] = np.mean([run.balanced_accuracy.value for run in runs])
    table = pd.DataFrame(rows).T.sort_values("_order", ascending=False).drop(columns="_order")
    return table.rename(columns={q: q.replace("_", " ") for q in quantities})


def _interval(scores, digits: int) -> str:
    return with_interval(*(np.mean([getattr(s, part) for s in scores]) for part in ("value", "low", "high")), digits)


def recorded_scores(table, quantities=("balanced_accuracy", "macro_auroc", "top1"), digits=3):
    """The same table from records: rows of `results.load()` of one data set.

    Args: `table` with columns `name`, `quantity`, `value`, `low`, `high`; the second part of a name is the row's name.
    """
    import pandas as pd
    rows: dict = {}
    for _, record in table[table.quantity.isin(quantities) & table["class"].isna()].iterrows():
        cell = with_interval(record.value, record.low, record.high, digits)
        rows.setdefault(record["name"].split(".")[1], {})[record.quantity.replace("_", " ")] = cell
    found = pd.DataFrame(rows).T
    return found.sort_values(found.columns[0], ascending=False)


def cost_page(table):
    """`cost.table` for the page: millions and thousand millions, rounded, in the order of multiply-adds."""
    import pandas as pd
    shown = table.sort_values("macs").set_index("model")
    columns = {"params (M)": shown.params / 1e6, "MACs (G)": shown.macs / 1e9,
               "MACs, fvcore's convention (G)": shown.macs_fvcore / 1e9, "FLOPs (G)": shown.flops / 1e9,
               "share of mixing (%)": 100 * shown.mixing_share.astype(float),
               "weights (MB)": shown.weight_memory_byte / 1e6, "activations (MB)": shown.activation_memory_byte / 1e6}
    return pd.DataFrame(columns).round(2)


def real_records(device="auto"):
    """The records of real MRI, of this device if it has any, else of the device with the most.

    Raises: LookupError if there are none.
    """
    table = results.load()
    table = table[table.chapter == REAL]
    if not len(table):
        raise LookupError("there are no records of real MRI; `python -m medbench real-mri` makes them")
    return of_one_device(table, device)


def run_table(trained):
    """What training took, one row a run: images seen, seconds on the clock and of the processor, the best epoch."""
    import pandas as pd
    rows = [{"model": t.name, "seed": t.experiment.training.seed, "images seen": t.run.samples_seen,
             "seconds": t.run.seconds, "CPU seconds": t.run.cpu_seconds, "best epoch": t.run.best_epoch}
            for t in trained]
    return pd.DataFrame(rows).set_index("model").round(1)


# --------------------------------------------------------------------------------------------- latency
def record_times(times, to, **context) -> None:
    """Record comparisons, {batch: Comparison}: each model as `latency.<model>.*`, the run itself as `latency.run.*`."""
    for found in times.values():
        for name, timing in found.timings.items():
            results.record(f"latency.{name}", timing, to=to, **context)
        own = [row for row in found.rows() if "model" not in row]
        results.record("latency.run", own, to=to, **context)


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
