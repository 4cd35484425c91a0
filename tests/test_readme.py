"""The README: short, complete, and its links, paths and commands are real."""

import re

from medbench.__main__ import app
from medbench.machine import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {info.name or info.callback.__name__.replace("_", "-") for info in app.registered_commands}
COMMANDS |= {group.name for group in app.registered_groups}


def test_it_is_short_and_says_what_it_has_to():
    assert len(TEXT.splitlines()) < 100
    for word in ("make book", "make test", "make chapter", "papermill", "MEDBENCH_CACHE", "MEDBENCH_DATA", "PIP_ARGS",
                 "MIT", "CC BY 4.0", "CITATION.cff", "not for clinical use", "of memory", "of disk", "download"):
        assert word in TEXT, word


def test_links_lead_somewhere():
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", TEXT) if not t.startswith("http")]
    missing = [t for t in targets if not (ROOT / t).exists()]
    assert targets and missing == []


def test_paths_and_commands_exist():
    for path in re.findall(r"(?:medbench|notebooks|book)/[\w/]+\.(?:py|ipynb|bib)", TEXT):
        assert (ROOT / path).exists() or "mine" in path or "NN_" in path, path
    used = set(re.findall(r"python -m medbench (\S+)", TEXT))
    assert used - {"--help"} <= COMMANDS
    assert COMMANDS - used <= {name for name in COMMANDS if name in TEXT.split("--help")[1].splitlines()[0]}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make ([a-z-]+)", TEXT)) <= targets
