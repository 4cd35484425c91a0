"""Many trainings: each is done once, whatever is killed in between, and one that fails does not stop the others."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import medbench as mb
from medbench import board, checkpoint, commands, console, grid, loop, places, records, training
from medbench.__main__ import main
from medbench.files import read_json, write_json

SMALL = dict(num_train=24, num_val=12, num_test_per_class=1, epochs=2, threads=1, device="cpu")
SMOKE = ["--preset", "smoke", "--device", SMALL["device"],                     # the same on the command line
         *(part for name, value in SMALL.items() if name != "device" for part in ("--set", f"{name}={value}"))]
ROOT = Path(__file__).parents[1]


def experiments(names=("none", "softmax"), seeds=(0, 1), **changes):
    return [mb.Experiment.preset("smoke", name, seed, **(SMALL | changes)) for name in names for seed in seeds]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Played(places.Place):
    """A place that answers what a test tells it to, and trains at once where that is nothing."""

    def __init__(self, answers=(), room=1):
        self.answers, self.room, self.started, self.done = list(answers), room, [], []

    def start(self, key, experiment, logits):
        self.started.append((experiment.model.name, experiment.training.seed))
        answer = self.answers.pop(0) if self.answers else None
        answer = answer(key) if callable(answer) else answer
        self.done.append((key, answer or places.Answer(logits=grid.work(experiment, logits))))

    def ended(self, seconds):
        assert len(self.done) <= self.room
        found, self.done = self.done, []
        return found


whole = Played.start
KILLED = places.Answer("ended from outside", killed=True)
BROKEN = places.Answer("OSError: no room")


def states(jobs):
    return [job.state for job in jobs]


def digests(jobs):
    return [read_json(job.folder / "run.json")["digests"] for job in jobs]


# --------------------------------------------------------------------------------------------- what is done, and when
def test_what_is_finished_is_not_done_again():
    first = Played()
    jobs = grid.train(experiments(), first, show=False)
    assert states(jobs) == ["finished"] * 4 and len(first.started) == 4
    later = Played()
    assert states(grid.train(experiments(seeds=(0, 1, 2)), later, show=False)) == [
        "loaded", "loaded", "finished", "loaded", "loaded", "finished"]
    assert later.started == [("none", 2), ("softmax", 2)]


def test_a_training_that_ended_this_moment_counts_as_done(monkeypatch):
    place, seen = Played(), []
    ended = place.ended
    monkeypatch.setattr(place, "ended", lambda seconds: seen.extend(job.share() for job, _ in place.done) or ended(0))
    grid.train(experiments(("none",), (0, 1)), place, show=False)
    assert seen == [1.0, 1.0]


def test_a_finished_run_that_was_damaged_is_not_shown_as_done():
    """Whether it is trained again or still waits for room on a cluster."""
    first, = grid.train(experiments(("none",), (0,)), Played(), show=False)
    (first.folder / "model.safetensors").write_bytes(b"damaged")
    place, seen = Played([lambda job: seen.append(job.share())]), []
    again, = grid.train(experiments(("none",), (0,)), place, show=False)
    assert seen == [0.0] and again.share() == 1.0 and again.state == "finished"
    assert "was damaged" in read_json(again.folder / "run.json")["notes"][0]


def test_a_grid_that_may_only_be_read_is_loaded(cache, only_read):
    one = experiments(("none",), (0,))
    whole = grid.train(one, Played(), logits=True, show=False)
    only_read(cache.parent)
    again = grid.train(one, Played(), logits=True, show=False)
    assert states(again) == ["loaded"] and (again[0].logits == whole[0].logits).all()
    assert grid.fit(one[0], mb.load_data(one[0].data), progress=False).loaded


def test_what_fails_is_tried_again_but_not_for_ever_and_stops_nobody():
    place = Played([BROKEN])
    assert states(grid.train(experiments(seeds=(0,)), place, show=False)) == ["finished", "finished"]
    assert place.started == [("none", 0), ("softmax", 0), ("none", 0)]
    place = Played([BROKEN, None, BROKEN, BROKEN])
    jobs = grid.train(experiments(seeds=(3,)), place, show=False)
    assert states(jobs) == ["failed", "finished"] and jobs[0].failures == [BROKEN.reason] * 3
    place = Played()
    assert states(grid.train(experiments(seeds=(3,)), place, show=False)) == ["failed", "loaded"] and not place.started
    assert states(grid.train(experiments(seeds=(3,)), place, again=True, show=False)) == ["finished", "loaded"]


def test_failures_are_counted_over_all_grids():
    place = Played([BROKEN] * 2)
    assert states(grid.train(experiments(("none",), (0,)), place, tries=2, show=False)) == ["failed"]
    place = Played([BROKEN])
    jobs = grid.train(experiments(("none",), (0,)), place, tries=3, show=False)
    assert states(jobs) == ["failed"] and len(place.started) == 1 and len(jobs[0].failures) == 3


def test_a_kill_counts_only_where_nothing_was_gained():
    def killed_further(job):
        write_json(job.folder / f"state-{checkpoint.last_step(job.folder) + 1}.json", {"sha256": "none"})
        return KILLED
    place = Played([killed_further] * 6)
    jobs = grid.train(experiments(("none",), (0,)), place, tries=2, show=False)
    assert states(jobs) == ["finished"] and len(place.started) == 7 and not jobs[0].failures
    jobs = grid.train(experiments(("none",), (1,)), Played([KILLED] * 2), tries=2, show=False)
    assert states(jobs) == ["failed"]


def test_what_would_end_the_same_is_not_tried_twice():
    place = Played([places.Answer("FloatingPointError: NaN", final=True)])
    jobs = grid.train(experiments(("none",), (0,)), place, show=False)
    assert states(jobs) == ["failed"] and len(place.started) == 1
    assert places._failure(FloatingPointError("NaN")).final and not places._failure(OSError("full")).final


def test_an_end_without_a_run_is_no_end():
    jobs = grid.train(experiments(("none",), (0,)), Played([places.Answer()]), show=False)
    assert states(jobs) == ["failed"] and "is MEDBENCH_CACHE one folder that every node sees" in jobs[0].failures[0]


def test_a_run_that_another_machine_wrote_may_be_seen_late(monkeypatch):
    read, waited = checkpoint.read_json, []

    def late(path):
        return None if path.name == "run.json" and len(waited) < 3 else read(path)
    monkeypatch.setattr(checkpoint.time, "sleep", waited.append)
    exps = experiments(("none",), (0,))
    monkeypatch.setattr(Played, "start", lambda self, key, *rest: (whole(self, key, *rest), patch()))
    monkeypatch.setattr(Played, "patience", places.OnRay.patience)

    def patch():                                             # as a folder's listing on NFS is older than its files
        monkeypatch.setattr(checkpoint, "read_json", late)
    jobs = grid.train(exps, Played(), show=False)
    assert states(jobs) == ["finished"] and not jobs[0].failures and waited == [2.0] * 3


def test_a_run_whose_latest_state_was_damaged_still_gains():
    exp = experiments(("none",), (0,))

    def goes_back(job):
        step = checkpoint.last_step(job.folder)
        for path in job.folder.glob("state-*.json"):
            path.unlink()
        write_json(job.folder / f"state-{step - 3 if step > 30 else step + 1}.json", {"sha256": "none"})
        return KILLED

    def far(job):
        write_json(job.folder / "state-40.json", {"sha256": "none"})
        return KILLED
    jobs = grid.train(exp, Played([far, *[goes_back] * 3]), tries=1, show=False)
    assert states(jobs) == ["finished"] and not jobs[0].failures


def test_no_more_are_started_than_there_is_room_and_each_is_told():
    told = []
    grid.train(experiments(seeds=(0, 1, 2)), Played(room=2), show=False, each=lambda job: told.append(job.state))
    assert told == ["finished"] * 6
    grid.train(experiments(seeds=(0,)), Played(), show=False, each=lambda job: told.append(job.state))
    assert told[6:] == ["loaded"] * 2


def test_logits_come_back_from_what_was_finished_too():
    exps = experiments(seeds=(0,))
    grid.train(exps, Played(), show=False)
    place = Played()
    first = grid.train(exps, place, logits=True, show=False)
    assert states(first) == ["loaded"] * 2 and len(place.started) == 2
    place = Played()
    again = grid.train(exps, place, logits=True, show=False)
    assert states(again) == ["loaded"] * 2 and not place.started
    assert all((a.logits == b.logits).all() and a.logits.shape == (10, 10) for a, b in zip(first, again))
    data = mb.load_data(exps[0].data)
    run = training.load_run(first[0].folder)
    assert (first[0].logits == training.predict(run.model, data.test)).all()


def test_logits_of_other_weights_are_not_taken_for_those_of_a_run(tmp_path):
    job, = grid.train(experiments(("none",), (0,)), Played(), logits=True, show=False)
    digests = read_json(job.folder / "run.json")["digests"]
    assert grid.known(job.folder, digests) is not None
    assert grid.known(job.folder, digests | {"weights": "others"}) is None
    (job.folder / grid.LOGITS).write_bytes(b"damaged")
    assert grid.known(job.folder, digests) is None


# --------------------------------------------------------------------------------------------- this machine
def test_a_training_that_is_killed_here_goes_on(monkeypatch):
    """The second of two processes is killed as soon as it has kept a state."""
    exps = experiments(("none", "softmax"), (0,), num_train=96, epochs=3)
    whole = digests(grid.train(exps, Played(), show=False))
    for exp in exps:
        _forget(exp)
    place, killed = places.Here(exps[0].training), []
    place.room = 2
    ended = place.ended

    def kill_one(seconds):
        for key, process in place.running.values():
            if not killed and checkpoint.last_step(key.folder) > 0:
                killed.append(key.name)
                os.kill(process.pid, signal.SIGKILL)
        return ended(0.02)
    monkeypatch.setattr(place, "ended", kill_one)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)      # of this process; the others keep one after each epoch
    jobs = grid.train(exps, place, show=False)
    assert killed and states(jobs) == ["finished"] * 2 and digests(jobs) == whole
    assert not any(job.failures for job in jobs)


def _forget(experiment):
    data = mb.load_data(experiment.data)
    folder = training.run_folder(mb.build_model(experiment.model), data, experiment.training)
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize("threads, room", [((1, 8), 1), ((8, 1), 1), ((1, 3), 2), ((1, 0), 1), ((1, 1), 8)])
def test_the_training_with_most_threads_says_how_many_run_at_a_time(monkeypatch, threads, room):
    monkeypatch.setattr(places.machine, "cores", lambda: 8)
    monkeypatch.setattr(places.recipe, "cores", lambda: 8)
    found = []

    class Stop(Exception):
        """Enough was seen."""

    def enters(self):
        found.append(self.room)
        raise Stop
    monkeypatch.setattr(places.Here, "__enter__", enters)
    with pytest.raises(Stop):
        grid.train([e for count in threads for e in experiments(("none",), (0,), threads=count)], show=False)
    assert found == [room]


def test_processes_end_with_their_place():
    place = places.Here(experiments()[0].training)
    with place:
        place.start("one", experiments()[0], False)
        (_, process), = place.running.values()
    assert process.exitcode == -signal.SIGKILL


def test_a_killed_grid_leaves_no_training_behind(tmp_path):
    """The grid's own process is killed; what it started ends by itself, and the next grid goes on."""
    import psutil
    script = tmp_path / "go.py"
    script.write_text("import medbench as mb\nfrom medbench import grid\nif __name__ == '__main__':\n"
                      f"    grid.train([mb.Experiment.preset('smoke', 'softmax', 0, **{SMALL | dict(epochs=500)})])\n")
    parent = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)},
                              stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("cache/runs/*/state-*.json")):
        assert parent.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=15)
    assert children and not alive


def test_a_process_that_dies_while_it_answers_was_killed(monkeypatch):
    place = places.Here(experiments()[0].training)

    class Broken:
        def recv(self):
            raise OSError("got end of file during message")

    class Ended:
        exitcode = -9

        def join(self):
            pass
    pipe = Broken()
    place.running[pipe] = "key", Ended()
    monkeypatch.setattr(places.multiprocessing.connection, "wait", lambda pipes, seconds: list(pipes))
    (key, answer), = place.ended(1.0)
    assert key == "key" and answer.killed and "code -9" in answer.reason


def test_an_error_in_a_process_comes_back_in_words():
    exp = experiments(("none",), (0,), lr=1e30, clip_grad=0.0, warmup=0.0)
    job, = grid.train(exp, show=False)
    assert job.state == "failed" and "FloatingPointError: training none stopped" in job.failures[0]


# --------------------------------------------------------------------------------------------- Ray
@pytest.mark.parametrize("variables, error, said", [
    ({"RAY_ADDRESS": ""}, ValueError, "RAY_ADDRESS is not set.*leave --ray out"),
    ({"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "disabled"}, ValueError, "wanted 'token'.*runs code"),
])
def test_a_cluster_that_cannot_be_used_is_refused(monkeypatch, variables, error, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=said):
        places.OnRay(experiments()[0].training)


class PlayedRay:
    """Ray with the nodes that a test names; a task is done at once, by a node with four cores."""

    exceptions = SimpleNamespace(GetTimeoutError=TimeoutError)

    def __init__(self, *cpus):
        self.cpus, self.options, self.done = cpus, [], []

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": count}} for count in self.cpus] + [
            {"Alive": False, "Resources": {"CPU": 64}}]

    def remote(self, **options):
        self.options.append(options)
        return lambda function: SimpleNamespace(remote=lambda config: self.done.append(config) or config.replace(
            device=config.device.replace("auto", "cpu"), threads=config.threads or 4, precision="float32"))

    def get(self, found, timeout):
        return found


def played_ray(*cpus, device="cpu"):
    place = object.__new__(places.OnRay)
    place.ray, place.resolved, place.gpu = PlayedRay(*cpus), {}, device == "cuda"
    return place


def test_all_trainings_of_a_cluster_get_the_same_threads_and_precision():
    place, configs = played_ray(4), [e.training.replace(threads=0, precision="auto") for e in experiments()]
    found = [place.resolve(config) for config in configs]
    assert len(place.ray.done) == 1 and {(c.threads, c.precision) for c in found} == {(4, "float32")}
    assert [c.seed for c in found] == [c.seed for c in configs] and len({c.seed for c in found}) > 1


def test_a_ray_that_knows_no_token_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__="2.9.3"))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ImportError, match=r"ray is 2.9.3.*'ray>=2.60'"):
        places.OnRay(experiments()[0].training, "10.0.0.5:6379")


def test_a_cluster_asks_for_its_token_and_its_use_is_told_to_nobody(monkeypatch, tmp_path):
    """Ray reads the first two when it is imported, and a node the last one when it takes a task."""
    wanted = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    for name in wanted:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / "ray.py").write_text("import os\n__version__, seen = '2.60.0', dict(os.environ)\n"
                                     "def init(*_, **__):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    del sys.modules["ray"]
    place = places.OnRay(experiments()[0].training, "10.0.0.5:6379")
    assert wanted.items() <= place.ray.seen.items() and wanted.items() <= dict(os.environ).items()
    place.ray = PlayedRay(4)
    place._task(places._work, experiments()[0].training)
    assert place.ray.options[0]["runtime_env"]["env_vars"]["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_training_that_no_node_could_ever_take_is_refused():
    config = experiments()[0].training.replace(threads=0)
    with pytest.raises(RuntimeError, match="needs 4 processors, and the largest node offers 2; say --set threads=2"):
        played_ray(1, 2).resolve(config)
    assert played_ray(4).resolve(config).threads == 4


def test_folders_are_told_to_other_nodes_in_full(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDBENCH_CACHE", "runs")
    monkeypatch.setenv("MEDBENCH_DATA", "")
    place = played_ray(1)
    place._task(places._work, experiments()[0].training)
    told = place.ray.options[0]["runtime_env"]["env_vars"]
    assert told["MEDBENCH_CACHE"] == str(tmp_path / "runs") and "MEDBENCH_DATA" not in told


def test_on_a_gpu_a_training_takes_one_processor_of_its_node():
    place = played_ray(1, device="cuda")
    config = place.resolve(experiments()[0].training.replace(threads=0))
    place._task(places._work, config)
    assert config.threads == 4 and [(o["num_cpus"], o["num_gpus"]) for o in place.ray.options] == [(1, 1), (1, 1)]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A real Ray cluster on this machine: a head that does no work and two workers, ended by their process numbers."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    ray = pytest.importorskip("ray")                         # reads its token when it is imported
    port, nodes = _free_port(), []
    sockets = tempfile.mkdtemp(prefix="ray-", dir="/tmp")    # whose paths may have only 107 letters
    for name, cpus in (("head", 0), ("one", 1), ("two", 1)):
        where = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={sockets}"] \
            if name == "head" else [f"--address=127.0.0.1:{port}"]
        log = open(tmp_path / f"{name}.log", "w")
        nodes.append(subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
             f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=80000000", "--node-ip-address=127.0.0.1",
             *where], stdout=log, stderr=subprocess.STDOUT, start_new_session=True))
        _wait_for(tmp_path / f"{name}.log", "Ray runtime started", nodes[-1])
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    yield nodes
    ray.shutdown()
    for node in reversed(nodes):
        _end(node)
    shutil.rmtree(sockets, ignore_errors=True)


def _free_port():
    import socket
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait_for(log, text, process, seconds=60):
    end = time.monotonic() + seconds
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.1)


def _end(node):
    """End a node and what it started, by their process numbers."""
    import psutil
    try:
        family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(family, timeout=10)
    node.wait(10)


@pytest.mark.slow
def test_on_a_cluster_whose_worker_is_killed_nothing_is_lost(cluster, monkeypatch):
    """Two workers, one of them killed as soon as a training on it has kept a state; what comes is what comes here."""
    exps = experiments(("none", "softmax"), (0, 1), num_train=96, epochs=40)
    whole = digests(grid.train(exps, Played(), show=False))
    for exp in exps:
        _forget(exp)
    place, killed = places.OnRay(exps[0].training), []
    ended = place.ended

    answers = []

    def kill_one(seconds):
        going = [key for key in place.refs.values() if checkpoint.last_step(key.folder) > 0]
        if not killed and len(going) == 2:                   # both workers are in the middle of a training
            _end(cluster[1])
            killed.extend(going)
        found = ended(0.2)
        answers.extend((key, answer, checkpoint.last_step(key.folder)) for key, answer in found)
        return found
    monkeypatch.setattr(place, "ended", kill_one)
    jobs = grid.train(exps, place, show=False)
    died = [(key, reached) for key, answer, reached in answers if answer.killed]
    assert len(died) == 1 and died[0][0] in killed and died[0][1] > 0                     # and it went on from there
    assert states(jobs) == ["finished"] * 4 and digests(jobs) == whole
    later = places.OnRay(exps[0].training)
    monkeypatch.setattr(later, "start", lambda *_: pytest.fail("done again"))
    assert states(grid.train(exps, later, show=False)) == ["loaded"] * 4


@pytest.mark.slow
def test_without_its_token_a_cluster_cannot_be_reached(cluster, monkeypatch):
    told = [sys.executable, "-c", "import ray; ray.init(log_to_driver=False); print('in')"]
    for token, let_in in (("0123456789abcdef" * 4, True), ("f" * 64, False)):
        done = subprocess.run(told, env=os.environ | {"RAY_AUTH_TOKEN": token}, capture_output=True, text=True,
                              timeout=120, check=False)
        assert ("in" in done.stdout.split()) is let_in, done.stderr[-2000:]


# --------------------------------------------------------------------------------------------- what is shown
class Told:
    def __init__(self, name, column, state="waiting", share=0.0, size=100):
        self.name, self.column, self.state, self._share, self.size = name, column, state, share, size
        self.over, self.title, self.begun = state in ("finished", "failed"), f"{name}, {column}", True

    def share(self):
        return self._share


def test_the_board_says_how_far_and_how_long(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: clock[0])
    jobs = [Told("softmax", "seed 0", "running"), Told("softmax", "seed 1"), Told("xca", "seed 0", "failed"),
            Told("xca", "seed 1")]
    with board.Board(jobs) as shown:
        clock[0], jobs[0].state, jobs[0]._share, jobs[0].over = 600.0, "finished", 1.0, True
        jobs[1].state, jobs[1]._share = "running", 0.5
        shown.update()
        assert shown.conclusion() == "2 of 4 trainings over, 1 of them failed, about 10 min left"    # 150 in 600 s
        shown.first[jobs[3]] = 0.9                           # its states were damaged: it began anew
        assert shown.conclusion().endswith("about 10 min left")
        from rich.console import Console
        with open(os.devnull, "w") as nowhere:
            console_ = Console(file=nowhere, record=True, width=80)
            console_.print(shown._table())
        text = console_.export_text()
    assert "done" in text and "50%" in text and "failed" in text and "seed 1" in text and "about 10 min" in text
    assert capsys.readouterr().err.splitlines()[0].startswith("softmax, seed 0: finished; 2 of 4")


def test_in_a_terminal_the_table_is_live(monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True
    screen, clock = Terminal(), [0.0]
    monkeypatch.setattr(board, "terminal", lambda: screen)
    monkeypatch.setattr(board.time, "monotonic", lambda: clock[0])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    jobs = [Told("softmax", "seed 0", "running"), Told("softmax", "seed 1")]
    with board.Board(jobs) as shown:
        clock[0], jobs[0]._share = 300.0, 0.5
        shown.update()
    assert "50%" in screen.getvalue() and "15 min" in screen.getvalue()


def test_what_a_cluster_has_no_room_for_yet_is_shown_as_waiting():
    jobs = [Told("softmax", f"seed {seed}", "running") for seed in (0, 1)]
    jobs[1].begun = False
    columns = [list(column.cells) for column in board.Board(jobs, show=False)._table().columns]
    assert columns == [["softmax"], [board.MARKS["running"]], [board.MARKS["waiting"]]]


@pytest.mark.parametrize("seconds, words", [(40, "40 s"), (100, "2 min"), (3599, "60 min"), (11100, "3 h 5 min")])
def test_times_in_words(seconds, words):
    assert board.in_words(seconds) == words.replace("60 min", "1 h 0 min")


# --------------------------------------------------------------------------------------------- the command
@pytest.mark.parametrize("text, seeds", [("0-7", list(range(8))), ("3", [3]), ("0,2-4,2", [0, 2, 3, 4])])
def test_seeds_are_read(text, seeds):
    assert commands.seeds_in(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-2", "1-", "0..3"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="wanted numbers such as 0-7"):
        commands.seeds_in(text)


@pytest.mark.parametrize("given, said", [("lr=", "wanted values"), ("seed=1,2", "or --seeds 0-7")])
def test_choices_that_are_none_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        console.choices([given])


def test_choices_are_read():
    assert console.choices(["lr=0.001,1e-3,0.01,0.001", "depths=[2],[2]"]) == {"lr": [0.001, 0.01], "depths": [[2]]}
    assert console.choices(["lr=0.001,0.01", "lpi=true,false"]) == {"lr": [0.001, 0.01], "lpi": [True, False]}
    with pytest.raises(ValueError, match="--vary got 'lr'; wanted name=value"):
        console.choices(["lr"])


def test_the_command_trains_a_grid_and_then_passes_it_over(capsys):
    call = ["grid", "--models", "none", "--seeds", "0,1", *SMOKE, "--vary", "lr=0.001,0.002"]
    assert main([*call, "--format", "csv"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("model,seed,lr,run,state,val_") and len(rows) == 4
    assert [row.split(",")[:3] for row in rows] == [["none", s, lr] for s in "01" for lr in ("0.001", "0.002")]
    assert len({row.split(",")[3] for row in rows}) == 4 and all(",finished," in row for row in rows)
    assert main([*call, "--format", "csv"]) == 0
    assert all(",loaded," in row for row in capsys.readouterr().out.splitlines()[1:])


def test_a_grid_is_scored_from_the_table_that_it_printed(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "Here", lambda config: Played())
    opened, load = [], commands.load_data
    for module in (commands, grid):
        monkeypatch.setattr(module, "load_data", lambda config: opened.append(config) or load(config))
    call = ["grid", "--models", "none,softmax", "--seeds", "0,1", *SMOKE]
    assert main([*call, "--format", "csv"]) == 0
    assert len(opened) == 2 + 4                              # once here, once in `grid.train`, once in each training
    (tmp_path / "runs.csv").write_text(capsys.readouterr().out)
    runs = [line.split(",")[2] for line in (tmp_path / "runs.csv").read_text().splitlines()[1:]]
    score = ["evaluate", str(tmp_path / "runs.csv"), "--bootstrap", "20", "--format", "csv"]
    assert main(score) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("model,seed,run,n,balanced_accuracy") and [row.split(",")[2] for row in rows] == runs
    assert main([*score, "--compare", "none"]) == 0
    assert capsys.readouterr().out.count(",2,") == 2


def test_what_has_to_be_said_of_the_data_is_in_every_result(tmp_path, monkeypatch, capsys):
    """Images without patients: each row and each record of train, grid, evaluate with all it can, and a campaign, whose
    scores also say what they themselves have to."""
    from PIL import Image

    from medbench import results
    from medbench.book import campaigns
    from medbench.book.real import RealSet
    said, rng, lines = "no patient ids: slice-level split", np.random.default_rng(0), ["path,label,split"]
    for i in range(48):
        Image.fromarray(rng.integers(0, 256, (112, 112), np.uint8) // (1 + i % 2)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},{('train', 'train', 'val', 'test')[i // 2 % 4]}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    monkeypatch.setenv("MEDBENCH_RESULTS", str(tmp_path / "results"))
    source = ["--data", str(tmp_path / "manifest.csv"), "--preset", "smoke", "--set", "epochs=1", "--set", "threads=1",
              "--device", "cpu", "--format", "csv"]
    rows = []
    for call in (["train", "--model", "none"], ["grid", "--models", "none,softmax"]):
        assert main([*call, *source]) == 0
        rows += capsys.readouterr().out.splitlines()[1:]
    run = next(path.parent.name for path in tmp_path.glob("cache/runs/*/run.json"))
    assert main(["evaluate", run, "--bootstrap", "5", "--baselines", "--calibration", "--record", "mine", "--format",
                 "csv"]) == 0
    rows += capsys.readouterr().out.splitlines()[1:]
    assert len(rows) == 7 and all(said in row for row in rows)
    monkeypatch.setenv("MEDBENCH_DATA", str(tmp_path))
    mine = campaigns.Campaign("c", "10_c", "smoke", RealSet("set", "manifest.csv", "10_c", "drawn", "", a_patient=2),
                              ("none", "softmax"), (0, 1), changes=(("epochs", 1), ("threads", 1)))
    monkeypatch.setattr(places, "Here", lambda config: Played())
    to = tmp_path / "results" / "here" / "10_c.json"
    found = campaigns.run("c", device="cpu", bootstrap=5, to=to, campaigns={"c": mine}, show=False)
    assert all(said in row["caveats"] for row in found)
    scored = {r.quantity: r.context["caveats"] for r in records.read(to).records if r.model == "none" and r.seed == 0}
    few = "only 6 patients of class a, b: intervals are uncertain"
    assert few in scored["balanced_accuracy"] and all(len(set(told)) == len(told) for told in scored.values())
    assert "temperature" in {r.quantity for path in tmp_path.glob("results/*/mine.json")
                             for r in records.read(path).records}
    for path in tmp_path.glob("results/*/*.json"):
        bare = [r.name for r in records.read(path).records if said not in r.context.get("caveats", ())]
        assert not [name for name in bare if not name.endswith((".rate_factor", ".samples_seen", ".epochs",
                                                                ".best_epoch"))], bare
    assert results.load(tmp_path / "results").chapter.nunique() == 2


def test_a_grid_with_failures_says_so_at_the_end(capsys):
    bad = ["--set", "lr=1e30", "--set", "clip_grad=0", "--set", "warmup=0"]
    assert main(["grid", "--models", "none", *SMOKE, *bad, "--format", "csv"]) == console.WRONG
    printed = capsys.readouterr()
    assert "failed" in printed.out and "FloatingPointError" in printed.out
    assert "1 of 1 trainings failed" in printed.err and "--again" in printed.err
