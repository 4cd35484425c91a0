"""The runner, on a tiny project of its own: what is stale, what is refused, what is left clean, what is wiped off."""

import base64
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from medbench import records
from medbench.book import execute, notebook, runner, stamps
from medbench.book.assemble import assemble, render, unfit
from medbench.book.chapters import Checkout

FIRST = '''
    # %% [markdown]
    # # First
    #
    # It counts to {defined}`3 %`.

    # %% tags=["parameters"]
    profile = "laptop"
    device = "auto"
    seed = 0

    # %%
    import medbench as mb
    from medbench.book import start

    book = start("01_first", globals())

    # %%
    mb.results.record("count.softmax", {"quantity": "total", "value": 3, "unit": "1"}, to=book.results)
    print("three")
'''
SECOND = '''
    # %% [markdown]
    # # Second
    #
    # The first chapter found {value}`01_first:count.softmax.total`.

    # %% tags=["parameters"]
    profile = "laptop"
    device = "auto"
    seed = 0

    # %%
    import medbench as mb

    print(mb.cost)
'''
GRAPH = {"01_first": (), "02_second": ("*/01_first",)}
INIT = 'from .config import Experiment\n\n_LAZY = {"cost": "cost", "results": "results", "fit": "training"}\n'
MODULES = {"__init__": INIT, "config": "class Experiment: pass\n", "cost": "from . import config\nA = 1\n",
           "results": "from .config import Experiment\n", "training": "def fit(): pass\n",
           "book/__init__": "from .. import config\n\ndef start(): pass\n"}


TICKS = itertools.count()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip("\n"))
    later = time.time_ns() + next(TICKS) * 10**9             # a new time even on a coarse clock
    os.utime(path, ns=(later, later))


@pytest.fixture
def place(tmp_path):
    """A project of two chapters, the second of which reads the records of the first."""
    for name, text in MODULES.items():
        write(tmp_path / "medbench" / f"{name}.py", text)
    write(tmp_path / "notebooks" / "01_first.py", FIRST)
    write(tmp_path / "notebooks" / "02_second.py", SECOND)
    write(tmp_path / "requirements.txt", "# pins\ntorch==2\n")
    write(tmp_path / "book" / "intro.md", "# Intro\n\nWelcome.\n")
    place = Checkout(tmp_path, device="cpu", graph=GRAPH)
    here = Checkout().root
    for name in ("_config.yml", ".gitignore"):
        write(place.root / name, (here / name).read_text())
    write(place.root / "book" / "references.bib", "")
    write(place.root / "book" / "_static" / "custom.css", "")
    write(place.root / "_toc.yml", """
        format: jb-book
        root: book/intro
        parts:
          - caption: Part
            numbered: true
            chapters:
              - file: book/chapters/01_first
              - file: book/chapters/02_second
              - file: book/chapters/03_unwritten
    """)
    notebook.sync(place)
    return place


def pretend(place, name, records=None):
    """An execution of a chapter without a kernel: its outputs are made up, its stamp is real."""
    executed = nbformat.read(place.notebook(name), as_version=4)
    for number, cell in enumerate(c for c in executed.cells if c.cell_type == "code"):
        cell.execution_count = number + 1
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="three\n")]
    if records is not None:
        path = place.results / place.device_name / f"{name}.json"
        write(path, json.dumps({"created": "today", "records": records}))
    executed.metadata["medbench"] = {
        "stamp": stamps.stamp(place, name), "wrote": execute.wrote(place, name), "seconds": 1.0, "date": "2026-01-01",
        "device": place.device_name, "profile": "laptop", "machine": "a test", "torch": "2"}
    write(place.executed(name), notebook.text_of(executed))


ROW = {"name": "count.softmax.total", "quantity": "total", "value": 3}


@pytest.fixture
def done(place):
    """The same project with both chapters executed."""
    pretend(place, "01_first", [ROW])
    pretend(place, "02_second")
    return place


# --------------------------------------------------------------------------------------------- what is stale
def edit(path, old, new):
    text = path.read_text()
    assert old in text
    write(path, text.replace(old, new))


def test_nothing_is_stale_after_an_execution(done):
    assert execute.why(done, "01_first") is None
    assert execute.why(done, "02_second") is None


def test_new_code_is_stale(done):
    edit(done.root / "notebooks/01_first.py", 'print("three")', 'print("four")')
    notebook.sync(done)
    assert execute.why(done, "01_first") == "its code changed"
    assert execute.why(done, "02_second") is None


def test_new_text_needs_no_execution(done):
    edit(done.root / "notebooks/01_first.py", "It counts", "This chapter counts")
    notebook.sync(done)
    assert execute.why(done, "01_first") is None
    execute.execute_all(done, ["01_first"])
    page = nbformat.read(done.executed("01_first"), as_version=4)
    assert "This chapter counts" in page.cells[0].source
    assert [c.execution_count for c in page.cells if c.cell_type == "code"] == [1, 2, 3]
    assert execute.facts(page)["stamp"] == stamps.stamp(done, "01_first")


@pytest.fixture
def elsewhere(done):
    """The same project with an edition that another machine made."""
    for name in GRAPH:
        page = nbformat.read(done.executed(name), as_version=4)
        page.metadata["medbench"] |= {"stamp": stamps.stamp(done, name, committed=True, device="old-machine"),
                                      "device": "old-machine"}
        write(done.executed(name, committed=True), notebook.text_of(page))
    return done


def test_new_text_in_another_machines_edition_needs_no_execution(elsewhere, capsys):
    runner.text(elsewhere)
    assert "no text changed" in capsys.readouterr().out
    edit(elsewhere.root / "notebooks/01_first.py", "It counts", "This chapter counts")
    with pytest.raises(ValueError, match="make notebooks"):
        runner.text(elsewhere)
    notebook.sync(elsewhere)
    page = execute.read(elsewhere, "01_first", committed=True)
    assert unfit(elsewhere, "01_first", page, committed=True) == ["its text changed"]
    runner.text(elsewhere)
    assert capsys.readouterr().out == "new text in 01_first\n"
    page = execute.read(elsewhere, "01_first", committed=True)
    assert "This chapter counts" in page.cells[0].source and page.metadata["medbench"]["device"] == "old-machine"
    assert [c.execution_count for c in page.cells if c.cell_type == "code"] == [1, 2, 3]
    assert unfit(elsewhere, "01_first", page, committed=True) == []


def test_new_text_around_old_code_is_refused(elsewhere):
    before = elsewhere.executed("01_first", committed=True).read_bytes()
    edit(elsewhere.root / "notebooks/01_first.py", "It counts", "This chapter counts")
    edit(elsewhere.root / "notebooks/02_second.py", "print(mb.cost)", "print(mb.results)")
    notebook.sync(elsewhere)
    with pytest.raises(ValueError, match="run `make edition`:\n  02_second: its code changed$"):
        runner.text(elsewhere)
    assert elsewhere.executed("01_first", committed=True).read_bytes() == before


@pytest.mark.parametrize("module, first, second", [
    ("cost", False, True), ("config", True, True), ("results", True, False), ("training", False, False),
    ("book/__init__", True, False)])
def test_a_changed_module_is_stale_where_it_is_used(done, module, first, second):
    write(done.root / "medbench" / f"{module}.py", MODULES[module] + "B = 2\n")
    assert (execute.why(done, "01_first") is not None) == first
    assert (execute.why(done, "02_second") is not None) == second


def test_a_changed_docstring_or_comment_is_not_stale(done):
    write(done.root / "medbench/cost.py", '"""Costs."""\n# counted\n' + MODULES["cost"])
    assert execute.why(done, "02_second") is None


def test_an_unknown_public_name_is_refused(done):
    edit(done.root / "notebooks/02_second.py", "mb.cost", "mb.costs")
    notebook.sync(done)
    with pytest.raises(ValueError, match="medbench.costs is used"):
        execute.why(done, "02_second")


def test_changed_values_are_stale_and_dates_are_not(done):
    path = done.results / done.device_name / "01_first.json"
    write(path, json.dumps({"created": "tomorrow", "records": [ROW | {"fingerprints": {"commit": "abc"}}]}))
    assert execute.why(done, "02_second") is None
    write(path, json.dumps({"created": "today", "records": [ROW | {"value": 4}]}))
    assert "records of" in execute.why(done, "02_second")
    assert execute.why(done, "01_first") == "its own records changed or are gone"


def test_records_of_another_device_count_and_its_own_do_not(done):
    write(done.root / "book/results/other/01_first.json", json.dumps({"records": [ROW]}))
    assert "other/01_first" in execute.why(done, "02_second")
    assert execute.why(done, "01_first") is None


@pytest.mark.parametrize("change", [{"profile": "full"}, {"pins": "torch==3\n"}, {"pins": "# words\ntorch==2\n"}])
def test_profile_and_pins_are_part_of_the_stamp(done, change):
    if "pins" in change:
        write(done.root / "requirements.txt", change["pins"])
    place = Checkout(done.root, change.get("profile", "laptop"), "cpu", GRAPH)
    assert (execute.why(place, "02_second") is None) == (change.get("pins", "").startswith("#"))


def test_a_damaged_execution_is_done_again(done, capsys):
    path = done.executed("01_first")
    path.write_text(path.read_text()[:200])
    assert execute.why(done, "01_first") == "never executed here"
    assert "cannot be read" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------- what is refused
def spoil(place, name, how):
    page = nbformat.read(place.executed(name), as_version=4)
    how(page)
    write(place.executed(name), notebook.text_of(page))


def failing(page):
    page.cells[-1].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])]


def unexecuted(page):
    page.cells[-1].execution_count = None


def old(page):
    page.metadata["medbench"]["stamp"]["code"] = "0"


@pytest.mark.parametrize("how, words", [(failing, "failed: ValueError: no"), (unexecuted, "was not executed"),
                                        (old, "its code changed")])
def test_the_book_refuses_a_chapter(done, how, words):
    spoil(done, "02_second", how)
    with pytest.raises(execute.ChapterFailed, match=words):
        assemble(done)


def test_the_book_refuses_a_missing_chapter(done):
    done.executed("02_second").unlink()
    with pytest.raises(execute.ChapterFailed, match="02_second: never executed"):
        assemble(done)


def test_a_skipped_cell_is_no_complaint(done):
    def skip(page):
        unexecuted(page)
        page.cells[-1].metadata["tags"] = ["skip-execution"]
    page = nbformat.read(done.executed("02_second"), as_version=4)
    skip(page)
    assert notebook.complaints(page) == []


def test_a_twin_that_differs_is_refused(done):
    edit(done.root / "notebooks/01_first.py", "three", "four")
    with pytest.raises(ValueError, match="01_first.ipynb is not what its .py says"):
        runner.build(done)


def test_an_unknown_chapter_is_refused_with_the_known_ones(place):
    with pytest.raises(ValueError, match="'03_third'; allowed: '01_first', '02_second'"):
        runner.chapter(place, "03_third")


def test_no_edition_from_a_smoke_run(done):
    with pytest.raises(ValueError, match="an edition is made with"):
        runner.edition(Checkout(done.root, "smoke", "cpu", GRAPH))


def test_no_edition_from_a_device_without_records_that_the_pages_take_from_it(done, monkeypatch):
    write(done.committed / "more.md", "# More\n\n{value}`edition/10_long:a.b` {value}`edition/10_made:a.b` "
                                      "{value}`edition/01_first:a.b` {value}`other/10_other:a.b`\n")
    write(done.results / done.device_name / "10_made.json", "{}")
    before = {path: path.read_bytes() for path in done.committed.rglob("*") if path.is_file()}
    monkeypatch.setattr(runner, "build", lambda place: pytest.fail("work began"))
    with pytest.raises(ValueError, match=f"{done.device_name} cannot be the edition's .* its 10_long, which .*`make"):
        runner.edition(done)
    assert {path: path.read_bytes() for path in done.committed.rglob("*") if path.is_file()} == before


# --------------------------------------------------------------------------------------------- what is wiped off
def test_scrub_leaves_no_trace_of_the_machine(tmp_path):
    cell = nbformat.v4.new_code_cell("x", execution_count=1)
    cell.metadata.update(papermill={"status": "completed"}, execution={"iopub.status.busy": "2026"}, tags=["kept"])
    bar = " 10%|#         | 1/10 [00:01<00:09]\r100%|##########| 10/10 [00:10]\n"
    warning = f"/tmp/ipykernel_12/34.py:1: UserWarning: see {tmp_path}/medbench/x.py\n"
    picture = nbformat.v4.new_output("display_data", {"text/plain": "<Figure at 0x7f1234567890>", "image/png": "aGk="})
    texts = (bar, warning, f"{sys.prefix}/lib/python\n")
    cell.outputs = [picture, *(nbformat.v4.new_output("stream", name="stderr", text=text) for text in texts)]
    dirty = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"input_path": str(tmp_path)}})
    clean = notebook.scrub(dirty, tmp_path)
    text = json.dumps(clean)
    for trace in (str(tmp_path), sys.prefix, "papermill", "ipykernel", "0x7f12", "10/10", "iopub"):
        assert trace not in text
    assert "UserWarning: see ./medbench/x.py" in text and "aGk=" in text and "kept" in text
    assert len(clean.cells[0].outputs) == 3


def test_a_twin_is_clean_and_the_same_every_time(place):
    source = place.root / "notebooks" / "01_first.py"
    assert notebook.twin(source) == notebook.twin(source)
    page = nbformat.reads(notebook.twin(source), as_version=4)
    assert [c.id for c in page.cells] == ["0", "1", "2", "3"]
    assert page.cells[1].metadata["tags"] == ["parameters"]
    assert not any(c.get("outputs") or c.get("execution_count") for c in page.cells)


# --------------------------------------------------------------------------------------------- a page
def test_a_page_says_how_to_run_it_and_that_it_is_not_for_the_clinic(done):
    tree = assemble(done)
    page = nbformat.read(tree / "book/chapters/01_first.ipynb", as_version=4)
    assert page.cells[0].source == "# First"
    box = page.cells[1].source
    for words in ("papermill notebooks/01_first.ipynb", "make chapter NAME=01_first", "2026-01-01", done.device_name,
                  "not for clinical use", "{download}"):
        assert words in box
    assert page.cells[2].source.startswith("It counts")
    assert "medbench" not in page.metadata


def test_assembling_again_touches_nothing(done):
    tree = assemble(done)
    before = {p: p.stat().st_mtime_ns for p in tree.rglob("*")if p.is_file()}
    (tree / "book" / "left-over.md").write_text("# Old\n")
    assert assemble(done) == tree
    assert {p: p.stat().st_mtime_ns for p in tree.rglob("*") if p.is_file()} == before


def test_a_changed_style_sheet_makes_sphinx_begin_anew(done):
    known = assemble(done).with_name(".doctrees")
    write(known / "environment", "what Sphinx has read")
    assemble(done)
    assert known.exists()
    write(done.root / "book/_static/custom.css", "p { margin: 0 }")
    assemble(done)
    assert not known.exists()


# --------------------------------------------------------------------------------------------- with real kernels
def git(root, *arguments):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(place):
    """The project as a git checkout."""
    git(place.root, "init", "-q")
    git(place.root, "add", ".")
    git(place.root, "commit", "-q", "-m", "All")
    return place


def dated(file, name, moment):
    """The same records under another name and of another day."""
    return file.model_copy(update={"chapter": name, "created": moment})


def test_a_book_from_first_to_last(checkout, capsys):
    took = runner.build(checkout)
    assert set(took) == set(GRAPH) and all(took.values())
    assert git(checkout.root, "status", "--porcelain") == ""
    html = (checkout.build / "html/book/chapters/02_second.html").read_text()
    assert "The first chapter found" in html and '<span class="from-record">3</span>' in html
    assert "[ 1/2] 01_first: never executed here; expected a time not known yet" in capsys.readouterr().out

    start = time.monotonic()
    runner.build(checkout)
    said = capsys.readouterr().out
    assert "01_first: unchanged" in said and "02_second: unchanged" in said and "done in" not in said
    assert time.monotonic() - start < 60

    runner.edition(checkout)
    assert (checkout.root / "book/results/EDITION").read_text().strip() == checkout.device_name
    changed = git(checkout.root, "status", "--porcelain", "-uall").split()[1::2]
    assert changed and all(path.startswith(("book/chapters/", "book/results/")) for path in changed)
    assert str(checkout.root) not in "".join((checkout.root / path).read_text() for path in changed)

    there, here = checkout.committed / "results" / checkout.device_name, checkout.results / checkout.device_name
    first = records.read(here / "01_first.json")
    for name, moment in (("10_old", "2026-01-01"), ("10_new", "2026-03-01"), ("01_first", "2026-01-01")):
        records.write(here / f"{name}.json", dated(first, name, moment))
        records.write(there / f"{name}.json", dated(first, name, "2026-02-01"))
    runner.edition(checkout)
    assert [records.read(there / f"{name}.json").created for name in ("10_old", "10_new", "01_first")] == [
        "2026-02-01", "2026-03-01", "2026-01-01"]
    assert "10_old: the committed records are later than those in" in capsys.readouterr().out

    edit(checkout.root / "notebooks/02_second.py", "total`", "totals`")
    notebook.sync(checkout)
    execute.execute_all(checkout)
    with pytest.raises(execute.ChapterFailed, match="near it: count.softmax.total"):
        render(checkout, assemble(checkout), checkout.build / "html")


def test_a_failing_chapter_stops_the_book_and_keeps_the_others(checkout, capsys):
    edit(checkout.root / "notebooks/02_second.py", "print(mb.cost)", "mb.cost.profile = 1 / 0")
    notebook.sync(checkout)
    with pytest.raises(execute.ChapterFailed, match=r"(?s)02_second failed:.*ZeroDivisionError"):
        runner.build(checkout)
    assert execute.why(checkout, "01_first") is None
    assert not checkout.executed("02_second").exists()
    assert (checkout.build / "running/02_second.ipynb").exists()


def test_large_pictures_of_brains_become_light_and_drawings_stay():
    def picture(pixels):
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        return nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(png.getvalue()).decode()})

    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 4), np.uint8)
    noise[..., 3] = 255
    lines = np.full((900, 900, 4), 255, np.uint8)
    cell = nbformat.v4.new_code_cell("pass", outputs=[picture(noise), picture(lines)], execution_count=1)
    page = notebook.scrub(nbformat.v4.new_notebook(cells=[cell]), Path("/nowhere"))
    photo, drawing = (output.data for output in page.cells[0].outputs)
    assert set(photo) == {"image/jpeg"} and set(drawing) == {"image/png"}
    assert Image.open(io.BytesIO(base64.b64decode(photo["image/jpeg"]))).size == (300, 300)
    assert notebook.scrub(page, Path("/nowhere")).cells == page.cells


def wait_for(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_where_it_was(checkout, how):
    sign = checkout.root / "_build" / "kernel"
    sleep = f"import os, pathlib, time\npathlib.Path({str(sign)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    edit(checkout.root / "notebooks/02_second.py", "print(mb.cost)", sleep + "\nmb.cost")
    notebook.sync(checkout)
    code = f"""
        import pathlib, signal, sys
        from medbench.book import chapters, execute
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGINT, signal.default_int_handler)      # also where the shell has it ignored
        place = chapters.Checkout(pathlib.Path({str(checkout.root)!r}), device="cpu", graph={GRAPH!r})
        execute.execute_all(place)
    """
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
    wait_for(sign.exists)
    run.send_signal(how)
    run.wait(120)
    kernel = int(sign.read_text())
    wait_for(lambda: not alive(kernel), 120)
    assert execute.why(checkout, "01_first") is None
    assert execute.why(checkout, "02_second") == "never executed here"


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("given, words", [
    (["-p", "profle", "smoke"], "parameter of 01_first is 'profle'; allowed: 'profile', 'device', 'seed'"),
    (["-p", "profile", "huge"], "profile is 'huge'; allowed: 'smoke', 'laptop', 'full'")])
def test_papermill_from_anywhere_refuses_a_misspelt_parameter(place, tmp_path_factory, given, words):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, "-m", "papermill", str(place.notebook("01_first")), "out.ipynb", "-k", "python3", *given]
    ran = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert ran.returncode == 1
    assert words in ran.stderr


def test_the_status_line_shows_the_newest_bar_and_keeps_other_words(capfd):
    with execute.Status("[ 1/2] 01_first", 90.0) as status:
        os.write(2, b"words of a library\n\r 10%|#   | 1/10 [00:01<00:09]\r 20%|##  | 2/10 [00:02<00:08]\r")
        wait_for(lambda: "2/10" in status.note, 5)
    assert list(status.tail) == ["words of a library"]
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_a_second_run_waits_and_says_so(tmp_path, capsys):
    path, held, over = tmp_path / "book.lock", threading.Event(), []

    def first_run():
        with execute._alone(path):
            held.set()
            time.sleep(0.5)
            over.append(True)
    other = threading.Thread(target=first_run)
    other.start()
    held.wait(10)
    with execute._alone(path):
        assert over == [True]
    assert "another run is at work" in capsys.readouterr().out
    with execute._alone(path):
        assert capsys.readouterr().out == ""
    other.join()
