r"""Does the timing protocol see differences where there are none? A model compared with itself, many times.

What lives here, top to bottom: `Trial` and `SelfTest`, what comes out; `self_test`, which takes any module; `Bursts`,
the load that runs beside every second comparison.

Both sides are the same module, so each verdict "faster" or "slower" is a false call, which the protocol has to avoid
whether the machine is left alone or not. "Inconclusive" is no false call: it says that the noise was too large. A
comparison with too few quiet rounds is not judged at all, and does not count among those that were right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..checks import whole
from ..machine import cores
from ..rows import finding
from .comparison import Comparison
from .judging import judged
from .protocol import compare
from .timing import CONFIDENCE, Load, fewest_rounds, read_load, suffix_of

FALSE = ("faster", "slower")
NOT_JUDGED = "not judged"    # the verdict of fewer than `fewest_rounds` that were quiet
KINDS = {"all": (False, True), "quiet": (False,), "loaded": (True,)}     # which comparisons: without, with the load
BOUND = 0.95                 # confidence of the upper bound of the rate
BUSY_SECONDS, IDLE_SECONDS = 0.3, 0.7                                    # of the load, in turns
START_SECONDS = 120.0        # in which the load has to be ready


# --------------------------------------------------------------------------------------------- what comes out
@dataclass(frozen=True)
class Trial:
    """One comparison: whether the load ran beside it, its ratio and floor, and its rounds.

    `verdict` with intervals as asked for, `usual` with those at 95 %.
    """

    loaded: bool
    verdict: str
    usual: str
    ratio: float
    low: float
    high: float
    floor: float
    rounds: int
    disturbed: int


@dataclass(frozen=True)
class SelfTest:
    """All comparisons of a model with itself: `seconds` the budget of each, `confidence` of their intervals."""

    trials: tuple[Trial, ...]
    seconds: float
    confidence: float
    batch: int
    threads: int
    device: str

    def count(self, kind: str, *verdicts: str, usual: bool = False) -> int:
        """How many comparisons of a kind, `"all"`, `"quiet"` or `"loaded"`, ended so; without verdicts all of them.

        `usual`: with intervals at 95 %.
        """
        return sum(t.loaded in KINDS[kind] and (not verdicts or (t.usual if usual else t.verdict) in verdicts)
                   for t in self.trials)

    def judged(self, kind: str, usual: bool = False) -> int:
        """How many comparisons of a kind had enough quiet rounds for a verdict."""
        return self.count(kind) - self.count(kind, NOT_JUDGED, usual=usual)

    def bound(self, kind: str = "all", usual: bool = False) -> float | None:
        """Upper 95 % bound of the rate of false calls among the judged comparisons; None if there are none.

        Source: Clopper and Pearson 1934, Biometrika 26(4).
        """
        from scipy.stats import binomtest
        n = self.judged(kind, usual)
        if not n:
            return None
        found = binomtest(self.count(kind, *FALSE, usual=usual), n, alternative="less")
        return float(found.proportion_ci(BOUND, method="exact").high)

    @property
    def text(self) -> str:
        """What may be concluded, in a few sentences."""
        n, judged = self.count("all"), self.judged("all")
        if not judged:
            return (f"None of {n} comparisons of a model with itself had the {fewest_rounds(self.confidence)} quiet "
                    f"rounds of a verdict.")
        apart = "; ".join(f"{self.count(kind, *FALSE)} of {self.judged(kind)} {where}" for kind, where in
                          (("quiet", "with the machine left alone"), ("loaded", "beside a load")) if self.count(kind))
        return (f"Of {n} comparisons of a model with itself, {judged} had enough quiet rounds for a verdict: "
                f"{self.count('all', 'tie')} were ties, {self.count('all', 'inconclusive')} inconclusive, and "
                f"{self.count('all', *FALSE)} called it different ({apart}). So false calls are rarer than "
                f"{self.bound():.1%}, at {BOUND:.0%} confidence, where intervals are those of {self.confidence:.0%}. "
                f"With intervals of {CONFIDENCE:.0%}, {self.count('all', *FALSE, usual=True)} of "
                f"{self.judged('all', usual=True)} would call it different: fewer than {self.bound(usual=True):.1%}.")

    def rows(self) -> list[dict]:
        """Counts and bounds for all comparisons, for the quiet and for the loaded, n the judged ones; the sentence."""
        context = {"batch": self.batch, "threads": self.threads, "comparison_seconds": self.seconds}
        rows = []
        for kind in KINDS:
            counts = {"comparisons": self.count(kind), "not_judged": self.count(kind, NOT_JUDGED),
                      "ties": self.count(kind, "tie"), "inconclusive": self.count(kind, "inconclusive"),
                      "false_calls": self.count(kind, *FALSE), "false_call_bound": self.bound(kind),
                      "usual_false_calls": self.count(kind, *FALSE, usual=True),
                      "usual_false_call_bound": self.bound(kind, usual=True)}
            for name, value in counts.items():
                usual = name.startswith("usual")
                rows.append({"quantity": name, "value": value, "unit": "1", "n": self.judged(kind, usual),
                             "suffix": kind, "context": {"confidence": CONFIDENCE if usual else self.confidence},
                             **({"reason": "no comparison of this kind was judged"} if value is None else {})})
        chosen = {kind: [t for t in self.trials if t.loaded in KINDS[kind]] for kind in ("quiet", "loaded")}
        raw = {kind: {"ratio": [t.ratio for t in trials], "floor": [t.floor for t in trials],
                      "rounds": [t.rounds for t in trials], "disturbed": [t.disturbed for t in trials]}
               for kind, trials in chosen.items()}
        rows.append(finding(self.text, "self_test", n=len(self.trials), context=raw | {"confidence": self.confidence},
                            suffix=suffix_of(self.batch, "float32")))
        return [row | {"context": context | row.get("context", {})} for row in rows]


# --------------------------------------------------------------------------------------------- the test
def self_test(module: nn.Module, input_size: tuple[int, ...], *, comparisons: int = 100, seconds: float = 3.6,
              rounds: int = 30, threads: int = 0, device="auto", seed: int = 0, confidence: float = 0.99,
              loaded: bool = True, clock: Callable[[], float] = time.perf_counter,
              load: Callable[[], Load] = read_load) -> SelfTest:
    """Compare a module with itself under two names, again and again, every second time beside a load.

    Args:
        module: comes back as it was. input_size: of its input, batch first.
        comparisons: how many. seconds, rounds, threads, device, confidence, clock, load: as for `latency.compare`.
        seed: of the first comparison; each one after it takes the next.
        loaded: False leaves the machine alone in all of them.
    Returns:
        `SelfTest`.
    Raises:
        ValueError: a number that is not allowed; RuntimeError: the load did not start; else as `latency.compare`.
    """
    whole("comparisons", comparisons)
    trials, found = [], None
    with Bursts() if loaded else contextlib.nullcontext() as bursts:
        for number in range(comparisons):
            beside = loaded and number % 2 == 1
            with bursts.running() if beside else contextlib.nullcontext():
                found = compare({"model": module, "itself": module}, input_size, rounds=rounds, seconds=seconds,
                                threads=threads, device=device, seed=seed + number, confidence=confidence, clock=clock,
                                load=load)
            trials.append(_trial(found, beside, seed + number))
    return SelfTest(tuple(trials), seconds, confidence, input_size[0], found.threads, found.device)


def _trial(found: Comparison, loaded: bool, seed: int) -> Trial:
    itself = found["itself"]
    blank = {name: dataclasses.replace(timing, reason=None) for name, timing in found.timings.items()}
    usual = judged(blank, list(found.rounds), "model", seed, CONFIDENCE)[0]["itself"]
    verdicts = [NOT_JUDGED if timing.reason else timing.verdict for timing in (itself, usual)]
    return Trial(loaded, *verdicts, itself.ratio, itself.ratio_low, itself.ratio_high, found.floor, len(found.rounds),
                 found.disturbed)


# --------------------------------------------------------------------------------------------- the load
class Bursts:
    """Another process that multiplies matrices in bursts while it may; it ends with the `with` block."""

    def __enter__(self) -> Bursts:
        start = multiprocessing.get_context("spawn")
        self.ready, self.go, self.end = start.Event(), start.Event(), start.Event()
        self.process = start.Process(target=_multiply, args=(self.ready, self.go, self.end), daemon=True)
        self.process.start()
        if not self.ready.wait(START_SECONDS):
            self.__exit__()
            raise RuntimeError(f"the load was not ready within {START_SECONDS:g} s; try again on a quieter machine")
        return self

    def __exit__(self, *_) -> None:
        self.end.set()
        self.go.set()
        self.process.join()

    @contextlib.contextmanager
    def running(self):
        """Multiply while this lasts."""
        self.go.set()
        try:
            yield
        finally:
            self.go.clear()


def _multiply(ready, go, end) -> None:
    """In the load's process: on all cores, busy and idle in turns."""
    torch.set_num_threads(cores())
    a = torch.rand(512, 512)
    out = torch.mm(a, a)
    ready.set()
    while go.wait() and not end.is_set():
        until = time.perf_counter() + BUSY_SECONDS
        while time.perf_counter() < until:
            torch.mm(a, a, out=out)
        time.sleep(IDLE_SECONDS)
