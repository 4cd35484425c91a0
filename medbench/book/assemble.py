"""From a checkout to a rendered book: a source tree put together anew, and Sphinx over it.

What lives here, top to bottom: `assemble`, which writes only what changed; what is added to a chapter's page; `render`.

The assembled tree has the checkout's own shape (`book/`, `medbench/`, `notebooks/`), so a chapter's
`{literalinclude} ../../medbench/attention/softmax.py` means the same file in both.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

from .. import files
from . import notebook as nb
from .chapters import Checkout
from .execute import ANSI, ChapterFailed, due, facts, read
from .stamps import stale

NOT_CLINICAL = "For research and teaching, not for clinical use."


# --------------------------------------------------------------------------------------------- assemble
def output(place: Checkout, committed: bool = False) -> Path:
    """The folder that holds the assembled tree `src/` and the rendered `html/`."""
    return place.build / "edition" if committed else place.build


def assemble(place: Checkout, committed: bool = False) -> Path:
    """Put the book's sources together; files whose content stays the same keep their time, so Sphinx skips them.

    A changed style sheet makes Sphinx begin anew: by itself it copies static files only where a page has changed.

    Args:
        committed: take chapters and records from the committed edition, not from what was executed here.
    Returns:
        The folder of the assembled tree.
    Raises:
        ChapterFailed: a chapter is missing, failed, or is no longer what its source says.
    """
    tree = output(place, committed) / "src"
    content = {**_prose(place), **_sources(place), **_records(place, committed), **_chapters(place, committed)}
    content["_toc.yml"] = _toc(place, content).encode()
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(tree).as_posix() not in content:
            path.unlink()
    for name, data in content.items():
        target = tree / name
        if not target.exists() or target.read_bytes() != data:
            files.write_bytes(target, data)
            if name.startswith("book/_static/"):
                shutil.rmtree(_doctrees(tree.with_name("html")), ignore_errors=True)
    return tree


def _prose(place: Checkout) -> dict[str, bytes]:
    """The configuration and everything in `book/` but chapters and results."""
    book = place.committed
    paths = [p for p in book.rglob("*") if p.is_file() and p.relative_to(book).parts[0] not in ("chapters", "results")]
    return {p.relative_to(place.root).as_posix(): p.read_bytes() for p in [place.root / "_config.yml", *paths]}


def _sources(place: Checkout) -> dict[str, bytes]:
    """Modules for `literalinclude` and clean notebooks to download."""
    paths = [*(place.root / "medbench").rglob("*.py"), *(place.notebook(name) for name in place.chapters)]
    return {p.relative_to(place.root).as_posix(): p.read_bytes() for p in paths}


def _records(place: Checkout, committed: bool) -> dict[str, bytes]:
    """The result files, which device the edition was made on, and which device this book speaks of."""
    roots = [place.committed / "results"] + ([] if committed else [place.results])
    found = {f"book/results/{p.parent.name}/{p.name}": p.read_bytes() for root in roots for p in root.glob("*/*.json")}
    edition = place.edition_device or place.device_name
    found["book/results/EDITION"] = f"{edition}\n".encode()
    found["book/results/HERE"] = f"{edition if committed else place.device_name}\n".encode()
    return found


def _chapters(place: Checkout, committed: bool) -> dict[str, bytes]:
    bad, found = [], {}
    for name in place.chapters:
        notebook = read(place, name, committed)
        bad += [f"{name}: {reason}" for reason in unfit(place, name, notebook, committed)]
        if notebook is not None:
            found[f"book/chapters/{name}.ipynb"] = nb.text_of(decorate(name, notebook)).encode()
    if bad:
        command = "`make edition`, or `make text` where only text changed" if committed else "`make book`"
        raise ChapterFailed(f"These chapters cannot go into the book; run {command}:\n  " + "\n  ".join(bad))
    return found


def unfit(place: Checkout, name: str, notebook, committed: bool = False) -> list[str]:
    """Why a chapter may not be rendered: never executed, an error in it, cells that did not run, or stale text or code.
    """
    if notebook is None:
        return ["never executed"]
    noted = facts(notebook).get("stamp", {})
    reason = stale(noted, due(place, name, noted, committed), prose=True)
    return nb.complaints(notebook) + ([reason] if reason else [])


def _toc(place: Checkout, content: dict[str, bytes]) -> str:
    """The table of contents without chapters that nobody has written yet, that is, without a notebook."""
    toc = yaml.safe_load((place.root / "_toc.yml").read_text())
    have = {name.rsplit(".", 1)[0] for name in content}
    for part in toc["parts"]:
        part["chapters"] = [c for c in part["chapters"] if c["file"] in have]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    return yaml.safe_dump(toc, sort_keys=False)


# --------------------------------------------------------------------------------------------- a page
def decorate(name: str, notebook):
    """The executed chapter with the box "Run this chapter" under its title."""
    page = nbformat.from_dict(notebook)
    noted = page.metadata.pop("medbench")
    first = next((i for i, cell in enumerate(page.cells) if cell.cell_type == "markdown"), -1)
    box = nbformat.v4.new_markdown_cell(run_box(name, noted), id="run-this-chapter")
    title, _, rest = page.cells[first].source.partition("\n") if first >= 0 else ("", "", "")
    if title.startswith("# ") and rest.strip():              # the box comes between the title and its text
        page.cells[first].source = title
        page.cells.insert(first + 1, nbformat.v4.new_markdown_cell(rest.lstrip("\n"), id="after-the-title"))
    page.cells.insert(first + 1, box)
    return page


def run_box(name: str, noted: dict) -> str:
    """The box's text: how to run the chapter, its clean notebook, what it was executed on."""
    return f"""```{{admonition}} Run this chapter
:class: run-this-chapter
Executed on {noted["machine"]} (`{noted["device"]}`), {noted["date"]}, profile `{noted["profile"]}`,
torch {noted["torch"]}, in {_duration(noted["seconds"])}. A training that was finished before is not repeated, so a
first run may take longer. On your device:

~~~bash
make chapter NAME={name} PROFILE=laptop DEVICE=auto
papermill notebooks/{name}.ipynb out.ipynb -k python3 -p profile laptop
~~~

{{download}}`The clean notebook <../../notebooks/{name}.ipynb>` runs in Jupyter as it is. {NOT_CLINICAL}
```"""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


# --------------------------------------------------------------------------------------------- render
# Jupyter Book's own build, in a process of its own: Sphinx keeps much in globals
SPHINX = """
import sys, pathlib
from jupyter_book.sphinx import build_sphinx
tree, out, doctrees = sys.argv[1:]
sys.exit(build_sphinx(tree, out, doctreedir=doctrees, path_config=f"{tree}/_config.yml", noconfig=True, quiet=True,
                      warningiserror=True, keep_going=True,
                      confoverrides={"external_toc_path": f"{tree}/_toc.yml", "nitpicky": True,
                                     "latex_individualpages": False}) and 1)
"""


def _doctrees(out: Path) -> Path:
    """Where Sphinx keeps what it has read, beside the rendered pages."""
    return out.with_name(".doctrees")


def render(place: Checkout, tree: Path, out: Path) -> Path:
    """Build the HTML with every warning an error, and return its first page.

    Raises:
        ChapterFailed: Sphinx warned; its words are in the message.
    """
    doctrees = _doctrees(out)
    done = subprocess.run([sys.executable, "-P", "-c", SPHINX, str(tree), str(out), str(doctrees)], cwd=place.root,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        shutil.rmtree(doctrees, ignore_errors=True)          # else the next build would skip the pages that warned
        words = ANSI.sub("", done.stdout).replace(f"{tree}/", "")
        raise ChapterFailed(f"The book was not built, because Sphinx warned (every warning is an error):\n{words}")
    return out / "index.html"
