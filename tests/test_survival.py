"""Killed at any moment, a training ends as one that was not; a checkpoint is whole, old or new; no pickle anywhere."""

import ast
import contextlib
import errno
import os
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medbench import checkpoint, commands, files, loop, survival, training
from medbench.__main__ import main
from medbench.machine import ROOT

TINY = survival.SETTINGS


def model(seed=0):
    from medbench import build_model
    return build_model("softmax", "smoke", num_classes=3, img_size=32, depths=(1, 1), embed_dims=(8, 16),
                       num_heads=(1, 2), proj_drop=0.1, seed=seed)


def told(run):
    return run.digests, run.history, run.best_epoch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    return training.fit(model(), survival.patterns(), TINY, cache=tmp_path_factory.mktemp("whole"), progress=False)


@contextlib.contextmanager
def interrupted(monkeypatch, method, at):
    """Ctrl+C as soon as the loop calls a method with this number; it has to come to that."""
    whole_method = getattr(loop.Loop, method)

    def stops(self, number, *rest):
        if number == at:
            raise KeyboardInterrupt
        return whole_method(self, number, *rest)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Loop, method, stops)
        yield


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run that was interrupted at step 13, with a state behind every step; gives its folder."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with interrupted(monkeypatch, "_step", 13):
        training.fit(model(), survival.patterns(), TINY, cache=tmp_path, progress=False)
    return next(tmp_path.glob("runs/*/"))


def go_on(folder):
    return training.fit(model(), survival.patterns(), TINY, cache=folder.parent.parent, progress=False)


# --------------------------------------------------------------------------------------------- kills
def test_five_kills_at_random_moments_change_nothing():
    outcome = survival.survive(5, seed=int.from_bytes(os.urandom(4), "big"), show=False)
    assert outcome.kills == 5 and outcome.different == () and outcome.resumed > 0


def test_all_that_a_run_tells_is_compared(whole):
    cache = whole.directory.parents[1]
    (cache / "test.txt").write_text("[[0.5, 0.25]]")
    told_ = survival._told(cache)
    assert survival._difference(told_, survival._told(cache)) == ""
    for name in ("sha256", "history", "best_epoch", "fingerprint", "test"):
        assert survival._difference(told_, told_ | {name: "other"}) == name
    for name in ("weights", "optimiser", "order"):
        other = told_["digests"] | {name: "other"}
        assert survival._difference(told_, told_ | {"digests": other}) == f"digest of {name}"


def forgetful(*what):
    """The training that is killed, if no state could be read."""
    checkpoint.load_state = lambda *_: (None, {}, [])
    survival.train(*what)


def test_the_harness_sees_starts_that_begin_anew(monkeypatch):
    """They end with the same bits, too."""
    monkeypatch.setattr(survival, "train", forgetful)
    outcome = survival.survive(8, seed=1, show=False)
    assert outcome.resumed == 0 and outcome.different
    assert all("began at step 0, with a state of step" in said for said in outcome.different)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16", "threads": 2}], ids=["float32", "bfloat16"])
def test_twenty_kills_at_random_moments_change_nothing(changes):
    settings = survival.SETTINGS.replace(**changes)
    outcome = survival.survive(20, seed=int.from_bytes(os.urandom(4), "big"), settings=settings, show=False)
    assert outcome.kills == 20 and outcome.different == () and outcome.resumed > 5


@pytest.mark.slow
def test_kills_change_nothing_in_a_resnet_whose_batches_others_prepare():
    outcome = survival.survive(8, seed=int.from_bytes(os.urandom(4), "big"), model="resnet50", workers=1, show=False)
    assert outcome.kills == 8 and outcome.different == () and outcome.resumed > 1


def unwatched(*what):
    """The training that is killed, if torch's own watch in its workers is blind."""
    torch.utils.data._utils.worker.ManagerWatchdog.is_alive = lambda self: True
    survival.train(*what)


@pytest.mark.slow
@pytest.mark.parametrize("call", [
    ["-m", "medbench", "survive", "--kills", "3", "--model", "resnet50", "--workers", "1"],
    ["-c", "from test_survival import survival, unwatched; survival.train = unwatched; "
           "assert survival.survive(3, model='resnet50', workers=1, show=False).kills == 3"]],
    ids=["command", "unwatched"])
def test_killed_trainings_leave_no_process_behind(call):
    """Nor the workers that prepared their batches, however early the kill."""
    process = subprocess.Popen([sys.executable, *call], cwd=Path(__file__).parent, start_new_session=True,
                               stderr=subprocess.DEVNULL)
    assert process.wait(300) == 0
    end = time.monotonic() + 30
    while (left := in_session(process.pid)) and time.monotonic() < end:
        time.sleep(0.5)
    for pid in left:
        os.kill(pid, 9)
    assert left == []


def in_session(session):
    """The numbers of processes of a session."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):                   # it ended meanwhile
            state, _, _, sid = file.read_text().rpartition(")")[2].split()[:4]
            found += [int(file.parent.name)] if int(sid) == session and state != "Z" else []
    return found


def test_the_harness_sees_a_run_that_ends_otherwise(monkeypatch):
    told = survival._told
    ends = iter(range(100))

    def changed(cache):
        found = told(cache)
        found["digests"]["optimiser"] += str(next(ends))
        return found
    monkeypatch.setattr(survival, "_told", changed)
    outcome = survival.survive(1, show=False)
    assert outcome.different and "digest of optimiser" in outcome.different[0]
    monkeypatch.setattr(survival, "survive", lambda *_, **__: outcome)
    with pytest.raises(RuntimeError, match="ended otherwise"):
        commands.survive(1, 0, "softmax", 0, None)


def test_the_command_prints_what_happened(capsys):
    assert main(["survive", "--kills", "1", "--format", "csv"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "kills,trainings,resumed,while_writing,different"
    assert "bit-identical" in printed.err


@pytest.mark.parametrize("epoch", [0, 2])
def test_what_is_killed_before_a_validation_is_validated_later(whole, tmp_path, monkeypatch, epoch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with interrupted(monkeypatch, "_validate", epoch):
        training.fit(model(), survival.patterns(), TINY, cache=tmp_path, progress=False)
    assert told(go_on(next(tmp_path.glob("runs/*/")))) == told(whole)


def test_a_model_that_lies_otherwise_in_memory_goes_on_the_same(tmp_path, monkeypatch):
    """A ResNet's weights lie channels last, and a fused optimiser takes them and its own state as they lie."""
    from medbench import build_model

    def trains(name):
        return training.fit(build_model("resnet50", "smoke", num_classes=3, img_size=32), survival.patterns(), TINY,
                            cache=tmp_path / name, progress=False)
    undisturbed = trains("whole")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with interrupted(monkeypatch, "_step", 5):
        trains("stopped")
    assert told(trains("stopped")) == told(undisturbed)


def test_a_training_that_is_broken_off_leaves_the_model_as_it_was(tmp_path, monkeypatch, whole):
    """Who stops a cell and runs it again goes on with the same run."""
    one, place = model(), dict(cache=tmp_path, progress=False)
    with interrupted(monkeypatch, "_step", 9):
        training.fit(one, survival.patterns(), TINY, **place)
    assert checkpoint.digest(one.state_dict()) == checkpoint.digest(model().state_dict())
    assert told(training.fit(one, survival.patterns(), TINY, **place)) == told(whole)
    assert len(list(tmp_path.glob("runs/*/"))) == 1


# --------------------------------------------------------------------------------------------- checkpoints
def test_two_states_are_kept_and_nothing_is_left_when_finished(stopped, whole):
    assert sorted(p.name for p in stopped.iterdir()) == [f"state-{step}.{kind}" for step in (12, 13)
                                                         for kind in ("json", "safetensors")]
    run = go_on(stopped)
    assert told(run) == told(whole) and run.notes == ()
    assert sorted(p.name for p in stopped.iterdir()) == ["model.safetensors", "run.json"]


def unreadable():
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("damage", ["cut", "bit", "gone", "json", "a figure", "another's", "disk", "half written"])
def test_a_damaged_state_is_passed_over_and_this_is_said(stopped, whole, monkeypatch, damage):
    tensors, note = stopped / "state-13.safetensors", stopped / "state-13.json"
    content = bytearray(tensors.read_bytes())
    if damage == "cut":
        tensors.write_bytes(content[:-100])
    elif damage == "bit":
        content[len(content) // 2] ^= 4
        tensors.write_bytes(content)
    elif damage == "gone":
        tensors.unlink()
    elif damage == "json":
        note.write_text(note.read_text()[:40])
    elif damage == "a figure":
        note.write_text(note.read_text().replace('"step": 13', '"step": 12'))
    elif damage == "another's":
        note.write_text((stopped / "state-12.json").read_text())
    elif damage == "disk":
        whole_hash = checkpoint.sha256
        monkeypatch.setattr(checkpoint, "sha256", lambda path: whole_hash(path) if path != tensors else unreadable())
    else:
        note.unlink()                                        # killed between the tensors and their JSON
        (stopped / ".state-13.json.x1").write_text("{")
    run = go_on(stopped)
    assert told(run) == told(whole)
    said = () if damage == "half written" else ("the state of step 13 is damaged and was passed over",)
    assert run.notes == said


def test_a_damaged_state_is_not_kept_in_place_of_a_whole_one(stopped, whole, monkeypatch):
    """It is the latest, and the run does not come to its step soon."""
    for kind in ("json", "safetensors"):
        (stopped / f"state-13.{kind}").rename(stopped / f"state-18.{kind}")
    with interrupted(monkeypatch, "_step", 15):
        go_on(stopped)
    assert sorted(p.stem for p in stopped.glob("*.json")) == ["state-14", "state-15"]
    assert told(go_on(stopped)) == told(whole)


def test_a_state_that_may_not_be_read_is_no_damage(stopped, monkeypatch):
    def refuses(path):
        raise PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(checkpoint, "sha256", refuses)
    monkeypatch.setattr(loop.Loop, "_step", lambda *_: pytest.fail("began anew"))
    with pytest.raises(PermissionError):
        go_on(stopped)


def test_with_both_states_damaged_the_run_begins_anew(stopped, whole):
    for file in stopped.glob("*.safetensors"):
        file.write_bytes(b"")
    run = go_on(stopped)
    assert told(run) == told(whole) and len(run.notes) == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("when", ["tensors", "json"])
def test_a_state_that_cannot_be_written_raises_and_keeps_the_old_one(stopped, whole, monkeypatch, code, when):
    before = {p.name: p.read_bytes() for p in stopped.iterdir()}
    replace = os.replace

    def refuses(source, target):
        if str(target).endswith(".json" if when == "json" else ".safetensors"):
            raise OSError(code, os.strerror(code))
        return replace(source, target)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", refuses)
        with pytest.raises(OSError, match=f"step 14 could not be written.*{os.strerror(code)}.*goes on from step 13"):
            go_on(stopped)
    assert {name: (stopped / name).read_bytes() for name in before} == before
    assert not list(stopped.glob(".*"))
    assert told(go_on(stopped)) == told(whole)


@pytest.mark.parametrize("name", ["model.safetensors", "run.json"])
def test_a_finished_run_that_cannot_be_written_raises_and_ends_the_same_later(stopped, whole, monkeypatch, name):
    replace = os.replace

    def refuses(source, target):
        if str(target).endswith(name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", refuses)
        with pytest.raises(OSError, match=f"finished run could not be written to.*{os.strerror(errno.ENOSPC)}.*again"):
            go_on(stopped)
    assert checkpoint.load_run(stopped) is None and checkpoint.last_step(stopped) > 13
    assert told(go_on(stopped)) == told(whole)


def test_what_happened_before_a_kill_is_still_told(stopped, monkeypatch, capsys):
    """A damaged state is noted; the run is interrupted once more, and its notes are in the end."""
    (stopped / "state-13.safetensors").write_bytes(b"damaged")
    with interrupted(monkeypatch, "_validate", 3):
        go_on(stopped)
    noted = "the state of step 13 is damaged and was passed over"
    assert go_on(stopped).notes == (noted,) and go_on(stopped).loaded and go_on(stopped).notes == (noted,)


def test_a_disk_that_is_really_full_does_the_same(stopped, whole):
    """The kernel refuses to write more than a limit into one file, as it does on a full disk."""
    before = {p.name: p.read_bytes() for p in stopped.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OSError, match="could not be written"):
            go_on(stopped)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {name: (stopped / name).read_bytes() for name in before} == before
    assert told(go_on(stopped)) == told(whole)


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path, monkeypatch):
    def refuses(path, content):
        raise PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(checkpoint, "write_bytes", refuses)
    monkeypatch.setattr(loop.Loop, "_step", lambda *_: pytest.fail("work began"))
    with pytest.raises(OSError, match="step 0 could not be written.*Permission denied.*begins anew"):
        training.fit(model(), survival.patterns(), TINY, cache=tmp_path, progress=False)


def test_random_states_are_kept_as_tensors_and_put_back():
    torch.manual_seed(3)
    states = checkpoint.random_states()
    want = torch.rand(3)
    checkpoint.set_random_states(states)
    assert torch.equal(torch.rand(3), want) and all(t.dtype == torch.uint8 for t in states.values())


# --------------------------------------------------------------------------------------------- pickles
class Evil:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pkl"])
def test_a_pickle_is_refused_and_never_run(stopped, whole, tmp_path, suffix):
    trap, evil = tmp_path / "trap", tmp_path / f"model{suffix}"
    evil.write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(ValueError, match=r"is a pickle.*safetensors alone"):
        training.load_run(evil)
    for name in (f"model{suffix}", f"state-99{suffix}"):
        (stopped / name).write_bytes(evil.read_bytes())
    (stopped / "state-99.safetensors").write_bytes(evil.read_bytes())
    info = {"step": 99, "sha256": checkpoint.sha256(stopped / "state-99.safetensors")}
    files.write_json(stopped / "state-99.json", info | {"own": checkpoint._hash(info)})
    with pytest.raises(Exception, match="header|deserializ|[Ss]afetensor"):
        go_on(stopped)                                       # the right hash, but no safetensors: nothing is run
    assert not trap.exists()


PICKLES = ("pickle", "joblib", "dill", "cloudpickle")
CALLS = ("torch.load", "torch.save")
METHODS = ("read_pickle", "to_pickle", "save_state", "load_state")         # the last two are accelerate's, or our own


def pickling(source):
    """What in the source of a module writes or reads a pickle, or may."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            names = [module, *(a.name for a in node.names), *(f"{module}.{a.name}" for a in node.names)]
            found += [name for name in dict.fromkeys(names) if name.split(".")[0] in PICKLES or name in CALLS]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            allowed = [ast.unparse(k.value) for k in node.keywords if k.arg == "allow_pickle"]
            if f"{owner}.{name}" in CALLS or owner in PICKLES or name in METHODS and owner != "checkpoint":
                found.append(f"{owner}.{name}")
            if allowed not in ([], ["False"]) or f"{owner}.{name}" in ("np.save", "numpy.save") and not allowed:
                found.append("allow_pickle")                 # the default of `np.save`
    return found


def test_no_module_can_pickle_or_unpickle():
    """But `latency`, which hands objects to child processes of its own."""
    checked = set((ROOT / "medbench").rglob("*.py")) - set((ROOT / "medbench" / "latency").glob("*.py"))
    found = {str(file.relative_to(ROOT)): pickling(file.read_text()) for file in checked}
    assert {name: said for name, said in found.items() if said} == {} and len(found) > 50


@pytest.mark.parametrize("source, said", [
    ("accelerator.save_state(folder)", ["accelerator.save_state"]),
    ("self.accelerator.load_state(folder)", ["self.accelerator.load_state"]),
    ("checkpoint.save_state(folder, model)", []), ("torch.save(model, path)", ["torch.save"]),
    ("from torch import save", ["torch.save"]), ("from torch import nn", []), ("torch.load(path)", ["torch.load"]),
    ("import pickle", ["pickle"]), ("from pickle import dumps", ["pickle", "pickle.dumps"]),
    ("joblib.dump(model, path)", ["joblib.dump"]), ("table.to_pickle(path)", ["table.to_pickle"]),
    ("np.save(path, array, allow_pickle=True)", ["allow_pickle"]), ("np.save(path, array)", ["allow_pickle"]),
    ("np.save(path, array, allow_pickle=False)", []), ("np.load(path, allow_pickle=maybe)", ["allow_pickle"]),
    ("np.load(path)", [])])
def test_what_pickles_is_seen(source, said):
    assert pickling(source) == said


# --------------------------------------------------------------------------------------------- order and workers
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(whole, tmp_path, workers):
    run = training.fit(model(), survival.patterns(), TINY, cache=tmp_path, progress=False, workers=workers)
    assert told(run) == told(whole) and run.fingerprint == whole.fingerprint


def test_digests_tell_runs_apart(whole, tmp_path):
    other = training.fit(model(), survival.patterns(), TINY.replace(seed=1), cache=tmp_path, progress=False)
    assert all(other.digests[name] != whole.digests[name] for name in ("weights", "optimiser", "order"))
    assert np.isfinite([epoch["loss"] for epoch in whole.history]).all()
