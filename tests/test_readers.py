"""Readers: manifests and folders with and without splits and patients; one image of any mode to grey levels."""

import numpy as np
import pytest
from PIL import Image

from medbench import data, readers
from medbench.config import DataConfig
from medbench.readers.listing import NO_GROUPS
from medbench.readers.splits import split_by_name

RNG = np.random.default_rng(3)


def picture(path, shape=(14, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def table(folder, header, rows):
    (folder / "manifest.csv").write_text("\n".join([",".join(header), *(",".join(map(str, row)) for row in rows)]))
    return folder / "manifest.csv"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))


# --------------------------------------------------------------------------------------------- splits
def patients(folder, images=3, count=60):
    """A folder `<class>/<patient>/<image>`, every third patient with images of both classes."""
    for number in range(count):
        for i in range(images):
            label = "ab"[(number + (i if number % 3 == 0 else 0)) % 2]
            picture(folder / label / f"patient{number}" / f"{i}.png")
    return folder


def test_folders_below_the_class_are_patients_and_are_never_torn_apart(tmp_path):
    found = data.load_data(DataConfig(source=str(patients(tmp_path / "set")), img_size=16), show=False)
    where = {}
    for split in (found.train, found.val, found.test):
        assert len(split.groups) == len(split.paths)
        for path, group in zip(split.paths, split.groups):
            where.setdefault(path.split("/")[-2], set()).add((split.name, int(group)))
    assert len(where) == 60 and all(len(places) == 1 for places in where.values())
    assert len({next(iter(places))[1] for places in where.values()}) == 60
    assert found.caveats == () and "none of 60 groups lies in two splits" in found.notes[0]
    assert {name for places in where.values() for name, _ in places} == {"train", "val", "test"}


def test_a_new_image_of_a_patient_joins_the_others(tmp_path):
    source = patients(tmp_path / "set")
    before = readers.listing(source).table.set_index("path").split
    picture(source / "a" / "patient7" / "later.png")
    picture(source / "b" / "patient7" / "later.png")
    after = readers.listing(source).table.set_index("path").split
    assert (after[before.index] == before).all()
    assert after[[path for path in after.index if "/patient7/" in path]].nunique() == 1


def test_a_manifest_without_a_split_is_split_by_group(tmp_path):
    rows = [(picture(tmp_path / f"{i}.png").name, "ab"[i % 2], f"p{i // 4}") for i in range(160)]
    found = readers.listing(table(tmp_path, ("path", "label", "group"), rows))
    assert (found.table.groupby("group")["split"].nunique() == 1).all() and not found.split_given
    assert found.caveats == () and "A hash of each group's name" in found.notes[0]
    assert 0.5 < (found.table["split"] == "train").mean() < 0.9
    assert found.groups.tolist() == found.table["group"].factorize(sort=True)[0].tolist()


def test_without_patients_every_result_says_so(tmp_path):
    rows = [(picture(tmp_path / f"{i}.png").name, "ab"[i % 2]) for i in range(60)]
    found = readers.listing(table(tmp_path, ("path", "label"), rows))
    assert found.caveats == (NO_GROUPS,) == ("no patient ids: slice-level split",)
    assert found.table["split"].tolist() == [split_by_name(f"{i}.png") for i in range(60)]


def test_patients_in_two_splits_go_with_every_result(tmp_path):
    rows = [(picture(tmp_path / f"{i}.png").name, "ab"[i % 2], ("train", "val", "test")[i % 3], i // 2)
            for i in range(12)]
    found = data.load_data(DataConfig(source=str(table(tmp_path, ("path", "label", "split", "group"), rows)),
                                      img_size=16), show=False)
    assert found.caveats == ("6 of 6 groups (patients) have images in more than one split, which inflates scores",)
    assert found.test.take([0]).caveats == found.caveats and found.test.take([1]).groups.tolist() == [2]


def test_too_few_patients_for_a_split_is_an_error_that_helps(tmp_path):
    rows = [(picture(tmp_path / f"{i}.png").name, "ab"[i % 2], "one") for i in range(12)]
    with pytest.raises(ValueError, match="no image in split.*add a column split"):
        readers.listing(table(tmp_path, ("path", "label", "group"), rows))


def test_an_empty_group_is_refused(tmp_path):
    rows = [(picture(tmp_path / f"{i}.png").name, "ab"[i % 2], "one" if i != 4 else "") for i in range(12)]
    with pytest.raises(ValueError, match="line 6: group is empty"):
        readers.listing(table(tmp_path, ("path", "label", "group"), rows))


# --------------------------------------------------------------------------------------------- modes
GREY = np.arange(0, 240, 4, dtype=np.uint8).reshape(6, 10)


def saved(tmp_path, image, name="x.png", **more):
    image.save(tmp_path / name, **more)
    return readers.read_picture(tmp_path / name)


def grey(picture):
    return np.asarray(picture.grey).astype(int)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "CMYK", "I;16", "F"])
def test_every_mode_becomes_the_same_grey(tmp_path, mode):
    base = Image.fromarray(GREY)
    name = {"CMYK": "x.jpg", "F": "x.tif"}.get(mode, "x.png")
    if mode == "I;16":
        image = Image.fromarray(GREY.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(GREY.astype(np.float32) / 255)
    else:
        image = base.convert(mode)
    found = saved(tmp_path, image, name, **({"quality": 100} if mode == "CMYK" else {}))
    want = GREY.astype(int)
    if mode in ("I;16", "F"):
        want = (255.0 * GREY / GREY.max()).astype(int)                  # their range fills 0 to 255
    if mode == "1":
        want = np.asarray(base.convert("1").convert("L")).astype(int)
    assert found.grey.mode == "L" and found.size == (10, 6) and not found.coloured
    assert np.abs(grey(found) - want).max() <= (3 if mode in ("CMYK", "P") else 1 if mode == "F" else 0)


def test_what_is_transparent_is_black_whatever_colour_it_hides(tmp_path):
    hidden = np.full((4, 5, 4), 255, np.uint8)
    hidden[:2, :, 3] = 0
    found = grey(saved(tmp_path, Image.fromarray(hidden)))
    assert (found[:2] == 0).all() and (found[2:] == 255).all()
    palette = Image.fromarray(np.repeat(np.array([[0], [1]], np.uint8), 5, 1))
    palette.putpalette([200, 200, 200, 90, 90, 90])
    found = grey(saved(tmp_path, palette, "p.png", transparency=0))
    assert (found[0] == 0).all() and (found[1] == 90).all()


def test_colour_is_told_from_grey_that_is_stored_as_colour(tmp_path):
    noise = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
    as_jpeg = saved(tmp_path, Image.fromarray(noise).convert("RGB"), "grey.jpg", quality=70)
    assert as_jpeg.mode == "RGB" and not as_jpeg.coloured
    assert saved(tmp_path, Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))).coloured


def test_stacks_and_broken_numbers_are_refused(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="stack.tif.*2 frames; wanted one image a file"):
        readers.read_picture(tmp_path / "stack.tif")
    Image.fromarray(np.array([[0.0, np.nan], [1.0, 2.0]], np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match="NaN"):
        readers.read_picture(tmp_path / "nan.tif")


def test_only_one_grey_level_is_blank(tmp_path):
    assert saved(tmp_path, Image.fromarray(np.full((4, 4), 9, np.uint8))).blank
    almost = np.full((4, 4), 9, np.uint8)
    almost[3, 3] = 10
    assert not saved(tmp_path, Image.fromarray(almost)).blank
