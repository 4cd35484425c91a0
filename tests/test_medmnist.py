"""MedMNIST: its own package reads it, official splits and classes stay, enlarged images are called so."""

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import URLError

import numpy as np
import pytest
from miniature import breastmnist

from medbench import audit, data, readers
from medbench.config import DataConfig
from medbench.data import data_root
from medbench.readers import medmnist


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))


def load(source, side=40):
    return data.load_data(DataConfig(source=str(source), img_size=side), show=False)


def test_a_local_file_has_the_official_splits_and_says_what_it_is(tmp_path):
    breastmnist(tmp_path / "breastmnist.npz")
    found = load(tmp_path / "breastmnist.npz")
    assert found.classes == ("malignant", "normal, benign")                 # in the order of the labels 0, 1
    assert [len(s) for s in (found.train, found.val, found.test)] == [546, 78, 156]
    assert (found.test.labels == np.arange(156) % 2).all()
    assert found.caveats[1:] == ("images enlarged from 28 px",)
    assert found.caveats[0] == "no patient ids: the authors' official split is taken as given and cannot be checked"
    assert "CC BY 4.0" in found.notes[0]
    raw = np.load(tmp_path / "breastmnist.npz")["val_images"]
    assert (load(tmp_path / "breastmnist.npz", 28).val.images == raw).all()
    assert len(load(tmp_path / "breastmnist.npz", 28).caveats) == 1


def test_larger_versions_are_read_too(tmp_path):
    breastmnist(tmp_path / "breastmnist_64.npz", 64)
    assert load(tmp_path / "breastmnist_64.npz", 64).train.images.shape == (546, 64, 64)


def test_the_fingerprint_changes_with_the_file(tmp_path):
    def changed(arrays):
        arrays["train_images"][0, 0, 0] ^= 1
        return arrays
    breastmnist(tmp_path / "breastmnist.npz")
    first = load(tmp_path / "breastmnist.npz").fingerprint
    breastmnist(tmp_path / "breastmnist.npz", change=changed)
    assert load(tmp_path / "breastmnist.npz").fingerprint != first


def test_colour_becomes_grey_and_is_noted(tmp_path):
    def coloured(arrays):
        return {name: np.stack([a, a // 2, a // 3], -1) if "images" in name else a for name, a in arrays.items()}
    breastmnist(tmp_path / "breastmnist.npz", change=coloured)
    assert "780 of 780 images have colour" in load(tmp_path / "breastmnist.npz").notes[-1]


def test_images_of_an_odd_shape_are_set_aside(tmp_path):
    breastmnist(tmp_path / "breastmnist.npz",
                change=lambda a: {n: np.stack([x] * 5, -1) if "images" in n else x for n, x in a.items()})
    with pytest.raises(ValueError, match="780 of 780 images cannot be used, .*: 0 Cannot handle this data type"):
        load(tmp_path / "breastmnist.npz")


@pytest.mark.parametrize("source, error, words", [
    ("medmnist:nosuchmnist", ValueError, "MedMNIST name is 'nosuchmnist'; allowed: .*'breastmnist'"),
    ("medmnist:organmnist3d", ValueError, "holds volumes"),
    ("medmnist:chestmnist", ValueError, "several labels an image"),
    ("medmnist:breastmnist:65", ValueError, "size of breastmnist is 65; allowed: 28, 64, 128, 224"),
    ("medmnist:breastmnist:big", ValueError, "medmnist:NAME:SIZE"),
])
def test_what_cannot_be_read_is_refused(source, error, words, tmp_path):
    with pytest.raises(error, match=words):
        readers.listing(source, cache=tmp_path)


def shorter(arrays):
    return {name: array[:5] if name.startswith("val") else array for name, array in arrays.items()}


@pytest.mark.parametrize("name, change, words", [
    ("breastmnist.npz", shorter, "5 images in val; the official set has 78"),
    ("breastmnist.npz", lambda a: a | {"val_images": a["val_images"][:5]}, "5 images in val; the official set has 78"),
    ("breastmnist.npz", lambda a: {k: v for k, v in a.items() if k != "test_labels"}, "no whole MedMNIST file"),
    ("breastmnist_large.npz", lambda a: a, "NAME_SIZE.npz"),
    ("breastmnist_28.npz", lambda a: a, "'breastmnist_28.npz' is not named .*; wanted 'breastmnist.npz' .*rename it"),
    ("breastmnist_064.npz", lambda a: a, "'breastmnist_064.npz' is not named .*; wanted 'breastmnist_64.npz'"),
])
def test_a_file_that_is_not_whole_is_refused(tmp_path, name, change, words):
    breastmnist(tmp_path / name, change=change)
    with pytest.raises(ValueError, match=words):
        readers.listing(tmp_path / name)


@pytest.mark.parametrize("cut", [0, 10, 200_000, -30])
def test_a_file_that_was_cut_short_is_refused(tmp_path, cut):
    breastmnist(tmp_path / "breastmnist.npz")
    whole = (tmp_path / "breastmnist.npz").read_bytes()
    (tmp_path / "breastmnist.npz").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match="breastmnist in .* is no whole MedMNIST file .*fetch it again"):
        readers.listing(tmp_path / "breastmnist.npz")


def test_a_file_that_is_damaged_inside_is_refused(tmp_path):
    breastmnist(tmp_path / "breastmnist.npz", write=np.savez_compressed)
    content = bytearray((tmp_path / "breastmnist.npz").read_bytes())
    content[5000:5100] = bytes(100)
    (tmp_path / "breastmnist.npz").write_bytes(content)
    with pytest.raises(ValueError, match="breastmnist in .* is no whole MedMNIST file .*fetch it again"):
        readers.listing(tmp_path / "breastmnist.npz")


def test_without_a_connection_the_error_names_the_address(tmp_path, monkeypatch):
    import torchvision.datasets.utils as utils

    def offline(*_, **__):
        raise OSError("no route")
    monkeypatch.setattr(utils, "download_url", offline)
    with pytest.raises(FileNotFoundError, match=r"connection.*https://zenodo.org/.*breastmnist_64.npz.*data source"):
        readers.listing("medmnist:breastmnist:64", cache=tmp_path)


def test_the_file_that_is_opened_is_the_one_that_is_given(tmp_path):
    breastmnist(tmp_path / "breastmnist.npz")
    breastmnist(tmp_path / "breastmnist_28.npz", change=lambda a: a | {"val_images": 255 - a["val_images"]})
    with pytest.raises(ValueError, match="'breastmnist_28.npz' is not named"):
        readers.listing(tmp_path / "breastmnist_28.npz")


def test_a_local_file_that_went_away_is_no_failed_download(tmp_path):
    with pytest.raises(FileNotFoundError, match="breastmnist is no longer in .*; put its file there again"):
        medmnist.read(str(tmp_path / "breastmnist.npz"))


@pytest.mark.parametrize("first, last", [(errno.ENOSPC, errno.ENOSPC), (errno.EACCES, errno.EACCES),
                                         (errno.ENOSPC, None)])              # the second address has no answer
def test_a_disk_that_takes_no_file_is_not_called_a_missing_connection(tmp_path, monkeypatch, first, last):
    import torchvision.datasets.utils as utils

    def full(*_, **__):
        try:
            raise OSError(first, os.strerror(first))
        except OSError:
            raise OSError(last, os.strerror(last)) if last else URLError("no route") from None
    monkeypatch.setattr(utils, "download_url", full)
    with pytest.raises(OSError, match=rf"breastmnist could not be written to .*{os.strerror(first)}.*MEDBENCH_CACHE"):
        readers.listing("medmnist:breastmnist", cache=tmp_path)


def test_a_download_can_be_interrupted(tmp_path, monkeypatch):
    import torchvision.datasets.utils as utils

    def interrupted(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.setattr(utils, "download_url", interrupted)
    with pytest.raises(KeyboardInterrupt):
        readers.listing("medmnist:breastmnist", cache=tmp_path)


def test_a_download_is_opened_where_it_was_put(tmp_path, monkeypatch):
    import torchvision.datasets.utils as utils
    asked = []

    def download(url, root, filename, md5):
        asked.append((url, md5))
        breastmnist(f"{root}/{filename}")
    monkeypatch.setattr(utils, "download_url", download)
    found = load("medmnist:breastmnist")
    assert len(found.test) == 156 and len(asked) == 3 and "zenodo" in asked[0][0] and len(asked[0][1]) == 32


def test_one_process_downloads_and_others_wait(tmp_path, monkeypatch):
    import torchvision.datasets.utils as utils
    busy = threading.Lock()

    def download(url, root, filename, md5):
        assert busy.acquire(blocking=False), "two write one file at once"
        breastmnist(f"{root}/{filename}")
        time.sleep(0.02)
        busy.release()
    monkeypatch.setattr(utils, "download_url", download)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: readers.listing("medmnist:breastmnist", cache=tmp_path), range(3)))
    assert [len(one.table) for one in found] == [780] * 3


def test_a_local_file_needs_no_lock_beside_it(tmp_path):
    breastmnist(tmp_path / "breastmnist.npz")
    readers.listing(tmp_path / "breastmnist.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["breastmnist.npz"]


def test_the_package_is_optional(monkeypatch, tmp_path):
    import sys
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(ImportError, match="pip install medmnist"):
        readers.listing("medmnist:breastmnist", cache=tmp_path)


def test_the_real_file_has_its_780_images_and_its_doubles():
    try:
        file = data_root() / "medmnist" / "breastmnist.npz"
    except FileNotFoundError as error:
        pytest.skip(f"needs the folder of data sets: {error}")
    found = load(file, 28)
    assert [len(s) for s in (found.train, found.val, found.test)] == [546, 78, 156]
    assert {name: sum(s.class_counts[name] for s in (found.train, found.val, found.test))
            for name in found.classes} == {"malignant": 210, "normal, benign": 570}
    report = audit.check(str(file), show=False)
    assert len(report.copies["exact"]["in another class"]) == 2 and not report.set_aside
    assert "1 images lie in more than one split, pixel by pixel" in found.caveats
    assert medmnist.knows(str(file))
