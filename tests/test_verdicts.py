"""Chapter 14's verdicts follow from records: who leads is what chapter 10 found, a missing record is named."""

import pytest

from medbench import config, machine, results
from medbench.book import verdicts
from medbench.metrics import Comparison

MODELS = config.ALL_MODELS


def one(quantity, value, unit="1", **more):
    return {"quantity": quantity, "value": value, "unit": unit, **more}


@pytest.fixture
def device(tmp_path, monkeypatch):
    """Records of a made-up comparison: resnet50 leads, window is level with it, performer is slower and worse."""
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path))
    folder = tmp_path / machine.device_name("cpu")
    scores = {name: 0.70 for name in MODELS} | {"resnet50": 0.82, "window": 0.815, "performer": 0.60, "none": 0.65}

    def compared(first, second, width=0.02):
        gap = scores[first] - scores[second]
        return Comparison(first, second, "balanced_accuracy", gap, gap - width, gap + width, 5000)
    for name in MODELS:
        score = one("balanced_accuracy", scores[name], low=scores[name] - 0.01, high=scores[name] + 0.01, model=name)
        results.record(f"phantom.{name}", score, to=folder / "10_training.json", data="phantom", seed=0)
        for kind, second in (("compare", "softmax"), ("gain", "none"), ("behind", "resnet50"), ("cnn", "resnet50")):
            if name != second:
                results.record(f"{kind}.{name}", compared(name, second), to=folder / "10_training.json")
        macs = 2e9 if name == "softmax" else 1.5e9
        results.record(f"cost.{name}", one("macs", macs, "MAC"), one("macs_fvcore", macs, "MAC"),
                       one("mixing_share", 0.25), to=folder / "11_cost.json")
        results.record(f"trained.{name}", one("macs", 45e6 if name == "performer" else 40e6, "MAC"),
                       to=folder / "11_cost.json")
        slow = name == "performer"
        results.record(f"trained.{name}", one("latency", 5.0, "ms", low=4.9, high=5.1, suffix="b1"),
                       one("latency_ratio", 1.0, suffix="b1"), one("verdict", None, suffix="b1", text="tie"),
                       to=folder / "12_latency.json")
        results.record(f"latency.{name}", one("latency", 100.0, "ms", low=99.0, high=101.0, suffix="b1"),
                       one("latency_ratio", 1.5 if slow else 0.8, suffix="b1"),
                       one("verdict", None, suffix="b1", text="slower" if slow else "faster"),
                       to=folder / "12_latency.json")
    results.record("lead.all", one("conclusion", None, text="No winner: so it was found."),
                   to=folder / "10_training.json")
    results.record("saliency", one("conclusion", None, text="Below it for window."),
                   one("conclusion", None, suffix="methods", text="By each method."), to=folder / "13_saliency.json")
    return folder


@pytest.fixture
def found(device):
    table = results.load(device.parent)
    return verdicts.Evidence(table[table.device == device.name], device.name)


def test_who_leads_is_what_chapter_10_found_in_these_runs(found):
    assert verdicts.leader(found)["text"] == "No winner: so it was found. These are single runs: they say nothing " \
                                             "about another seed."


def test_a_sentence_says_accuracy_arithmetic_and_time(found):
    text = verdicts.sentence(found, "performer")["text"]
    assert "scored lower than softmax attention in this run (-10.0 percentage points, interval -12.0 to -8.0)" in text
    assert "scored needs 12% more multiply-adds and was as fast at batch 1 (1.00 of its time); the" in text
    assert "the large one needs 25% fewer multiply-adds and was slower at batch 1 (1.50 of its time)." in text
    assert "could not be told from softmax" in verdicts.sentence(found, "xca")["text"]
    assert len(verdicts.sentences(found)) == len(MODELS) - 2


def test_each_claim_of_the_study_is_answered_from_records(found):
    said = {row["quantity"]: row["text"] for row in verdicts.claims(found)}
    assert "xca scored below the small ResNet; window could not be told from it: the claim" in said["cnn_beaten"]
    assert said["as_good_as_softmax"] == ("Here, in this run: window scored above softmax attention; performer scored "
                                          "below it; linformer, fastformer, xca could not be told from it.")
    assert "25% fewer" in said["fewer_flops"] and "column gives 22%" in said["fewer_flops"]
    assert said["faster"].startswith(
        f"On {found.device}, one image at a time in eager float32, against softmax attention: of the large models "
        f"linformer, fastformer, xca, window faster; performer slower; of the small ones that were scored linformer, "
        f"performer, fastformer, xca, window as fast.")
    assert "0.8 times the multiply-adds" in said["resnet50_flops"] and "0.80 of the time" in said["resnet50_flops"]
    assert said["interpretability"] == "Below it for window. By each method."


def test_on_the_line_are_those_that_no_other_beats_in_both(found, device):
    for name, ms in {"none": 1.0, "resnet50": 3.0, "window": 4.0}.items():
        results.record(f"trained.{name}", one("latency", ms, "ms", low=ms, high=ms, suffix="b1"),
                       to=device / "12_latency.json")
    assert verdicts.on_the_line(again(device))["text"].endswith(
        "no other is both quicker and higher than: none (0.650 in 1.0 ms), resnet50 (0.820 in 3.0 ms).")


def test_other_devices_have_their_say(found, device):
    for name, verdict in {"window": "faster", "xca": "slower", "performer": "slower", "softmax": "tie"}.items():
        results.record(f"latency.{name}", one("verdict", None, suffix="b1", text=verdict),
                       to=device.parent / "some-gpu" / "12_latency.json")
    said = verdicts.elsewhere(found)
    assert " On some-gpu window was faster, and performer, xca were slower." in said


def test_the_page_has_every_model_with_its_interval(found):
    page = verdicts.summary(found)
    assert list(page.index) == list(MODELS)
    assert page.loc["softmax", "balanced accuracy"] == "0.700 [0.690, 0.710]"
    assert page.loc["none", "gain over none (points)"] == "-"
    assert set(verdicts.pareto_table(found).model) == set(MODELS)


def test_a_missing_record_is_named(found):
    few = verdicts.Evidence(found.table[found.table["name"] != "cost.xca.macs"], found.device)
    with pytest.raises(LookupError, match="has no record cost.xca.macs; run chapters"):
        verdicts.sentences(few)


def planned(device, model, verdict, seeds, value=-3.0, data="phantom", recipe="same", **more):
    text = {"first": model, "second": "softmax", "verdict": verdict, "seeds": seeds, **more}
    row = one("balanced_accuracy_difference", value, "percentage point", low=value - 1, high=value + 1, context=text)
    chapter = {"phantom": "10_seeds_phantom", "brain-tumor-mri": "10_seeds_mri"}[data]
    results.record(f"{data}.planned.{recipe}.{model}", row, to=device / f"{chapter}.json")
    large = row | {"value": 9.0, "context": text | {"seeds": 1, "verdict": "better"}}  # another size
    results.record(f"{data}.planned.same.{model}", large, to=device / f"{chapter.replace('10_seeds', '15_paper')}.json")


def again(device):
    table = results.load(device.parent)
    return verdicts.Evidence(table[table.device == device.name], device.name)


@pytest.mark.parametrize("verdict, said", [
    ("worse", "scored lower than"), ("better", "scored higher than"), ("equivalent", "was equivalent to"),
    ("undecided", "could not be told from")])
def test_eight_seeds_take_the_place_of_one_run(device, verdict, said):
    planned(device, "xca", verdict, 8)
    text = verdicts.sentence(again(device), "xca")["text"]
    assert text.startswith(f"xca {said} softmax attention") and " over 8 seeds (-3.0 percentage points" in text


def test_some_seeds_do_not(device):
    planned(device, "xca", "worse", 3)
    assert "in this run (+0.0" in verdicts.sentence(again(device), "xca")["text"]
    assert verdicts.over_seeds(again(device))[0]["text"] == "On the phantom: not run so far."


def test_what_eight_seeds_said_of_each_data_set(device):
    for model, verdict in (("xca", "worse"), ("window", "equivalent"), ("linformer", "worse")):
        planned(device, model, verdict, 8)
    planned(device, "resnet50", "better", 8, 2.0, "brain-tumor-mri", caveats=["no patient ids"])
    phantom, real = verdicts.over_seeds(again(device))
    assert phantom["text"] == "On the phantom, over 8 seeds: linformer, xca worse; window equivalent to it."
    assert real["text"] == ("On real MRI, over 8 seeds: resnet50 better than softmax attention. "
                            "About these data: no patient ids.")
    claim = next(row["text"] for row in verdicts.claims(again(device)) if row["quantity"] == "as_good_as_softmax")
    assert "linformer, performer, xca scored below it; window equivalent to it; fastformer could not be" in claim


def test_the_claim_about_the_cnn_says_what_the_learning_rate_does_to_it(device):
    def claim():
        return next(row["text"] for row in verdicts.claims(again(device)) if row["quantity"] == "cnn_beaten")
    planned(device, "resnet50", "undecided", 8, -1.0)
    assert "learning rate" not in claim()
    rates = ", ".join(f"{name} {'twice' if name == 'resnet50' else 'same'}" for name in MODELS)
    planned(device, "resnet50", "better", 8, 7.0, recipe="tuned", rates=rates)
    assert "learning rate" not in claim()                    # at the rates that are chosen now, of which none is known
    results.record("phantom.tuned.resnet50", one("rate_factor", 2.0), to=device / "10_seeds_phantom.json")
    assert ("is -1.0 points [-2.0, +0.0] at the recipe's learning rate and +7.0 points [+6.0, +8.0] with each model at "
            "its own.") in claim()
