"""Data: the cache holds and heals, splits are what they say, real images are read or refused."""

import contextlib
import errno
import fcntl
import multiprocessing
import os
import re
import resource
import threading
import types

import numpy as np
import pytest
import torch
from PIL import Image

from medbench import audit, data, files, localisation, phantom
from medbench.config import DataConfig
from medbench.readers import BOXES

SMALL = DataConfig(img_size=24, num_train=37, num_val=11, num_test_per_class=2, seed=3)


@pytest.fixture
def drawn(monkeypatch):
    """A stand-in phantom that notes what it was asked for; an image depends on seed and index alone."""
    asked = []

    def generate(labels, indices, *, seed, img_size, prior, difficulty, confounding):
        asked.append((len(indices), prior, None if labels is None else labels.tolist()))
        rows = [np.random.default_rng([seed, int(i)]) for i in indices]
        labels = np.array([rng.integers(10) for rng in rows]) if labels is None else labels
        images = np.stack([rng.integers(0, 256, (img_size, img_size), dtype=np.uint8) for rng in rows])
        return types.SimpleNamespace(images=torch.from_numpy(images), labels=torch.from_numpy(labels),
                                     lesion=torch.from_numpy(images > 200))
    monkeypatch.setattr(phantom, "generate", generate)
    return asked


# --------------------------------------------------------------------------------------------- phantom and cache
def test_phantom_splits_follow_the_configuration(drawn, tmp_path):
    found = data.load_data(SMALL, cache=tmp_path, show=False)
    assert [len(s) for s in (found.train, found.val, found.test)] == [37, 11, 20]
    assert {prior for _, prior, labels in drawn if labels is None} == {"sqrt"}
    assert set(found.test.class_counts.values()) == {2}
    assert len({*found.train.indices, *found.val.indices, *found.test.indices}) == 68
    assert found.prior == pytest.approx(phantom.prior("sqrt"))
    assert found.test.population[7] == pytest.approx(27374 / 44671)
    assert (found.train.masks == (found.train.images > 200)).all() and found.train.masks.dtype == bool
    assert sum(found.class_counts.values()) == 37 and list(found.class_counts) == list(phantom.CLASSES)


def test_a_larger_training_set_extends_the_smaller_one(drawn, tmp_path):
    small = data.load_data(SMALL, cache=tmp_path, show=False)
    asked = len(drawn)
    large = data.load_data(SMALL.replace(num_train=90), cache=tmp_path, show=False)
    assert (large.train.images[:37] == small.train.images).all()
    assert (large.test.images == small.test.images).all() and len(drawn) == asked + 2      # two chunks, training only


def test_the_cache_is_used_and_heals(drawn, tmp_path):
    first = data.load_data(SMALL, cache=tmp_path, show=False)
    asked = len(drawn)
    assert data.load_data(SMALL, cache=tmp_path, show=False).fingerprint == first.fingerprint
    assert len(drawn) == asked
    file = next(tmp_path.glob("phantom/*/images.npy"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)                                               # one bit turned over
    again = data.load_data(SMALL, cache=tmp_path, show=False)
    assert len(drawn) == asked + 1 and again.fingerprint == first.fingerprint
    next(tmp_path.glob("phantom/*/meta.json")).write_text('{"hashes": {"ima')               # cut short
    assert data.load_data(SMALL, cache=tmp_path, show=False).fingerprint == first.fingerprint


def test_an_interrupted_writer_leaves_nothing_that_counts(drawn, tmp_path, monkeypatch):
    whole = phantom.generate

    def breaks(labels, indices, **look):
        if labels is not None:
            raise KeyboardInterrupt
        return whole(labels, indices, **look)
    monkeypatch.setattr(phantom, "generate", breaks)
    with pytest.raises(KeyboardInterrupt):
        data.load_data(SMALL, cache=tmp_path, show=False)
    assert len(list(tmp_path.glob("phantom/*/meta.json"))) == 2 and not list(tmp_path.glob("phantom/*.tmp"))
    monkeypatch.setattr(phantom, "generate", whole)
    before = len(drawn)
    data.load_data(SMALL, cache=tmp_path, show=False)
    assert len(drawn) == before + 1                                         # only the test set was missing


def _write(path, value, start, made):
    start.wait()

    def make(folder):
        made.put(value)
        np.save(folder / "labels.npy", np.full(1000, value))
    return data._cached(path, make)[0]["labels"][0]


def _child(path, value, start, made, found):
    found.put(_write(path, value, start, made))


def test_parallel_writers_make_once_and_agree(tmp_path):
    context = multiprocessing.get_context("fork")
    start, made, found = context.Event(), context.Queue(), context.Queue()
    path = tmp_path / "set"
    children = [context.Process(target=_child, args=(path, value, start, made, found)) for value in range(4)]
    for child in children:
        child.start()
    start.set()
    seen = {found.get(timeout=30) for _ in children}
    for child in children:
        child.join()
    assert len(seen) == 1 and made.get(timeout=5) in seen and made.empty()


def test_fingerprint_stands_for_the_bytes(drawn, tmp_path, monkeypatch):
    first = data.load_data(SMALL, cache=tmp_path / "a", show=False).fingerprint
    assert data.load_data(SMALL, cache=tmp_path / "b", show=False).fingerprint == first
    assert data.load_data(SMALL.replace(seed=4), cache=tmp_path / "a", show=False).fingerprint != first
    whole = phantom.generate

    def shifted(*args, **look):
        batch = whole(*args, **look)
        batch.images[0, 0, 0] ^= 1
        return batch
    monkeypatch.setattr(phantom, "generate", shifted)
    assert data.load_data(SMALL, cache=tmp_path / "c", show=False).fingerprint != first


def test_the_real_phantom_is_cached_as_it_is_drawn(tmp_path):
    config = DataConfig(img_size=48, num_train=5, num_val=1, num_test_per_class=1, seed=1)
    found = data.load_data(config, cache=tmp_path, show=False)
    batch = phantom.generate(np.arange(10), found.test.indices, seed=1, img_size=48, prior="uniform")
    assert np.abs(found.test.images.astype(int) - batch.images.numpy()).max() <= 1
    assert found.test.masks[:, :].sum() > 0 and not found.test.masks[phantom.CLASSES.index("normal")].any()


def test_take_keeps_rows_together(drawn, tmp_path):
    test = data.load_data(SMALL, cache=tmp_path, show=False).test
    part = test.take(test.labels == 4)
    assert len(part) == 2 and set(part.labels) == {4} and (part.images == test.images[[4, 14]]).all()
    assert (part.masks == test.masks[[4, 14]]).all() and part.indices.tolist() == test.indices[[4, 14]].tolist()


# --------------------------------------------------------------------------------------------- real images
@pytest.fixture
def folder(tmp_path):
    """Class folders with 30 images each of 20 x 14 px."""
    rng = np.random.default_rng(0)
    for label in ("b", "a"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(rng.integers(0, 256, (14, 20), dtype=np.uint8)).save(tmp_path / "set" / label / f"{i}.png")
    return tmp_path / "set"


def manifest(folder, header=f"path,label,split,{','.join(BOXES)}", change=lambda lines: lines):
    """A manifest of the folder: 20 train, 4 val and 6 test images a class."""
    lines = [f"{label}/{i}.png,{label},{'train' if i < 20 else 'val' if i < 24 else 'test'},0.5,0.25,{i / 100},"
             for label in "ab" for i in range(30)]
    (folder / "manifest.csv").write_text("\n".join([header, *change(lines)]) + "\n")
    return DataConfig(source=str(folder / "manifest.csv"), img_size=16)


def test_manifest_keeps_splits_boxes_and_order(folder, tmp_path):
    found = data.load_data(manifest(folder), cache=tmp_path / "cache", show=False)
    assert found.classes == ("a", "b") and found.class_counts == {"a": 20, "b": 20}
    assert [len(s) for s in (found.train, found.val, found.test)] == [40, 8, 12]
    assert found.test.boxes[0] == pytest.approx([0.5, 3 / 20 + 0.25 * 14 / 20, 0.24, np.nan], nan_ok=True)
    assert found.test.paths[0].endswith("a/24.png") and found.test.population is None and found.test.masks is None
    assert (found.test.images[0] == data.read_image(found.test.paths[0], 16)).all()
    assert "No group" in found.notes[0]
    assert found.caveats == found.test.caveats == ("no patient ids: slice-level split",)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (40, 40), (40, 17)])
def test_boxes_lie_on_what_they_lay_on_before_the_image_was_padded(tmp_path, size):
    """Each image has one white rectangle; its box, as a mask of the padded image, is that rectangle."""
    (width, height), rng, lines = size, np.random.default_rng(0), [f"path,label,split,{','.join(BOXES)}"]
    for i in range(12):
        left, top = rng.integers(0, (width - 10, height - 8))
        image = np.zeros((height, width), np.uint8)
        image[top:top + 8, left:left + 10] = 255
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        box = (left + 5) / width, (top + 4) / height, 10 / width, 8 / height
        lines.append(",".join(map(str, (f"{i}.png", "ab"[i % 2], ("train", "val", "test")[i // 4], *box))))
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    config = DataConfig(source=str(tmp_path / "manifest.csv"), img_size=40)
    found = data.load_data(config, cache=tmp_path / "cache", show=False)
    for split in (found.train, found.val, found.test):
        assert (localisation.to_masks(split.boxes, (40, 40)) == (split.images == 255)).all()
        if width == height:                                                 # to the last bit
            assert split.boxes.tolist() == [[float(x) for x in lines[i + 1].split(",")[3:]] for i in split.indices]


def test_manifest_with_groups_says_whether_they_straddle(folder, tmp_path):
    def grouped(spread):
        return lambda lines: [f"{line.rsplit(',', 4)[0]},{i % 7 if spread else i}" for i, line in enumerate(lines)]
    for spread, words in ((True, "7 of 7 groups"), (False, "none of 60 groups")):
        config = manifest(folder, "path,label,split,group", grouped(spread))
        assert words in data.load_data(config, cache=tmp_path / "cache", show=False).notes[0]


def test_class_folders_are_split_by_name_and_stay_so(folder, tmp_path):
    config = DataConfig(source=str(folder), img_size=16)
    first = data.load_data(config, cache=tmp_path / "one", show=False)
    (folder / "a" / "new.png").write_bytes((folder / "a" / "0.png").read_bytes())
    second = data.load_data(config, cache=tmp_path / "one", show=False)
    assert 30 <= len(first.train) <= 52 and len(first.val) and len(first.test)
    for name in ("train", "val", "test"):
        assert set(getattr(first, name).paths) <= set(getattr(second, name).paths)
    assert "hash" in first.notes[0]


def test_split_folders_are_taken_as_they_are(folder, tmp_path):
    for split in ("train", "val", "test"):
        for label in "ab":
            (tmp_path / "given" / split / label).mkdir(parents=True)
            (tmp_path / "given" / split / label / "x.png").write_bytes((folder / label / "1.png").read_bytes())
    found = data.load_data(DataConfig(source=str(tmp_path / "given"), img_size=16), cache=tmp_path / "c", show=False)
    assert found.classes == ("a", "b") and len(found.test) == 2


def test_a_class_that_is_never_trained_is_refused_before_anything_is_read(folder, tmp_path):
    config = manifest(folder, change=lambda lines: [line for line in lines if ",b,train," not in line])
    with pytest.raises(ValueError, match="no training image of class 'b'"):
        data.load_data(config, cache=tmp_path / "cache", show=False)
    assert not (tmp_path / "cache").exists()


def test_broken_images_are_named_together(folder, tmp_path):
    (folder / "a" / "3.png").write_bytes(b"no image")
    whole = (folder / "b" / "2.png").read_bytes()
    (folder / "b" / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="2 of 60 images cannot be used.*3.png.*2.png"):
        data.load_data(manifest(folder), cache=tmp_path / "cache", show=False)


@pytest.mark.parametrize("spoilt, said", [
    ([f"{label}/{i}.png" for label in "ab" for i in range(20, 24)], "all validation images are set aside .20.png is"),
    ([f"b/{i}.png" for i in range(20, 24)], "all validation images of class 'b' are set aside .*leaves class 'a' only"),
    ([f"{label}/{i}.png" for label in "ab" for i in range(24, 30)], "all test images are set aside .*replace them"),
    ([f"b/{i}.png" for i in range(20)], "all training images of class 'b' are set aside"),
])
def test_what_damaged_images_leave_of_a_split_is_checked_before_training(folder, tmp_path, spoilt, said):
    for name in spoilt:
        (folder / name).write_bytes(b"no image")
    config = manifest(folder).replace(max_damaged=0.5)
    with pytest.raises(ValueError, match=said):
        data.load_data(config, cache=tmp_path / "cache", show=False)
    [fault] = [text for text in audit.check(config.source, show=False).faults if "max_damaged" not in text]
    assert re.search(said, fault)


def test_a_class_that_the_test_lost_goes_with_every_result(folder, tmp_path):
    for i in range(24, 30):
        Image.fromarray(np.full((14, 20), i, np.uint8)).save(folder / "b" / f"{i}.png")
    config = manifest(folder).replace(max_damaged=0.5)
    said = "all test images of class 'b' are damaged or blank"
    assert said in data.load_data(config, cache=tmp_path / "cache", show=False).test.caveats
    assert said in audit.check(config.source, show=False).caveats


def test_read_image_pads_resizes_and_scales(tmp_path):
    Image.fromarray(np.full((10, 20), 200, np.uint8)).save(tmp_path / "wide.png")
    wide = data.read_image(tmp_path / "wide.png", 8)
    assert wide.shape == (8, 8) and wide.dtype == np.uint8
    assert (wide[[0, 1, 6, 7]] == 0).all() and (wide[2:6] == 200).all()
    Image.fromarray(np.linspace(100, 40000, 64, dtype=np.uint16).reshape(8, 8)).save(tmp_path / "deep.png")
    deep = data.read_image(tmp_path / "deep.png", 8)
    assert deep.min() == 0 and deep.max() == 255 and (np.diff(deep.ravel().astype(int)) >= 0).all()
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 1] = 255
    Image.fromarray(colour).save(tmp_path / "green.png")
    assert data.read_image(tmp_path / "green.png", 4)[0, 0] == 150                        # ITU-R 601 luma


# --------------------------------------------------------------------------------------------- a full disk
@contextlib.contextmanager
def room_for(size):
    """The kernel refuses to write more than so many bytes into one file, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("source", ["phantom", "manifest"])
def test_a_full_disk_is_an_error_that_says_what_to_do(drawn, folder, tmp_path, source):
    config = SMALL if source == "phantom" else manifest(folder)
    with room_for(5000), pytest.raises(OSError, match="images could not be written to .*cache.*; make room .*or set "
                                                      "MEDBENCH_CACHE to another folder"):
        data.load_data(config, cache=tmp_path / "cache", show=False)
    assert not list((tmp_path / "cache").glob("*/*/"))
    assert len(data.load_data(config, cache=tmp_path / "cache", show=False).train) in (37, 40)


def test_nothing_is_written_through_a_map(drawn, folder, tmp_path, monkeypatch):
    """A page of a map that finds no room on the disk ends the process."""
    whole = np.lib.format.open_memmap

    def reads(file, mode="r+", *args, **more):
        assert mode == "r"
        return whole(file, mode, *args, **more)
    monkeypatch.setattr(np.lib.format, "open_memmap", reads)
    data.load_data(SMALL, cache=tmp_path / "cache", show=False)
    data.load_data(manifest(folder), cache=tmp_path / "cache", show=False)


def test_an_array_is_written_whole_or_not_at_all(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (13, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "want.npy", rows)
    with files.array_file(tmp_path / "parts.npy", 5, 3) as append:
        for part in (rows[:4], rows[4:4], rows[4:]):
            append(part)
    files.write_array(tmp_path / "once.npy", rows)
    for name in ("parts", "once"):
        assert (tmp_path / f"{name}.npy").read_bytes() == (tmp_path / "want.npy").read_bytes()
    with room_for(200), pytest.raises(OSError):
        files.write_array(tmp_path / "new.npy", rows)
    assert not (tmp_path / "new.npy").exists()
    with files.array_file(tmp_path / "none.npy", 5, 3):
        pass
    assert np.load(tmp_path / "none.npy", mmap_mode="r").shape == (0, 5, 3)


# --------------------------------------------------------------------------------------------- read alone
@pytest.mark.parametrize("source", ["phantom", "manifest"])
def test_a_whole_cache_that_may_only_be_read_is_read(drawn, folder, tmp_path, only_read, source):
    config = SMALL if source == "phantom" else manifest(folder)
    whole = data.load_data(config, cache=tmp_path / "cache", show=False)
    only_read(tmp_path)
    assert data.load_data(config, cache=tmp_path / "cache", show=False).fingerprint == whole.fingerprint


def test_where_images_may_not_be_kept_it_is_said_what_to_do(drawn, tmp_path, only_read):
    only_read(tmp_path)
    with pytest.raises(OSError, match="the lock of .*phantom.* could not be written beside it .Read-only file system.; "
                                      "make room or give permission there, or set MEDBENCH_CACHE .* to another folder"):
        data.load_data(SMALL, cache=tmp_path / "cache", show=False)


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_file_is_for_the_umask_to_say(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        files.write_json(tmp_path / "run.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == mode


# --------------------------------------------------------------------------------------------- locks
def test_who_waits_for_a_lock_says_so_and_may_give_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "WAITS", 0.05)
    with files.lock(tmp_path / "run"):
        with pytest.raises(RuntimeError, match="another process has held .*run.* for 0.2 s; is the same work going on"):
            with files.lock(tmp_path / "run", 0.2):
                pass
        assert "another process holds " in capsys.readouterr().err
        entered, other = [], threading.Thread(target=lambda: _enter(tmp_path / "run", entered))
        other.start()
        other.join(0.3)
        assert not entered and "waiting for it" in capsys.readouterr().err
    other.join(10)
    assert entered == ["in"]


def _enter(path, entered):
    with files.lock(path):
        entered.append("in")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, code):
    """A mark in place of a lock would lie there for ever behind a kill on another machine."""
    def has_none(*_):
        raise OSError(code, os.strerror(code))
    monkeypatch.setattr(fcntl, "flock", has_none)
    with pytest.raises(OSError, match="has no locks .flock.*mounted with them, or set MEDBENCH_CACHE"):
        with files.lock(tmp_path / "run"):
            pass


# --------------------------------------------------------------------------------------------- small parts
def test_to_input_is_one_linear_map():
    images = np.array([[[0, 255], [51, 204]]], np.uint8)
    assert data.to_input(images, 3).shape == (1, 3, 2, 2)
    assert torch.equal(data.to_input(images)[0, 0], torch.tensor([[-1.0, 1.0], [-0.6, 0.6]]))
    with pytest.raises(ValueError, match="uint8"):
        data.to_input(images / 255)
    with pytest.raises(ValueError, match=r"\(1, 2, 2, 2\)"):
        data.to_input(np.zeros((1, 2, 2, 2), np.uint8), 3)


def test_data_root_names_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_DATA", str(tmp_path))
    assert data.data_root() == tmp_path
    monkeypatch.setenv("MEDBENCH_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="MEDBENCH_DATA.*gone"):
        data.data_root()


def test_a_failed_write_keeps_the_old_file(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert files.read_json(tmp_path / "x.json") == {"a": 1} and len(list(tmp_path.iterdir())) == 1


def test_cache_dir_prefers_argument_then_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "env"))
    assert files.cache_dir() == tmp_path / "env" and files.cache_dir(tmp_path / "arg") == tmp_path / "arg"
    monkeypatch.delenv("MEDBENCH_CACHE")
    assert files.cache_dir().name == "medbench"


def test_bars_go_to_standard_error_only(capsys):
    with files.progress(3, "counting") as bar:
        bar.update(3)
    out, err = capsys.readouterr()
    assert out == "" and "counting" in err
    with files.progress(3, "counting", show=False) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""
