"""Whether an executed chapter is still what its source, its modules and its records would give.

What lives here, top to bottom: `stamp`, all that an execution depends on, as hashes; `stale`, what changed between two
stamps in words; the parts: a notebook's cells, the modules that it uses, the records that it reads.

Hashes look at meaning: a changed comment or docstring, the date or the commit of a record make nothing stale.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import json
from pathlib import Path

from ..config import fingerprint
from .chapters import Checkout

Stamp = dict


def stamp(place: Checkout, name: str, committed: bool = False, device: str | None = None) -> Stamp:
    """All that executing a chapter depends on.

    Args:
        place: the checkout with its profile and device. name: the chapter.
        committed: look at the committed records alone, not at those made here.
        device: the device's name, if it is not the one of `place`.
    Returns:
        A dict of hashes that can be stored as JSON: code, prose, modules, records, requirements, profile, device.
    """
    cells = json.loads(place.notebook(name).read_text(encoding="utf-8"))["cells"]
    prose = [(cell["cell_type"], text(cell), tags(cell), cell["metadata"].get("mystnb")) for cell in cells]
    sources = [text(cell) for cell in cells if cell["cell_type"] == "code"]
    skipped = [cell["cell_type"] == "code" and "skip-execution" in tags(cell) for cell in cells]
    roots = [place.committed / "results"] + ([] if committed else [place.results])
    device = device or place.device_name
    return {
        "code": fingerprint(sources, skipped.count(True)),
        "prose": fingerprint(prose),
        "modules": modules(place.root / "medbench", sources),
        "records": records(roots, place.graph[name], without=f"{device}/{name}"),
        "requirements": fingerprint(requirements(place.root / "requirements.txt")),
        "profile": place.profile,
        "device": device,
    }


def stale(old: Stamp | None, new: Stamp, prose: bool = False) -> str | None:
    """Why an execution with the stamp `old` no longer stands, in words; `None` if it does.

    Args:
        prose: count changed text too, which needs no execution.
    """
    if not old:
        return "never executed here"
    for key in ("code", "profile", "device", "requirements", *(["prose"] if prose else [])):
        if old.get(key) != new[key]:
            what = {"code": "its code", "prose": "its text", "requirements": "requirements.txt"}.get(key)
            return f"{what} changed" if what else f"{key} is {new[key]}, was {old.get(key)}"
    for key, what in (("modules", "medbench/{}"), ("records", "records of {}")):
        before, now = old.get(key, {}), new[key]
        changed = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            return ", ".join(what.format(n) for n in changed[:3]) + f"{more} changed"
    return None


# --------------------------------------------------------------------------------------------- cells
def text(cell: dict) -> str:
    """The source of a cell as one string; nbformat also allows a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def tags(cell: dict) -> list[str]:
    """The tags of a cell."""
    return cell["metadata"].get("tags", [])


def requirements(path: Path) -> list[str]:
    """The pins of a requirements file without its comments."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


# --------------------------------------------------------------------------------------------- modules
def modules(package: Path, sources: list[str]) -> dict[str, str]:
    """File name -> hash of every module of the package that some code uses, directly or through other modules.

    Args:
        package: the folder of the package. sources: Python sources; `mb.name` and imports of the package count.
    Raises:
        ValueError: a name that the package does not offer.
    """
    todo = used(package, _parse("\n".join(sources)), package / "__main__.py")
    done: dict[str, str] = {}
    while todo:
        file = todo.pop()
        key = file.relative_to(package).as_posix()
        if key not in done:
            done[key] = _meaning(file, file.stat().st_mtime_ns)
            todo |= used(package, ast.parse(file.read_text(encoding="utf-8")), file)
    return dict(sorted(done.items()))


def _parse(source: str) -> ast.AST:
    lines = source.splitlines()
    return ast.parse("\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines))


@functools.lru_cache(maxsize=512)
def _meaning(file: Path, _changed: int) -> str:
    """Hash of a module's syntax tree without docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if ast.get_docstring(node, clean=False) is not None:
                    node.body = node.body[1:]
    return fingerprint(_plain(tree))


def _plain(node):
    """A syntax tree as lists that are the same in every Python: what a version adds to it is empty elsewhere."""
    match node:
        case ast.JoinedStr():                                # 3.12.1 ends some with an empty part
            parts = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
            return ["JoinedStr", [_plain(part) for part in parts]]
        case ast.AST():
            fields = {name: _plain(value) for name, value in ast.iter_fields(node)}
            return [type(node).__name__, {name: value for name, value in fields.items() if value not in (None, [])}]
        case list():
            return [_plain(one) for one in node]
        case None:
            return None
    return repr(node)


def used(package: Path, tree: ast.AST, file: Path) -> set[Path]:
    """Files of the package that a syntax tree imports, or reaches through the package's public names."""
    found, aliases = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == package.name:
                    aliases.add(alias.asname or alias.name)
                elif alias.name.startswith(package.name + "."):
                    found.add(_file(package, alias.name.split(".")[1:]))
        elif isinstance(node, ast.ImportFrom):
            found |= _imported(package, node, file)
    if aliases:
        found |= {_public(package, node.attr) for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                  and isinstance(node.value, ast.Name) and node.value.id in aliases and not node.attr.startswith("__")}
    return {f for f in found if f is not None and f != package / "__init__.py"}


def _imported(package: Path, node: ast.ImportFrom, file: Path) -> set[Path | None]:
    """Files behind `from x import a, b`, where a and b may be modules, public names or anything in x."""
    if node.level:
        base = list(file.relative_to(package).parts[:-1])
        base = base[:len(base) - (node.level - 1)] + (node.module.split(".") if node.module else [])
    elif node.module and node.module.split(".")[0] == package.name:
        base = node.module.split(".")[1:]
    else:
        return set()
    found: set[Path | None] = {_file(package, base)} if base else set()
    for alias in node.names:
        found.add(_file(package, [*base, alias.name]) or (None if base else _public(package, alias.name)))
    return found


def _file(package: Path, parts: list[str]) -> Path | None:
    path = package.joinpath(*parts)
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None) if parts else None


def _public(package: Path, name: str) -> Path | None:
    """The file that holds a public name of the package, from the imports and the table of its `__init__.py`."""
    init = package / "__init__.py"
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and name in [a.asname or a.name for a in node.names]:
            return _file(package, node.module.split(".") if node.module else [name])
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values):
                if isinstance(key, ast.Constant) and key.value == name and isinstance(value, ast.Constant):
                    return _file(package, value.value.split("."))
    direct = _file(package, [name])
    if direct is None:
        raise ValueError(f"medbench.{name} is used but medbench offers no {name!r}; see its __init__.py")
    return direct


# --------------------------------------------------------------------------------------------- records
def records(roots: list[Path], patterns: tuple[str, ...], without: str) -> dict[str, str]:
    """`device/chapter` -> hash of the values in that result file.

    Args:
        roots: folders of `<device>/<chapter>.json`; a later one's file takes the place of an earlier one's.
        patterns: which of them, such as `"*/10_training"`. without: the chapter's own file.
    """
    found = {f"{path.parent.name}/{path.stem}": path for root in roots for path in sorted(root.glob("*/*.json"))}
    return {key: values(path, path.stat().st_mtime_ns) for key, path in sorted(found.items())
            if key != without and any(fnmatch.fnmatch(key, pattern) for pattern in patterns)}


@functools.lru_cache(maxsize=512)
def values(path: Path, _changed: int) -> str:
    """Hash of a result file's records without dates, machine and commit."""
    rows = json.loads(path.read_text(encoding="utf-8"))["records"]
    return fingerprint([{k: v for k, v in row.items() if k != "fingerprints"} for row in rows])
