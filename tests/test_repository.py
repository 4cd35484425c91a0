"""Rules for the whole repository: which module may import which, twins, prose, sizes, the committed edition."""

import ast
import base64
import io
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml
from PIL import Image

from medbench import config, records, training
from medbench.book import notebook, prose, stamps
from medbench.book.assemble import assemble, unfit
from medbench.book.chapters import CHAPTERS, Checkout

PLACE = Checkout()
ROOT = PLACE.root
MODULES = sorted((ROOT / "medbench").rglob("*.py"))


def tracked():
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# --------------------------------------------------------------------------------------------- imports go one way
# a module may import those before it; what stands in one group may import the others of the group if it makes no circle
ORDER = [
    {"checks", "rows"}, {"config", "files", "_torchvision"}, {"experiment"}, {"machine", "records"}, {"results"},
    {"attention"}, {"backbone"}, {"models"},
    {"phantom", "readers"}, {"decoding"}, {"audit", "data"},
    {"scoring"}, {"bootstrap", "classwise"}, {"metrics"},
    {"planned", "families", "calibration", "decisions", "recipe", "checkpoint", "distributed"},
    {"inference"}, {"loop"}, {"training"},
    {"survival"}, {"baselines"},
    {"counting", "cost", "latency", "viewing", "localisation", "faithfulness", "saliency", "mixing", "plots"},
    {"board", "places"}, {"grid"},
    {"peers", "scaling", "layers", "throughput", "crossing", "onnxfile", "export"}, {"contests", "runtimes"},
    {"book"}, {"console", "commands", "measuring"}, {"finished"}, {"tested"}, {"evaluating"}, {"options", "report"},
    {"__main__"},
]
# these take any model or table, so they may know nothing of ours but plain tools
GENERAL = {"cost", "counting", "latency", "saliency", "viewing", "localisation", "faithfulness", "mixing", "plots"}
PLAIN = {"checks", "config", "experiment", "files", "machine", "records", "results", "rows"}


def imports(file):
    """First-level modules of medbench that a file imports, in functions too."""
    package = ROOT / "medbench"
    used = stamps.used(package, ast.parse(file.read_text()), file)
    return {path.relative_to(package).parts[0].removesuffix(".py") for path in used}


def first_level(file):
    return file.relative_to(ROOT / "medbench").parts[0].removesuffix(".py")


def rank(name):
    return next((i for i, group in enumerate(ORDER) if name in group), None)


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_imports_go_one_way(file):
    own = first_level(file)
    if own == "__init__":
        return
    assert rank(own) is not None, f"say in ORDER where {own} belongs"
    used = imports(file) - {own}
    assert {u for u in used if rank(u) > rank(own)} == set()
    if own in GENERAL:
        assert used - GENERAL - PLAIN == set()
    if own == "results":
        assert used <= {"checks", "config", "experiment", "files", "machine", "records"}


def test_no_circle_inside_a_group():
    graph = {}
    for file in MODULES:
        graph.setdefault(first_level(file), set()).update(imports(file) - {first_level(file)})

    def reach(start):
        todo, seen = list(graph.get(start, ())), set()
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += graph.get(name, ())
        return seen
    assert [name for name in graph if name != "__init__" and name in reach(name)] == []


def test_no_module_imports_a_notebook():
    assert [f for f in MODULES if re.search(r"^\s*(from|import) notebooks\b", f.read_text(), re.M)] == []


def test_the_rule_can_fail(tmp_path):
    package = tmp_path / "medbench"
    (package / "plots").mkdir(parents=True)
    for name in ("__init__", "training", "cost"):
        (package / f"{name}.py").write_text("")
    found = stamps.used(package, ast.parse("def f():\n    from .training import fit\n"), package / "cost.py")
    assert found == {package / "training.py"}


def test_stamps_are_the_same_in_every_python_and_change_with_the_code():
    def stamped(source):
        return stamps._plain(ast.parse(source))
    newer = ast.parse("def f(x): return f'{x:>{2}}'")
    newer.body[0].type_params = []                                       # as of Python 3.12
    newer.body[0].body[0].value.values[0].format_spec.values.append(ast.Constant(""))
    assert stamps._plain(newer) == stamped("def f(x): return f'{x:>{2}}'")
    for one, other in (("f(1)", "f('1')"), ("f('')", "f()"), ("f(None)", "f()"), ("f(a)", "f('a')"), ("[]", "()"),
                       ("f(x=[])", "f(x=None)"), ("return_ = 1", "return_ = True"), ("f'{a}'", "f'{a!r}'")):
        assert stamped(one) != stamped(other), (one, other)


# --------------------------------------------------------------------------------------------- files
MACHINE = re.compile(r"/(work|root|farm)/|/tmp/[a-z]+_jobs|/home/\w+/")


def test_no_path_of_a_machine_is_committed():
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data[:4096] and "_static/mathjax" not in str(path) and "tests/axe" not in str(path):
            found += [f"{path.relative_to(ROOT)}: {m[0]}" for m in MACHINE.finditer(data.decode(errors="replace"))]
    assert found == []


def test_nothing_committed_is_large_or_a_binary_of_weights():
    limit = {True: 600 * 1024, False: 2 * 1024 * 1024}
    assert [p.name for p in tracked() if p.stat().st_size > limit[p.parent.name == "chapters"]] == []
    assert [p.name for p in tracked() if p.suffix in (".pt", ".pth", ".safetensors", ".npz", ".onnx")] == []


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_a_module_can_be_read_in_one_sitting(file):
    assert len(file.read_text().splitlines()) <= 350


# --------------------------------------------------------------------------------------------- sources of the book
def test_all_chapters_are_written_and_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert [p for p in pages if "/chapters/" in p] == [f"book/chapters/{name}" for name in sorted(CHAPTERS)]
    assert set(PLACE.chapters) == set(CHAPTERS)
    assert [p for p in [toc["root"], *pages] if "/chapters/" not in p and not (ROOT / f"{p}.md").exists()] == []
    assert {p.stem for p in notebook.sources(PLACE)} == set(CHAPTERS)


def test_notebooks_are_what_their_sources_say():
    assert notebook.twins_that_differ(PLACE) == []


def test_no_measured_quantity_is_typed_in_prose():
    assert prose.typed_numbers(PLACE) == []


@pytest.mark.parametrize("source", notebook.sources(PLACE), ids=lambda p: p.stem)
def test_a_chapter_starts_as_all_do(source):
    page = nbformat.reads(notebook.twin(source), as_version=4)
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    assert page.cells[0].cell_type == "markdown" and page.cells[0].source.startswith("# ")
    assert [("parameters" in stamps.tags(cell)) for cell in code] == [True] + [False] * (len(code) - 1)
    assert code[0].source.split("\n") == ['profile = "laptop"', 'device = "auto"', "seed = 0"]
    assert f'start("{source.stem}", globals())' in code[1].source
    assert not [cell for cell in code if "raises-exception" in stamps.tags(cell)]


@pytest.mark.parametrize("source", notebook.sources(PLACE), ids=lambda p: p.stem)
def test_a_chapter_uses_public_names_alone(source):
    page = nbformat.reads(notebook.twin(source), as_version=4)
    assert stamps.modules(ROOT / "medbench", [cell.source for cell in page.cells if cell.cell_type == "code"])


# --------------------------------------------------------------------------------------------- the committed edition
EDITION = sorted(PLACE.committed.glob("chapters/*.ipynb"))


def test_there_is_an_edition_of_every_chapter():
    assert PLACE.edition_device, "there is no committed edition; `make edition` makes it"
    assert {path.stem for path in EDITION} == set(CHAPTERS)


@pytest.mark.parametrize("path", EDITION, ids=lambda p: p.stem)
def test_an_executed_chapter_is_whole_and_not_stale(path):
    page = nbformat.read(path, as_version=4)
    assert unfit(PLACE, path.stem, page, committed=True) == []
    assert page.metadata["medbench"]["device"] == PLACE.edition_device
    assert notebook.scrub(page, ROOT).cells == page.cells


def pictures(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                yield cell, Image.open(io.BytesIO(base64.b64decode(output.data[kind])))


@pytest.mark.parametrize("path", EDITION, ids=lambda p: p.stem)
def test_figures_have_words_and_an_opaque_background(path):
    for cell, image in pictures(path):
        words = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert len(words) > 20, f"say what the figure shows: {cell.source[:80]}"
        assert image.convert("RGBA").getextrema()[3] == (255, 255), f"see-through: {cell.source[:80]}"


def test_every_result_file_can_be_read():
    found = sorted(PLACE.committed.glob("results/*/*.json"))
    assert found
    for path in found:
        file = records.read(path)
        assert (file.device, file.chapter) == (path.parent.name, path.stem)


def test_the_edition_can_be_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkout, "build", property(lambda _: Path(tmp_path)))
    tree = assemble(PLACE, committed=True)
    assert {p.stem for p in tree.glob("book/chapters/*.ipynb")} == set(PLACE.chapters)


# --------------------------------------------------------------------------------------------- make
TARGETS = ("book", "edition", "html", "chapter", "test", "test-full", "lint", "clean")


def make(*arguments):
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_make_alone_lists_the_targets():
    listed = make()
    assert [target for target in TARGETS if not re.search(rf"^  make {target} +\w", listed, re.M)] == []


def test_make_hands_its_variables_on():
    said = make("-n", "chapter", "NAME=05_performer", "PROFILE=smoke", "DEVICE=cpu")
    assert 'chapter "05_performer" --profile smoke --device cpu' in said
    assert "-m slow" in make("-n", "test-full") and '-m "not slow"' in make("-n", "test-full")
    run = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert "make test test-full" in run


# --------------------------------------------------------------------------------------------- what the edition shows
@pytest.fixture(scope="module")
def shown():
    """The edition's records of one chapter: name -> record, for the models and lines of one data set."""
    def read(chapter):
        file = records.read(PLACE.committed / "results" / PLACE.edition_device / f"{chapter}.json")
        return {record.name: record for record in file.records}
    return read


@pytest.mark.parametrize("chapter", ["10_training", "10_real"])
def test_the_edition_s_models_were_trained_by_the_recipe_of_today(shown, chapter):
    trained = [record for record in shown(chapter).values() if record.quantity == "samples_seen"]
    assert len(trained) == len(config.ALL_MODELS)
    assert {record.fingerprints["recipe"] for record in trained} == {str(training.RECIPE_VERSION)}
    assert len({record.fingerprints["images"] for record in trained}) == 1


def test_every_model_of_the_edition_learned_and_none_less(shown):
    found = shown("10_training")
    best = max(found[f"phantom.{name}.macro_auroc"].value for name in ("intensity_statistics", "thumbnails_28"))
    for name in config.MODELS:
        assert found[f"phantom.{name}.balanced_accuracy"].value >= 0.70, name
        assert found[f"phantom.{name}.macro_auroc"].value >= max(0.95, best + 0.10), name
        assert found[f"phantom.{name}.samples_seen"].value <= 54_000, name
    for name in config.MECHANISMS:
        assert found[f"gain.{name}.balanced_accuracy_difference"].low > 0, name


def test_the_phantom_can_be_learned_far_better_by_who_sees_it_longer(shown):
    found = shown("10_ceiling")["phantom.resnet18.balanced_accuracy"]
    same = shown("10_training")["phantom.softmax.balanced_accuracy"].fingerprints["images"]
    assert found.value >= 0.90 and found.fingerprints["images"] == same


def test_shortcuts_of_the_edition_s_images_stay_low(shown):
    found = shown("10_training")
    assert found["phantom.intensity_statistics.macro_auroc"].value <= 0.65
    assert found["phantom.thumbnails_28.balanced_accuracy"].value <= 0.40


def test_every_model_of_the_edition_beats_the_nearest_neighbour_on_real_mri(shown):
    found = shown("10_real")
    for quantity in ("balanced_accuracy", "top1"):
        line = found[f"brain-tumor-mri.nearest_neighbour.{quantity}"].value
        for name in config.MODELS:
            assert found[f"brain-tumor-mri.{name}.{quantity}"].value > line, (name, quantity)
