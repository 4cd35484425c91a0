"""Readers: manifests and folders with and without splits and patients; one image of any mode to grey levels."""

import errno
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from medbench import audit, data, decoding, readers
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


def test_studies_and_series_below_a_patient_are_the_patients(tmp_path):
    for number in range(30):
        for study in ("s1", "s2"):
            picture(tmp_path / "set" / "ab"[number % 2] / f"p{number}" / study / "series" / "0.png")
    found = readers.listing(tmp_path / "set").table
    assert set(found.group) == {f"p{number}" for number in range(30)}
    assert (found.groupby("group").split.nunique() == 1).all()


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "Testing"), ("train", "valid", "test")])
def test_half_a_split_is_not_taken_for_classes(tmp_path, names):
    for name in names:
        picture(tmp_path / "set" / name / "a" / "0.png")
    with pytest.raises(ValueError, match=f"look like splits .{', '.join(sorted(names))}.; wanted all of train, val"):
        readers.listing(tmp_path / "set")


def test_what_is_passed_over_is_named(tmp_path):
    source = patients(tmp_path / "set")
    picture(source / ".thumbs" / "0.png")
    picture(source / "a" / ".hidden.png")
    for name in ("scan.nii", "scan.jp2", "other.jp2", "DICOMDIR"):
        (source / "a" / name).write_bytes(b"other")
    found = readers.listing(source)
    assert found.classes == ("a", "b") and "group" in found.table and len(found.table) == 180
    assert found.notes[-1] == "3 files are no images that can be read and were passed over: 2 .jp2, 1 .nii."


def test_one_image_without_a_patient_is_named(tmp_path):
    source = patients(tmp_path / "set")
    picture(source / "a" / "loose.png")
    found = readers.listing(source)
    assert "group" not in found.table and found.caveats == (NO_GROUPS,)
    assert found.notes[-1] == "1 of 181 images are not in a patient's folder, the first is 'loose.png': so these are " \
                              "not used as patients."


def test_links_to_folders_are_followed(tmp_path):
    plain = readers.listing(patients(tmp_path / "set")).table.drop(columns="path")
    (tmp_path / "set" / "b").rename(tmp_path / "elsewhere")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "patient7").rename(tmp_path / "seven")
    (tmp_path / "elsewhere" / "patient7").symlink_to(tmp_path / "seven")
    found = readers.listing(tmp_path / "set")
    assert found.classes == ("a", "b") and found.table.drop(columns="path").equals(plain)


def test_splits_may_be_links(tmp_path):
    for name in ("train", "val", "test"):
        for i in range(4):
            picture(tmp_path / "disk" / f"my-{name}" / "ab"[i % 2] / f"{i}.png")
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / name).symlink_to(tmp_path / "disk" / f"my-{name}")
    found = readers.listing(tmp_path / "set")
    assert found.table["split"].value_counts().to_dict() == {"train": 4, "val": 4, "test": 4}


@pytest.mark.parametrize("links", [{"set/set": "set"}, {"set/a/up": "."}, {"set/a/b": "set/b", "set/b/a": "set/a"}])
def test_links_that_lead_back_up_are_not_walked_for_ever(tmp_path, links):
    for i in range(20):
        picture(tmp_path / "set" / "ab"[i % 2] / f"{i}.png")
    for link, target in links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    found = readers.listing(tmp_path / "set", whole=False)
    assert len(found.table) == (40 if len(links) == 2 else 20)               # `a` and `b` hold each other once
    assert found.classes == ("a", "b")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    source, whole = patients(tmp_path / "set"), os.scandir

    def closed(path):
        if str(path).endswith("patient7"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return whole(path)
    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(PermissionError, match="set/b/patient7' cannot be read .Permission denied., so its images would "
                                              "be missing; give permission there, mount"):
        readers.listing(source)
    (source / "b" / "patient7").rename(source / "b" / ".patient7")          # what is passed over need not be read
    (source / "b" / ".patient7").rename(source / ".patient7")
    assert "patient7" not in set(readers.listing(source).table["group"])


def test_a_link_to_nothing_is_an_error(tmp_path):
    source = patients(tmp_path / "set")
    (source / "a" / "notes.txt").symlink_to(tmp_path / "gone.txt")                       # no image, passed over
    assert len(readers.listing(source).table) == 180
    for name in ("a/lost.png", "c"):
        (source / name).symlink_to(tmp_path / "not-mounted")
        with pytest.raises(FileNotFoundError, match=f"set/{name}' cannot be read .No such file or directory., so its "
                                                    f"images would be missing; .* mount its disk or remove the link"):
            readers.listing(source)
        (source / name).unlink()


def test_the_order_of_files_is_that_of_their_paths(tmp_path):
    for name in ("a/b", "a-b", "a/b-", "a", "B", "a/é", "a/b/c"):
        picture(tmp_path / "set" / "x" / name / "0.png")
    files = [path for path in (tmp_path / "set").rglob("*") if path.is_file()]
    assert readers.listing(tmp_path / "set", whole=False).table["path"].tolist() == list(map(str, sorted(files)))


def test_a_fourth_folder_beside_the_splits_is_named(tmp_path):
    for i in range(32):
        picture(tmp_path / "set" / ("train", "val", "test", "extra")[i % 4] / "ab"[i // 4 % 2] / f"{i}.png")
    with pytest.raises(ValueError, match="^'.*set' has a folder 'extra' beside train, val and test, .*; move it"):
        readers.listing(tmp_path / "set")
    assert len(readers.unseen(tmp_path / "set", ("a", "b"), every=True).table) == 32


@pytest.mark.parametrize("each", [1, 2])
def test_groups_of_one_image_each_are_told(tmp_path, each):
    rows = [(picture(tmp_path / f"{i}.png").name, "ab"[i % 2], f"p{i // each}") for i in range(60)]
    found = readers.listing(table(tmp_path, ("path", "label", "group"), rows))
    told = "Each image has a group of its own, so no images are held together." in found.notes[0]
    assert told == (each == 1) and found.caveats == ()


def whole(folder, header=("path", "label", "split"), change=lambda row: row):
    rows = []
    for i in range(12):
        path = picture(folder / f"{i}.png").name
        rows.append(change((path, "ab"[i % 2], ("train", "val", "test")[i // 4])))
    return table(folder, header, rows)


@pytest.mark.parametrize("header, said", [
    (("path", "label", "Split"), "a column 'Split', which is not read; if it is the split, call it 'split'"),
    (("path", "label", "patient_id"), "a column 'patient_id'.*if it is the group, call it 'group'"),
    (("filename", "label", "split"), "has no column 'path' .it has filename, label, split"),
    (("path;label;split",), "has no column 'path' .it has path;label;split.*commas between the columns"),
])
def test_a_column_that_is_nearly_right_is_refused(tmp_path, header, said):
    with pytest.raises(ValueError, match=said):
        readers.listing(whole(tmp_path, header))


def test_other_columns_are_named_and_blanks_do_not_count(tmp_path):
    source = whole(tmp_path, ("path", "label", "split", "age"), lambda row: (row[0], row[1] + " ", " " + row[2], 7))
    found = readers.listing(source)
    assert found.classes == ("a", "b") and found.notes[-1] == "Columns that are not read: age."


def test_classes_that_differ_in_capitals_alone_are_refused(tmp_path):
    with pytest.raises(ValueError, match="capitals, blanks or the coding of .*'A', 'a'.; write each"):
        readers.listing(whole(tmp_path, change=lambda row: (row[0], row[1].upper() if row[0] == "0.png" else row[1],
                                                            row[2])))


def test_a_validation_set_of_one_class_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="'val' .* of class 'a' only; the epoch is chosen by AUROC"):
        readers.listing(whole(tmp_path, change=lambda row: (row[0], "a" if row[2] == "val" else row[1], row[2])))


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


def test_too_few_images_in_folders_need_a_manifest(tmp_path):
    for i in range(4):
        picture(tmp_path / "set" / "ab"[i % 2] / f"{i}.png")
    with pytest.raises(ValueError, match="no image in split.*: with so few .*, write a manifest with a column split"):
        readers.listing(tmp_path / "set")
    for i in range(60):
        picture(tmp_path / "alike" / "ab"[i % 2] / "images" / f"{i}.png")
    with pytest.raises(ValueError, match="no image in split.*the name of the folder below the class, is the same"):
        readers.listing(tmp_path / "alike")


def test_a_class_that_the_test_lacks_is_told_with_every_result(tmp_path):
    """Before hours of training, and whether the split is ours or theirs."""
    rows = [(picture(tmp_path / f"{i}.png").name, "abc"[i % 3], ("train", "train", "val", "test")[i // 3 % 4])
            for i in range(36)]
    rows = [row for row in rows if row[1:] != ("c", "test") and row[1:] != ("a", "val")]
    found = readers.listing(table(tmp_path, ("path", "label", "split"), rows))
    assert found.caveats[1:] == ("no validation image is of class 'a'", "no test image is of class 'c'")
    assert found.notes[1:] == ("No validation image is of class 'a', so the epoch is chosen without it; give it some.",
                               "No test image is of class 'c', so balanced accuracy and macro AUROC cannot be told; "
                               "give it some.")
    few = [(*row[:2], f"p{i // 2}") for i, row in enumerate(rows)]
    found = readers.listing(table(tmp_path, ("path", "label", "group"), few))
    [note] = [note for note in found.notes if "class" in note]
    assert "; with so few images or patients, add a column split" in note


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


def damaged_tiff(path, spoil):
    """A TIFF file of two pages, of which the second has some tags spoilt: `spoil` {tag: its value, None for no tag}."""
    Image.fromarray(GREY).save(path)
    whole = path.read_bytes()
    first = struct.unpack("<I", whole[4:8])[0]
    count = struct.unpack("<H", whole[first:first + 2])[0]
    tags = [struct.unpack("<HHII", whole[at:at + 12]) for at in range(first + 2, first + 2 + 12 * count, 12)]
    end = first + 2 + 12 * count
    kept = [(*tag[:3], spoil.get(tag[0], tag[3])) for tag in tags if spoil.get(tag[0], 0) is not None]
    page = struct.pack("<H", len(kept)) + b"".join(struct.pack("<HHII", *tag) for tag in kept) + bytes(4)
    path.write_bytes(whole[:end] + struct.pack("<I", len(whole)) + whole[end + 4:] + page)
    return path


def damaged_webp(path):
    """A WebP file with noise where its pixels begin."""
    Image.fromarray(RNG.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(path, lossless=True)
    content = bytearray(path.read_bytes())
    content[25:60] = b"\xff" * 35
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name, spoil, said", [
    ("x.tif", lambda path: damaged_tiff(path, {259: 254}), r"\(KeyError 254\)"),              # an unknown compression
    ("x.tif", lambda path: damaged_tiff(path, {256: None}), r"\(Missing dimensions\)"),
    ("x.webp", damaged_webp, r"\(failed to read next frame\)"),
])
def test_a_damaged_image_is_set_aside_whatever_the_library_raises(tmp_path, name, spoil, said):
    for i in range(120):
        picture(tmp_path / "set" / "ab"[i % 2] / f"{i}.png")
    path = spoil(tmp_path / "set" / "a" / name)
    with pytest.raises(ValueError, match=f"{name}' is no whole image {said}"):
        readers.read_picture(path)
    found = data.load_data(DataConfig(source=str(tmp_path / "set"), img_size=16), show=False)
    [(lost, reason)] = found.set_aside
    assert lost == str(path) and reason.startswith("is no whole image")


@pytest.mark.parametrize("error", [EOFError(), KeyError("x"), struct.error("too short"), ImportError("no codec"),
                                   MemoryError()])
def test_only_a_missing_package_and_memory_are_no_damage(tmp_path, monkeypatch, error):
    def fails(_):
        raise error
    picture(tmp_path / "x.png")
    found = readers.listing(table(tmp_path, ("path", "label"), [("x.png", "a")]), whole=False)
    monkeypatch.setattr(PngImageFile, "load", fails)
    if isinstance(error, (ImportError, MemoryError)):
        with pytest.raises(type(error)):
            list(decoding.opened(found, [0]))
    else:
        told = {"EOFError": "EOFError", "KeyError": "KeyError 'x'", "error": "too short"}[type(error).__name__]
        assert list(decoding.opened(found, [0])) == [f"is no whole image ({told})"]


def test_an_image_out_of_reach_is_no_damage_and_is_read_when_it_can_be(tmp_path, monkeypatch):
    for i in range(120):
        picture(tmp_path / "set" / "ab"[i % 2] / f"{i}.png")
    config, opened = DataConfig(source=str(tmp_path / "set"), img_size=16), Image.open

    def closed(path, *more):
        if str(path).endswith("7.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *more)
    monkeypatch.setattr(Image, "open", closed)
    with pytest.raises(RuntimeError, match="7.png' cannot be read .Permission denied., .*give permission there"):
        data.load_data(config, show=False)
    report = audit.check(config.source, show=False)
    assert len(report.set_aside) == 12 and "cannot be read (Permission denied)" in report.faults[0]
    monkeypatch.setattr(Image, "open", opened)
    found = data.load_data(config, show=False)
    assert found.set_aside == () and sum(map(len, (found.train, found.val, found.test))) == 120


def test_copies_go_with_every_result(tmp_path):
    def change(row):
        number = int(row[0].removesuffix(".png"))
        same = {1: 0, 5: 3, 11: 9}                           # two classes; training and validation; twice in the test
        return (f"{same.get(number, number)}.png", *row[1:])
    source = whole(tmp_path, change=change)
    found = data.load_data(DataConfig(source=str(source), img_size=16), show=False)
    told = ["1 images lie in more than one split, pixel by pixel", "1 images have more than one class, pixel by pixel",
            "1 images stand in the test more than once, pixel by pixel"]
    for caveats in (found.caveats, audit.check(str(source), show=False).caveats):
        assert [said for said in caveats if "pixel" in said] == told


@pytest.mark.parametrize("text, said", [
    ("path,label\n0.png,a,\n1.png,b,\n", "more cells than the first line has names; .* no comma at a line's end"),
    ("path,label\nMay, J/0.png,a\nMay, J/1.png,b\n", "more cells than the first line has names; .* put quotes"),
    ("path,label\n0.png,a\n\n\n1.png,\n", "line 5: label is empty"),
    ("path,label,split\n0.png,a,train\n\n1.png,b,trian\n", "line 4, is 'trian'"),
])
def test_a_line_of_a_manifest_is_named_as_an_editor_counts_it(tmp_path, text, said):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        readers.listing(tmp_path / "manifest.csv")


def test_blank_lines_do_not_count(tmp_path):
    source = whole(tmp_path)
    before = readers.listing(source).table.reset_index(drop=True)
    source.write_text(source.read_text().replace("\n", "\n\n") + "\n,,\n")
    assert readers.listing(source).table.reset_index(drop=True).equals(before)


@pytest.mark.parametrize("twin", ["l\u00e4sion", "la\u0308sion ", "L\u00c4SION"])
def test_classes_that_look_the_same_are_refused(tmp_path, twin):
    rows = [(picture(tmp_path / "set" / name / f"{i}.png"), name) for name in ("la\u0308sion", twin, "x")
            for i in range(40)]
    with pytest.raises(ValueError, match=r"in capitals, blanks or the coding of their accents alone .*'la\\u0308sion'"):
        readers.listing(tmp_path / "set" if twin.strip() == twin else rows[0][0].parents[1])


def test_a_picture_is_turned_as_its_file_says(tmp_path):
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[274] = 6                                                                # to be turned by 90 degrees
    Image.fromarray(grey).save(tmp_path / "turned.png", exif=exif)
    found = readers.read_picture(tmp_path / "turned.png")
    assert found.size == (2, 3) and (np.asarray(found.grey) == np.rot90(grey, -1)).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_as_zero_is_turned_over(tmp_path, kind):
    ramp = (np.arange(12).reshape(3, 4) * (np.iinfo(kind).max // 11)).astype(kind)
    for white, want in ((1, ramp), (0, ramp[::-1, ::-1])):
        Image.fromarray(ramp).save(tmp_path / "x.tif")
        content = (tmp_path / "x.tif").read_bytes()
        old, new = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (1, white))
        assert content.count(old) == 1
        (tmp_path / "x.tif").write_bytes(content.replace(old, new))
        shown = np.asarray(readers.read_picture(tmp_path / "x.tif").grey).astype(int)
        assert np.abs(shown - want / np.iinfo(kind).max * 255).max() <= 2


def png16(array, kind):
    """A PNG file of 16 bits a channel, by hand; `kind` 0 grey, 2 colour, 4 grey with transparency, 6 both."""
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    head = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(array):
    """A TIFF file of 16 bits a channel, by hand: header, pixels, bits of each channel, tags."""
    height, width, channels = array.shape
    pixels, bits = array.astype("<u2").tobytes(), struct.pack("<H", 16) * channels
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 8 + len(pixels)), (259, 3, 1, 1),
            (262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(pixels))]
    tags += [(338, 3, 1, 2)] if channels == 4 else []
    listed = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(pixels) + len(bits)) + pixels + bits + listed


@pytest.mark.parametrize("name, channels, kind", [("x.png", 3, 2), ("x.png", 2, 4), ("x.png", 4, 6), ("x.tif", 3, 0),
                                                  ("x.tif", 4, 0)])
def test_colour_of_16_bits_is_refused_and_not_cut_to_its_high_byte(tmp_path, name, channels, kind):
    deep = RNG.integers(0, 4096, (6, 5, channels)).astype(np.uint16)
    (tmp_path / name).write_bytes(png16(deep, kind) if kind else tiff16(deep))
    with Image.open(tmp_path / name) as image:
        assert np.asarray(image).max() <= 16                                # what would have been read
    with pytest.raises(ValueError, match=f"{name}.*16-bit colour.*store it as 16-bit grey or as 8-bit colour"):
        readers.read_picture(tmp_path / name)


def test_grey_of_16_bits_is_read_whole(tmp_path):
    deep = np.arange(0, 4080, 136, dtype=np.uint16).reshape(6, 5)
    (tmp_path / "x.png").write_bytes(png16(deep, 0))
    assert (grey(readers.read_picture(tmp_path / "x.png")) == (255.0 * deep / deep.max()).astype(int)).all()


def test_only_one_grey_level_is_blank(tmp_path):
    assert saved(tmp_path, Image.fromarray(np.full((4, 4), 9, np.uint8))).blank
    almost = np.full((4, 4), 9, np.uint8)
    almost[3, 3] = 10
    assert not saved(tmp_path, Image.fromarray(almost)).blank
