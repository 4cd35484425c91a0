"""Our loop beside timm's: both do the whole step, and give what the float64 model gives."""

import numpy as np
import pytest
import torch

import medbench as mb
from medbench import recipe, throughput
from medbench.__main__ import main
from medbench.config import TrainingConfig

CONFIG = recipe.resolve(TrainingConfig(batch_size=4, lr=1e-3, shift=0.0, threads=1, device="cpu", precision="float32",
                                       epochs=50, warmup=0.0))


@pytest.mark.parametrize("name", ["softmax", "resnet50"])
def test_a_race_times_all_loops_and_they_agree(name):
    race = throughput.race(name, "smoke", 4, seconds=4.0, threads=1, rounds=4)
    lines = {line["loop"]: line for line in race.lines()}
    assert set(lines) == {"medbench", "timm", "timm --amp"}
    assert all(line["images_per_second"] > 0 for line in lines.values()), lines      # else: what it did not agree in
    assert lines["timm"]["dtype"] == "float32" and lines["timm --amp"]["dtype"] == "bfloat16"
    rows = race.rows()
    assert {row["quantity"] for row in rows} == {"training_rate", "training_step", "ratio"}
    rate = next(row for row in rows if row["suffix"] == "timm_amp.b4")
    assert rate["value"] == pytest.approx(lines["timm --amp"]["images_per_second"])


def test_the_picture_is_its_own_mirror_image_and_always_the_same():
    for name, preset in (("softmax", "paper"), ("softmax", "small")):
        config = mb.config.model_config(name, preset)
        images = throughput.one_picture(config, 3).train.images
        assert (images == images[:, :, ::-1]).all() and (images == images[:1]).all() and np.std(images) > 50


@pytest.mark.parametrize("loop", ["ours", "timms"])
def test_a_step_is_a_whole_step(loop, monkeypatch):
    """With a learning rate that moves weights, each loop moves them, and the loss falls."""
    monkeypatch.setattr(throughput, "STILL", 1e-3)
    model = mb.build_model("softmax", "smoke", drop_path_rate=0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = throughput.one_picture(model.config, 8)
    object.__setattr__(data.train, "labels", np.zeros(8, np.int64))
    step = throughput.ours(model, data, CONFIG) if loop == "ours" else throughput.timms(model, data, CONFIG, False)
    with torch.inference_mode():
        answers = [step(torch.empty(0)) for _ in range(12)]
    assert all(answer.shape == (4, 10) for answer in answers)
    assert answers[-1].softmax(1)[:, 0].mean() > answers[0].softmax(1)[:, 0].mean() + 0.1
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters() if p.grad is not None)


@pytest.mark.parametrize("loop", ["ours", "timms"])
def test_a_step_clips_the_gradient(loop):
    model = mb.build_model("softmax", "smoke", drop_path_rate=0.0)
    config = CONFIG.replace(clip_grad=0.01)
    data = throughput.one_picture(model.config, 8)
    step = throughput.ours(model, data, config) if loop == "ours" else throughput.timms(model, data, config, False)
    step(torch.empty(0))
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_the_command_prints_a_line_a_loop(capsys):
    assert main(["throughput", "--preset", "smoke", "--batch", "2", "--seconds", "2", "--format", "csv"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("model,loop,dtype,batch,images_per_second,ratio") and len(rows) == 3
