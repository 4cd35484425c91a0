"""RadImageNet in miniature, with its real names: classes from paths, any anatomy, what is damaged or double."""

import os
import shutil

import numpy as np
import pytest
from miniature import BRAIN, SHARE, radimagenet
from PIL import Image

from medbench import audit, data, readers
from medbench.config import DataConfig
from medbench.readers.listing import UNCHECKED


@pytest.fixture
def tree(tmp_path):
    radimagenet(tmp_path / "set")
    return tmp_path / "set"


def load(source, subset="MR/brain", **more):
    return data.load_data(DataConfig(source=str(source), subset=subset, img_size=16, **more), show=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("given", ["", "radiology_ai"])
def test_split_files_lie_inside_or_above(tmp_path, inside, given):
    radimagenet(tmp_path / "set", inside)
    found = load(tmp_path / "set" / given)
    assert found.classes == BRAIN
    assert [len(s) for s in (found.train, found.val, found.test)] == [10 * count for count in SHARE.values()]
    assert found.caveats == (UNCHECKED,)
    assert found.test.groups is None


def test_the_folder_may_have_another_name(tree):
    os.rename(tree / "radiology_ai", tree.parent / "images")
    for name in SHARE:
        shutil.move(tree / f"RadiologyAI_{name}.csv", tree.parent / "images")
    assert load(tree.parent / "images").classes == BRAIN


def test_classes_come_from_paths_and_not_from_the_table(tree):
    for name in SHARE:
        file = tree / f"RadiologyAI_{name}.csv"
        lines = file.read_text().splitlines()
        file.write_text("\n".join([lines[0], *(line.split(",")[0] + ",wrong" for line in lines[1:])]))
    found = load(tree)
    assert found.classes == BRAIN
    assert all(f"/{found.classes[label]}/" in path for path, label in zip(found.test.paths, found.test.labels))


@pytest.mark.parametrize("subset, classes", [
    ("US", ("thyroid", "usabd")), ("CT/abd", ("ascites", "normal")), ("CT", ("abd_ascites", "abd_normal")),
    ("/MR/brain/", BRAIN), ("", ("CT_abd_ascites", "CT_abd_normal", *(f"MR_brain_{key}" for key in BRAIN), "US_thyroid",
                                 "US_usabd"))])
def test_any_anatomy(tree, subset, classes):
    assert readers.listing(tree, subset).classes == classes


def test_official_splits_are_taken_as_they_are(tree):
    rows = {split: {line.split(",")[0] for line in (tree / f"RadiologyAI_{split}.csv").read_text().splitlines()[1:]}
            for split in SHARE}
    table = readers.listing(tree).table
    for split, names in rows.items():
        assert {os.path.relpath(path, tree) for path in table.loc[table["split"] == split, "path"]} == names


def test_blank_and_truncated_images_are_set_aside_by_name_and_reason(tree):
    table = readers.listing(tree, "MR/brain").table
    rows = table[table["split"] == "train"].path
    blank, cut = rows.iloc[2], rows.iloc[9]
    Image.fromarray(np.full((30, 26), 7, np.uint8)).save(blank)
    whole = open(cut, "rb").read()
    open(cut, "wb").write(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"2 of 70 images cannot be used.*max_damaged allows 1.00%.*blank.*truncated"):
        load(tree)
    found = load(tree, max_damaged=0.03)
    assert len(found.train) == 38 and {blank, cut}.isdisjoint(found.train.paths)
    assert dict(found.set_aside)[blank] == "is blank, every pixel is 7" and "truncated" in dict(found.set_aside)[cut]
    assert "2 images are set aside" in found.notes[1] and os.path.basename(blank) in found.notes[1]
    for image, path, label in zip(found.train.images, found.train.paths, found.train.labels):
        assert (image == readers.read_image(path, 16)).all() and f"/{found.classes[label]}/" in path


def test_a_class_that_is_wholly_damaged_stops_the_run(tree):
    for path in (tree / "radiology_ai" / "MR/brain/edema").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="all training images of class 'edema'"):
        load(tree, max_damaged=0.5)


def test_doubles_across_class_folders_and_splits_are_reported(tree):
    table = readers.listing(tree, "MR/brain").table
    train = table[table["split"] == "train"].reset_index()
    test = table[table["split"] == "test"].reset_index()
    shutil.copy(train.path[0], train.path[5])                          # acute_infarct -> arteriovenous_anomaly
    shutil.copy(train.path[20], test.path[10])
    assert "1 images lie in more than one split, pixel by pixel" in load(tree).caveats
    report = audit.check(str(tree), "MR/brain", show=False)
    exact = {place: len(found) for place, found in report.copies["exact"].items()}
    assert exact == {"in the same split": 2, "in another split": 2, "in another class": 2}
    assert report.set_aside == [] and UNCHECKED in report.caveats


@pytest.mark.parametrize("spoil, subset, error, words", [
    (lambda t: (t / "RadiologyAI_val.csv").unlink(), "", FileNotFoundError, "lacks RadiologyAI_val.csv.*beside"),
    (lambda t: (t / "RadiologyAI_train.csv").unlink(), "", FileNotFoundError, "lacks RadiologyAI_train.csv.*beside"),
    (lambda t: (t / "RadiologyAI_val.csv").write_text("file\nx\n"), "", ValueError, "file; wanted filename,label"),
    (lambda t: (t / "RadiologyAI_val.csv").write_text("filename,label\nradiology_ai/x.png,x\n"), "", ValueError,
     "line 2: filename is.*wanted radiology_ai/<modality>"),
    (lambda t: None, "MR/knee", ValueError, "subset is 'MR/knee', but no image lies there; there are: MR, MR/brain$"),
    (lambda t: None, "mr/knee", ValueError, "there are: MR, MR/brain$"),
    (lambda t: None, "XR", ValueError, "there are: CT, CT/abd, MR, MR/brain, US$"),
    (lambda t: None, "US/thyroid", ValueError, "'US/thyroid', which is a class; name the subset that holds it: 'US'$"),
    (lambda t: None, "mr/brain/Edema", ValueError, "which is a class; name the subset that holds it: 'MR/brain'$"),
    (lambda t: None, "mr/Brain", ValueError, "subset is 'mr/Brain', which is spelt 'MR/brain' here; name it so"),
    (lambda t: None, "us", ValueError, "subset is 'us', which is spelt 'US' here"),
    (lambda t: (t / "radiology_ai/US/thyroid").rename(t / "gone"), "US", FileNotFoundError, "7 of 14 images"),
])
def test_what_does_not_fit_is_named(tree, spoil, subset, error, words):
    spoil(tree)
    with pytest.raises(error, match=words):
        readers.listing(tree, subset)


@pytest.mark.parametrize("subset", ["", "MR/brain"])
@pytest.mark.parametrize("given", ["", "radiology_ai", "images"])
def test_images_without_any_split_file_are_not_taken_for_class_folders(tree, given, subset):
    for name in SHARE:
        (tree / f"RadiologyAI_{name}.csv").unlink()
    if given == "images":                                                    # known by its classes alone
        os.rename(tree / "radiology_ai", tree / given)
    else:                                                                    # by its name alone
        shutil.rmtree(tree / "radiology_ai" / "CT")
        shutil.rmtree(tree / "radiology_ai" / "MR")
    with pytest.raises(FileNotFoundError, match="lacks RadiologyAI_train.csv; put the three split files into this folde"
                                                "r or beside radiology_ai/, or list other images .* in a manifest"):
        readers.listing(tree / given, subset)


def test_the_folder_that_one_stands_in_may_be_it(tree, monkeypatch):
    monkeypatch.chdir(tree / "radiology_ai")
    assert readers.listing(".", "MR/brain").classes == BRAIN


@pytest.fixture
def modalities(tmp_path):
    """Class folders that are no RadImageNet: modalities are classes, the folders below them patients."""
    for i in range(90):
        path = tmp_path / "other" / ("CT", "MR", "US")[i % 3] / ("brain", "knee", "p3", "p4")[i // 3 % 4] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 8), dtype=np.uint8)).save(path)
    return tmp_path / "other"


def test_class_folders_may_be_called_as_modalities_and_anatomies(modalities):
    found = readers.listing(modalities, whole=False)
    assert found.classes == ("CT", "MR", "US") and set(found.table["group"]) == {"brain", "knee", "p3", "p4"}


def test_other_sources_have_no_subsets(modalities):
    with pytest.raises(ValueError, match="has no subsets"):
        readers.listing(modalities, "MR/brain")
