"""The README: short, complete, and its links, paths and commands are real."""

import re
import subprocess

import pytest
import typer

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


# --------------------------------------------------------------------------------------------- and the book's pages
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "book").glob("*.md")])


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_commands_are_whole_and_their_options_exist(page):
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, (block, done.stderr)
    own = typer.main.get_command(app).commands
    lines = re.findall(r"-m medbench (.*)", "\n".join(blocks).replace("\\\n", " "))
    for line in lines:
        first, *rest = line.split("#")[0].split()
        if first.startswith("-"):
            continue
        command = own[first].commands[rest[0]] if hasattr(own[first], "commands") else own[first]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        said = {word.split("=")[0] for word in rest if word.startswith("-") and len(word) > 1}
        assert said <= known, (line, said - known)
