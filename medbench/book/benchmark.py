"""What the benchmark chapters share: the models that are trained, their scores, the comparisons and their tables.

What lives here, top to bottom: `train_all`; the scores of several runs of one model as one; the comparison of every
model with one of them; tables for the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from .. import classwise, config, grid, metrics, places, planned, results
from ..checks import one_of
from ..experiment import Experiment
from ..models import build_model
from ..rows import finding
from ..training import Run, fit, predict
from .tables import ABSENT, in_words, of_one_device, with_interval

REAL, PUBLISHED = "10_real", "10_medmnist"                     # where the records of real images are kept
LARGEST = "always the largest class"


@dataclass(frozen=True, eq=False)
class Trained:
    """One finished run: what was asked, what came of it, and its logits (n, k) on the test set, computed once."""

    experiment: Experiment
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
    for exp, logits in zip(experiments, train_together(experiments), strict=True):
        run = fit(build_model(exp.model), data, exp.training)
        found.append(Trained(exp, run, predict(run.model, data.test) if logits is None else logits))
    return found


def train_together(experiments) -> list:
    """Train what is not finished, as many at a time as there are cores for their threads: `grid.train`.

    Returns: the logits (n, k) on the test set of each; None of each where nothing can run side by side, on a GPU or one
        core: then nothing is done here.
    Raises: RuntimeError: one failed.
    """
    place = places.Here(experiments[0].training)
    if min(place.room, len(experiments)) < 2:
        return [None] * len(experiments)
    jobs = grid.train(experiments, place, logits=True, again=True)         # who starts anew has mended the cause
    for job in jobs:
        if job.state == "failed":
            raise RuntimeError(f"the training of {job.title} failed: {job.failures[-1]}")
    return [job.logits for job in jobs]


def by_name(trained) -> dict[str, list[Trained]]:
    """Model name -> its runs, one a seed, in the order given."""
    found: dict[str, list[Trained]] = {}
    for one in trained:
        found.setdefault(one.name, []).append(one)
    return found


# --------------------------------------------------------------------------------------------- comparison
def compare_all(trained, data, *, reference: str = "softmax", quantity: str = "balanced_accuracy",
                bootstrap: int = 1000, priors: dict | None = None) -> list[metrics.Comparison]:
    """Every model against one of them, on the same images; the first seed of each.

    Args: `trained` from `train_all`; `reference` the model compared with; `quantity` one of `metrics.OVERALL`;
        `priors` {model: class frequencies behind its logits} of those that are not to use the data's.
    """
    first, priors = {name: runs[0] for name, runs in by_name(trained).items()}, priors or {}
    one_of("reference", reference, tuple(first))
    return [metrics.compare(one.logits, first[reference].logits, data.test, quantity=quantity,
                            names=(name, reference), priors=(priors.get(name), priors.get(reference)),
                            bootstrap=bootstrap)
            for name, one in first.items() if name != reference]


def record_all(prefix: str, comparisons, to) -> None:
    """Record comparisons on the phantom as `<prefix>.<model>.*`."""
    for c in comparisons:
        results.record(f"{prefix}.{c.first}", c, to=to, data="phantom")


def detectable(comparisons, power: float = 0.8) -> float:
    """The difference that such intervals would tell from 0 with this power, in percentage points, on average."""
    z = NormalDist().inv_cdf
    return 100 * float(np.mean([(c.high - c.low) / 2 for c in comparisons])) * (1 + z(power) / z(0.975))


def lead(behind) -> dict:
    """Whether the model with the highest score lies above all others, as a row with a computed sentence.

    Args: `behind` the comparisons of every other model with it. Holm's correction holds the chance of a false one at
        5 % for all of them together.
    """
    first, score = behind[0].second, behind[0].quantity.replace("_", " ")
    corrected = metrics.holm([c.p for c in behind])
    level = [c.first for c, p in zip(behind, corrected) if p >= planned.ALPHA]
    nearest = max(behind, key=lambda c: c.difference)
    text = f"{first} has the highest {score} of these runs"
    text = f"No winner: {text}, but {', '.join(level)} cannot be told from it" if level else \
        f"{text} and lies above every other model, after Holm's correction for {len(behind)} comparisons"
    return finding(f"{text}. The nearest is {nearest.first}, {-100 * nearest.difference:.1f} percentage points behind "
                   f"(95 % interval {-100 * nearest.high:.1f} to {-100 * nearest.low:.1f}).")


def worth(gains) -> dict:
    """What mixing was worth in these runs, as a row with a computed sentence.

    Args: `gains` comparisons of every model with the control; only those of mechanisms count.
    """
    said = in_words({c.first: c.verdict for c in gains if c.first in config.MECHANISMS},
                    {"better": "scored above it", "undecided": "could not be told from it", "worse": "scored below it"})
    return finding(f"Against the control without mixing, in these runs: {said}.")


def beside_phantom(real, scores) -> list[dict]:
    """What real MRI says of the phantom's order, as rows: the rank correlation of both, and a computed sentence.

    Args: `real` rows of `results.load()`; `scores` {name: list of Scores, one a run} on the phantom.
    """
    from scipy.stats import spearmanr
    found = real[(real.quantity == "balanced_accuracy") & real.model.notna()].set_index("model")
    there = list(found.value.sort_values(ascending=False).index)
    here = sorted(there, key=lambda name: -scores[name][0].balanced_accuracy.value)

    def place(name):
        return (f"{name} is number {here.index(name) + 1} of {len(here)} on the phantom and number "
                f"{there.index(name) + 1} on real MRI")
    parts = [place(name) for name in dict.fromkeys((here[0], there[0], config.CONTROL))]
    alike, p = spearmanr([here.index(name) for name in there], range(len(there)))
    best, control = found.loc[there[0]], found.loc[config.CONTROL]
    overlap = ("The intervals of all models overlap" if found.low.max() <= found.high.min() else
               f"The intervals of {found.low.idxmax()} and {found.high.idxmin()} do not overlap")
    mixing = "overlaps that of" if best.low <= control.high else "lies below that of"
    told = "could not be told from that of two orders by lot" if p >= planned.ALPHA else \
        "is more than that of two orders by lot"
    text = (f"In one run of each, {'; '.join(parts)}. The rank correlation of the two orders, {alike:.2f}, {told}. "
            f"{overlap}; that of {config.CONTROL} {mixing} {there[0]}.")
    return [{"quantity": "rank_correlation", "value": float(alike), "unit": "1", "n": len(there)},
            finding(text)]


def differences(comparisons):
    """Comparisons as a table for `plots.forest`: percentage points with interval and verdict."""
    import pandas as pd
    rows = [{"model": c.first, "verdict": c.verdict, **row} for c in comparisons for row in c.rows()]
    return pd.DataFrame(rows, columns=["model", "value", "low", "high", "verdict"])


# --------------------------------------------------------------------------------------------- tables
def score_table(named_scores, quantities=("balanced_accuracy", "macro_auroc", "macro_auprc", "mcc", "top1"), digits=3):
    """Scores with their 95 % intervals, one row a model or baseline, the best balanced accuracy on top.

    Args: `named_scores` {name: list of Scores, one a run}; the mean of the values is shown with the mean of the
        intervals' ends.
    """
    import pandas as pd
    rows = {}
    for name, runs in named_scores.items():
        rows[name] = {q: _interval([run.overall[q] for run in runs], digits) for q in quantities}
        rows[name]["_order"] = np.mean([run.balanced_accuracy.value for run in runs])
    table = pd.DataFrame(rows).T.sort_values("_order", ascending=False).drop(columns="_order")
    return table.rename(columns={q: q.replace("_", " ") for q in quantities})


def _interval(scores, digits: int) -> str:
    return with_interval(*(np.mean([getattr(s, part) for s in scores]) for part in ("value", "low", "high")), digits)


def differences_page(comparisons: dict[str, list]):
    """The differences to several references in one table, percentage points with interval and verdict.

    Args: `comparisons` {what the column is called: comparisons with one model}.
    """
    import pandas as pd
    columns = {called: {c.first: f"{with_interval(100 * c.difference, 100 * c.low, 100 * c.high, 1)} {c.verdict}"
                        for c in found} for called, found in comparisons.items()}
    table = pd.DataFrame(columns).fillna(ABSENT)
    return table.reindex([name for name in config.ALL_MODELS if name in table.index])


def class_page(scores, names, digits: int = 2):
    """Sensitivity and specificity of each class with Wilson's 95 % intervals, and how many images it has.

    Args: `scores` {model: Scores} on one test set; the first model's specificity is shown too; `names` of the classes.
    """
    import pandas as pd
    columns: dict = {}
    for place, (model, found) in enumerate(scores.items()):
        table = classwise.class_table(found)
        columns.setdefault("images", table.support.tolist())
        for name in ("sensitivity", "specificity")[:2 if place == 0 else 1]:
            columns[f"{model}, {name}"] = [with_interval(*row, digits) for row in
                                           table[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)]
    return pd.DataFrame(columns, index=list(names))


def where_they_differ(scores, first: str, second: str, names) -> str:
    """The finding at which one model finds most more than another, and that at which it finds most fewer, in words.

    Args: `scores` {model: Scores} on one test set; `names` of the classes. A difference of which Wilson's intervals of
        both models overlap is not told.
    """
    one, other = (classwise.class_table(scores[name]) for name in (first, second))
    gap = one.sensitivity.to_numpy() - other.sensitivity.to_numpy()
    parts = []
    for row, above, below, called in ((gap.argmax(), one, other, "more"), (gap.argmin(), other, one, "fewer")):
        if above.sensitivity_low.iloc[row] > below.sensitivity_high.iloc[row]:
            parts.append(f"{called} of {names[row]} ({one.sensitivity.iloc[row]:.2f} against "
                         f"{other.sensitivity.iloc[row]:.2f})")
    return f"{first} finds {' and '.join(parts)} than {second}." if parts else \
        f"No finding tells {first} from {second}."


def confused(table, names, count: int = 5):
    """The classes that are taken for another one most often: `true class`, `taken for`, `share of its images (%)`.

    Args: `table` (k, k) counts, rows true; `names` of the k classes.
    """
    import pandas as pd
    share = np.asarray(table, float) / np.maximum(np.sum(table, axis=1, keepdims=True), 1)
    np.fill_diagonal(share, 0)
    worst = np.argsort(-share, axis=None, kind="stable")[:count]
    rows = [(names[i], names[j], 100 * share[i, j]) for i, j in zip(*np.unravel_index(worst, share.shape))]
    return pd.DataFrame(rows, columns=["true class", "taken for", "share of its images (%)"]).round(1)


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
    found = found.sort_values(found.columns[0], ascending=False)
    found.loc[LARGEST, "top1"] = f"{_always_the_largest(table):.3f}"
    return found.fillna(ABSENT)


def _always_the_largest(table) -> float:
    """Top-1 accuracy of always answering the most frequent class, from records of one data set."""
    return table[table.quantity == "majority_top1"].value.iloc[0]


RECIPE = {                                                       # the lines of the recipe that a reader needs
    "epochs": "passes over the training images", "batch_size": "images a step", "lr": "the highest learning rate",
    "warmup": "share of the steps in which the rate rises", "weight_decay": "pull of the weights towards 0 (AdamW)",
    "clip_grad": "longest gradient that a step may follow", "loss": "how rare classes are treated",
    "flip": "chance that an image is mirrored", "shift": "how far images are moved, share of their side",
    "precision": "of matrix products; auto: what the processor is quick at"}


def recipe_page(training):
    """The lines of a recipe with what they mean."""
    import pandas as pd
    rows = {name: {"value": str(getattr(training, name)), "what it is": said} for name, said in RECIPE.items()}
    return pd.DataFrame(rows).T


def cost_page(table):
    """`cost.table` for the page: millions and thousand millions, rounded, in the order of multiply-adds."""
    import pandas as pd
    shown = table.sort_values("macs").set_index("model")
    columns = {"params (M)": shown.params / 1e6, "MACs (G)": shown.macs / 1e9,
               "MACs, fvcore's convention (G)": shown.macs_fvcore / 1e9, "FLOPs (G)": shown.flops / 1e9,
               "share of mixing (%)": 100 * shown.mixing_share.astype(float),
               "weights (MB)": shown.weight_memory_byte / 1e6, "activations (MB)": shown.activation_memory_byte / 1e6}
    return pd.DataFrame(columns).round(2)


def real_records(device="auto", chapter: str = REAL):
    """The records of real images, of this device if it has any, else of the device with the most.

    Args: `chapter`: `REAL`, the tumour slices, or `PUBLISHED`, BreastMNIST. Raises: LookupError if there are none.
    """
    table = results.load()
    table = table[table.chapter == chapter]
    if not len(table):
        command = {REAL: "real-mri", PUBLISHED: "breastmnist"}[chapter]
        raise LookupError(f"there are no records {chapter}; `python -m medbench campaign {command}` makes them")
    return of_one_device(table, device)


def beside_published(table):
    """AUC and ACC on BreastMNIST, ours with 95 % intervals beside the published ones, the highest AUC on top.

    Args: `table`: `real_records(device, PUBLISHED)`.
    """
    import pandas as pd
    called = {"macro_auroc": "AUC", "top1": "ACC"}
    rows: dict = {}
    for _, r in table[table.quantity.isin(called) & table["class"].isna()].iterrows():
        name = r["name"].split(".")[1]
        made = "here" if name in config.ALL_MODELS else "here, no network"
        rows.setdefault(name, {"from": made})[called[r.quantity]] = (r.value, r.low, r.high)
    for _, r in table[table.quantity == "published"].iterrows():
        rows.setdefault(r["method"], {"from": "published"})[r.published_as] = (r.value, None, None)
    ordered = dict(sorted(rows.items(), key=lambda row: -row[1]["AUC"][0]))
    ordered[LARGEST] = {"from": "here, no network", "AUC": (None, None, None),
                        "ACC": (_always_the_largest(table), None, None)}
    return pd.DataFrame({name: {"from": row["from"], **{key: with_interval(*row[key], 3) for key in called.values()}}
                         for name, row in ordered.items()}).T


def run_table(trained):
    """What training took, one row a run: images seen, seconds on the clock and of the processor, the best epoch."""
    import pandas as pd
    rows = [{"model": t.name, "seed": t.experiment.training.seed, "images seen": t.run.samples_seen,
             "seconds": t.run.seconds, "CPU seconds": t.run.cpu_seconds, "best epoch": t.run.best_epoch}
            for t in trained]
    return pd.DataFrame(rows).set_index("model").round(1)
