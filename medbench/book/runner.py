"""The commands behind the Makefile: build the book, make it the edition, renew its text, render it, check prose.

What lives here, top to bottom: one function for each command; `main`, the command line `python -m medbench.book`.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from pathlib import Path

from .. import config, files, records
from . import notebook as nb
from .assemble import assemble, output, render
from .chapters import Checkout
from .execute import ChapterFailed, clock, due, execute_all, facts, read, renew_text
from .stamps import stale

EXAMPLES = """Examples:
  python -m medbench book build
  python -m medbench book chapter 05_performer --profile smoke
  python -m medbench book html"""


# --------------------------------------------------------------------------------------------- commands
def build(place: Checkout) -> dict[str, float]:
    """Execute what is stale, check every chapter, render the book, and say where it lies and what took how long."""
    begun = time.monotonic()
    _same_twins(place)
    print(f"{len(place.chapters)} chapters, profile {place.profile}, on {place.device_name}", flush=True)
    took = execute_all(place)
    print("rendering ...", flush=True)
    page = render(place, assemble(place), output(place) / "html")
    print("\nSeconds of each chapter's execution:")
    for name in sorted(took):
        print(f"  {name:16s} {took[name]:8.1f}")
    print(f"  {'sum':16s} {sum(took.values()):8.1f}")
    print(f"\nThis run took {clock(time.monotonic() - begun)} minutes. The book lies in {page}")
    return took


def edition(place: Checkout) -> None:
    """Bring the book up to date, then copy chapters and this device's records into `book/`, to be committed.

    A chapter and its own records belong together. Of the records of a command the later ones stay.

    Raises: ValueError: the smoke profile, or a device without records that pages take from the edition's; before any
        work.
    """
    if place.profile == "smoke":
        raise ValueError("profile is 'smoke'; an edition is made with 'laptop' or 'full'")
    if lacking := _lacking(place):
        raise ValueError(f"{place.device_name} cannot be the edition's device: pages show its {', '.join(lacking)}, "
                         f"which were not recorded on it. `make book` shows {place.device_name} beside the others and "
                         f"leaves the edition as it is")
    build(place)
    for name in place.chapters:
        files.write_bytes(place.executed(name, committed=True), place.executed(name).read_bytes())
    there = place.committed / "results" / place.device_name
    for path in sorted((place.results / place.device_name).glob("*.json")):
        if path.stem in place.chapters or not _later(there / path.name, path):
            files.write_bytes(there / path.name, path.read_bytes())
        else:
            print(f"{path.stem}: the committed records are later than those in {path}, and stay")
    files.write_bytes(place.committed / "results" / "EDITION", f"{place.device_name}\n".encode())
    print(f"The edition of {place.device_name} lies in book/chapters and book/results/{place.device_name}")
    html(place)


def _lacking(place: Checkout) -> list[str]:
    """Result files that pages take from the edition's device, that no chapter makes and this device does not have."""
    pages = [*place.committed.glob("*.md"), *(place.root / "notebooks").glob("*.py")]
    asked = {name for page in pages for name in re.findall(r"`edition/(\w+):", page.read_text(encoding="utf-8"))}
    roots = place.results, place.committed / "results"
    there = {path.stem for root in roots for path in (root / place.device_name).glob("*.json")}
    return sorted(asked - there - set(place.chapters))


def _later(committed: Path, made: Path) -> bool:
    """Whether committed records are of a later moment than those made here."""
    return committed.exists() and (records.read(committed).created or "") > (records.read(made).created or "")


def text(place: Checkout) -> None:
    """Put changed text around the outputs of the committed chapters, on any machine; nothing is executed.

    Raises: ValueError: chapters whose code, modules or records changed too, before anything is written.
    """
    _same_twins(place)
    noted = {name: facts(read(place, name, committed=True)).get("stamp", {}) for name in place.chapters}
    reasons = {name: stale(old, due(place, name, old, committed=True)) for name, old in noted.items()}
    bad = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    if bad:
        raise ValueError("More than text changed in these chapters; run `make edition`:\n  " + "\n  ".join(bad))
    changed = [name for name in place.chapters if renew_text(place, name, committed=True)]
    print("\n".join(f"new text in {name}" for name in changed) or "no text changed")


def html(place: Checkout) -> None:
    """Render the committed edition; nothing is executed."""
    begun = time.monotonic()
    page = render(place, assemble(place, committed=True), output(place, committed=True) / "html")
    print(f"Rendered in {clock(time.monotonic() - begun)} minutes. The committed edition lies in {page}")


def chapter(place: Checkout, name: str) -> None:
    """Execute one chapter, whether it is stale or not, and say where its output and its records lie."""
    place.require(name)
    _same_twins(place, name)
    execute_all(place, [name], force=True)
    records = place.results / place.device_name / f"{name}.json"
    also = f", its records in {records}" if records.exists() else ""
    print(f"The executed chapter lies in {place.executed(name)}{also}")


def notebooks(place: Checkout) -> None:
    """Bring the clean notebooks in line with their percent sources."""
    changed = nb.sync(place)
    print("\n".join(f"wrote {path.relative_to(place.root)}" for path in changed) or "nothing to write")


def lint(place: Checkout) -> None:
    """Look for notebooks that are not what their source says, and for measured numbers typed in prose."""
    from .prose import typed_numbers
    found = typed_numbers(place)
    if found:
        raise ValueError("Measured quantities are typed in prose; take them from a record with {value}, or mark a "
                         "definition with {defined}:\n  " + "\n  ".join(found))
    _same_twins(place)
    print("the notebooks are what their sources say, and no measured quantity is typed in prose")


def _same_twins(place: Checkout, name: str = "") -> None:
    differ = [path.relative_to(place.root).as_posix() for path in nb.twins_that_differ(place) if name in path.stem]
    if differ:
        raise ValueError(f"{', '.join(differ)} is not what its .py says; run `make notebooks`")


# --------------------------------------------------------------------------------------------- command line
def main(arguments: list[str] | None = None) -> int:
    """`python -m medbench.book COMMAND`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m medbench book", description=__doc__.splitlines()[0],
                                     epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["build", "edition", "text", "html", "chapter", "notebooks", "lint"])
    parser.add_argument("name", nargs="?", help="the chapter, such as 05_performer")
    parser.add_argument("--profile", default="laptop", choices=list(config.PROFILES))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a kernel is not left behind
    try:
        place = Checkout(profile=given.profile, device=given.device)
        run = globals()[given.command]
        run(place, given.name or "") if given.command == "chapter" else run(place)
    except (ChapterFailed, ValueError, RuntimeError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The finished chapters are kept; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0
