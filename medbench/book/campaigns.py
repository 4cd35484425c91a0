"""The long runs: every model with eight seeds, at the recipe's learning rate and at its own, on real and drawn images.

What lives here, top to bottom: `Campaign`, what is trained and where its records go; the campaigns; `run`, which
`python -m medbench campaign` calls; its parts: the recipe's rate, the choice among rates, learning curves; the records.

They take hours, so `make book` never does them: chapter 10 shows the committed records. Each run is recorded as its
training ends, with its decisions, and what is recorded is not trained again: a campaign goes on from its records on any
machine of the same kind, and from its checkpoints on this one. Rates are compared on validation images alone; a test
score is made for the recipe's rate and for the chosen one. A run's records are named after its rate, so they stay what
they are when the choice changes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import data, families, grid, records, results
from ..calibration import calibrated
from ..checkpoint import chosen_epoch
from ..config import ALL_MODELS, MODELS
from ..decisions import as_logits, pack, unpack
from ..experiment import Experiment, profile_of
from ..files import read_json
from ..machine import resolve_device
from ..metrics import ERROR, FLOOR
from ..models import build_model
from ..recipe import prior_behind
from ..rows import caveat_column, with_caveats
from ..scoring import Task
from ..training import RECIPE_VERSION, SELECTION, evaluate, load_run, predict, run_folder
from .real import MRI, RealSet

SAME, TUNED = "same", "tuned"
RATES = {SAME: 1.0, "half": 0.5, "twice": 2.0}               # times the recipe's learning rate; of equals the first
SHOWN = ("balanced_accuracy", "macro_auroc", "top1", ERROR, FLOOR)   # recorded of every run
REFERENCE = "softmax"


@dataclass(frozen=True)
class Campaign:
    """Which models, how large, with which seeds, on what.

    `tuned`: with how many of the seeds each model's learning rate is chosen; 0: it is not. `sizes`: training images of
    the points of a learning curve.
    `choices`: ways to treat rare classes. `changes`: fields that differ from the preset's own.
    """

    name: str
    chapter: str
    preset: str = "small"
    of: RealSet | None = None
    models: tuple[str, ...] = ALL_MODELS
    seeds: tuple[int, ...] = tuple(range(8))
    tuned: int = 1
    sizes: tuple[int, ...] = ()
    choices: tuple[tuple[str, tuple[tuple[str, object], ...]], ...] = ()
    changes: tuple[tuple[str, float], ...] = ()

    @property
    def data(self) -> str:
        """The data set's short name."""
        return self.of.name if self.of else "phantom"

    def epochs(self, size: int) -> int:
        """How often a learning curve shows each of `size` images: as many steps as with all."""
        whole = self.experiment(self.models[0])
        return max(1, round(whole.data.num_train * whole.training.epochs / size))

    def experiment(self, name: str, seed: int = 0, device: str = "auto", factor: float = 1.0, **changes) -> Experiment:
        """One training, at the recipe's learning rate times a factor."""
        source = {"source": str(data.data_root() / self.of.path)} if self.of else {}
        found = Experiment.preset(self.preset, name, seed, profile_of(self.preset), device=device,
                                  **(source | dict(self.changes) | changes))
        return found.replace(training=found.training.replace(lr=found.training.lr * factor))


CAMPAIGNS = {c.name: c for c in (
    Campaign("small-mri", "10_seeds_mri", of=MRI),
    Campaign("small-phantom", "10_seeds_phantom"),
    Campaign("curves", "10_curves", models=MODELS, seeds=(0,), tuned=0, sizes=(500, 1000, 2000, 4000, 8000, 18000)),
    Campaign("imbalance", "10_imbalance", models=("softmax", "resnet50"), seeds=(0, 1), tuned=0,
             choices=(("cross_entropy", ()), ("balanced_sampling", (("sampling", "balanced"),)),
                      *((loss, (("loss", loss),)) for loss in ("class_weights", "logit_adjustment", "focal")))),
)}


# --------------------------------------------------------------------------------------------- run
def run(name: str, *, device: str = "auto", seeds: list[int] | None = None, bootstrap: int = 1000, to=None,
        again: bool = False, campaigns: dict[str, Campaign] | None = None, show: bool = True) -> list[dict]:
    """Train what is left of a campaign, and record every score as its training ends.

    Args: `seeds`: those to train now, in place of all of the campaign's; `to`: the record file (default: the campaign's
        own of this device, which begins with what is committed); `again`: try once more what was given up.
    Returns: one row a model (and size): its recipe and mean balanced accuracy over all seeds that every model has; one
        a run where there is no reference to compare with.
    Raises: FileNotFoundError if the data are not there; RuntimeError where a training failed, behind all others.
    """
    campaign = (campaigns or CAMPAIGNS)[name]
    to = Path(to or results.here(campaign.chapter, device))
    results.resume(to)
    going = _Going(campaign, tuple(campaign.seeds if seeds is None else seeds), device, bootstrap, to, again, show)
    rows = []
    for choice, changes in campaign.choices:
        rows += going.trained(choice, **dict(changes))
    for size in campaign.sizes:
        rows += going.trained(f"n{size}", num_train=size, epochs=campaign.epochs(size))
    if not (campaign.choices or campaign.sizes):
        rows += going.trained(SAME)
    if campaign.tuned:
        rows += going.trained(TUNED, going.rates())
    if going.failed:
        raise RuntimeError(f"{len(going.failed)} trainings failed, the others are recorded; first "
                           f"{going.failed[0].title}: {going.failed[0].failures[-1]}. Mend the cause and say --again")
    return rows


@dataclass(frozen=True)
class _Going:
    """A campaign on its way: with which seeds, where, and into which file; `failed`: what was given up so far."""

    campaign: Campaign
    seeds: tuple[int, ...]
    device: str
    bootstrap: int
    to: Path
    again: bool
    show: bool
    failed: list[grid.Job] = field(default_factory=list)

    # ----------------------------------------------------------------------------------------- what there is
    def ready(self, wanted: list[tuple[str, int, float]], **changes) -> tuple[dict[str, Experiment], data.Data]:
        """Experiments of (model, seed, factor) that know their data, by the fingerprints of their runs; the data."""
        found = [self.campaign.experiment(name, seed, self.device, factor, **changes) for name, seed, factor in wanted]
        opened = data.load_data(found[0].data)
        found = [e.on(len(opened.classes), len(opened.train)) for e in found]
        names = [run_folder(build_model(e.model), opened, e.training).name for e in found]
        return dict(zip(names, found)), self.campaign.of.grouped(opened) if self.campaign.of else opened

    def recorded(self, quantity: str) -> dict[str, records.Record]:
        """The records of a quantity, by the fingerprint of the run that they are of."""
        found = records.read(self.to).records if self.to.exists() else []
        return {r.fingerprints["run"]: r for r in found if r.quantity == quantity and "run" in r.fingerprints}

    def done(self, quantity: str, experiments: dict[str, Experiment], labels: list[str], logits: bool, each,
             may_diverge: bool = False) -> dict[str, records.Record]:
        """Train whichever of the experiments has no record of a quantity; `each` makes it.

        Returns: as `recorded`. An experiment that failed is not in it, but noted, though where a training `may_diverge`
        that is a result and no failure.
        """
        known = self.recorded(quantity)
        left = [(e, label) for (key, e), label in zip(experiments.items(), labels) if key not in known]
        if not left:
            return known
        print(f"{self.campaign.name}: {len(experiments) - len(left)} of {len(experiments)} runs are recorded, "
              f"{len(left)} are left", file=sys.stderr)
        todo, called = zip(*left)
        self.failed.extend(job for job in grid.train(list(todo), labels=list(called), logits=logits, again=self.again,
                                                     show=self.show, each=each)
                           if job.state == "failed" and not (may_diverge and diverged(job)))
        return self.recorded(quantity)

    # ----------------------------------------------------------------------------------------- what is done
    def trained(self, recipe: str, rates: dict[str, str] | None = None, **changes) -> list[dict]:
        """All models with all seeds, scored and compared; seeds that were recorded before are compared too.

        `rates`: the name of each model's own rate; runs are named after it, in place of the recipe.
        """
        models = self.campaign.models
        called = {name: recipe if rates is None else rates.get(name, SAME) for name in models}
        seeds = sorted({*self.seeds, *self.campaign.seeds}, key=lambda seed: (seed not in self.seeds, seed))
        pairs = [(seed, name) for seed in seeds for name in models]
        experiments, opened = self.ready([(name, seed, RATES.get(called[name], 1.0)) for seed, name in pairs],
                                         **changes)
        now = dict(list(experiments.items())[:len(self.seeds) * len(models)])
        for name, rate in (rates or {}).items():
            row = {"quantity": "rate_factor", "value": RATES[rate], "unit": "1"}
            results.record(f"{self.campaign.data}.{recipe}.{name}", row, to=self.to, data=self.campaign.data)
        known = self.done("right", now, [f"{called[name]}, seed {seed}" for seed, name in pairs], True,
                          lambda job: self.record(called[job.name], job, opened))
        found = {pair: known.get(key) for pair, key in zip(pairs, experiments)}
        whole = [seed for seed in sorted(seeds) if all(found[seed, name] for name in models)]
        runs = {name: [as_logits(unpack(found[seed, name].context["decisions"]), len(opened.classes))
                       for seed in whole] for name in models}
        return self.compared(recipe, runs, opened, as_text(called)) if whole else []

    def rates(self) -> dict[str, str]:
        """The name of each model's own learning rate: that of the highest mean score on validation over the first
        seeds. A rate at which a run diverged has no score. A model without any score keeps the recipe's; one whose
        trainings failed otherwise is left out."""
        seeds = self.campaign.seeds[:self.campaign.tuned]
        wanted = [(name, seed, rate) for rate in RATES for seed in seeds for name in self.campaign.models]
        experiments, opened = self.ready([(name, seed, RATES[rate]) for name, seed, rate in wanted])
        known = self.done(SELECTION, experiments, [f"{rate}, seed {seed}" for _, seed, rate in wanted], False,
                          lambda job: self.record_rate(job, opened), may_diverge=True)
        found = {of: known.get(key) for of, key in zip(wanted, experiments)}
        own = {}
        for name in self.campaign.models:
            tried = {rate: [found[name, seed, rate] for seed in seeds] for rate in RATES}
            if all(all(runs) for runs in tried.values()):
                own[name] = chosen({rate: [run.value for run in runs] for rate, runs in tried.items()})
        return own

    # ----------------------------------------------------------------------------------------- records
    def record_rate(self, job: grid.Job, opened: data.Data) -> None:
        """How well one run did on validation; no value where the model diverged."""
        training = job.experiment.training
        rate = rate_of(training.lr / self.campaign.experiment(job.name).training.lr)
        row = {"quantity": SELECTION, "unit": "1", "context": {"lr": training.lr}}
        if job.state != "failed":
            row |= {"value": chosen_epoch(read_json(job.folder / "run.json"))[SELECTION]}
        elif diverged(job):
            row |= {"value": None, "reason": "the loss became NaN or infinite at this rate"}
        else:
            return
        rows = _Printed([with_caveats(row, opened.caveats)], self.prints(job))
        results.record(f"{self.campaign.data}.{rate}.{job.name}", rows, to=self.to, seed=training.seed,
                       data=self.campaign.data)

    def record(self, recipe: str, job: grid.Job, opened: data.Data) -> None:
        """What one run scored, decided and took."""
        if job.state == "failed":
            return
        done, training = read_json(job.folder / "run.json"), job.experiment.training
        prior = prior_behind(training, opened.train.prior)
        scores = evaluate(job.logits, opened.test, prior=prior, bootstrap=self.bootstrap)
        rows = [row for row in scores.rows() if row["quantity"] in SHOWN and "suffix" not in row]
        model = load_run(job.folder).model.to(resolve_device(training.device))
        rows += calibrated(predict(model, opened.val), opened.val, job.logits, opened.test,
                           prior=prior).rows()
        rows += [{"quantity": "training_cpu_seconds", "value": done["cpu_seconds"], "unit": "s"},
                 {"quantity": "best_epoch", "value": done["best_epoch"], "unit": "1"},
                 {"quantity": SELECTION, "value": chosen_epoch(done)[SELECTION], "unit": "1"},
                 *_losses(done["history"], opened), _decisions(Task(job.logits, opened.test, prior))]
        rows = [with_caveats(row, opened.caveats) for row in rows]
        results.record(f"{self.campaign.data}.{recipe}.{job.name}",
                       _Printed(rows, self.prints(job) | {"images": opened.fingerprint}), to=self.to,
                       seed=training.seed, source=self.campaign.of.source if self.campaign.of else None,
                       data=self.campaign.data, preset=self.campaign.preset, recipe=recipe, lr=training.lr,
                       images=len(opened.train), epochs=training.epochs, batch=training.batch_size,
                       precision=training.precision, micro_batch=done["micro_batch"])

    @staticmethod
    def prints(job: grid.Job) -> dict[str, str]:
        """Which run it was."""
        return {"run": job.folder.name, "recipe": str(RECIPE_VERSION)}

    def compared(self, recipe: str, runs: dict[str, list], opened: data.Data, rates: str) -> list[dict]:
        """Means over seeds, the planned comparisons, and what mixing is worth; none of them from a single model. All
        say with which rates, for a later choice may be another."""
        if REFERENCE not in runs or len(runs) < 2:
            return self.alone(recipe)
        equal = np.full(len(opened.classes), 1 / len(opened.classes))        # `as_logits` has these behind it
        found = families.compare(runs, opened.test, reference=REFERENCE, priors=dict.fromkeys(runs, equal))
        families.record(found, self.campaign.data, to=self.to, recipe=recipe, images=len(opened.train),
                        preset=self.campaign.preset, rates=rates)
        return [{"model": row["model"], "recipe": recipe} | row for row in families.rows(found)]

    def alone(self, recipe: str) -> list[dict]:
        """The score of each run of these models with these seeds, where there is nothing to compare it with."""
        of = "balanced_accuracy"
        return [{"model": r.model, "recipe": recipe, "seed": r.seed, of: r.value, f"{of}_low": r.low,
                 f"{of}_high": r.high} | caveat_column(r.context.get("caveats", ()))
                for r in self.recorded(of).values()
                if r.context["recipe"] == recipe and r.model in self.campaign.models and r.seed in self.seeds]


def rate_of(factor: float) -> str:
    """The name of the rate that is so many times the recipe's, but for rounding."""
    return min(RATES, key=lambda rate: abs(RATES[rate] - factor))


def as_text(rates: dict[str, str]) -> str:
    """The rate of each model, in words."""
    return ", ".join(f"{name} {rate}" for name, rate in rates.items())


def diverged(job: grid.Job) -> bool:
    """Whether a training failed because its numbers became none, which it would again."""
    return bool(job.failures) and job.failures[-1].startswith(FloatingPointError.__name__)


@dataclass(frozen=True)
class _Printed:
    """Rows of a run with the fingerprints that tell which."""

    lines: list[dict]
    fingerprints: dict[str, str]

    def rows(self) -> list[dict]:
        """As they were given."""
        return self.lines


def _losses(history: list[dict], opened: data.Data) -> list[dict]:
    """How well each epoch fitted the training images, and the validation images after it."""
    kept = {"train_loss": ("loss", opened.train, "Mean loss of the steps of the last epoch"),
            "val_loss": ("val_loss", opened.val, "Cross-entropy on the validation images after the last epoch")}
    return [{"quantity": quantity, "value": history[-1][key], "unit": "1", "n": len(split),
             "samples": [epoch[key] for epoch in history], "text": f"{text}; the samples are all epochs."}
            for quantity, (key, split, text) in kept.items()]


def _decisions(task: Task) -> dict:
    """How many images were decided right, and what was decided of each."""
    return {"quantity": "right", "value": int((task.decided == task.labels).sum()), "unit": "1", "n": task.n,
            "context": {"decisions": pack(task.decided)}}


def chosen(scores: dict[str, list[float | None]]) -> str:
    """The rate with the best mean score on validation, of those that have all; of equals the one that is tried first,
    and without any the recipe's own."""
    means = {rate: np.mean(scores[rate]) for rate in RATES if None not in scores[rate]}
    return max(means, key=means.get, default=SAME)
