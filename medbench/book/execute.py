"""Executing chapters: what is stale, one after the other, with progress in the terminal.

What lives here, top to bottom: `why`, the reason to execute a chapter; `execute_all`; `execute`; where the lines of the
kernels' progress bars go; the status line.

A chapter's execution lies in `chapters/` only when it is complete, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import shutil
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbclient.exceptions import DeadKernelError

from .. import files
from . import notebook as nb
from .chapters import Checkout
from .stamps import stale, stamp, values

ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class ChapterFailed(RuntimeError):
    """A chapter raised an error, or its execution may not go into the book."""


# --------------------------------------------------------------------------------------------- state
def read(place: Checkout, name: str, committed: bool = False):
    """The executed notebook of a chapter, or `None`; a file cut in half counts as none."""
    try:
        return nbformat.read(place.executed(name, committed), as_version=nbformat.NO_CONVERT)
    except FileNotFoundError:
        return None
    except Exception as error:                               # nbformat raises many kinds for a damaged file
        print(f"{name}: its executed notebook cannot be read ({type(error).__name__}); it will be executed again")
        return None


def facts(notebook) -> dict:
    """What the runner noted in an executed notebook: stamp, seconds, date, device, profile."""
    return notebook.metadata.get("medbench", {}) if notebook is not None else {}


def wrote(place: Checkout, name: str, committed: bool = False, device: str | None = None) -> str | None:
    """Hash of the values that a chapter recorded, `None` if it recorded nothing."""
    root = place.committed / "results" if committed else place.results
    path = root / (device or place.device_name) / f"{name}.json"
    return values(path, path.stat().st_mtime_ns) if path.exists() else None


def why(place: Checkout, name: str) -> str | None:
    """Why a chapter has to be executed, in words; `None` if what lies here still stands."""
    noted = facts(read(place, name))
    reason = stale(noted.get("stamp"), stamp(place, name))
    if reason is None and noted.get("wrote") != wrote(place, name):
        reason = "its own records changed or are gone"
    return reason


# --------------------------------------------------------------------------------------------- all
def execute_all(place: Checkout, names=None, force: bool = False) -> dict[str, float]:
    """Execute the chapters that are stale, in the order of the graph.

    Args:
        place: the checkout. names: these chapters alone. force: also those that still stand.
    Returns:
        Seconds of each chapter's execution, now or earlier.
    Raises:
        ChapterFailed: at the first chapter that fails; the finished ones are kept.
    """
    names = [name for name in place.chapters if names is None or name in names]
    (place.build / "running").mkdir(parents=True, exist_ok=True)
    begun, took = time.monotonic(), {}
    with _alone(place.build / "running" / "book.lock"):
        for number, name in enumerate(names, 1):
            reason = "asked for" if force else why(place, name)
            head = f"[{number:2d}/{len(names)}] {name}"
            if reason is None:
                renew_text(place, name)
                print(f"{head}: unchanged", flush=True)
            else:
                rest = [expected(place, n) for n in names[number - 1:]]
                print(f"{head}: {reason}; expected {_about(rest[0])}, with the rest {_about(_sum(rest))}", flush=True)
                execute(place, name, head)
                print(f"{head}: done in {clock(facts(read(place, name))['seconds'])}, "
                      f"{clock(time.monotonic() - begun)} since the start", flush=True)
            took[name] = facts(read(place, name))["seconds"]
    return took


@contextlib.contextmanager
def _alone(path: Path):
    """Two runs in one checkout would write the same files: the second waits, and says so."""
    from filelock import FileLock, Timeout
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another run is at work in this checkout; waiting for it to end ...", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def due(place: Checkout, name: str, noted: dict, committed: bool = False) -> dict:
    """The stamp that a chapter would get now. The committed edition is measured by its own device and profile.

    Args: `noted`: the stamp that it has.
    """
    if not committed:
        return stamp(place, name)
    seen = Checkout(place.root, noted.get("profile", place.profile), place.device, place.graph)
    return stamp(seen, name, committed, noted.get("device"))


def renew_text(place: Checkout, name: str, committed: bool = False) -> bool:
    """Put changed text around the outputs of an execution that still stands; whether there was any."""
    old = read(place, name, committed)
    now = due(place, name, facts(old)["stamp"], committed)
    if not stale(facts(old)["stamp"], now, prose=True):
        return False
    new = nb.weave(old, nbformat.read(place.notebook(name), as_version=nbformat.NO_CONVERT))
    new.metadata["medbench"]["stamp"] = now
    files.write_bytes(place.executed(name, committed), nb.text_of(new).encode())
    return True


def expected(place: Checkout, name: str) -> float | None:
    """Seconds that a chapter took the last time, here or in the committed edition, with the same profile."""
    for committed in (False, True):
        noted = facts(read(place, name, committed))
        if noted.get("stamp", {}).get("profile") == place.profile:
            return noted["seconds"]
    return None


# --------------------------------------------------------------------------------------------- one
def execute(place: Checkout, name: str, head: str = "") -> None:
    """Execute one chapter, check it and put it among the executed ones.

    Raises:
        ChapterFailed: with the cell and its error; what was executed so far lies in `running/`.
    """
    import papermill
    before, running = stamp(place, name), place.build / "running"
    parameters = {k: v for k, v in (("profile", place.profile), ("device", place.device))
                  if v != {"profile": "laptop", "device": "auto"}[k]}
    work = running / name                                    # what a chapter writes by a relative path lands here
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    start, failed = time.monotonic(), None
    with (files.environment(MEDBENCH_RESULTS=str(place.results), JUPYTER_PREFER_ENV_PATH="1"),
          Status(head, expected(place, name)) as status):
        try:
            papermill.execute_notebook(str(place.notebook(name)), str(running / f"{name}.ipynb"), parameters,
                                       cwd=str(work), kernel_name="python3", progress_bar=False)
        except (papermill.exceptions.PapermillExecutionError, DeadKernelError) as error:
            failed = error
    seconds = time.monotonic() - start
    done = nb.scrub(nbformat.read(running / f"{name}.ipynb", as_version=nbformat.NO_CONVERT), place.root)
    if failed or nb.complaints(done):
        trace = getattr(failed, "traceback", None) or [str(failed or ""), *status.tail]
        raise ChapterFailed(_what_failed(name, trace, nb.complaints(done), running))
    done.metadata["medbench"] = {"stamp": before, "wrote": wrote(place, name), "seconds": round(seconds, 1),
                                 "date": datetime.now(UTC).date().isoformat(), **_machine(place)}
    files.write_bytes(place.executed(name), nb.text_of(done).encode())
    shutil.rmtree(work, ignore_errors=True)
    (running / f"{name}.ipynb").unlink()


def _machine(place: Checkout) -> dict:
    from .. import machine
    kind = machine.resolve_device(place.device)
    hardware = machine.hardware(place.device)
    words = hardware["gpu"]["name"] or f"{hardware['cpu']['name']}, {machine.cores()} cores, no GPU"
    return {"device": place.device_name, "profile": place.profile, "machine": words, "kind": kind.type,
            "torch": machine.versions()["torch"]}


def _what_failed(name: str, trace: list[str], found: list[str], running: Path) -> str:
    lines = [line for line in ANSI.sub("", "\n".join(trace)).splitlines() if line.strip()][-25:]
    words = ["    " + line for line in lines] or [f"  - {line}" for line in found]
    body = "\n".join(["", *words])
    return (f"{name} failed:{body}\nWhat was executed so far lies in {running / name}.ipynb. "
            "Mend it and run the same command again; finished chapters are not repeated.")


# --------------------------------------------------------------------------------------------- progress
class Status:
    """The terminal's last line while a chapter runs: elapsed, expected, and the newest line of its progress bars.

    The kernel writes its bars to standard error, which leads here for the time; without a terminal nothing is redrawn,
    and a bar's line is printed once a minute.
    """

    def __init__(self, head: str, seconds: float | None):
        self.head, self.seconds, self.note = head, seconds, ""
        self.live = sys.stdout.isatty()
        self.tail: collections.deque[str] = collections.deque(maxlen=20)         # what a dying kernel said

    def __enter__(self):
        self.start, self.over = time.monotonic(), threading.Event()
        self.real = os.dup(2)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        self.threads = [threading.Thread(target=self._read, args=(reading,), daemon=True),
                        threading.Thread(target=self._draw, daemon=True)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        os.dup2(self.real, 2)                                # closes our end of the pipe
        os.close(self.real)
        for thread in self.threads:
            thread.join(timeout=2)
        if self.live:
            print("\r\033[K", end="", flush=True)

    def _read(self, stream: int) -> None:
        with open(stream, errors="replace", newline="") as pipe:
            rest = ""
            while chunk := os.read(pipe.fileno(), 4096):
                *lines, rest = re.split(r"[\r\n]", rest + chunk.decode(errors="replace"))
                shown = [ANSI.sub("", line).strip() for line in lines]
                bars = [line for line in [*shown, ANSI.sub("", rest).strip()] if nb.BAR.search(line)]
                self.note = bars[-1] if bars else self.note
                self.tail += [line for line in shown if line and not nb.BAR.search(line)]

    def _draw(self) -> None:
        while not self.over.wait(1 if self.live else 60):
            line = f"{self.head}: {clock(time.monotonic() - self.start)} of {_about(self.seconds)}  {self.note}"
            if self.live:
                print(f"\r\033[K{line[:shutil.get_terminal_size().columns - 1]}", end="", flush=True)
            else:
                print(line, flush=True)


def clock(seconds: float) -> str:
    """Seconds as `m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _about(seconds: float | None) -> str:
    return "a time not known yet" if seconds is None else f"about {clock(seconds)}"


def _sum(parts: list[float | None]) -> float | None:
    return None if None in parts else sum(parts)
