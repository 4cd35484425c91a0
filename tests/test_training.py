"""Training: exact after an interruption, loaded when finished, stopped at NaN; the recipe's parts one by one."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

import medbench as mb
from medbench import checkpoint, config, experiment, loop, recipe, results, training
from medbench.data import Data, Split

TINY = config.TrainingConfig(epochs=3, batch_size=8, lr=5e-3, threads=1, device="cpu", precision="float32")


def blobs(n, seed, classes=3, side=20):
    """Images whose bright corner tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    images = rng.integers(0, 90, (n, side, side), dtype=np.uint8)
    for image, label in zip(images, labels):
        image[label * 6 : label * 6 + 6] += 100                             # a band that a mirror leaves in its place
    prior = np.bincount(labels, minlength=classes) / n
    return Split("train", images, labels, np.arange(n), ("a", "b", "c")[:classes], prior)


@pytest.fixture
def data():
    return Data(blobs(44, 0), blobs(16, 1), blobs(60, 2), "blobs")


def net(seed=0, drop=0.2):
    """Convolution, BatchNorm, dropout: everything that has a state of its own."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 6, 5, stride=4), nn.BatchNorm2d(6), nn.GELU(), nn.Flatten(), nn.Dropout(drop),
                         nn.Linear(96, 3))


def weights(run):
    return torch.cat([t.double().flatten() for t in run.model.state_dict().values()])


# --------------------------------------------------------------------------------------------- fit
def test_a_model_learns_and_is_scored(data, tmp_path):
    run = training.fit(net(), data, TINY.replace(epochs=12), cache=tmp_path, progress=False)
    assert len(run.history) == 12 and run.samples_seen == 12 * 44 and run.seconds > 0 and not run.loaded
    assert run.history[-1]["loss"] < 0.5 * run.history[0]["loss"] and not run.model.training
    assert training.evaluate(run.model, data.test, bootstrap=0).balanced_accuracy.value > 0.8
    chosen = run.history[run.best_epoch - 1][training.SELECTION]
    assert chosen == max(epoch[training.SELECTION] for epoch in run.history)
    assert {row["quantity"] for row in run.rows()} >= {"training_seconds", "samples_seen", "best_epoch"}


@pytest.mark.parametrize("stop", [1, 4, 6, 11, 17])
def test_an_interrupted_run_ends_with_the_very_same_weights(data, tmp_path, monkeypatch, stop):
    whole = training.fit(net(), data, TINY, cache=tmp_path / "whole", progress=False)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    step = loop.Loop._step

    def stops(self, number, *rest):
        if number == stop:
            raise KeyboardInterrupt
        return step(self, number, *rest)
    monkeypatch.setattr(loop.Loop, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        training.fit(net(), data, TINY, cache=tmp_path / "parts", progress=False)
    torch.manual_seed(99)                                                   # the outer generator has no part in it
    done = []

    def notes(self, number, *rest):
        done.append(number)
        return step(self, number, *rest)
    monkeypatch.setattr(loop.Loop, "_step", notes)
    run = training.fit(net(), data, TINY, cache=tmp_path / "parts", progress=False)
    assert done == list(range(stop, 18))                                    # goes on, does not begin again
    assert torch.equal(weights(run), weights(whole))
    assert run.history == whole.history and run.best_epoch == whole.best_epoch


@pytest.mark.parametrize("writing, behind", [(0.125, [0, 4, 6, 10, 12, 16]), (1.5, [0, 6, 12])])
def test_states_that_take_long_to_write_are_kept_less_often(data, tmp_path, monkeypatch, writing, behind):
    """A step takes 10 s here, an epoch has six: after more than 30 s, or 75 s; and behind each epoch."""
    clock, kept = [0.0], []
    step, save = loop.Loop._step, checkpoint.save_state

    def steps(*args):
        clock[0] += 10
        return step(*args)

    def writes(folder, model, optimiser, best, info):
        clock[0] += writing
        kept.append(info["step"])
        return save(folder, model, optimiser, best, info)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(loop.Loop, "_step", steps)
    monkeypatch.setattr(checkpoint, "save_state", writes)
    training.fit(net(), data, TINY, cache=tmp_path, progress=False)
    assert kept[:-1] == behind and kept[-1] == 18


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_best_epoch_on_validation_is_kept(data, tmp_path, monkeypatch, interrupted):
    scores, seen = iter((0.5, 0.9, 0.7)), []

    def judged(model, split, **_):
        seen.append(torch.cat([t.double().flatten().clone() for t in model.state_dict().values()]))
        return np.eye(3)[split.labels]
    monkeypatch.setattr(loop, "predict", judged)
    monkeypatch.setattr(loop, "validation_scores", lambda *_: {training.SELECTION: next(scores)})
    step = loop.Loop._step
    stops = iter((True, False) if interrupted else (False, False))

    def breaks(self, number, *rest):
        if number == 14 and next(stops):                                    # in the third epoch
            raise KeyboardInterrupt
        return step(self, number, *rest)
    monkeypatch.setattr(loop.Loop, "_step", breaks)
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            training.fit(net(), data, TINY, cache=tmp_path, progress=False)
    run = training.fit(net(), data, TINY, cache=tmp_path, progress=False)
    assert run.best_epoch == 2 and torch.equal(weights(run), seen[1])


def test_a_state_cut_in_half_is_not_trusted(data, tmp_path, monkeypatch):
    whole = training.fit(net(), data, TINY, cache=tmp_path / "whole", progress=False)
    monkeypatch.setattr(loop.Loop, "_validate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        training.fit(net(), data, TINY, cache=tmp_path / "cut", progress=False)
    monkeypatch.undo()
    file = next(tmp_path.glob("cut/runs/*/state-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    run = training.fit(net(), data, TINY, cache=tmp_path / "cut", progress=False)
    assert torch.equal(weights(run), weights(whole))
    assert sorted(p.name for p in run.directory.iterdir()) == ["model.safetensors", "run.json"]


def test_a_finished_run_is_loaded(data, tmp_path, monkeypatch):
    first = training.fit(net(), data, TINY, cache=tmp_path, progress=False)
    monkeypatch.setattr(loop.Loop, "train", lambda self, about: pytest.fail("trained again"))
    again = training.fit(net(), data, TINY, cache=tmp_path, progress=False)
    assert again.loaded and again.seconds == first.seconds and again.history == first.history
    assert torch.equal(weights(first), weights(again)) and not again.model.training


def test_a_finished_run_that_may_only_be_read_is_loaded_and_no_other_begun(data, tmp_path, only_read):
    first = training.fit(net(), data, TINY, cache=tmp_path / "cache", progress=False)
    only_read(tmp_path)
    assert training.fit(net(), data, TINY, cache=tmp_path / "cache", progress=False).digests == first.digests
    with pytest.raises(OSError, match="the lock of .*runs.* could not be written beside it .Read-only file system.; "
                                      "make room or give permission there, or set MEDBENCH_CACHE"):
        training.fit(net(), data, TINY.replace(seed=1), cache=tmp_path / "cache", progress=False)


@pytest.mark.parametrize("name, content, why", [
    ("model.safetensors", None, "its weights are missing"), ("run.json", "{", "its run.json cannot be read"),
    ("model.safetensors", "damaged", "its weights are not those that were written")])
def test_a_finished_run_that_was_damaged_is_trained_again_and_this_is_said(data, tmp_path, monkeypatch, name, content,
                                                                           why):
    """Also where the second training is interrupted; meanwhile it does not count as finished."""
    first = training.fit(net(), data, TINY, cache=tmp_path, progress=False)
    (first.directory / name).unlink()
    if content:
        (first.directory / name).write_text(content)
    step = loop.Loop._step

    def stops(self, number, *rest):
        if number == 8:
            raise KeyboardInterrupt
        return step(self, number, *rest)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Loop, "_step", stops)
        training.fit(net(), data, TINY, cache=tmp_path, progress=False)
    assert checkpoint.last_step(first.directory) == 6
    with pytest.raises(ValueError, match="did not finish: .*was damaged"):
        training.noted(first.directory)
    for state in first.directory.glob("state-*"):            # so that only run.json can tell
        state.unlink()
    again = training.fit(net(), data, TINY, cache=tmp_path, progress=False)
    assert again.notes == (f"the finished run was damaged ({why}) and was trained again",)
    assert again.digests == first.digests and training.fit(net(), data, TINY, cache=tmp_path, progress=False).loaded


@pytest.mark.parametrize("change", ["config", "data", "weights", "recipe", "threads"])
def test_whatever_matters_changes_the_fingerprint(data, tmp_path, monkeypatch, change):
    first = training.fit(net(), data, TINY.replace(epochs=1), cache=tmp_path, progress=False)
    settings, model = TINY.replace(epochs=1), net()
    if change == "config":
        settings = settings.replace(lr=1e-3)
    if change == "threads":
        settings = settings.replace(threads=2)
    if change == "data":
        data = Data(data.train, data.val, data.test, "other")
    if change == "weights":
        model = net(seed=1)
    if change == "recipe":
        monkeypatch.setattr(training, "RECIPE_VERSION", 10**6)
    again = training.fit(model, data, settings, cache=tmp_path, progress=False)
    assert again.fingerprint != first.fingerprint and not again.loaded


def test_weights_that_lie_otherwise_in_memory_start_another_run():
    first = mb.build_model("resnet50", "smoke")
    twin, other = copy.deepcopy(first), copy.deepcopy(first).to(memory_format=torch.contiguous_format)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))
    assert training._identity(twin) == training._identity(first) != training._identity(other)


def test_auto_and_what_it_stands_for_are_one_run(data, tmp_path):
    auto = TINY.replace(epochs=1, threads=0, device="auto", precision="auto")
    first = training.fit(net(), data, auto, cache=tmp_path, progress=False)
    assert first.training.threads >= 1 and first.training.precision in ("float32", "bfloat16")
    assert training.fit(net(), data, first.training, cache=tmp_path, progress=False).loaded


def test_nan_stops_with_a_reason_and_is_never_finished(data, tmp_path):
    model = net()
    for _ in range(2):                                                      # a second try fails as the first
        with pytest.raises(FloatingPointError, match="epoch 1.*lower lr"):
            training.fit(model, data, TINY.replace(lr=1e30, clip_grad=0, warmup=0), cache=tmp_path, progress=False)
        model = net()
    folder = next((tmp_path / "runs").glob("*/run.json")).parent
    assert json.loads((folder / "run.json").read_text())["finished"] is False
    assert checkpoint.load_run(folder) is None
    with pytest.raises(ValueError, match="did not finish.*NaN"):
        training.load_run(folder)


def test_validation_that_is_not_finite_stops_and_names_its_images_and_the_layer(data, tmp_path):
    model = net()
    data.val.images[5] = 9                                                  # all pixels alike

    def breaks(module, inputs, output):
        flat = inputs[0].flatten(1).std(1) == 0
        return output if module.training else torch.where(flat[:, None, None, None], float("nan"), output)
    model[0].register_forward_hook(breaks)
    with pytest.raises(FloatingPointError):
        training.fit(model, data, TINY, cache=tmp_path, progress=False)
    found = json.loads(next(tmp_path.glob("runs/*/failure.json")).read_text())
    assert (found["split"], found["positions"], found["first_module_not_finite"]) == (data.val.name, [5], "0")


def test_the_test_set_is_not_touched(data, tmp_path):
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"fit asked the test set for {name}")
    data = Data(data.train, data.val, Untouchable(), "x")
    training.fit(net(), data, TINY.replace(epochs=1), cache=tmp_path, progress=False)


def test_global_state_is_left_as_it_was(data, tmp_path):
    torch.manual_seed(5)
    model, before, count = net(), torch.get_rng_state(), torch.get_num_threads()
    training.fit(model, data, TINY.replace(threads=count + 1), cache=tmp_path, progress=False)
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == count


def test_bfloat16_trains_and_keeps_float32_weights(data, tmp_path):
    run = training.fit(net(), data, TINY.replace(precision="bfloat16"), cache=tmp_path, progress=False)
    assert all(t.dtype == torch.float32 for t in run.model.parameters())
    assert run.history[-1]["loss"] < run.history[0]["loss"]


def test_a_model_that_does_not_fit_the_data_is_refused(data, tmp_path):
    for overrides, words in (({"num_classes": 4, "img_size": 64}, "num_classes=4.*3 classes"),
                             ({"num_classes": 3, "img_size": 64}, r"\(64, 64\).*\(20, 20\).*img_size")):
        model = mb.build_model("none", "smoke", **overrides)
        with pytest.raises(ValueError, match=words):
            training.fit(model, data, TINY, cache=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_an_error(data, tmp_path):
    with pytest.raises(RuntimeError, match="cuda.*cpu"):
        training.fit(net(), data, TINY.replace(device="cuda"), cache=tmp_path, progress=False)


# --------------------------------------------------------------------------------------------- memory and numbers
def plain(seed=0):
    """Without batch normalisation and dropout: the same however a batch is cut."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 6, 5, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(96, 3))


def short_of_memory(monkeypatch, most, error):
    """Let a step fail that takes more than `most` images at once."""
    whole = loop.Loop._loss

    def tries(self, images, labels):
        if len(images) > most:
            raise error
        return whole(self, images, labels)
    monkeypatch.setattr(loop.Loop, "_loss", tries)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
                                   RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")])
@pytest.mark.parametrize("loss", ["cross_entropy", "class_weights"])
def test_short_of_memory_the_same_batch_is_taken_in_parts(data, tmp_path, monkeypatch, error, loss):
    settings = TINY.replace(loss=loss, batch_size=11)
    whole = training.fit(plain(), data, settings, cache=tmp_path / "whole", progress=False)
    assert whole.micro_batch == 0 and "micro_batch" not in whole.rows()[0]["context"]
    short_of_memory(monkeypatch, 3, error)
    run = training.fit(plain(), data, settings, cache=tmp_path / "parts", progress=False)
    assert run.micro_batch == 3 and run.rows()[0]["context"]["micro_batch"] == 3
    assert [note.split(";")[0] for note in run.notes] == [
        "memory ran out at step 1 with 11 images at once", "memory ran out at step 1 with 6 images at once"]
    assert weights(run) == pytest.approx(weights(whole), abs=2e-4) and run.best_epoch == whole.best_epoch
    assert [e["loss"] for e in run.history] == pytest.approx([e["loss"] for e in whole.history], rel=1e-4)


def test_memory_that_runs_out_later_goes_back_to_the_last_state(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    whole, asked = loop.Loop._loss, []

    def tries(self, images, labels):
        asked.append(self.info["step"])
        if self.info["step"] == 9 and len(images) > 4:
            raise MemoryError
        return whole(self, images, labels)
    monkeypatch.setattr(loop.Loop, "_loss", tries)
    run = training.fit(plain(), data, TINY, cache=tmp_path, progress=False)
    assert asked[:12] == [*range(10), 9, 9] and run.micro_batch == 4 and len(run.notes) == 1


def test_a_step_that_ran_out_of_memory_holds_none_when_the_run_goes_on(data, tmp_path, monkeypatch):
    """An error holds the frames that it came through, and they what was computed."""
    import weakref
    whole, restore, held = loop.Loop._loss, loop.Loop._restore, []

    def tries(self, images, labels):
        found = whole(self, images, labels)
        if len(images) > 4:
            held.append(weakref.ref(found))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    def restores(self):
        assert [one() for one in held] == [None] * len(held)
        assert not held or all(p.grad is None for p in self.model.parameters())
        return restore(self)
    monkeypatch.setattr(loop.Loop, "_loss", tries)
    monkeypatch.setattr(loop.Loop, "_restore", restores)
    assert training.fit(plain(), data, TINY, cache=tmp_path, progress=False).micro_batch == 4 and len(held) == 1


@pytest.mark.parametrize("batch, bears, said", [(2, 5, [(16, 1)]), (1, 5, [(16, 1)]), (40, 10, [(16, 10)]),
                                                (40, 5, [(16, 10), (10, 5)])])
def test_validation_that_runs_out_of_memory_says_with_how_many_images(data, tmp_path, monkeypatch, batch, bears, said):
    """It takes more at once than a step of a small batch, and fewer than one of a large batch."""
    def is_short(model, images, batch_size, **_):
        if batch_size > bears:
            raise MemoryError
        return np.zeros((len(images), 3), np.float32)
    monkeypatch.setattr(loop, "predict", is_short)
    run = training.fit(plain(), data, TINY.replace(batch_size=batch, epochs=1), cache=tmp_path, progress=False)
    assert [note.split(" at step ")[1].split(" ", 1)[1] for note in run.notes] == [
        f"with {tried} images at once; went on with {less} at once, of the same batch" for tried, less in said]
    assert run.micro_batch == said[-1][1]


def test_a_smaller_part_is_kept_at_once(data, tmp_path, monkeypatch):
    """Killed behind it, the run goes on with the smaller part, even where memory is there again."""
    with monkeypatch.context() as patch:
        short_of_memory(patch, 4, MemoryError())
        step = loop.Loop._step

        def stops(self, number, *rest):
            if number == 2:
                raise KeyboardInterrupt
            return step(self, number, *rest)
        patch.setattr(loop.Loop, "_step", stops)
        with pytest.raises(KeyboardInterrupt):
            training.fit(plain(), data, TINY, cache=tmp_path, progress=False)
    run = training.fit(plain(), data, TINY, cache=tmp_path, progress=False)
    assert run.micro_batch == 4 and len(run.notes) == 1


def test_a_part_larger_than_the_batch_is_not_halved_in_vain(data, tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 4, MemoryError())
    run = training.fit(plain(), data, TINY.replace(micro_batch=64), cache=tmp_path, progress=False)
    assert run.micro_batch == 4 and [n.split(";")[0] for n in run.notes] == [
        "memory ran out at step 1 with 8 images at once"]


def test_processes_draw_their_own_dropout(data, tmp_path):
    seeds = []
    for rank in (0, 1):
        one = loop.Loop(net(), data, TINY, tmp_path, loop.World(TINY), progress=False)
        one.world.rank = rank
        one._step(0, np.arange(8), torch.from_numpy(data.train.images[:8]))
        seeds.append(torch.initial_seed())
    assert seeds[0] == 0 and seeds[1] != 0


def test_one_image_that_does_not_fit_is_an_error_that_helps(data, tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 0, MemoryError())
    with pytest.raises(RuntimeError, match="memory ran out with 1 image at once.*smaller model or image"):
        training.fit(plain(), data, TINY, cache=tmp_path, progress=False)


def test_other_errors_are_not_taken_for_a_lack_of_memory(data, tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        training.fit(plain(), data, TINY, cache=tmp_path, progress=False)


@pytest.mark.parametrize("every, seconds", [(1, 30.0), (20, 30.0), (20, 0.0)])
def test_a_failure_names_the_step_the_images_and_the_layer(data, tmp_path, monkeypatch, every, seconds):
    """With a state behind every step, too: what is no number must not get into one."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", seconds)
    step, init = loop.Loop._step, loop.Loop.__init__

    def breaks(self, number, batch, images):
        if number == 8:
            with torch.no_grad():
                self.model[3].weight[1, 5] = float("inf")
        return step(self, number, batch, images)

    def looks(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.every = every                                   # 20: as on a GPU, where the loss is not always looked at
    monkeypatch.setattr(loop.Loop, "_step", breaks)
    monkeypatch.setattr(loop.Loop, "__init__", looks)
    with pytest.raises(FloatingPointError, match="epoch 2, step 9.*failure.json"):
        training.fit(plain(), data, TINY, cache=tmp_path, progress=False)
    found = json.loads(next(tmp_path.glob("runs/*/failure.json")).read_text())
    assert (found["epoch"], found["step"]) == (2, 9) and found["first_module_not_finite"] == "3"
    assert "3.weight" in found["weights_not_finite"]
    assert found["positions"] == recipe.order(data.train.labels, 1, TINY)[16:24].tolist() == found["images"]


@pytest.mark.parametrize("most", [1.0, 0.0])
def test_a_gradient_that_is_no_number_stops_before_it_spreads(data, tmp_path, monkeypatch, most):
    """Without clipping, too."""
    clip = nn.utils.clip_grad_norm_
    calls = []

    def spoilt(parameters, most):
        parameters = list(parameters)
        calls.append(1)
        if len(calls) == 5:
            parameters[0].grad[0] = float("nan")
        return clip(parameters, most)
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", spoilt)
    with pytest.raises(FloatingPointError, match="epoch 1, step 5"):
        training.fit(plain(), data, TINY.replace(clip_grad=most), cache=tmp_path, progress=False)


def test_without_clipping_a_gradient_stays_as_it_is(data, tmp_path):
    runs = [training.fit(plain(), data, TINY.replace(clip_grad=most), cache=tmp_path, progress=False)
            for most in (0.0, 1e9)]
    assert runs[0].digests == runs[1].digests and runs[0].fingerprint != runs[1].fingerprint


# --------------------------------------------------------------------------------------------- imbalance
def test_balanced_sampling_draws_every_class_as_often():
    labels = np.repeat([0, 1, 2], (900, 90, 10))
    config_ = TINY.replace(sampling="balanced")
    order = np.concatenate([recipe.order(labels, epoch, config_) for epoch in range(20)])
    assert np.bincount(labels[order]) / len(order) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert (recipe.order(labels, 3, config_) == recipe.order(labels, 3, config_)).all()
    assert not (recipe.order(labels, 3, config_) == recipe.order(labels, 4, config_)).all()
    assert recipe.prior_behind(config_, np.array([0.9, 0.09, 0.01])) == pytest.approx([1 / 3] * 3)
    assert sorted(recipe.order(labels, 0, TINY)) == list(range(1000))


@pytest.mark.parametrize("loss", sorted({*config.LOSSES} - {*config.EVENING}))
def test_balanced_sampling_goes_with_a_loss_that_knows_no_frequencies(loss):
    """Else both would even the classes out, and the prior behind the logits would be another."""
    z, y = torch.randn(11, 3), torch.arange(11) % 3
    balanced = TINY.replace(loss=loss, sampling="balanced")
    found = {recipe.Loss(balanced, np.array(prior), torch.device("cpu"))(z, y).item()
             for prior in ([0.7, 0.2, 0.1], [0.1, 0.1, 0.8])}
    assert len(found) == 1
    assert recipe.prior_behind(balanced, np.array([0.7, 0.2, 0.1])) == pytest.approx([1 / 3] * 3)


def test_focal_loss_is_its_equation_and_cross_entropy_at_zero():
    prior = np.array([0.7, 0.2, 0.1])
    z, y = torch.randn(11, 3, dtype=torch.float64), torch.arange(11) % 3
    p = nn.functional.softmax(z, 1)[torch.arange(11), y]

    def loss(gamma):
        return recipe.Loss(TINY.replace(loss="focal", focal_gamma=gamma), prior, torch.device("cpu"))(z, y).item()
    assert loss(2.0) == pytest.approx((-((1 - p) ** 2) * p.log()).mean().item(), abs=1e-6)
    assert loss(0.0) == pytest.approx(nn.functional.cross_entropy(z, y).item(), abs=1e-6)
    focal = TINY.replace(loss="focal")
    assert recipe.prior_behind(focal, prior) is prior


@pytest.mark.parametrize("loss", config.LOSSES)
@pytest.mark.parametrize("cut", [(11,), (4, 4, 3), (1,) * 11])
def test_a_loss_in_parts_is_the_loss_of_the_whole(loss, cut):
    found = recipe.Loss(TINY.replace(loss=loss), np.array([0.7, 0.2, 0.1]), torch.device("cpu"))
    z, y = torch.randn(11, 3), torch.arange(11) % 3
    parts = sum(found.sum(a, b) for a, b in zip(z.split(list(cut)), y.split(list(cut)))) / found.total(y)
    assert parts.item() == pytest.approx(found(z, y).item(), rel=1e-5)


# --------------------------------------------------------------------------------------------- prediction, runs
@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    splits = [blobs(n, i, side=32) for i, n in enumerate((24, 9, 9))]
    model = mb.build_model("fastformer", "smoke", num_classes=3, img_size=32, depths=(1, 1), embed_dims=(8, 16),
                           num_heads=(1, 2))
    data, settings = Data(*splits, "blobs32"), TINY.replace(epochs=1, loss="logit_adjustment")
    return training.fit(model, data, settings, cache=folder, progress=False), data


def test_load_run_gives_the_run_back(trained):
    run, data = trained
    again = training.load_run(run.directory)
    assert again.model.config == run.model.config and again.classes == ("a", "b", "c") and again.loaded
    assert (again.fingerprint, again.training, again.history) == (run.fingerprint, run.training, run.history)
    assert again.prior == pytest.approx(np.ones(3) / 3)
    want = training.predict(run.model, data.test)
    assert want.shape == (9, 3) and want.dtype == np.float32
    assert np.array_equal(training.predict(again.model, data.test), want)
    assert np.allclose(training.predict(again.model, data.test.images, batch_size=2), want, atol=1e-5)
    noted = training.evaluate(again.model, data.test, bootstrap=0)
    assert (noted.confusion == training.evaluate(want, data.test, bootstrap=0, prior=again.prior).confusion).all()


def test_a_folder_that_is_no_run_is_refused(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="no readable run.json"):
        training.load_run(tmp_path)
    run, _ = trained
    (tmp_path / "run.json").write_bytes((run.directory / "run.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((run.directory / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(ValueError, match="missing or damaged"):
        training.load_run(tmp_path)


def test_a_run_s_records_name_the_run_the_images_and_the_recipe(trained, tmp_path, monkeypatch):
    run, data = trained
    with monkeypatch.context() as later:
        later.setattr(training, "RECIPE_VERSION", 10**6)                  # the recipe that trained it, not today's
        again = training.load_run(run.directory)
    assert run.fingerprints == again.fingerprints == {"run": run.fingerprint, "images": data.fingerprint,
                                                      "recipe": str(training.RECIPE_VERSION)}
    to = tmp_path / "here" / "10_training.json"
    for record in results.record("phantom.none", run, to=to):
        assert run.fingerprints.items() <= record.fingerprints.items()


# --------------------------------------------------------------------------------------------- the recipe's parts
def test_learning_rate_warms_up_and_falls_to_its_minimum():
    settings = config.TrainingConfig(lr=1.0, min_lr=0.1, warmup=0.25)
    rates = [recipe.learning_rate(step, 40, settings) for step in range(41)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1 and rates[25] == pytest.approx(0.55) and rates[40] == pytest.approx(0.1)
    assert recipe.learning_rate(0, 5, settings.replace(warmup=0)) == 1


def test_norms_and_biases_do_not_decay():
    optimiser = recipe.optimiser(mb.build_model("window", "smoke"), TINY.replace(weight_decay=0.3))
    others, decayed = optimiser.param_groups
    assert decayed["weight_decay"] == 0.3 and others["weight_decay"] == 0
    assert min(p.ndim for p in decayed["params"]) == 2


@pytest.mark.parametrize("name, exempt", [("xca", "temperature"), ("window", "relative_position_bias_table")])
def test_what_zero_does_not_neutralise_does_not_decay(name, exempt):
    model = mb.build_model(name, "smoke")
    others, decayed = recipe.optimiser(model, TINY).param_groups
    own = {id(p) for key, p in model.named_parameters() if key.endswith(exempt)}
    assert own and own <= {id(p) for p in others["params"]}
    assert {id(p) for p in others["params"] if p.ndim > 1} == own
    assert len(others["params"]) + len(decayed["params"]) == len(list(model.parameters()))


def test_losses():
    prior = np.array([0.7, 0.2, 0.1])
    z, y = torch.randn(11, 3, dtype=torch.float64), torch.arange(11) % 3
    def loss(name, **more):
        return recipe.Loss(TINY.replace(loss=name, **more), prior, torch.device("cpu"))(z, y).item()
    each = nn.functional.cross_entropy(z, y, reduction="none").numpy()
    weight = 1 / prior[y]
    assert loss("cross_entropy") == pytest.approx(each.mean(), abs=1e-6)
    assert loss("class_weights") == pytest.approx((weight * each).sum() / weight.sum(), abs=1e-6)
    adjusted = nn.functional.cross_entropy(z + torch.from_numpy(np.log(prior)), y).item()
    assert loss("logit_adjustment") == pytest.approx(adjusted, abs=1e-6)
    assert loss("cross_entropy", label_smoothing=0.2) != pytest.approx(each.mean(), abs=1e-3)
    assert recipe.prior_behind(TINY, prior) is prior
    assert recipe.prior_behind(TINY.replace(loss="class_weights"), prior) == pytest.approx(np.ones(3) / 3)


def test_draws_depend_on_seed_epoch_and_index_alone():
    first = recipe.uniforms(1, 2, np.arange(1000), 3)
    assert (recipe.uniforms(1, 2, np.array([7, 500]), 3) == first[[7, 500]]).all()
    for seed, epoch in ((0, 2), (1, 1), (2, 1)):
        assert abs(np.corrcoef(recipe.uniforms(seed, epoch, np.arange(1000), 1)[:, 0], first[:, 0])[0, 1]) < 0.1
    assert abs(np.corrcoef(first.T)[np.triu_indices(3, 1)]).max() < 0.1
    counts = np.histogram(recipe.uniforms(3, 0, np.arange(20_000), 1), 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45                        # chi-square with 19 df, p = 0.001


def test_augmentation_mirrors_and_shifts_each_image_by_its_own_draw():
    images = torch.randint(1, 256, (60, 21, 30), dtype=torch.uint8)
    settings = TINY.replace(flip=0.5, shift=0.1)
    found = recipe.augment(images, np.arange(60), 4, settings)
    assert torch.equal(recipe.augment(images[5:9], np.arange(5, 9), 4, settings), found[5:9])
    moves = set()
    for image, result in zip(images, found):
        fits = []
        for flip in (False, True):
            padded = nn.functional.pad(image.flip(-1) if flip else image, (3, 3, 2, 2))
            fits += [(flip, y, x) for y in range(5) for x in range(7)
                     if torch.equal(result, (padded[y : y + 21, x : x + 30]))]
        assert len(fits) == 1
        moves.add(fits[0])
    assert {m[0] for m in moves} == {False, True} and {m[1] for m in moves} == set(range(5))
    assert {m[2] for m in moves} == set(range(7))
    assert torch.equal(recipe.augment(images, np.arange(60), 0, TINY.replace(flip=0, shift=0)), images)
    many = recipe.augment(images[:, None].expand(-1, 3, -1, -1), np.arange(60), 4, settings)
    assert torch.equal(many[:, 2], found)


def test_an_experiment_on_other_data_sees_as_many_images():
    asked = experiment.Experiment.preset("small", "xca", profile="laptop")
    want = asked.data.num_train * asked.training.epochs
    fitted = asked.on(num_classes=3, num_train=9000)
    assert abs(fitted.training.epochs * 9000 - want) <= 9000 / 2 and fitted.model.num_classes == 3
    assert asked.on(num_classes=3, num_train=900).training.epochs == experiment.MOST_EPOCHS < want / 900
    assert asked.on(3, 2076, keep_epochs=True).training == asked.training
    for name in config.PROFILES:
        asked = experiment.Experiment.preset("small", "xca", profile=name)
        assert asked.on(10, asked.data.num_train) == asked


def test_images_from_elsewhere_get_their_own_rate_and_shift_unless_asked_otherwise():
    asked = experiment.Experiment.preset("small", "xca", source="scans/manifest.csv")
    assert {name: getattr(asked.training, name) for name in experiment.FEW_IMAGES} == experiment.FEW_IMAGES
    assert experiment.Experiment.preset("small", "xca", source="scans/manifest.csv", lr=2e-4).training.lr == 2e-4
    assert experiment.Experiment.preset("small", "xca").training.lr == config.TrainingConfig().lr


@pytest.mark.parametrize("asked, rate", [({}, 1.25e-4), ({"batch_size": 512}, 5e-4), ({"lr": 7e-4}, 7e-4),
                                         ({"source": "scans/manifest.csv"}, 8.84e-5)])
def test_large_models_get_a_rate_that_goes_with_the_batch_unless_asked_otherwise(asked, rate):
    large, small = (experiment.Experiment.preset(preset, "xca", **asked).training for preset in ("paper", "small"))
    assert large.lr == pytest.approx(rate, rel=1e-3)
    assert large.replace(lr=small.lr, epochs=small.epochs) == small


@pytest.mark.parametrize("loss", config.LOSSES)
def test_a_model_begins_by_answering_the_prior(loss):
    prior = np.array([0.6, 0.3, 0.1])
    behind = recipe.prior_behind(TINY.replace(loss=loss), prior)
    for name in ("xca", "resnet50"):
        model = mb.build_model(name, "smoke", num_classes=3, img_size=64)
        recipe.start_at_prior(model, behind)
        nn.init.zeros_(model.get_classifier().weight)
        answer = training.predict(model, np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8))
        assert nn.functional.softmax(torch.from_numpy(answer), 1).numpy() == pytest.approx(np.tile(behind, (4, 1)))
    recipe.start_at_prior(net(), behind)                                    # no get_classifier: left as it is
