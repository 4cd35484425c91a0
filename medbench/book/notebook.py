"""Notebooks as files: the clean twin of a percent source, and what is wiped off and asked of an executed chapter.

What lives here, top to bottom: `twin`, `sync`, `twins_that_differ`; `scrub`; `complaints`, the gate; `weave`, new text
around old outputs.
"""

from __future__ import annotations

import base64
import copy
import io
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from .. import files
from .chapters import Checkout
from .stamps import tags

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
BAR = re.compile(r"\d+%\|.*\||\[\d+:\d\d[<,]")                       # what tqdm draws
NO_WIDGETS = re.compile(r"TqdmWarning|IProgress not found|autonotebook import tqdm")
IPYKERNEL = re.compile(r"\S*ipykernel_\d+[/\\]\d+\.py|<ipython-input-[^>]*>")
LARGE_PICTURE = 100_000                                              # characters of base64
JPEG_QUALITY = 70
ADDRESS = re.compile(r"\b0x[0-9a-f]{8,}\b")


# --------------------------------------------------------------------------------------------- twins
def twin(source: Path) -> str:
    """The clean notebook of a percent source: no outputs, cells numbered, nothing of the machine in it."""
    import jupytext
    notebook = jupytext.read(source)
    cells = []
    for number, cell in enumerate(notebook.cells):
        make = getattr(nbformat.v4, f"new_{cell.cell_type}_cell")
        kept = {key: value for key, value in cell.metadata.items() if key != "lines_to_next_cell"}   # jupytext's own
        cells.append(make(cell.source, id=str(number), metadata=copy.deepcopy(kept)))
    return text_of(nbformat.v4.new_notebook(cells=cells, metadata=_metadata()))


def _metadata() -> dict:
    return {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}}


def text_of(notebook: NotebookNode) -> str:
    """A notebook as the text of its file."""
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def sources(place: Checkout) -> list[Path]:
    """The percent sources of all chapters."""
    return sorted((place.root / "notebooks").glob("[0-9]*.py"))


def twins_that_differ(place: Checkout) -> list[Path]:
    """Notebooks whose content is not that of their percent source."""
    pairs = [(source, source.with_suffix(".ipynb")) for source in sources(place)]
    return [clean for source, clean in pairs if not clean.exists() or clean.read_text(encoding="utf-8") != twin(source)]


def sync(place: Checkout) -> list[Path]:
    """Write the notebooks that differ from their percent source anew, and say which."""
    changed = twins_that_differ(place)
    for path in changed:
        files.write_bytes(path, twin(path.with_suffix(".py")).encode())
    return changed


# --------------------------------------------------------------------------------------------- scrub
def scrub(notebook: NotebookNode, root: Path) -> NotebookNode:
    """An executed notebook without papermill's notes, times, paths of this machine and remnants of progress bars."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(_metadata())
    for number, cell in enumerate(notebook.cells):
        cell.id = str(number)
        for key in ("papermill", "execution", "ExecuteTime", "collapsed", "jupyter"):
            cell.metadata.pop(key, None)
        if not tags(cell):
            cell.metadata.pop("tags", None)                  # papermill adds an empty list
        if cell.cell_type == "code":
            cell.outputs = [o for o in (_clean_output(o, root) for o in cell.outputs) if o is not None]
    return notebook


def _clean_output(output: NotebookNode, root: Path) -> NotebookNode | None:
    """The output without traces of the machine; `None` if nothing is left of it."""
    if output.output_type == "stream":
        output.text = _clean_stream(clean_text(output.text, root))
        return output if output.text.strip() else None
    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)
    for kind, content in data.items():
        if isinstance(content, str) and not kind.startswith(("image/p", "image/j")):
            data[kind] = clean_text(content, root)
    _lighten(data)
    output.get("metadata", {}).pop("execution", None)
    return output if data or output.output_type == "error" else None


def _lighten(data: dict) -> None:
    """Keep a large picture of brains, which PNG cannot compress, as JPEG; drawings of lines stay as they are."""
    if len(data.get("image/png", "")) < LARGE_PICTURE:
        return
    from PIL import Image
    whole, small = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGBA"), io.BytesIO()
    flat = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    flat.save(small, "JPEG", quality=JPEG_QUALITY, optimize=True)
    found = base64.b64encode(small.getvalue()).decode()
    if len(found) < 0.6 * len(data["image/png"]):
        del data["image/png"]
        data["image/jpeg"] = found


def _clean_stream(text: str) -> str:
    """What a terminal would show at the end: lines after their last carriage return, no bars, no warnings of bars."""
    lines = [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join(line for line in lines if not BAR.search(line) and not NO_WIDGETS.search(line))


def clean_text(text: str, root: Path) -> str:
    """Text without paths of this machine and addresses in memory."""
    text = ADDRESS.sub("0x...", IPYKERNEL.sub("this cell", text))
    for path, name in ((Path(sys.prefix), "(environment)"), (root, "."), (Path(sys.base_prefix), "(python)"),
                       (Path.home(), "~")):
        for form in {str(path), str(path.resolve())}:
            if len(form) > 1:
                text = text.replace(form + "/", name + "/").replace(form, name)
    return text


# --------------------------------------------------------------------------------------------- gate
def complaints(notebook: NotebookNode) -> list[str]:
    """Why an executed notebook may not go into the book: errors, and code that was not run."""
    found = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        where = f"cell {number} ({cell.source.strip().splitlines()[0][:60]})"
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"{where} failed: {output.ename}: {output.evalue}")
        if cell.execution_count is None and "skip-execution" not in tags(cell):
            found.append(f"{where} was not executed")
    return found


# --------------------------------------------------------------------------------------------- weave
def weave(executed: NotebookNode, clean: NotebookNode) -> NotebookNode:
    """The clean notebook's text and cell metadata around the outputs of an execution of the same code.

    Raises:
        ValueError: the code is not the same.
    """
    injected = {i: c for i, c in enumerate(executed.cells) if "injected-parameters" in tags(c)}
    ran = [c for i, c in enumerate(executed.cells) if c.cell_type == "code" and i not in injected]
    code = [c for c in clean.cells if c.cell_type == "code"]
    if [c.source for c in ran] != [c.source for c in code]:
        raise ValueError("the notebook's code is not the code that was executed; execute it again")
    woven, left = [], iter(ran)
    for cell in copy.deepcopy(clean.cells):
        if cell.cell_type == "code":
            old = next(left)
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
        woven.append(cell)
        if "parameters" in tags(cell):
            woven += injected.values()
    for number, cell in enumerate(woven):
        cell.id = str(number)
    return nbformat.v4.new_notebook(cells=woven, metadata=copy.deepcopy(executed.metadata))
