"""Several processes train as one does: the same batches, the same gradient, and together they are killed and go on."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from medbench import commands, config, distributed, files, training
from medbench.machine import ROOT

SCRIPT = ROOT / "tests" / "train_together.py"
TOLERANCE = 1e-5               # of weights of about 1 after 12 steps, 1 and 2 processes: sums are rounded otherwise
# the same of real models, by the bits of their numbers: AdamW divides each gradient by its own size, so that what
# rounding leaves of one that is 0 becomes a step; most of all in the ResNet, whose branches start with a weight of 0
OF_MODELS = {64: {"softmax": 1e-10, "resnet50": 1e-10}, 32: {"softmax": 2e-3, "resnet50": 5e-2}}


def together(cache, count, restarts=0, **events):
    """Start the training with torchrun in `count` processes; returns the finished call."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count, "--max-restarts",
            restarts, SCRIPT, cache, count, *(f"{name}={number}" for name, number in events.items())]
    clean = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    clean |= {distributed.OWN_STORE: "1"} if restarts else {}
    return subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=300, env=clean,
                          cwd=ROOT / "tests")


def finished(cache):
    from safetensors.torch import load_file
    folder = next(cache.glob("runs/*/run.json")).parent
    return files.read_json(folder / "run.json"), load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training by one process and by two."""
    found = {}
    for count in (1, 2):
        cache = tmp_path_factory.mktemp(f"by{count}")
        done = together(cache, count)
        assert done.returncode == 0, done.stderr[-2000:]
        found[count] = cache
    return found


@pytest.mark.slow
def test_one_and_two_processes_agree(runs):
    (one, weights_one), (two, weights_two) = (finished(runs[count]) for count in (1, 2))
    assert one["digests"]["order"] == two["digests"]["order"] and one["fingerprint"] != two["fingerprint"]
    for name, tensor in weights_one.items():
        assert torch.allclose(tensor.double(), weights_two[name].double(), atol=TOLERANCE), name
    losses = [[epoch["loss"] for epoch in info["history"]] for info in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and losses[0][-1] < 0.8 * losses[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("model", ["softmax", "resnet50"])
def test_real_models_by_one_and_two_processes_differ_by_rounding_alone(tmp_path, model, bits):
    for count in (1, 2):
        done = together(tmp_path / str(count), count, model=model, bits=bits)
        assert done.returncode == 0, done.stderr[-2000:]
    (one, weights), (two, others) = (finished(tmp_path / str(count)) for count in (1, 2))
    tolerance = OF_MODELS[bits][model]
    for name, tensor in weights.items():
        scale = tensor.double().abs().max().clamp(min=1)
        assert (tensor.double() - others[name].double()).abs().max() <= tolerance * scale, name
        assert not tensor.is_floating_point() or tensor.dtype == (torch.float64 if bits == 64 else torch.float32)
    assert [epoch["loss"] for epoch in two["history"]] == pytest.approx([e["loss"] for e in one["history"]], rel=1e-2)
    assert one["history"][-1]["loss"] < 0.95 * one["history"][0]["loss"]


@pytest.mark.slow
def test_two_processes_train_in_bfloat16(tmp_path):
    for count in (1, 2):
        done = together(tmp_path / str(count), count, model="softmax", bits=16)
        assert done.returncode == 0, done.stderr[-2000:]
    (one, _), (two, _) = (finished(tmp_path / str(count)) for count in (1, 2))
    losses = [[epoch["loss"] for epoch in info["history"]] for info in (one, two)]
    assert two["training"]["precision"] == "bfloat16" and one["digests"]["order"] == two["digests"]["order"]
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[1][-1] < 0.8 * losses[1][0]


@pytest.mark.slow
def test_all_processes_end_with_the_same_weights_and_the_asked_threads(runs):
    told = [(runs[2] / f"rank-{rank}.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1] and told[0].endswith(" {2} 3 from step 0")  # torchrun sets one thread by itself


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_the_next_one_goes_on(runs, tmp_path):
    done = together(tmp_path, 2, die_at=7)
    assert done.returncode != 0
    steps = [int(path.stem.split("-")[1]) for path in tmp_path.glob("runs/*/state-*.json")]
    assert 6 <= max(steps) <= 7                              # the first process was ended soon after the second
    assert together(tmp_path, 2).returncode == 0
    assert (tmp_path / "rank-0.txt").read_text().endswith(f" from step {max(steps)}")
    assert finished(tmp_path)[0]["digests"] == finished(runs[2])[0]["digests"]


@pytest.mark.slow
def test_each_process_makes_as_many_parts_of_its_share(tmp_path):
    """Shares of 5 and 6 images, 5 at once: the first process has nothing in the second part, and nobody waits."""
    done = together(tmp_path, 2, micro_batch=5)
    assert done.returncode == 0, done.stderr[-2000:]
    assert finished(tmp_path)[0]["history"][-1]["loss"] < finished(tmp_path)[0]["history"][0]["loss"]


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_told_by_the_first_process_to_the_end(tmp_path):
    """Looking for the layer is a forward of its own, with which no other process may be expected to join."""
    done = together(tmp_path, 2, nan_at=5)
    assert done.returncode != 0 and "FloatingPointError" in done.stderr and "closed by peer" not in done.stderr
    found = files.read_json(next(tmp_path.glob("runs/*/failure.json")))
    assert found["step"] == 6 and found["weights_not_finite"] == ["4.weight"]
    assert found["first_module_not_finite"] == "4" and found["process"] == 0


@pytest.mark.slow
def test_the_layer_is_sought_in_the_images_of_all_processes(tmp_path):
    done = together(tmp_path, 2, nan_seen_at=5)
    assert done.returncode != 0 and "FloatingPointError" in done.stderr
    found = files.read_json(next(tmp_path.glob("runs/*/failure.json")))
    assert (found["step"], found["first_module_not_finite"], found["process"]) == (6, "2", 1)
    assert not found["weights_not_finite"] and len(found["positions"]) == 11


@pytest.mark.slow
def test_where_one_process_is_short_of_memory_all_go_on_with_smaller_parts(tmp_path):
    """The others wait for its sums, so torchrun starts all again; the run is the one that was asked to take such parts.
    """
    done = together(tmp_path / "short", 2, restarts=2, bears=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "started again, all 2 go on with 3 at once" in done.stderr
    assert together(tmp_path / "asked", 2, micro_batch=2).returncode == 0
    (short, _), (asked, _) = finished(tmp_path / "short"), finished(tmp_path / "asked")
    assert short["digests"] == asked["digests"] and short["micro_batch"] == 2
    assert [note.split(";")[0] for note in short["notes"]] == [
        "memory ran out at step 1 with 6 images at once", "memory ran out at step 1 with 3 images at once"]
    assert not list((tmp_path / "short").glob("runs/*/memory.json"))


@pytest.mark.slow
def test_processes_with_folders_of_their_own_are_found_out(tmp_path):
    """As on two nodes that do not share MEDBENCH_CACHE; a kill left one of them a state."""
    for rank in (0, 1):
        (tmp_path / f"of-{rank}").mkdir()
    assert together(tmp_path / "of-0", 2, die_at=7).returncode != 0
    done = together(tmp_path / "of-{rank}", 2)
    assert done.returncode != 0 and "have another step or micro_batch than process 0" in done.stderr
    assert "is MEDBENCH_CACHE one folder that every node sees" in done.stderr


@pytest.mark.parametrize("started, asked", [("2", 1), ("1", 2), ("3", 2)])
def test_the_number_of_processes_is_the_one_asked_for(monkeypatch, started, asked):
    monkeypatch.setenv("WORLD_SIZE", started)
    advice = f".*nproc-per-node {asked} .*processes={asked}" if asked > 1 else ".*without torchrun"
    with pytest.raises(RuntimeError, match=f"{asked} but {started} .*say --set processes={started}, {advice}"):
        distributed.world(config.TrainingConfig(processes=asked, device="cpu"))


def test_what_was_started_is_checked_before_any_image_is_drawn(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(commands, "load_data", lambda *_: pytest.fail("images were drawn"))
    with pytest.raises(RuntimeError, match="--set processes=2"):
        commands.train(["softmax"], "smoke", "phantom", "smoke", 0, "cpu", {})


def test_restarts_that_would_hang_are_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": 2, "TORCHELASTIC_MAX_RESTARTS": 3, "TORCHELASTIC_USE_AGENT_STORE": True}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(RuntimeError, match=f"max-restarts is 3.*{distributed.OWN_STORE}=1 torchrun --max-restarts 3"):
        distributed.world(config.TrainingConfig(processes=2, device="cpu"))


def test_a_launcher_that_starts_one_process_silently_is_found_out(monkeypatch):
    """As `accelerate launch --cpu` was seen to do."""
    import accelerate

    class Silent:
        process_index, num_processes, device = 0, 1, torch.device("cpu")

        def __init__(self, **_):
            pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(accelerate, "Accelerator", Silent)
    with pytest.raises(RuntimeError, match="processes is 2 but 1 were started"):
        distributed.world(config.TrainingConfig(processes=2, device="cpu"))


def test_a_group_does_not_wait_for_ever_for_a_run_that_another_training_has(monkeypatch, tmp_path):
    """Its other processes would give up with a message about sockets."""
    monkeypatch.setattr(distributed, "HELD", 0.1)
    group = object.__new__(distributed.Group)
    group.wait = lambda: pytest.fail("went on")
    with files.lock(tmp_path / "run"), pytest.raises(RuntimeError, match="another process has held .* same work"):
        with group.alone_in(tmp_path / "run"):
            pass


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(ValueError, match="batch_size is 3 for 4 processes"):
        config.TrainingConfig(batch_size=3, processes=4)


@pytest.mark.parametrize("count, size", [(11, 3), (2, 4), (1, 2), (7, 1)])
def test_shares_are_disjoint_and_make_up_the_batch(count, size):
    batch, parts = np.arange(100, 100 + count), []
    for rank in range(size):
        one = distributed.World(config.TrainingConfig(device="cpu"))
        one.rank, one.size = rank, size
        parts.append(one.share(batch))
    assert (np.concatenate(parts) == batch).all() and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_norms_over_processes_are_the_plain_ones_in_a_single_process(monkeypatch):
    import torch.distributed.nn.functional as functional
    monkeypatch.setattr(functional, "all_reduce", lambda x: x)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5))
    shared = distributed.with_shared_norms(nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5)))
    shared.load_state_dict(plain.state_dict())
    x = torch.randn(7, 2, 9, 6)
    outputs = []
    for model in (plain, shared):
        y = model(x)
        (y * torch.linspace(0, 1, 5)[:, None, None]).square().sum().backward()
        outputs.append(y)
    assert torch.allclose(*outputs, atol=1e-5)
    for (name, a), b in zip(plain.named_parameters(), shared.parameters()):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-4), name
    for name, value in plain.state_dict().items():
        assert torch.allclose(value.double(), shared.state_dict()[name].double(), atol=1e-5), name
    assert torch.allclose(plain.eval()(x), shared.eval()(x), atol=1e-5)


def test_a_norm_without_a_form_for_several_processes_is_refused():
    with pytest.raises(ValueError, match="BatchNorm1d has no form for several processes"):
        distributed.with_shared_norms(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))


def test_one_process_needs_no_accelerate(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    from train_together import SETTINGS, net

    from medbench import survival
    run = training.fit(net(), survival.patterns(), SETTINGS.replace(epochs=1), cache=tmp_path, progress=False)
    assert len(run.history) == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ImportError, match="pip install accelerate"):
        distributed.world(SETTINGS.replace(processes=2))


def test_a_process_without_images_leaves_the_norms_of_the_others_as_they_are(monkeypatch):
    """Two processes in turn: the first has all images, the second a stand-in that must not count."""
    import torch.distributed.nn.functional as functional
    sums = []
    monkeypatch.setattr(functional, "all_reduce", lambda x: sums.append(x) or sum(sums))
    torch.manual_seed(0)
    full, empty = (distributed.with_shared_norms(nn.Sequential(nn.BatchNorm2d(3))) for _ in range(2))
    full(torch.randn(5, 3, 4, 2) + 1)
    empty[0].counted = False
    empty(torch.full((1, 3, 4, 2), -9.0))
    assert torch.equal(full[0].running_mean, empty[0].running_mean)
    assert torch.equal(full[0].running_var, empty[0].running_var)
