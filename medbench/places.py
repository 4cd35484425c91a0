"""Where the trainings of a grid run: in processes of this machine, or as tasks of a Ray cluster.

What lives here, top to bottom: `Answer`, how one start ended; `Place`, what a place can do; `Here`; `OnRay`.

A place starts a training and says how it ended: well, with an error, or killed. What follows from that is for `grid`.
"""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import distributed, machine, recipe
from .config import TrainingConfig
from .experiment import Experiment
from .files import SEEN_LATE, environment

WORK = ("medbench.grid", "work")                             # what is done at a place
FINAL = (FloatingPointError, ValueError, TypeError, LookupError)       # the same each time
GIGABYTE = 2**30
KEEP_MEMORY = ":".join(f"glibc.malloc.{name}={value}" for name, value in dict(
    hugetlb=1, mmap_threshold=4 * GIGABYTE, trim_threshold=16 * GIGABYTE, top_pad=GIGABYTE // 4).items())
NO_ROOM = 120.0                                              # seconds for a first answer of the cluster
PASSED_ON = ("MEDBENCH_CACHE", "MEDBENCH_DATA")              # folders that tasks on other nodes get


@dataclass(frozen=True)
class Answer:
    """How a start ended.

    `reason`: an error in words, `None` where it went well. `killed`: the process was ended from outside. `final`: it
    would end the same if started again. `logits` (n, k) on the test set, where they were wanted.
    """

    reason: str | None = None
    killed: bool = False
    final: bool = False
    logits: np.ndarray | None = None


class Place:
    """Where trainings run. Leaving its `with` block ends what still runs there."""

    room = 1                                                 # how many may be started at a time
    patience = 0.0                                           # seconds until files written there are seen here

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """End what still runs."""

    def resolve(self, config: TrainingConfig) -> TrainingConfig:
        """`recipe.resolve` for the machines of this place."""
        return recipe.resolve(config)

    def start(self, key: Any, experiment: Experiment, logits: bool) -> None:
        """Start a training; `key` stands for it in `ended`."""
        raise NotImplementedError

    def ended(self, seconds: float) -> list[tuple[Any, Answer]]:
        """What ended, waiting for it at most so long."""
        raise NotImplementedError


def _work(experiment: Experiment, logits: bool) -> np.ndarray | None:
    module, name = WORK
    return getattr(importlib.import_module(module), name)(experiment, logits)


def _failure(error: BaseException) -> Answer:
    return Answer(f"{type(error).__name__}: {error}", final=isinstance(error, FINAL))


# --------------------------------------------------------------------------------------------- this machine
class Here(Place):
    """Processes of this machine, as many at a time as there are cores for their threads; one on a GPU.

    Why: small models leave a second thread half idle. On two cores softmax attention trains on 201 images a second with
    one thread and on 270 with two; two models at a time make 400. The processes keep the memory that they free, in huge
    pages: without that a step of softmax attention takes 63 ms, with it 58.
    """

    def __init__(self, config: TrainingConfig):
        config = recipe.resolve(config)
        self.room = max(1, machine.cores() // config.threads) if config.device == "cpu" else 1
        self.running: dict = {}                              # our end of the pipe -> (key, process)

    def __exit__(self, *_):
        for _, process in self.running.values():
            process.kill()                                   # by its pid; a training may be killed at any moment
            process.join()

    def start(self, key: Any, experiment: Experiment, logits: bool) -> None:
        """A process of its own for each: what one leaves in memory, or dies of, is no matter to the next."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_in_process, args=(theirs, experiment, logits))
        with environment(GLIBC_TUNABLES=KEEP_MEMORY):
            process.start()
        theirs.close()
        self.running[ours] = key, process

    def ended(self, seconds: float) -> list[tuple[Any, Answer]]:
        """What ended, waiting for it at most so long."""
        found = []
        for pipe in multiprocessing.connection.wait(list(self.running), seconds):
            key, process = self.running.pop(pipe)
            try:
                answer = pipe.recv()
            except (EOFError, OSError):                      # nothing was sent, or half of it
                process.join()
                answer = Answer(f"the process was ended from outside, with code {process.exitcode}", killed=True)
            process.join()
            found.append((key, answer))
        return found


def _in_process(pipe, experiment: Experiment, logits: bool) -> None:
    """What a process of `Here` does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)             # an interrupt is for the parent, which then ends this one
    distributed.end_with_parent()
    try:
        answer = Answer(logits=_work(experiment, logits))
    except Exception as error:
        answer = _failure(error)
    pipe.send(answer)


# --------------------------------------------------------------------------------------------- Ray
class OnRay(Place):
    """Tasks of the Ray cluster at `RAY_ADDRESS`: `threads` processors each, or for `cuda` one and a GPU.

    Every node has to have medbench, and to see `MEDBENCH_CACHE` and the data under the same paths. Ray's own retries
    are off: `grid` counts them.
    """

    patience = SEEN_LATE

    def __init__(self, config: TrainingConfig, address: str | None = None):
        address = address or os.environ.get("RAY_ADDRESS")
        if not address:
            raise ValueError("RAY_ADDRESS is not set; wanted the address of a running Ray cluster, such as "
                             "10.0.0.5:6379; leave --ray out to train on this machine")
        if os.environ.get("RAY_AUTH_MODE", "token") != "token":
            raise ValueError(f"RAY_AUTH_MODE is {os.environ['RAY_AUTH_MODE']!r}; wanted 'token': Ray's ports listen on "
                             f"all interfaces, and without a token whoever reaches them runs code on the cluster")
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}       # read when ray is imported
        try:
            import ray
        except ImportError as error:
            raise ImportError("--ray needs the package ray; say pip install 'ray>=2.60'") from error
        if tuple(map(int, ray.__version__.split(".")[:2])) < (2, 60):
            raise ImportError(f"ray is {ray.__version__}, which may let in whoever reaches its ports; on every "
                              f"node, say pip install 'ray>=2.60'")
        self.ray, self.address = ray, address
        self.refs: dict = {}
        self.resolved: dict[TrainingConfig, TrainingConfig] = {}
        self._connect()
        self.gpu = config.device.startswith("cuda")
        self.room = 10**6                                    # Ray itself lets wait what finds no free node

    def _connect(self) -> None:
        try:
            self.ray.init(self.address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError) as error:     # Ray's own messages run over many lines
            raise RuntimeError(f"there is no Ray cluster at {self.address!r} that takes our token "
                               f"({type(error).__name__}: {str(error).strip().splitlines()[0]}); start it as "
                               f"book/train-on-a-cluster.md says") from error

    def __exit__(self, *_):
        for ref in self.refs:
            self.ray.cancel(ref, force=True)
        self.ray.shutdown()                                  # our own connection; the cluster stays

    def resolve(self, config: TrainingConfig) -> TrainingConfig:
        """As a node of the cluster resolves it, not this machine; one node's answer for all trainings that ask alike.
        """
        asked = TrainingConfig(**{name: getattr(config, name) for name in recipe.DEFINITE})
        if asked not in self.resolved:
            try:
                task = self._task(recipe.resolve, asked).remote(asked)
                self.resolved[asked] = self.ray.get(task, timeout=NO_ROOM)
            except self.ray.exceptions.GetTimeoutError as error:
                raise RuntimeError(f"no node of the cluster took a task within {NO_ROOM:.0f} s; each training needs "
                                   f"{self._cpus(asked)} free processors{' and a GPU' if self.gpu else ''}: "
                                   f"`ray status` lists what the nodes have") from error
            self._refuse_too_large(self.resolved[asked])
        return config.replace(**{name: getattr(self.resolved[asked], name) for name in recipe.DEFINITE})

    def _refuse_too_large(self, config: TrainingConfig) -> None:
        """Raises RuntimeError where no node could ever take such a training: Ray would let it wait for ever."""
        wanted = self._cpus(config)
        most = max((node["Resources"].get("CPU", 0) for node in self.ray.nodes() if node["Alive"]), default=0)
        if most < wanted:
            raise RuntimeError(f"each training needs {wanted} processors, and the largest node offers {most:g}; say "
                               f"--set threads={max(1, int(most))}, or start the nodes with more --num-cpus")

    def _cpus(self, config: TrainingConfig) -> int:
        """Processors that a training takes: on a GPU one, which feeds it."""
        return 1 if self.gpu else config.threads or 1

    def _task(self, function, config: TrainingConfig):
        """A function as a Ray task in a process of its own, with the processors that a training takes."""
        given = {name: os.path.abspath(os.environ[name]) for name in PASSED_ON if os.environ.get(name)}
        given |= {"GLIBC_TUNABLES": KEEP_MEMORY, "OMP_NUM_THREADS": str(config.threads or 1),
                  "RAY_USAGE_STATS_ENABLED": "0"}
        return self.ray.remote(num_cpus=self._cpus(config), num_gpus=int(self.gpu), max_retries=0, max_calls=1,
                               runtime_env={"env_vars": given})(function)

    def start(self, key: Any, experiment: Experiment, logits: bool) -> None:
        """Give the cluster a task; it runs as soon as a node has room."""
        ref = self._task(_work, experiment.training).remote(experiment, logits)
        self.refs[ref] = key

    def ended(self, seconds: float) -> list[tuple[Any, Answer]]:
        """What ended, waiting for it at most so long."""
        done, _ = self.ray.wait(list(self.refs), timeout=seconds)
        return [(self.refs.pop(ref), self._answer(ref)) for ref in done]

    def _answer(self, ref) -> Answer:
        errors = self.ray.exceptions
        try:
            return Answer(logits=self.ray.get(ref))
        except errors.RayTaskError as error:
            return _failure(error.cause or error)
        except errors.RayError as error:                     # the worker or its node is gone
            return Answer(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}", killed=True)
