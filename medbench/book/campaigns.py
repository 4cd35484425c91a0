"""The long runs: every model with eight seeds, at the recipe's learning rate and at its own, on real and drawn images.

What lives here, top to bottom: `Campaign`, what is trained and where its records go; the campaigns; `run`, which
`python -m medbench campaign` calls; its parts: the recipe's rate, the choice among rates, learning curves; the records.

They take hours, so `make book` never does them: chapter 10 shows the committed records. Each run is recorded as its
training ends, with its decisions, and what is recorded is not trained again: a campaign goes on from its records on any
machine of the same kind, and from its checkpoints on this one. Rates are compared on validation images alone; a test
score is made for the recipe's rate and for the chosen one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import data, grid, planned, records, results
from ..calibration import temperature, tempered
from ..config import ALL_MODELS, CONTROL, MODELS
from ..decisions import as_logits, pack, unpack
from ..experiment import Experiment, profile_of
from ..files import read_json
from ..models import build_model
from ..recipe import prior_behind
from ..scoring import Task
from ..training import RECIPE_VERSION, SELECTION, evaluate, load_run, predict, run_folder
from .real import MRI, RealSet

SAME, TUNED = "same", "tuned"
FACTORS = (1.0, 0.5, 2.0)                                    # times the recipe's learning rate; of equals the first
SHOWN = ("balanced_accuracy", "macro_auroc", "top1", "calibration_error")   # recorded of every run
REFERENCE = "softmax"


@dataclass(frozen=True)
class Campaign:
    """Which models, how large, with which seeds, on what.

    `tuned`: each model's learning rate is chosen too. `sizes`: training images of the points of a learning curve.
    `choices`: ways to treat rare classes. `changes`: fields that differ from the preset's own.
    """

    name: str
    chapter: str
    preset: str = "small"
    of: RealSet | None = None
    models: tuple[str, ...] = ALL_MODELS
    seeds: tuple[int, ...] = tuple(range(8))
    tuned: bool = True
    sizes: tuple[int, ...] = ()
    choices: tuple[tuple[str, tuple[tuple[str, object], ...]], ...] = ()
    changes: tuple[tuple[str, float], ...] = ()

    @property
    def data(self) -> str:
        """The data set's short name."""
        return self.of.name if self.of else "phantom"

    def experiment(self, name: str, seed: int = 0, device: str = "auto", factor: float = 1.0, **changes) -> Experiment:
        """One training, at the recipe's learning rate times a factor."""
        source = {"source": str(data.data_root() / self.of.path)} if self.of else {}
        found = Experiment.preset(self.preset, name, seed, profile_of(self.preset), device=device,
                                  **(source | dict(self.changes) | changes))
        return found.replace(training=found.training.replace(lr=found.training.lr * factor))


# the large models see as many images as the small ones, which takes two cores three quarters of an hour each
CAMPAIGNS = {c.name: c for c in (
    Campaign("small-mri", "10_seeds_mri", of=MRI),
    Campaign("small-phantom", "10_seeds_phantom"),
    Campaign("curves", "10_curves", models=MODELS, seeds=(0,), tuned=False, sizes=(500, 1000, 2000, 4000, 8000)),
    Campaign("imbalance", "10_imbalance", models=("softmax", "resnet50"), seeds=(0, 1), tuned=False,
             choices=(("cross_entropy", ()), ("balanced_sampling", (("sampling", "balanced"),)),
                      *((loss, (("loss", loss),)) for loss in ("class_weights", "logit_adjustment", "focal")))),
    Campaign("paper-mri", "10_paper_mri", "paper", MRI, MODELS, (0,), False,
             changes=(("num_train", 18000), ("epochs", 3))),
    Campaign("paper-phantom", "10_paper_phantom", "paper", None, MODELS, (0,), False,
             changes=(("num_train", 18000), ("num_val", 1000), ("epochs", 3))),
)}


# --------------------------------------------------------------------------------------------- run
def run(name: str, *, device: str = "auto", seeds: list[int] | None = None, bootstrap: int = 1000, to=None,
        campaigns: dict[str, Campaign] | None = None, show: bool = True) -> list[dict]:
    """Train what is left of a campaign, and record every score as its training ends.

    Args: `seeds` in place of the campaign's; `to`: the record file (default: the campaign's own of this device, which
        begins with what is committed).
    Returns: one row a model (and size): its recipe and mean balanced accuracy.
    Raises: FileNotFoundError if the data are not there; RuntimeError where a training failed, behind the others.
    """
    campaign = (campaigns or CAMPAIGNS)[name]
    to = Path(to or results.here(campaign.chapter, device))
    results.resume(to)
    going = _Going(campaign, tuple(campaign.seeds if seeds is None else seeds), device, bootstrap, to, show)
    if campaign.choices:
        return [row for choice, changes in campaign.choices for row in going.trained(choice, **dict(changes))]
    if campaign.sizes:
        return [row for size in campaign.sizes for row in going.trained(f"n{size}", num_train=size)]
    rows = going.trained(SAME)
    if campaign.tuned:
        rows += going.trained(TUNED, going.rates())
    return rows


@dataclass(frozen=True)
class _Going:
    """A campaign on its way: with which seeds, where, and into which file."""

    campaign: Campaign
    seeds: tuple[int, ...]
    device: str
    bootstrap: int
    to: Path
    show: bool

    # ----------------------------------------------------------------------------------------- what there is
    def ready(self, wanted: list[tuple[str, int, float]], **changes) -> tuple[list[Experiment], data.Data]:
        """Experiments of (model, seed, factor) that know their data, and the data."""
        found = [self.campaign.experiment(name, seed, self.device, factor, **changes) for name, seed, factor in wanted]
        opened = data.load_data(found[0].data)
        return [e.on(len(opened.classes), len(opened.train)) for e in found], opened

    def recorded(self, quantity: str) -> dict[str, records.Record]:
        """The records of a quantity, by the fingerprint of the run that they are of."""
        found = records.read(self.to).records if self.to.exists() else []
        return {r.fingerprints["run"]: r for r in found if r.quantity == quantity and "run" in r.fingerprints}

    def done(self, quantity: str, experiments: list[Experiment], opened: data.Data, labels: list[str], logits: bool,
             each=None) -> tuple[list[records.Record | None], list[grid.Job]]:
        """Train whichever of the experiments has no record of a quantity; `each` makes it.

        Returns: the record of each experiment, `None` of those that failed, and the jobs that did.
        """
        keys = [run_folder(build_model(e.model), opened, e.training).name for e in experiments]
        known = self.recorded(quantity)
        left = {key: (e, label) for key, e, label in zip(keys, experiments, labels) if key not in known}
        failed = []
        if left:
            todo, called = zip(*left.values())
            jobs = grid.train(list(todo), labels=list(called), logits=logits, show=self.show, each=each)
            failed = [job for job in jobs if job.state == "failed"]
            known = self.recorded(quantity)
        return [known.get(key) for key in keys], failed

    # ----------------------------------------------------------------------------------------- what is done
    def trained(self, recipe: str, factors: dict[str, float] | None = None, **changes) -> list[dict]:
        """All models with all seeds, scored and compared."""
        pairs, factors = [(seed, name) for seed in self.seeds for name in self.campaign.models], factors or {}
        experiments, opened = self.ready([(name, seed, factors.get(name, 1.0)) for seed, name in pairs], **changes)
        found, failed = self.done("right", experiments, opened, [f"{recipe}, seed {seed}" for seed, _ in pairs], True,
                                  lambda job: self.record(recipe, job, opened))
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(pairs)} trainings failed, first {failed[0].title}: "
                               f"{failed[0].failures[-1]}")
        runs: dict[str, list[np.ndarray]] = {}
        for (_, name), record in zip(pairs, found):
            runs.setdefault(name, []).append(as_logits(unpack(record.context["decisions"]), len(opened.classes)))
        for name, factor in factors.items():
            row = {"quantity": "rate_factor", "value": factor, "unit": "1"}
            results.record(f"{self.campaign.data}.{recipe}.{name}", row, to=self.to, data=self.campaign.data)
        return self.compared(recipe, runs, opened)

    def rates(self) -> dict[str, float]:
        """Each model's factor of the learning rate, chosen on validation with the first seed; all are recorded."""
        wanted = [(name, self.campaign.seeds[0], factor) for factor in FACTORS for name in self.campaign.models]
        experiments, opened = self.ready(wanted)
        found, _ = self.done(SELECTION, experiments, opened, [f"rate x{factor:g}" for *_, factor in wanted], False,
                             self.record_rate)
        scores: dict[str, dict[float, float]] = {}
        for (name, _, factor), record in zip(wanted, found):
            if record:                                       # a rate at which a model diverges is not chosen
                scores.setdefault(name, {})[factor] = record.value
        return {name: chosen(each) for name, each in scores.items()}

    # ----------------------------------------------------------------------------------------- records
    def record_rate(self, job: grid.Job) -> None:
        """How well one rate did on validation."""
        if job.state == "failed":
            return
        training = job.experiment.training
        factor = training.lr / self.campaign.experiment(job.name).training.lr
        row = {"quantity": SELECTION, "value": _best(read_json(job.folder / "run.json"))[SELECTION], "unit": "1",
               "suffix": f"x{factor:g}", "context": {"lr": training.lr}}
        results.record(f"rates.{job.name}", _Printed([row], self.prints(job)), to=self.to, seed=training.seed,
                       data=self.campaign.data)

    def record(self, recipe: str, job: grid.Job, opened: data.Data) -> None:
        """What one run scored, decided and took."""
        if job.state == "failed":
            return
        done, training = read_json(job.folder / "run.json"), job.experiment.training
        prior = prior_behind(training, opened.train.prior)
        scores = evaluate(job.logits, opened.test, prior=prior, bootstrap=self.bootstrap)
        rows = [row for row in scores.rows() if row["quantity"] in SHOWN and "suffix" not in row]
        rows += self.calibrated(job, opened, prior)
        rows += [{"quantity": "training_seconds", "value": done["seconds"], "unit": "s"},
                 {"quantity": "best_epoch", "value": done["best_epoch"], "unit": "1"},
                 {"quantity": SELECTION, "value": _best(done)[SELECTION], "unit": "1"},
                 _decisions(Task(job.logits, opened.test, prior))]
        results.record(f"{self.campaign.data}.{recipe}.{job.name}",
                       _Printed(rows, self.prints(job) | {"images": opened.fingerprint}), to=self.to,
                       seed=training.seed, source=self.campaign.of.source if self.campaign.of else None,
                       data=self.campaign.data, preset=self.campaign.preset, recipe=recipe, lr=training.lr,
                       images=len(opened.train), epochs=training.epochs, batch=training.batch_size,
                       precision=training.precision)

    @staticmethod
    def prints(job: grid.Job) -> dict[str, str]:
        """Which run it was."""
        return {"run": job.folder.name, "recipe": str(RECIPE_VERSION)}

    def calibrated(self, job: grid.Job, opened: data.Data, prior) -> list[dict]:
        """The temperature that validation asks for, and what it does to the error of the test set's probabilities."""
        model = load_run(job.folder).model
        T = temperature(predict(model, opened.val), opened.val, prior=prior)
        later = evaluate(tempered(job.logits, T, prior), opened.test, prior=prior, bootstrap=self.bootstrap)
        row = later.overall["calibration_error"].row("calibration_error", suffix="tempered")
        return [{"quantity": "temperature", "value": T, "unit": "1"}, row]

    def compared(self, recipe: str, runs: dict[str, list], opened: data.Data) -> list[dict]:
        """Means over seeds, the planned comparisons, and what mixing is worth; none of them from a single model."""
        equal = np.full(len(opened.classes), 1 / len(opened.classes))
        priors = dict.fromkeys(runs, equal)                  # `as_logits` has equal frequencies behind it
        about = {"to": self.to, "data": self.campaign.data, "preset": self.campaign.preset, "recipe": recipe}
        if REFERENCE not in runs or len(runs) < 2:
            return []
        rivals = [name for name in runs if name not in (REFERENCE, CONTROL)]
        families = {"planned": planned.compare(runs, opened.test, reference=REFERENCE, models=rivals, priors=priors)}
        if CONTROL in runs:
            families["control"] = planned.compare(runs, opened.test, reference=CONTROL, models=[REFERENCE],
                                                  priors=priors)
        means = {mean.name: mean for family in families.values() for mean in family.scores}
        for name, mean in means.items():
            results.record(f"{self.campaign.data}.{recipe}.{name}.mean", mean, images=len(opened.train), **about)
        for kind, family in families.items():
            for comparison in family.comparisons:
                results.record(f"{kind}.{recipe}.{comparison.first}", comparison, **about)
        results.record(f"planned.{recipe}", families["planned"], **about)
        return [{"model": name, "recipe": recipe, "seeds": len(mean.values), "balanced_accuracy": mean.value,
                 "balanced_accuracy_low": mean.low, "balanced_accuracy_high": mean.high}
                for name, mean in sorted(means.items(), key=lambda pair: -pair[1].value)]


@dataclass(frozen=True)
class _Printed:
    """Rows of a run with the fingerprints that tell which."""

    lines: list[dict]
    fingerprints: dict[str, str]

    def rows(self) -> list[dict]:
        """As they were given."""
        return self.lines


def _decisions(task: Task) -> dict:
    """How many images were decided right, and what was decided of each."""
    return {"quantity": "right", "value": int((task.decided == task.labels).sum()), "unit": "1", "n": task.n,
            "context": {"decisions": pack(task.decided)}}


def chosen(scores: dict[float, float]) -> float:
    """The factor with the best score on validation; of equals the one nearest to the recipe's, which is tried first."""
    return max(sorted(scores, key=FACTORS.index), key=scores.get)


def _best(info: dict) -> dict:
    """The chosen epoch's line of a run's history."""
    return info["history"][info["best_epoch"] - 1]
