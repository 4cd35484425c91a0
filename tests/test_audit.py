"""The report on a data set: it counts, names what is damaged, and finds copies that were planted."""

import functools
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from medbench import audit, phantom
from medbench.__main__ import main
from medbench.config import DataConfig
from medbench.data import data_root, load_data


def heads(count, rng):
    """Smooth blobs, unlike one another: the fewest things that look like slices."""
    for _ in range(count):
        yield Image.fromarray(rng.integers(0, 256, (6, 5), dtype=np.uint8)).resize((60, 72), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """24 images of two classes, of which some are copied: row by row as `PLANTED` says."""
    rng, lines = np.random.default_rng(5), ["path,label,split,group"]
    (tmp_path / "set").mkdir()
    images = list(heads(24, rng))
    images[13] = images[2]                                                  # exact, train and val, other class
    images[5] = images[4].resize((30, 36)).resize((60, 72))                 # near, same split, other class
    images[20] = ImageEnhance.Brightness(images[0]).enhance(0.8)            # near, train and test
    for i, image in enumerate(images):
        image.save(tmp_path / "set" / f"{i}.png")
        split = "train" if i < 12 else "val" if i < 16 else "test"
        lines.append(f"{i}.png,{'ab'[i % 2]},{split},{'p0' if i in (3, 17) else f'p{i}'}")
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(lines))
    return tmp_path / "set"


def planted(report, kind):
    return {place: sorted(map(tuple, map(sorted, found.items()))) for place, found in report.copies[kind].items()}


def test_planted_copies_are_found_and_nothing_else(folder):
    report = audit.check(str(folder / "manifest.csv"), show=False)
    assert planted(report, "exact") == {"in the same split": [], "in another split": [(2, 13)] * 2,
                                        "in another class": [(2, 13)] * 2}
    assert planted(report, "near") == {"in the same split": [(4, 5)] * 2, "in another split": [(0, 20)] * 2,
                                       "in another class": [(4, 5)] * 2}
    assert report.straddling == ["p0"] and not report.set_aside


def test_the_search_does_not_depend_on_how_it_is_cut(folder, monkeypatch):
    whole = audit.check(str(folder / "manifest.csv"), show=False)
    monkeypatch.setattr(audit, "AT_ONCE", 5)
    assert audit.check(str(folder / "manifest.csv"), show=False).copies == whole.copies


def test_with_damaged_images_rows_still_mean_the_same(folder):
    (folder / "1.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "3.png")
    report = audit.check(str(folder / "manifest.csv"), show=False)
    assert [(path.split("/")[-1], reason.split(" ")[0]) for path, reason in report.set_aside] == [("1.png", "is"),
                                                                                                  ("3.png", "is")]
    assert "blank" in report.set_aside[1][1]
    assert planted(report, "exact")["in another split"] == [(2, 13)] * 2
    assert sum(report.sizes.values()) == 22 and report.counts["train"] == {"a": 6, "b": 6}


def test_many_images_are_not_searched_and_this_is_said(folder, monkeypatch):
    monkeypatch.setattr(audit, "MOST", 10)
    report = audit.check(str(folder / "manifest.csv"), show=False)
    assert "near" not in report.copies
    assert [row for row in report.rows() if row["finding"] == "near copy"][0]["such as"].startswith("more than 10")


def test_the_command_prints_it_and_keeps_all_names(folder, capsys, tmp_path):
    code = main(["data", "check", str(folder / "manifest.csv"), "--format", "json", "--out", str(tmp_path / "r.json")])
    printed = capsys.readouterr()
    assert code == 0 and "1 of 22 groups (patients)" in printed.err
    rows = {(row["finding"], row["where"]): row for row in json.loads(printed.out)}
    assert rows["images", "train, a"]["count"] == 6 and rows["size", "60 x 72 px"]["count"] == 24
    assert rows["mode", "L"]["count"] == 24 and rows["set aside", "all"]["count"] == 0
    assert rows["exact copy", "in another split"]["count"] == 2
    assert "set/2.png = set/13.png" in rows["exact copy", "in another split"]["such as"]
    assert rows["group in two splits", "all"] == {"finding": "group in two splits", "where": "all", "count": 1,
                                                  "such as": "p0"}
    full = json.loads((tmp_path / "r.json").read_text())
    assert [path.split("/")[-1] for path in full["copies"]["near"]["in another split"][0]] == ["0.png", "20.png"]
    assert main(["data", "check", str(folder / "manifest.csv"), "--near", "1.5"]) == 2
    assert "near is 1.5; wanted a number from 0.5 to 1" in capsys.readouterr().err


def test_what_training_would_refuse_is_reported_and_the_rest_is_still_checked(tmp_path, capsys):
    lines = ["path,label,split"]
    for i, image in enumerate(heads(12, np.random.default_rng(1))):
        image.save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},{'train' if i < 8 else 'test'}")
    (tmp_path / "manifest.csv").write_text("\n".join([*lines, "gone.png,a,train", "1.png,a,trian"]))
    (tmp_path / "0.png").write_bytes(b"no image")
    assert main(["data", "check", str(tmp_path / "manifest.csv"), "--format", "json"]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    why = [row["such as"] for row in rows if row["finding"] == "training would stop"]
    for part in ("line 15, is 'trian'", "no image in split 'val' (9 in train, 0 in val, 4 in test)",
                 "1 of 14 images of", "2 of 14 images cannot be used, and max_damaged allows 1.00%"):
        assert sum(part in text for text in why) == 1, (part, why)
    assert len(why) == 4 and printed.err.count("Training would stop: ") == 4
    [aside] = [row for row in rows if row["finding"] == "set aside"]
    assert aside["count"] == 2 and "gone.png" in aside["such as"]


def test_a_source_of_damaged_images_alone_is_reported(folder):
    for i in range(24):
        (folder / f"{i}.png").write_bytes(b"no image")
    report = audit.check(str(folder / "manifest.csv"), show=False)
    assert len(report.set_aside) == 24
    for fault, said in zip(report.faults, ("all training", "all validation", "all test", "24 of 24"), strict=True):
        assert fault.startswith(said)


def test_an_exact_copy_across_splits_goes_with_the_caveats(folder):
    report = audit.check(str(folder / "manifest.csv"), show=False)
    assert "1 images lie in more than one split, pixel by pixel" in report.caveats


def test_the_phantom_is_checked_as_it_is_drawn(monkeypatch, capsys):
    few = functools.partial(DataConfig, num_train=40, num_val=20, num_test_per_class=2)
    monkeypatch.setattr(audit, "DataConfig", few)
    assert main(["data", "check", "phantom", "--format", "json"]) == 0
    printed = capsys.readouterr()
    rows = {(row["finding"], row["where"]): row["count"] for row in json.loads(printed.out)}
    assert {rows["images", f"test, {name}"] for name in phantom.CLASSES} == {2}
    assert sum(count for (kind, where), count in rows.items() if kind == "images" and "train" in where) == 40
    assert rows["size", "112 x 112 px"] == rows["mode", "L"] == 80 and rows["group in two splits", "all"] == 0
    assert rows["set aside", "all"] == rows["exact copy", "in another split"] == 0
    assert rows["near copy", "in another split"] == 0 and "warps of one atlas" in printed.err
    images = load_data(few()).train.images
    report = audit.check("phantom", near=0.5, show=False)                    # the very pixels that models see
    first, second = next(iter(report.copies["near"]["in the same split"].items()))
    a, b = (np.asarray(Image.fromarray(images[row]).resize((32, 32), Image.Resampling.BOX)) for row in (first, second))
    assert first < 40 and second < 40 and np.corrcoef(a.ravel(), b.ravel())[0, 1] >= 0.5


def test_the_tumour_slices_have_near_copies_within_splits_alone():
    try:
        manifest = data_root() / "brain-tumor-mri" / "manifest.csv"
    except FileNotFoundError as error:
        pytest.skip(f"needs the folder of data sets: {error}")
    report = audit.check(str(manifest), show=False)
    assert sum(sum(part.values()) for part in report.counts.values()) == 2824 and not report.set_aside
    assert report.straddling is None and report.caveats == ("no patient ids: slice-level split",)
    assert not any(report.copies["exact"].values()) and not report.copies["near"]["in another split"]
    assert len(report.copies["near"]["in the same split"]) == 106
