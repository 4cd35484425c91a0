"""The verdicts of chapter 14, computed from records: nobody writes them by hand, and "no winner" is one of them.

What lives here, top to bottom: reading the records that are needed; one sentence a mechanism; who leads; what became of
each of the study's claims.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import config, results
from ..config import MECHANISMS
from .mechanism import recorded
from .tables import with_interval


@dataclass(frozen=True)
class Evidence:
    """The records of one device that the verdicts stand on."""

    table: object
    device: str

    def find(self, name: str):
        """The one record of that name, or None; of several seeds, the first."""
        found = self.table[self.table["name"] == name]
        return None if found.empty else found.sort_values("seed").iloc[0]

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
def sentence(found: Evidence, model: str) -> dict:
    """What may be said of a mechanism against softmax, as a row: accuracy, arithmetic, time, where it looks."""
    accuracy = found.need(f"compare.{model}.balanced_accuracy_difference")
    macs = found.need(f"cost.{model}.macs").value / found.need("cost.softmax.macs").value - 1
    time = found.need(f"latency.{model}.latency_ratio.b1")
    verdict = found.need(f"latency.{model}.verdict.b1").text
    parts = [{"better": "scored higher than softmax attention in this run", "worse": "scored lower in this run",
              "tie": "tied with softmax attention in balanced accuracy"}[accuracy.verdict]
             + f" ({accuracy.value:+.1f} percentage points, interval {accuracy.low:+.1f} to {accuracy.high:+.1f})",
             f"needs {abs(macs):.0%} {'fewer' if macs < 0 else 'more'} multiply-adds at 224 px",
             {"faster": "was faster", "slower": "was slower", "tie": "was as fast",
              "inconclusive": "could not be told apart in time"}[verdict]
             + (f" at batch 1 ({time.value:.2f} of its time)" if time.value == time.value else " at batch 1")]
    return {"quantity": model, "value": None, "unit": "1", "model": model, "text": f"{model} {', '.join(parts)}."}


def sentences(found: Evidence) -> list[dict]:
    """One row a mechanism other than softmax, and one for the ResNet."""
    return [sentence(found, model) for model in (*MECHANISMS[1:], "resnet50")]


# --------------------------------------------------------------------------------------------- who leads
def leader(found: Evidence) -> dict:
    """Whether one model beats all others in balanced accuracy; a lead with a tie behind it is no win."""
    behind = found.table[found.table["name"].str.startswith("behind.")]
    if behind.empty:
        raise LookupError(f"{found.device} has no comparison with the leader; run chapter 10 there first")
    first = next(name for name in config.ALL_MODELS if name not in set(behind["first"]))
    tied = sorted(behind[behind.verdict == "tie"]["first"])
    runs = found.table[found.table["name"] == f"phantom.{first}.balanced_accuracy"]
    text = f"{first} has the highest balanced accuracy and beats every other model in this comparison."
    if tied:
        text = (f"No winner: {first} has the highest balanced accuracy, and {', '.join(tied)} "
                f"{'is' if len(tied) == 1 else 'are'} tied with it.")
    limit = "" if len(runs) > 1 else " With one run of each model this says nothing about another seed."
    return {"quantity": "winner", "value": None, "unit": "1", "text": text + limit}


# --------------------------------------------------------------------------------------------- the study's claims
def claims(found: Evidence) -> list[dict]:
    """Each of the study's claims with what was found here, in a sentence."""
    accuracy = {m: found.need(f"compare.{m}.balanced_accuracy_difference") for m in (*MECHANISMS[1:], "resnet50")}
    cnn = accuracy["resnet50"].verdict
    worse = [m for m in MECHANISMS[1:] if accuracy[m].verdict == "worse"]
    macs = {m: found.need(f"cost.{m}.macs_fvcore").value for m in MECHANISMS}
    saved = 1 - sum(macs[m] for m in MECHANISMS[1:]) / 5 / macs["softmax"]
    share = found.need("cost.softmax.mixing_share").value
    slow = [m for m in MECHANISMS[1:] if found.need(f"latency.{m}.verdict.b1").text != "faster"]
    rows = {
        "cnn_beaten": {"worse": "Here the small ResNet scored below softmax attention in this run.",
                       "better": "Here the small ResNet scored above softmax attention: the claim does not hold.",
                       "tie": "Here the small ResNet tied with softmax attention: not shown."}[cnn],
        "as_good_as_softmax": "Here none of the five scored below softmax attention in this run." if not worse else
                              f"Here {', '.join(worse)} scored below softmax attention in this run.",
        "fewer_flops": f"Here the five need {saved:.0%} fewer on average; mixing is {share:.0%} of softmax's "
                       f"arithmetic, so no mechanism can save more.",
        "faster": "Here all five were faster than softmax attention at batch 1." if not slow else
                  f"Here {', '.join(slow)} {'was' if len(slow) == 1 else 'were'} not faster than softmax attention at "
                  f"batch 1 on {found.device}.",
    }
    return [{"quantity": key, "value": None, "unit": "1", "text": text} for key, text in rows.items()]


def claims_page(rows: list[dict]):
    """The study's words beside what was found here."""
    import pandas as pd
    quoted = results.load()
    quoted = quoted[(quoted.device == results.STUDY) & quoted["name"].str.startswith("claim.")]
    quoted = quoted.set_index("quantity").text
    table = [{"the study": quoted.get(row["quantity"], "Efficient mechanisms are quicker."), "here": row["text"]}
             for row in rows]
    return pd.DataFrame(table)


# --------------------------------------------------------------------------------------------- one table
def summary(found: Evidence):
    """Every model on one page: score, gain over no mixing, arithmetic, time; values with intervals, unranked."""
    import pandas as pd
    rows = []
    for model in config.ALL_MODELS:
        score = found.need(f"phantom.{model}.balanced_accuracy")
        gain = found.find(f"gain.{model}.balanced_accuracy_difference")
        time = found.need(f"latency.{model}.latency.b1")
        rows.append({"model": model, "balanced accuracy": _span(score, 3), "gain over none (points)": _span(gain, 1),
                     "GMAC": f"{found.need(f'cost.{model}.macs').value / 1e9:.2f}", "ms at batch 1": _span(time, 1)})
    return pd.DataFrame(rows).set_index("model")


def _span(record, digits: int) -> str:
    return "-" if record is None else with_interval(record.value, record.low, record.high, digits)


def pareto_table(found: Evidence):
    """Score against time for `plots.pareto`: `latency_ms`, `balanced_accuracy` and their intervals."""
    import pandas as pd
    rows = []
    for model in config.ALL_MODELS:
        row = {"model": model}
        for column, name in (("latency_ms", f"latency.{model}.latency.b1"),
                             ("balanced_accuracy", f"phantom.{model}.balanced_accuracy")):
            record = found.need(name)
            row |= {column: record.value, f"{column}_low": record.low, f"{column}_high": record.high}
        rows.append(row)
    return pd.DataFrame(rows)
