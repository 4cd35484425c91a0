"""The page on the models at full size: runs of any machine beside the small ones, and what is missing is said."""

import json

import pytest

from medbench import commands, results
from medbench.book import fullsize
from medbench.book.campaigns import Campaign
from medbench.config import MODELS as SEVEN

MODELS = ("softmax", "xca", "window", "resnet50")
SMALL = Campaign("small", "10_small", models=(*MODELS, "none"), seeds=(0, 1, 2), tuned=0)
LARGE = Campaign("large", "10_large", "paper", models=MODELS, seeds=(0,), tuned=0)


@pytest.fixture
def root(tmp_path):
    """Small models of one machine: each scored .50, .51 and .52."""
    small = tmp_path / "old-machine" / "10_small.json"
    for name in SMALL.models:
        for seed in SMALL.seeds:
            results.record(f"phantom.same.{name}", score(0.5 + seed / 100), to=small, seed=seed)
        results.record(f"phantom.same.{name}.mean", score(0.51, low=0.5, high=0.53), to=small, seeds=3)
    return tmp_path


def score(value, **more):
    return {"quantity": "balanced_accuracy", "value": value, "unit": "1", **more}


def trained(root, device, name, value, seed=0, best=3, **context):
    rows = [score(value, low=value - 0.1, high=value + 0.1), {"quantity": "best_epoch", "value": best, "unit": "1"},
            {"quantity": "training_cpu_seconds", "value": 5400.0, "unit": "s"}]
    results.record(f"phantom.same.{name}", rows, to=root / device / "10_large.json", seed=seed, images=18000, epochs=3,
                   precision="bfloat16", **context)


def page(root):
    """Lines of the page; its cells are never broken."""
    lines = fullsize.markdown(fullsize.beside(results.load(root), LARGE, SMALL), LARGE)
    assert all(" " not in cell.strip() for line in lines[2:] if line.startswith("|") for cell in line.split("|"))
    return [line.replace("\u00a0", " ") for line in lines]


def test_without_a_run_there_is_the_command_and_no_number(root):
    lines = page(root)
    assert "| softmax | 0.510 [0.500, 0.530] | 0.500\u20130.520 | not run | - |" in lines
    assert lines[-1] == "- None of them was trained yet: `python -m medbench campaign large`."


def test_a_run_lies_above_within_or_below_the_small_ones(root):
    for name, value in (("softmax", 0.53), ("xca", 0.52), ("window", 0.49)):
        trained(root, "old-machine", name, value)
    lines = page(root)
    assert "| softmax | 0.510 [0.500, 0.530] | 0.500\u20130.520 | 0.530 [0.430, 0.630] | 1.5 |" in lines
    assert "softmax scored above all small runs of the same model; xca scored within the range of the small runs; " \
           "window scored below all small runs." in "\n".join(lines)
    assert "Not run yet: resnet50 (`python -m medbench campaign large`)." in "\n".join(lines)
    assert "3 times over 18,000 images: softmax, xca, window on `old-machine` in bfloat16." in "\n".join(lines)


def test_every_machine_that_trained_a_model_has_a_line(root):
    trained(root, "new-machine", "softmax", 0.53)
    trained(root, "new-machine", "xca", 0.6, caveats=["drawn"])
    trained(root, "old-machine", "xca", 0.4)
    trained(root, "old-machine", "window", 0.45)
    trained(root, "other-machine", "resnet50", 0.46, seed=1)               # not the campaign's seed
    lines = fullsize.beside(results.load(root), LARGE, SMALL)
    assert {line.name: line.large.value for line in lines if line.large is not None} == \
        {"softmax": 0.53, "xca (new-machine)": 0.6, "xca (old-machine)": 0.4, "window": 0.45}
    assert [line.name for line in lines if line.large is None] == ["resnet50"]
    words = "\n".join(page(root))
    assert "softmax, xca (new-machine) on `new-machine` in bfloat16; " \
           "xca (old-machine), window on `old-machine` in bfloat16." in words
    assert "softmax, xca (new-machine) scored above" in words and "xca (old-machine), window scored below" in words


def test_no_verdict_before_all_seeds_of_the_small_models_are_there(root):
    path = root / "old-machine" / "10_small.json"
    content = json.loads(path.read_text())
    content["records"] = [r for r in content["records"] if (r["name"], r.get("seed")) !=
                          ("phantom.same.none.balanced_accuracy", 2)]
    path.write_text(json.dumps(content))
    trained(root, "old-machine", "softmax", 0.53)
    lines = page(root)
    assert any(line.startswith("| softmax |") and "| - | 0.530 [" in line for line in lines), lines
    assert "scored above" not in "\n".join(lines)


def test_who_was_still_learning_is_said(root):
    trained(root, "new-machine", "softmax", 0.53, best=2)
    assert "last epoch" not in "\n".join(page(root))
    trained(root, "new-machine", "xca", 0.53)
    assert "The last epoch was the best, so it was perhaps too early to stop: xca." in "\n".join(page(root))


def test_what_holds_for_the_data_is_said(root):
    trained(root, "new-machine", "softmax", 0.53, caveats=["no patient ids: slice-level split"])
    assert "About these data: no patient ids: slice-level split." in "\n".join(page(root))


def test_without_small_models_nothing_is_compared(tmp_path):
    trained(tmp_path, "new-machine", "softmax", 0.53)
    lines = page(tmp_path)
    assert "| softmax | not run | - | 0.530 [0.430, 0.630] | 1.5 |" in lines and "above" not in "\n".join(lines)


@pytest.mark.parametrize("name, rate", [("paper-mri", 8.84e-5), ("paper-phantom", 1.25e-4)])
def test_the_large_models_are_trained_as_the_page_says(name, rate, monkeypatch):
    campaign = fullsize.LARGE[name]
    small, large = (c.experiment("xca", 3).on(3, 2076 if "mri" in name else 18000)
                    for c in (fullsize.BESIDE[name], campaign))
    assert name in commands.CAMPAIGNS and campaign.models == SEVEN and campaign.seeds == (0,)
    assert (large.model.preset, large.model.img_size) == ("paper", (224, 224))
    assert large.training.lr == pytest.approx(rate, rel=1e-3) and large.training.lr < small.training.lr / 5
    for field in ("epochs", "batch_size", "weight_decay", "warmup", "clip_grad", "loss", "flip", "shift", "seed"):
        assert getattr(large.training, field) == getattr(small.training, field), field
    asked = {}
    monkeypatch.setattr("medbench.book.campaigns.run", lambda name, *, campaigns, **_: asked.update(campaigns) or [{}])
    commands.campaign(name, "", [], "cpu", False)
    assert asked == {name: campaign} and large.training.epochs == (26 if "mri" in name else 3)
