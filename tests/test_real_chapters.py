"""The book's own chapters run at the smallest size, by plain papermill."""

import os
import subprocess
import sys

import pytest

from medbench import machine, results
from medbench.book.chapters import CHAPTERS

ROOT = machine.ROOT


def run(*command, cwd, **variables):
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, **{name: str(value) for name, value in variables.items()}})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_every_chapter_runs_at_the_smallest_size_by_plain_papermill_from_elsewhere(tmp_path):
    """In the order of the book, for the mechanism chapters show what chapters 10 to 12 record."""
    for name in CHAPTERS:
        run("papermill", ROOT / "notebooks" / f"{name}.ipynb", tmp_path / f"{name}.ipynb", "-p", "profile", "smoke",
            "-p", "device", "cpu", "--no-progress-bar", cwd=tmp_path, MEDBENCH_RESULTS=tmp_path / "results",
            MEDBENCH_CACHE=tmp_path / "cache")
    table = results.load(tmp_path / "results")
    assert {"10_training", "11_cost", "12_latency", "13_saliency", "14_results"} <= set(table.chapter)
    assert set(table.profile) == {"smoke"}
