"""Real images: what the records are of, and who stands for patients that are not known."""

from types import SimpleNamespace

import numpy as np
import pytest

import medbench as mb
from medbench import commands, results
from medbench.book import real


def test_the_records_of_real_mri_are_those_of_the_command(monkeypatch, tmp_path):
    """`train --data manifest.csv` and chapter 10 train the same, but for the threads that each may use."""
    (tmp_path / real.MRI.path).parent.mkdir()
    monkeypatch.setenv("MEDBENCH_DATA", str(tmp_path))
    size = SimpleNamespace(notes=(), classes=("a", "b", "c"), train=range(2076))
    monkeypatch.setattr(commands, "load_data", lambda config: size)
    monkeypatch.setattr(commands, "_train", lambda experiment, data, workers: experiment)
    found, = commands.train(["xca"], "small", str(tmp_path / real.MRI.path), None, 0, "cpu", {"threads": 1})
    assert found == real.experiment("xca", device="cpu").on(3, 2076)


def test_where_patients_are_lost_runs_of_numbers_stand_for_them():
    """A new one where the class changes, where a number is missing, and behind so many images as a patient has."""
    numbers = [7, 8, 9, 10, 11, 20, 21, 5, 6, 12]
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    split = mb.data.Split("test", np.zeros((10, 4, 4), np.uint8), labels, np.arange(10), ("a", "b"), np.full(2, 0.5),
                          paths=tuple(f"images/{n}.jpg" for n in numbers))
    shuffled = np.random.default_rng(0).permutation(10)
    found = np.empty(10, int)
    found[shuffled] = real.runs(split.take(shuffled), 3)
    assert found.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4]
    opened = mb.data.Data(split, split, split, "x")
    seen = real.MRI.grouped(opened)
    assert seen.test.groups.tolist() == real.runs(split, 13).tolist() and seen.train.groups is None
    assert seen.caveats == seen.test.caveats == ("in intervals, runs of 13 slices stand for patients",)
    assert seen.fingerprint == "x" and real.BREAST.grouped(opened) is opened


def test_records_stay_as_they_are_until_all_models_are_trained(monkeypatch, tmp_path):
    """A file without models would stand in the way of the committed one."""
    to = tmp_path / "device" / "10_real.json"
    results.record("brain-tumor-mri.softmax", {"quantity": "top1", "value": 0.5, "unit": "1"}, to=to)
    before = to.read_bytes()
    monkeypatch.setattr(real.RealSet, "grouped", lambda self, opened: opened)
    monkeypatch.setattr(real.data, "data_root", lambda: tmp_path)
    monkeypatch.setattr(real.data, "load_data", lambda config: SimpleNamespace(classes=("a", "b"), train=range(20)))
    monkeypatch.setattr(real, "train_all", lambda experiments, opened: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        real.record_real(to=to)
    assert to.read_bytes() == before
