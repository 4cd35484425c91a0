"""The verdicts of chapter 14, computed from records: nobody writes them by hand, and "no winner" is one of them.

What lives here, top to bottom: reading the records that are needed; one sentence a mechanism; who leads; what became of
each of the study's claims.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import config, results
from ..config import MECHANISMS
from ..rows import finding
from .campaigns import CAMPAIGNS, SAME, TUNED
from .mechanism import recorded
from .seeds import READ, Seeds
from .tables import ABSENT, in_words, with_interval


@dataclass(frozen=True)
class Evidence:
    """The records of one device that the verdicts stand on."""

    table: object
    device: str

    def find(self, name: str):
        """The one record of that name, or None; of several seeds, the first."""
        found = self.table[self.table["name"] == name]
        return None if found.empty else found.sort_values("seed").iloc[0]

    def seeds(self, name: str) -> Seeds:
        """The records of a campaign on this device."""
        campaign = CAMPAIGNS[name]
        return Seeds(campaign, self.table[self.table.chapter == campaign.chapter].reindex(columns=READ))

    def need(self, name: str):
        """The one record of that name. Raises: LookupError naming it and the chapters that record."""
        found = self.find(name)
        if found is None:
            raise LookupError(f"{self.device} has no record {name}; run chapters 10 to 13 there first")
        return found


def evidence(device="auto") -> Evidence:
    """This device's records, or those of the device whose models were scored. Raises: LookupError without any."""
    name = recorded("balanced_accuracy", device=device).device.iloc[0]
    table = results.load()
    return Evidence(table[table.device == name], name)


# --------------------------------------------------------------------------------------------- a sentence each
def accuracy_of(found: Evidence, model: str):
    """A mechanism's balanced accuracy against softmax on the phantom: over all seeds of the campaign where that is
    recorded, else of one run."""
    planned = found.seeds("small-phantom").planned(model)
    return found.need(f"compare.{model}.balanced_accuracy_difference") if planned is None else planned


def basis(accuracy) -> str:
    """What such a comparison stands on, in words."""
    seeds = accuracy.get("seeds")
    return f"over {seeds:.0f} seeds" if seeds == seeds and seeds is not None else "in this run"


def sentence(found: Evidence, model: str) -> dict:
    """What may be said of a mechanism against softmax, as a row: accuracy, then arithmetic and time of the models that
    were scored (`trained.*`) and of the large ones (`cost.*`, `latency.*`)."""
    accuracy = accuracy_of(found, model)
    scored = {"better": "scored higher than softmax attention", "worse": "scored lower than softmax attention",
              "equivalent": "was equivalent to softmax attention in balanced accuracy",
              "undecided": "could not be told from softmax attention in balanced accuracy"}[accuracy.verdict]
    scored = f"{scored} {basis(accuracy)}"
    small, large = _costs(found, model, "trained", "trained"), _costs(found, model, "cost", "latency")
    text = (f"{model} {scored} ({accuracy.value:+.1f} percentage points, interval {accuracy.low:+.1f} to "
            f"{accuracy.high:+.1f}). The model that was scored {small}; the large one {large}.")
    return finding(text, model, model=model)


def _costs(found: Evidence, model: str, cost: str, latency: str) -> str:
    """Multiply-adds and time at batch 1 against softmax, in words, from the records of these prefixes."""
    macs = found.need(f"{cost}.{model}.macs").value / found.need(f"{cost}.softmax.macs").value - 1
    time, verdict = found.need(f"{latency}.{model}.latency_ratio.b1"), found.need(f"{latency}.{model}.verdict.b1").text
    words = {"faster": "was faster", "slower": "was slower", "tie": "was as fast",
             "inconclusive": "could not be told apart in time"}[verdict]
    ratio = f" ({time.value:.2f} of its time)" if time.value == time.value else ""
    return f"needs {abs(macs):.0%} {'fewer' if macs < 0 else 'more'} multiply-adds and {words} at batch 1{ratio}"


def sentences(found: Evidence) -> list[dict]:
    """One row a mechanism other than softmax, and one for the ResNet."""
    return [sentence(found, model) for model in (*MECHANISMS[1:], "resnet50")]


# --------------------------------------------------------------------------------------------- who leads
def leader(found: Evidence) -> dict:
    """Whether one model lies above all others in balanced accuracy, as chapter 10 found; otherwise there is no winner.
    """
    text = found.need("lead.all.conclusion").text
    return finding(f"{text} These are single runs: they say nothing about another seed.", "winner")


def over_seeds(found: Evidence) -> list[dict]:
    """What the planned comparisons over seeds found, a sentence each data set; where not all seeds are recorded, how
    many are."""
    words = {"better": "better than softmax attention", "worse": "worse", "equivalent": "equivalent to it",
             "undecided": "undecided"}
    rows = []
    for name, called in (("small-phantom", "On the phantom"), ("small-mri", "On real MRI")):
        seeds = found.seeds(name)
        records = {m: seeds.planned(m) for m in (*MECHANISMS[1:], "resnet50")}
        verdicts = {model: record.verdict for model, record in records.items() if record is not None}
        text = f"{called}, over {len(seeds.campaign.seeds)} seeds: {in_words(verdicts, words)}." if verdicts else \
            f"{called}: {seeds.state()} so far."
        said = next((record.get("caveats") for record in records.values() if record is not None), None)
        text += f" About these data: {'; '.join(said)}." if isinstance(said, list) else ""
        rows.append(finding(text, "over_seeds", suffix=seeds.campaign.data))
    return rows


# --------------------------------------------------------------------------------------------- the study's claims
def claims(found: Evidence) -> list[dict]:
    """Each of the study's claims with what was found here, in a sentence."""
    accuracy = {m: accuracy_of(found, m) for m in MECHANISMS[1:]}
    macs = {m: found.need(f"cost.{m}.macs_fvcore").value for m in MECHANISMS}
    saved = 1 - sum(macs[m] for m in MECHANISMS[1:]) / 5 / macs["softmax"]
    share = found.need("cost.softmax.mixing_share").value
    published = results.value("derived.fewer_macs_mean", device=results.STUDY)
    dearer = found.need("cost.resnet50.macs_fvcore").value / macs["softmax"]
    rows = {
        "cnn_beaten": _beside_the_cnn(found),
        "as_good_as_softmax": f"Here, {basis(accuracy['xca'])}: {_scored(accuracy)}.",
        "fewer_flops": f"Here the five, as their papers define them, need {saved:.0%} fewer on average; the study's "
                       f"own column gives {published:.0%}. Mixing is {share:.0%} of softmax's arithmetic, and no "
                       f"mechanism that keeps its projections can save more.",
        "resnet50_flops": f"Here ResNet-50 needs {dearer:.1f} times the multiply-adds and, on {found.device}, "
                          f"{_span(found.need('latency.resnet50.latency_ratio.b1'), 2)} of the time of softmax "
                          f"attention for one image in eager float32.",
        "faster": f"On {found.device}, one image at a time in eager float32, against softmax attention: of the large "
                  f"models {_times(found, 'latency')}; of the small ones that were scored {_times(found, 'trained')}."
                  + "".join(elsewhere(found)),
        "interpretability": " ".join(found.need(name).text
                                     for name in ("saliency.conclusion", "saliency.conclusion.methods")),
    }
    return [finding(text, key) for key, text in rows.items()]


def _scored(accuracy: dict) -> str:
    """Who scored above softmax attention, who below it, and of whom neither can be said."""
    verdicts = {model: record.verdict for model, record in accuracy.items()}
    return in_words(verdicts, {"better": "scored above softmax attention", "worse": "scored below it",
                               "equivalent": "equivalent to it", "undecided": "could not be told from it"})


def _times(found: Evidence, prefix: str) -> str:
    """Which of the five were faster than softmax attention, which slower, in words."""
    verdicts = {m: found.need(f"{prefix}.{m}.verdict.b1").text for m in MECHANISMS[1:]}
    return in_words(verdicts, {"faster": "faster", "slower": "slower", "tie": "as fast",
                               "inconclusive": "not told apart"})


def _beside_the_cnn(found: Evidence) -> str:
    """Which mechanisms scored above the small ResNet, which below it, and whether the claim holds; and over all seeds,
    what the learning rate does to that."""
    verdict = {m: found.need(f"cnn.{m}.balanced_accuracy_difference").verdict for m in MECHANISMS}
    said = in_words(verdict, {"better": "scored above the small ResNet", "worse": "scored below the small ResNet",
                              "undecided": "could not be told from it"})
    holds = "the claim holds" if set(verdict.values()) == {"better"} else "the claim does not hold for all"
    return " ".join([f"Here, in these runs, {said}: {holds}.", *_rate_of_the_cnn(found)])


def _rate_of_the_cnn(found: Evidence) -> list[str]:
    """How the ResNet stands to softmax attention at the recipe's rate and at its own, over all seeds, if known."""
    seeds = found.seeds("small-phantom")
    same, own = (seeds.planned("resnet50", recipe) for recipe in (SAME, TUNED))
    if same is None or own is None:
        return []
    same, own = (f"{row.value:+.1f} points [{row.low:+.1f}, {row.high:+.1f}]" for row in (same, own))
    return [f"Over {len(seeds.campaign.seeds)} seeds the ResNet's difference to softmax attention is {same} at the "
            f"recipe's learning rate and {own} with each model at its own."]


def elsewhere(found: Evidence) -> list[str]:
    """A sentence for each other device that has timed the mechanisms: which of them were faster than softmax there."""
    table = results.load()
    names = {f"latency.{m}.verdict.b1": m for m in MECHANISMS[1:]}
    table = table[(table.chapter == "12_latency") & table["name"].isin(list(names))
                  & ~table.device.isin([found.device, results.STUDY])]
    said = []
    for device, part in table.groupby("device"):
        verdict = dict(zip(part["name"], part.text))
        quick, slow = ([m for name, m in names.items() if verdict.get(name) == word] for word in ("faster", "slower"))
        said.append(f" On {device} {', '.join(quick) or 'none'} {'were' if len(quick) > 1 else 'was'} faster"
                    + (f", and {', '.join(slow)} {'were' if len(slow) > 1 else 'was'} slower." if slow else "."))
    return said


def claims_page(rows: list[dict]):
    """The study's words beside what was found here."""
    import pandas as pd
    quoted = results.load()
    quoted = quoted[(quoted.device == results.STUDY) & quoted["name"].str.startswith("claim.")]
    quoted = quoted.set_index("quantity").text
    ours = "Efficient mechanisms are quicker. (Our words.)"
    table = [{"the study": quoted.get(row["quantity"], ours), "here": row["text"]} for row in rows]
    return pd.DataFrame(table)


# --------------------------------------------------------------------------------------------- one table
def summary(found: Evidence):
    """Every model on one page: score, gain over no mixing, arithmetic and time of one image, of the models that were
    scored and of the large ones; values with intervals, unranked."""
    import pandas as pd
    rows = []
    for model in config.ALL_MODELS:
        score = found.need(f"phantom.{model}.balanced_accuracy")
        gain = found.find(f"gain.{model}.balanced_accuracy_difference")
        rows.append({"model": model, "balanced accuracy": _span(score, 3), "gain over none (points)": _span(gain, 1),
                     "MMAC": f"{found.need(f'trained.{model}.macs').value / 1e6:.1f}",
                     "ms": _span(found.need(f"trained.{model}.latency.b1"), 1),
                     "GMAC, large": f"{found.need(f'cost.{model}.macs').value / 1e9:.2f}",
                     "ms, large": _span(found.need(f"latency.{model}.latency.b1"), 1)})
    return pd.DataFrame(rows).set_index("model")


def _span(record, digits: int) -> str:
    return ABSENT if record is None else with_interval(record.value, record.low, record.high, digits)


def on_the_line(found: Evidence) -> dict:
    """The trained models that no other beats in both score and time, from the quickest on, as a row with a sentence."""
    table = pareto_table(found).sort_values("latency_ms")
    best, front = -1.0, []
    for row in table.itertuples():
        if row.balanced_accuracy > best:
            best, front = row.balanced_accuracy, [*front, row]
    said = ", ".join(f"{row.model} ({row.balanced_accuracy:.3f} in {row.latency_ms:.1f} ms)" for row in front)
    return finding(f"On {found.device}, of the models that were scored, in eager float32 and by medians alone, no "
                   f"other is both quicker and higher than: {said}.", "choice")


def pareto_table(found: Evidence):
    """Score against time of the models that were scored, for `plots.pareto`, with intervals."""
    import pandas as pd
    rows = []
    for model in config.ALL_MODELS:
        row = {"model": model}
        for column, name in (("latency_ms", f"trained.{model}.latency.b1"),
                             ("balanced_accuracy", f"phantom.{model}.balanced_accuracy")):
            record = found.need(name)
            row |= {column: record.value, f"{column}_low": record.low, f"{column}_high": record.high}
        rows.append(row)
    return pd.DataFrame(rows)
