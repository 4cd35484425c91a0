"""The long runs in small: each score is recorded, rates are chosen on validation, a run broken off goes on."""

import dataclasses
import json

import numpy as np
import pytest

import medbench as mb
from medbench import commands, console, grid, results
from medbench.book import campaigns
from medbench.book.campaigns import CAMPAIGNS, RATES, Campaign
from medbench.decisions import unpack

SMALL = (("num_train", 24), ("num_val", 20), ("num_test_per_class", 2), ("epochs", 1), ("threads", 1))
MODELS = ("softmax", "xca", "none")
TINY = {c.name: c for c in (
    Campaign("tiny", "10_tiny", "smoke", None, MODELS, (0, 1), tuned=2, changes=SMALL),
    Campaign("curve", "10_curve", "smoke", None, MODELS[:2], (0,), 0, (12, 24), changes=SMALL),
    Campaign("rare", "10_rare", "smoke", None, MODELS[:1], (0,), 0, changes=SMALL,
             choices=(("as_is", ()), ("even", (("sampling", "balanced"),)), ("sharp", (("loss", "focal"),)))))}


@pytest.fixture
def go(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(grid.places, "Here", Beside)
    to = tmp_path / "mine" / "10_tiny.json"
    return to, lambda name="tiny", **more: campaigns.run(name, device="cpu", bootstrap=20, to=to, campaigns=TINY,
                                                         show=False, **more)


class Beside(grid.places.Place):
    """Trains in this process, which saves starting others."""

    def __init__(self, config):
        self.done, self.started = [], []

    def start(self, key, experiment, logits):
        self.done.append((key, grid.places.Answer(logits=grid.work(experiment, logits))))

    def ended(self, seconds):
        found, self.done = self.done, []
        return found


WHOLE = Beside.start


def named(to):
    return {(r["name"], r.get("seed")): r for r in json.loads(to.read_text())["records"]}


def test_a_campaign_records_runs_means_rates_and_comparisons(go):
    to, run = go
    rows = run()
    assert {(row["model"], row["recipe"]) for row in rows} == {(m, r) for m in MODELS for r in ("same", "tuned")}
    found = named(to)
    for name in MODELS:
        each = [found[f"phantom.same.{name}.balanced_accuracy", seed]["value"] for seed in (0, 1)]
        mean = found[f"phantom.same.{name}.mean.balanced_accuracy", None]
        assert mean["samples"] == pytest.approx(each) and mean["value"] == pytest.approx(sum(each) / 2)
        assert mean["low"] <= mean["value"] <= mean["high"] and mean["context"]["recipe"] == "same"
        assert found[f"phantom.same.{name}.training_cpu_seconds", 0]["value"] > 0
        tried = {rate: sum(found[f"phantom.{rate}.{name}.val_macro_auroc", seed]["value"] for seed in (0, 1))
                 for rate in RATES}
        factor = found[f"phantom.tuned.{name}.rate_factor", None]["value"]
        own = next(rate for rate in RATES if RATES[rate] == factor)
        assert tried[own] == max(tried.values())
        scored = {rate for rate in RATES if (f"phantom.{rate}.{name}.balanced_accuracy", 1) in found}
        assert scored == {"same", own}                       # no test score for a rate that was not chosen
        lr = {rate: found[f"phantom.{rate}.{name}.balanced_accuracy", 1]["context"]["lr"] for rate in scored}
        assert lr[own] == factor * lr["same"]
        mean = found[f"phantom.tuned.{name}.mean.balanced_accuracy", None]
        assert mean["n"] == 20 and f"{name} {own}" in mean["context"]["rates"]
        before, after = (found[f"phantom.same.{name}.calibration_error{end}", 0] for end in ("", ".tempered"))
        assert "low" not in before and after["value"] is not None
        for end in ("", ".tempered"):
            floor = found[f"phantom.same.{name}.calibration_floor{end}", 0]
            assert floor["low"] <= floor["value"] <= floor["high"]
        assert found[f"phantom.same.{name}.temperature", 0]["value"] > 0
    one = found["phantom.planned.same.xca.balanced_accuracy_difference", None]
    assert one["context"]["second"] == "softmax" and one["context"]["seeds"] == 2
    assert ("phantom.planned.same.none.balanced_accuracy_difference", None) not in found       # the control is no rival
    assert ("phantom.control.same.softmax.balanced_accuracy_difference", None) in found
    assert found["phantom.planned.tuned.detectable_difference", None]["reason"] == "only 2 seeds"


def test_the_record_has_the_decisions_and_the_losses_of_each_run(go):
    to, run = go
    run()
    experiment = TINY["tiny"].experiment("xca", 1, "cpu").on(10, 24)
    data = mb.load_data(experiment.data)
    fitted = mb.fit(mb.build_model(experiment.model), data, experiment.training, progress=False)
    logits = mb.predict(fitted.model, data.test)
    right = named(to)["phantom.same.xca.right", 1]
    assert fitted.loaded and right["fingerprints"]["run"] == fitted.directory.name
    decided = unpack(right["context"]["decisions"])
    assert (decided == (logits - np.log(fitted.prior)).argmax(1)).all()
    assert right["value"] == (decided == data.test.labels).sum() and right["n"] == 20
    for quantity, key, split in (("train_loss", "loss", data.train), ("val_loss", "val_loss", data.val)):
        loss = named(to)[f"phantom.same.xca.{quantity}", 1]
        assert loss["samples"] == [epoch[key] for epoch in fitted.history] and loss["value"] == loss["samples"][-1]
        assert len(loss["samples"]) == experiment.training.epochs and loss["n"] == len(split)


def test_a_campaign_goes_on_from_its_records_where_the_runs_are_gone(go, monkeypatch, tmp_path):
    """Comparisons from recorded decisions are those from the logits, and nothing is trained again."""
    to, run = go
    run()
    before = named(to)
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(Beside, "start", lambda *_: pytest.fail("trained again"))
    run()
    assert named(to) == before
    text = to.read_text().replace(before["phantom.same.xca.right", 1]["fingerprints"]["run"], "0" * 16)
    to.write_text(text)                                      # of a run that is another one
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        run()


def test_a_campaign_begins_with_the_committed_records(go, monkeypatch, tmp_path):
    to, run = go
    run()
    monkeypatch.setattr(results, "edition_root", lambda: to.parents[1])
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "another"))
    mine = tmp_path / "elsewhere" / "mine" / to.name
    monkeypatch.setattr(Beside, "start", lambda *_: pytest.fail("trained again"))
    campaigns.run("tiny", device="cpu", bootstrap=20, to=mine, campaigns=TINY, show=False)
    assert named(mine).keys() == named(to).keys()
    one = next(iter(named(mine)))
    results.record("phantom.own", {"quantity": "right", "value": 1, "unit": "1"}, to=mine)
    results.resume(mine)
    assert ("phantom.own.right", None) in named(mine) and one in named(mine)
    results.resume(to)                                       # onto itself: nothing happens


def test_no_test_score_is_made_while_a_rate_is_chosen(go, monkeypatch):
    to, run = go
    seen = []
    monkeypatch.setattr(grid, "answers", lambda run, data: seen.append(run.training.lr) or pytest.fail("looked"))
    monkeypatch.setattr(campaigns, "evaluate", lambda *_, **__: pytest.fail("looked"))
    campaign = campaigns._Going(TINY["tiny"], (0,), "cpu", 20, to, False, False)
    assert set(campaign.rates()) == set(MODELS) and not seen and not campaign.failed


@pytest.mark.parametrize("same, half, twice, rate", [
    ([0.6], [0.7], [0.6], "half"), ([0.8], [0.6], [0.9], "twice"), ([0.7], [0.7], [0.7], "same"),
    ([0.7, 0.7], [0.9, 0.4], [0.6, 0.7], "same"),            # the mean counts, not the best run
    ([0.7, 0.7], [0.9, None], [0.6, 0.9], "twice"), ([None], [None], [0.5], "twice"), ([None], [None], [None], "same")])
def test_the_rate_with_the_best_mean_on_validation_is_chosen_and_of_equals_the_recipes(same, half, twice, rate):
    assert campaigns.chosen({"twice": twice, "half": half, "same": same}) == rate


def test_what_is_recorded_stays_when_a_campaign_is_broken_off(go, monkeypatch):
    to, run = go
    started = []
    original = Beside.start

    def breaks(self, key, experiment, logits):
        started.append(experiment.model.name)
        if len(started) == 3:
            raise KeyboardInterrupt
        original(self, key, experiment, logits)
    monkeypatch.setattr(Beside, "start", breaks)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert {key for key in named(to) if "balanced_accuracy" in key[0]} == {
        (f"phantom.same.{name}.balanced_accuracy", 0) for name in MODELS[:2]}
    del started[:]
    monkeypatch.setattr(Beside, "start", lambda self, key, experiment, logits: (
        started.append(experiment.training.seed), original(self, key, experiment, logits)))
    run()
    assert started[:4] == [0, 1, 1, 1] and ("phantom.same.none.balanced_accuracy", 1) in named(to)


def test_a_curve_has_a_point_for_each_size_and_as_many_images_are_seen(go):
    to, run = go
    run("curve")
    found = named(to)
    for size in (12, 24):
        record = found[f"phantom.n{size}.softmax.balanced_accuracy", 0]
        assert record["context"]["images"] == size
        assert record["context"]["epochs"] == 24 / size                      # as many steps
        for loss in (found[f"phantom.n{size}.softmax.{quantity}", 0] for quantity in ("train_loss", "val_loss")):
            assert loss["value"] == loss["samples"][-1] and len(set(loss["samples"])) == 24 / size
    assert CAMPAIGNS["curves"].epochs(500) == 108 and CAMPAIGNS["curves"].epochs(4000) == 14


def test_each_way_to_treat_rare_classes_is_trained_and_scored_with_the_prior_that_it_leaves(go, monkeypatch):
    to, run = go
    priors = []
    for name in ("evaluate", "calibrated"):
        monkeypatch.setattr(campaigns, name, lambda *args, prior, called=getattr(campaigns, name), **more: (
            priors.append(tuple(prior)), called(*args, prior=prior, **more))[1])
    run("rare")
    names = {name for name, _ in named(to)}
    assert {f"phantom.{choice}.softmax.temperature" for choice in ("as_is", "even", "sharp")} <= names
    assert priors[:2] == priors[4:] == 2 * [priors[0]] and priors[2] == priors[3]
    assert len(set(priors[2])) == 1 and len(set(priors[0])) > 1


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_the_campaigns_are_what_the_book_says(name, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDBENCH_DATA", str(tmp_path))
    campaign = CAMPAIGNS[name]
    assert name in commands.CAMPAIGNS and campaign.chapter.startswith("10_")
    for model in campaign.models:
        experiment = campaign.experiment(model, 3)
        assert experiment.model.preset == campaign.preset and experiment.training.seed == 3
        twice = campaign.experiment(model, 3, factor=2.0)
        assert twice.training.lr == 2 * experiment.training.lr


def test_small_campaigns_share_their_runs_with_the_chapter():
    here = CAMPAIGNS["small-phantom"].experiment("xca", 0, "cpu")
    chapter = mb.Experiment.preset("small", "xca", 0, mb.profile("laptop"), device="cpu")
    assert here == chapter


def test_one_training_cannot_have_two_seeds():
    with pytest.raises(ValueError, match="names 2 seeds"):
        commands.campaign("breastmnist", "0,1", [], "cpu", False)
    with pytest.raises(ValueError, match="campaign is 'all'.*allowed|wanted"):
        commands.campaign("all", "", [], "cpu", False)


@pytest.mark.parametrize("name, seeds", [("small-mri", ""), ("imbalance", ""), ("paper-mri", "0,1")])
def test_a_part_of_the_models_is_refused_where_they_are_compared(name, seeds, monkeypatch):
    monkeypatch.setattr(campaigns, "run", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match=f"a part of {name}, .* one seed of curves, paper-mri, paper-phantom"):
        commands.campaign(name, seeds, ["softmax"], "cpu", False)


def test_what_trains_all_models_once_takes_no_models():
    with pytest.raises(ValueError, match="real-mri trains all its models, once each, but --models names xca; leave"):
        commands.campaign("real-mri", "", ["xca"], "cpu", False)


def test_some_models_alone_are_trained(monkeypatch):
    monkeypatch.setattr(campaigns, "run", lambda name, *, campaigns, seeds, **_: [(campaigns[name].models, seeds)])
    assert commands.campaign("paper-mri", "3", ["xca,window"], "cpu", False) == [(("xca", "window"), [3])]
    assert commands.campaign("curves", "", [], "cpu", False) == [(CAMPAIGNS["curves"].models, None)]


def test_a_model_that_has_none_to_compare_with_shows_its_score(go, capsys):
    to, _ = go
    alone = {"curve": dataclasses.replace(TINY["curve"], models=("xca",))}
    rows = campaigns.run("curve", device="cpu", bootstrap=20, to=to, campaigns=alone, show=False)
    console.show(rows)
    assert [(row["model"], row["recipe"], row["seed"]) for row in rows] == [("xca", "n12", 0), ("xca", "n24", 0)]
    found = named(to)
    for row in rows:
        record = found[f"phantom.{row['recipe']}.xca.balanced_accuracy", 0]
        assert (row["balanced_accuracy"], row["balanced_accuracy_low"]) == (record["value"], record["low"])
    assert capsys.readouterr().out.startswith("model  recipe")


def test_a_failed_training_is_said_behind_the_others(go, monkeypatch):
    to, run = go
    monkeypatch.setattr(Beside, "start", lambda self, key, experiment, logits: self.done.append(
        (key, grid.places.Answer("OSError: full", final=True)) if experiment.model.name == "xca"
        else (key, grid.places.Answer(logits=grid.work(experiment, logits)))))
    with pytest.raises(RuntimeError, match="first xca, same, seed 0: OSError: full.*--again"):
        run()
    found = named(to)
    assert ("phantom.same.none.balanced_accuracy", 1) in found and ("phantom.tuned.none.rate_factor", None) in found
    assert ("phantom.same.none.mean.balanced_accuracy", None) not in found      # no family lacks one of its models
    monkeypatch.setattr(Beside, "start", WHOLE)
    with pytest.raises(RuntimeError, match="failed"):        # given up, until it is asked for again
        run()
    run(again=True)
    assert ("phantom.same.xca.mean.balanced_accuracy", None) in named(to)


def test_a_rate_at_which_a_model_diverges_has_a_record_without_a_value_and_is_not_chosen(go, monkeypatch):
    to, run = go
    lr = TINY["tiny"].experiment("xca").training.lr

    def start(self, key, experiment, logits):
        if experiment.model.name == "xca" and experiment.training.lr == 2 * lr:
            return self.done.append((key, grid.places.Answer("FloatingPointError: NaN", final=True)))
        return WHOLE(self, key, experiment, logits)
    monkeypatch.setattr(Beside, "start", start)
    run()
    found = named(to)
    assert all("NaN" in found["phantom.twice.xca.val_macro_auroc", seed]["reason"] for seed in (0, 1))
    assert found["phantom.tuned.xca.rate_factor", None]["value"] in (1.0, 0.5)
    monkeypatch.setattr(Beside, "start", lambda *_: pytest.fail("trained again"))
    run()


def test_a_model_that_diverges_at_every_rate_keeps_the_recipes(go, monkeypatch):
    to, run = go
    campaign = campaigns._Going(TINY["tiny"], (0,), "cpu", 20, to, False, False)

    def start(self, key, experiment, logits):
        if experiment.model.name == "xca":
            return self.done.append((key, grid.places.Answer("FloatingPointError: NaN", final=True)))
        return WHOLE(self, key, experiment, logits)
    monkeypatch.setattr(Beside, "start", start)
    assert campaign.rates()["xca"] == "same" and set(campaign.rates()) == set(MODELS) and not campaign.failed


def test_the_chosen_rates_are_known_before_their_runs(go, monkeypatch):
    to, run = go
    monkeypatch.setattr(campaigns._Going, "rates", lambda self: dict.fromkeys(MODELS, "twice"))
    lr, base = {name: TINY["tiny"].experiment(name).training.lr for name in MODELS}, []

    def stops(self, key, experiment, logits):
        if experiment.training.lr == 2 * lr[experiment.model.name]:
            base.append({name for name, _ in named(to)} & {f"phantom.tuned.{name}.rate_factor" for name in MODELS})
            raise KeyboardInterrupt
        return WHOLE(self, key, experiment, logits)
    monkeypatch.setattr(Beside, "start", stops)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(base[0]) == 3


def test_a_campaign_on_real_images_resamples_runs_of_them(monkeypatch, tmp_path):
    """The fingerprints of its trainings do not change by it."""
    from medbench.book import real
    split = mb.data.Split("test", np.zeros((6, 64, 64), np.uint8), np.arange(6) // 3, np.arange(6), ("a", "b"),
                          np.full(2, 0.5), paths=tuple(f"{n}.jpg" for n in range(6)))
    opened = mb.data.Data(split, split, split, "x")
    monkeypatch.setenv("MEDBENCH_DATA", str(tmp_path))
    monkeypatch.setattr(campaigns.data, "load_data", lambda config: opened)
    found = {}
    for of in (real.MRI, real.RealSet("mine", "mine.csv", "10_mine", "", "")):
        campaign = Campaign("mine", "10_mine", "smoke", of, ("none",), (0,), 1, changes=SMALL)
        found[of.name] = campaigns._Going(campaign, (0,), "cpu", 20, tmp_path, False, False).ready([("none", 0, 1.0)])
    (ours, seen), (plain, other) = found[real.MRI.name], found["mine"]
    assert list(ours) == list(plain) and seen.test.groups.tolist() == [0, 0, 0, 1, 1, 1] and other.test.groups is None


def test_seeds_that_are_trained_later_are_compared_with_those_before(go):
    to, run = go
    run(seeds=[1])
    assert named(to)["phantom.planned.same.xca.balanced_accuracy_difference", None]["context"]["seeds"] == 1
    run(seeds=[0])
    both = named(to)["phantom.same.xca.mean.balanced_accuracy", None]
    assert both["samples"] == [named(to)["phantom.same.xca.balanced_accuracy", seed]["value"] for seed in (0, 1)]
