"""What chapter 10 stands on: several trainings side by side give what each gives alone."""

import pytest
import torch

import medbench as mb
from medbench import machine, metrics, training
from medbench.book import benchmark

SMALL = dict(num_train=24, num_val=12, num_test_per_class=1, epochs=1, threads=1, device="cpu")


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "cores", lambda: 2)
    return [mb.Experiment.preset("smoke", name, **SMALL) for name in ("none", "softmax")]


@pytest.mark.slow
def test_models_trained_side_by_side_are_those_trained_alone(experiments, tmp_path):
    data = mb.load_data(experiments[0].data, show=False)
    benchmark.train_together(experiments)
    for exp in experiments:
        beside = training.fit(mb.build_model(exp.model), data, exp.training, progress=False)
        alone = training.fit(mb.build_model(exp.model), data, exp.training, cache=tmp_path / "alone", progress=False)
        assert beside.loaded and not alone.loaded and beside.fingerprint == alone.fingerprint
        weights = alone.model.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in beside.model.state_dict().items())


@pytest.mark.slow
def test_a_training_that_fails_beside_others_says_why(experiments):
    broken = [exp.replace(training=exp.training.replace(lr=1e30, clip_grad=0.0, warmup=0.0)) for exp in experiments]
    with pytest.raises(FloatingPointError, match="became NaN or"):
        benchmark.train_together(broken)


def test_one_at_a_time_where_there_is_no_second_core(experiments, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", None)          # would fail if it were called
    benchmark.train_together(experiments)


def test_scores_are_tabled_with_their_intervals_best_first(experiments):
    data = mb.load_data(experiments[0].data, show=False)
    trained = benchmark.train_all(experiments[:1], data)
    right = torch.nn.functional.one_hot(torch.as_tensor(data.test.labels), 10).double().numpy() * 20
    scores = {"model": [mb.evaluate(trained[0].logits, data.test, bootstrap=20)],
              "oracle": mb.evaluate(right, data.test, bootstrap=20)}
    table = benchmark.score_table(scores)
    assert list(table.index) == ["oracle", "model"]
    assert table.loc["oracle", "balanced accuracy"].startswith("1.000 [1.0")
    assert list(benchmark.run_table(trained).index) == ["none"]


def test_what_mixing_is_worth_is_said_from_the_verdicts():
    def gain(name, low, high):
        return metrics.Comparison(name, "none", "balanced_accuracy", (low + high) / 2, low, high, 100)
    gains = [gain("softmax", 0.01, 0.03), gain("xca", -0.01, 0.01), gain("window", 0.01, 0.02),
             gain("performer", -0.03, -0.01), gain("resnet50", 0.1, 0.2)]
    assert benchmark.worth(gains)["text"] == (
        "Against the control without mixing, in these runs: softmax, window scored above it; xca tied with it; "
        "performer scored below it.")


# --------------------------------------------------------------------------------------------- the machine
def test_the_machine_has_a_line_for_every_known_fact():
    page = benchmark.machine_page({"cpu": {"name": "X", "flags": ["avx", "fma"], "quota": None}, "fingerprint": "f",
                                   "state": {"load_1min": 0.123, "gpu": {"power_w": 5.0, "clock": None}}})
    assert page["this device"].to_dict() == {("cpu", "name"): "X", ("cpu", "flags"): "avx, fma",
                                             ("state", "load_1min"): "0.12", ("state", "gpu"): "power_w 5.00"}
