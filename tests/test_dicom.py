"""DICOM slices: rescaled, windowed, turned over where high is dark; patients from their headers."""

import sys
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from medbench import data, decoding, readers
from medbench.config import DataConfig
from medbench.readers import dicom

STORED = np.arange(0, 1400, 20, dtype=np.int16).reshape(7, 10)


def written(path, stored=STORED, patient="p1", **tags):
    """A CT slice with the given stored values; `tags` in place of the usual ones."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    file.PatientID, file.Modality, file.PhotometricInterpretation = patient, "CT", "MONOCHROME2"
    file.SamplesPerPixel, file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 1, 16, 16, 15, 1
    file.Rows, file.Columns = stored.shape[-2:]
    file.RescaleSlope, file.RescaleIntercept = 2, -1000
    file.PixelData = stored.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def grey(path):
    return np.asarray(readers.read_picture(path).grey).astype(int)


def linear(values, center, width):
    """PS3.3, C.11.2.1.2.1, for an output of 0 to 255."""
    return np.clip(((values - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)


def test_without_a_window_the_range_fills_all_levels(tmp_path):
    assert (grey(written(tmp_path / "a.dcm")) == (255.0 * STORED / STORED.max()).astype(int)).all()


@pytest.mark.parametrize("center, width", [(40, 400), (-600, 1500), (300, 2)])
def test_rescale_and_window_are_applied(tmp_path, center, width):
    found = grey(written(tmp_path / "a.dcm", WindowCenter=center, WindowWidth=width))
    assert np.abs(found - linear(2.0 * STORED - 1000, center, width)).max() <= 0.51
    assert found.max() == 255


def test_the_first_of_several_windows_counts(tmp_path):
    found = grey(written(tmp_path / "a.dcm", WindowCenter=[40, 900], WindowWidth=[400, 10]))
    assert np.abs(found - linear(2.0 * STORED - 1000, 40, 400)).max() <= 0.51


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 40, "WindowWidth": 400}])
def test_monochrome1_is_turned_over(tmp_path, window):
    plain = grey(written(tmp_path / "a.dcm", **window))
    turned = grey(written(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", **window))
    assert np.abs(turned - (255 - plain)).max() <= 1 and plain[0, 0] == 0 and turned[0, 0] == 255


@pytest.mark.parametrize("window", [{"WindowCenter": ""}, {"WindowCenter": 40}, {"WindowCenter": 40, "WindowWidth": 0},
                                    {"WindowCenter": "", "WindowWidth": ""}])
def test_a_window_that_is_none_leaves_the_range(tmp_path, window):
    assert (grey(written(tmp_path / "a.dcm", **window)) == grey(written(tmp_path / "b.dcm"))).all()


def test_a_look_up_table_is_applied(tmp_path):
    table, turned_over = Dataset(), np.arange(700, dtype="<u2")[::-1] * 2
    table.LUTDescriptor, table.LUTData = [700, -1000, 16], turned_over.tobytes()
    found = grey(written(tmp_path / "a.dcm", VOILUTSequence=Sequence([table])))
    values = np.clip(2 * STORED.astype(int) - 1000 + 1000, 0, 699)
    assert np.abs(found - 255 * (699 - values) / 699).max() <= 0.51


def test_a_palette_becomes_its_colours(tmp_path):
    stored = np.array([[0, 1], [2, 1]], np.uint8)
    red, green, blue = ([0, 65280, 32768], [0, 0, 32768], [65280, 0, 32768])
    tags = {f"{name}PaletteColorLookupTable{part}": value for name, data in (("Red", red), ("Green", green),
            ("Blue", blue)) for part, value in (("Descriptor", [3, 0, 16]), ("Data", np.array(data, "<u2").tobytes()))}
    path = written(tmp_path / "a.dcm", stored, PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8, BitsStored=8,
                   HighBit=7, PixelRepresentation=0, PixelData=stored.tobytes(), **tags)
    want = np.stack([np.array(data)[stored] // 256 for data in (red, green, blue)], -1) @ [0.299, 0.587, 0.114]
    assert readers.read_picture(path).coloured and np.abs(grey(path) - want).max() <= 1


def test_slices_without_a_suffix_are_found_in_class_folders(tmp_path):
    for i in range(60):
        written(tmp_path / "set" / "ab"[i % 2] / (f"1.2.840.{i}" if i < 30 else f"IM{i}"), patient=f"p{i}")
    (tmp_path / "set" / "a" / "README").write_text("not an image")
    found = readers.listing(tmp_path / "set")
    assert len(found.table) == 60 and found.caveats == () and found.table["group"].nunique() == 60


def without_preamble(path, kind):
    """The same slice as some old programs write it: its data set alone, or what follows the preamble."""
    whole = pydicom.dcmread(path)
    if kind == "meta":
        path.write_bytes(path.read_bytes()[132:])
    else:
        plain = Dataset(dict(whole.items()))
        plain.save_as(path, implicit_vr=kind == "implicit", little_endian=True, enforce_file_format=False)
    assert b"DICM" not in path.read_bytes()


@pytest.mark.parametrize("kind", ["meta", "explicit", "implicit"])
def test_a_slice_without_a_preamble_is_read_as_with_one(tmp_path, kind):
    for i in range(60):
        written(tmp_path / "set" / "ab"[i % 2] / f"{i}{'.dcm' if i < 30 else ''}", patient=f"p{i // 4}")
    path = tmp_path / "set" / "a" / "8.dcm"
    want, found = grey(path), readers.listing(tmp_path / "set")
    for image in found.table["path"]:
        without_preamble(Path(image), kind)
    again = readers.listing(tmp_path / "set")
    assert (grey(path) == want).all() and again.table.equals(found.table) and "group" in again.table


def test_colour_comes_as_it_is(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    path = written(tmp_path / "a.dcm", colour[..., 0].astype(np.int16), PhotometricInterpretation="RGB",
                   SamplesPerPixel=3, PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7,
                   PixelRepresentation=0, PixelData=colour.tobytes())
    assert readers.read_picture(path).coloured
    assert np.abs(grey(path) - colour @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("spoil, words", [
    (lambda path: path.write_bytes(path.read_bytes()[:-40]), "no whole DICOM image"),
    (lambda path: written(path, np.stack([STORED, STORED]), NumberOfFrames=2), "2 frames; wanted one slice"),
    (lambda path: path.write_bytes(b"\x08\0\x05\0CS\x0a\0ISO_IR 100"), "no whole DICOM image"),
    (lambda path: path.write_bytes(b"\x08\0\x05\0" + bytes(60)), "no whole DICOM image"),
])
def test_what_is_no_whole_slice_is_refused(tmp_path, spoil, words):
    path = written(tmp_path / "a.dcm")
    spoil(path)
    with pytest.raises(ValueError, match=words):
        readers.read_picture(path)


def deflated(path, patient):
    """A slice whose data set is compressed, and its whole content."""
    path = written(path, np.random.default_rng(0).permuted(STORED), patient)
    file = pydicom.dcmread(path)
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file.save_as(path, enforce_file_format=True)
    return path, path.read_bytes()


def test_a_slice_that_was_cut_while_deflated_is_set_aside(tmp_path):
    for i in range(60):
        path, content = deflated(tmp_path / "set" / "ab"[i % 2] / f"{i}.dcm", f"p{i}")
    assert dicom.patient(path) == "p59" and readers.read_picture(path).size == (10, 7)
    path.write_bytes(content[:-40])
    with pytest.raises(zlib.error):
        pydicom.dcmread(path)
    assert dicom.patient(path) == ""
    found = readers.listing(tmp_path / "set", whole=False)
    [row] = np.flatnonzero(found.table["path"] == str(path))
    assert list(decoding.opened(found, [row])) == [
        "is no whole DICOM image (Error -5 while decompressing data: incomplete or truncated stream)"]


def test_patients_come_from_the_headers(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(60):
        written(tmp_path / "set" / "ab"[i % 2] / f"{i}.dcm", rng.permuted(STORED), patient=f"p{i // 4}")
    found = data.load_data(DataConfig(source=str(tmp_path / "set"), img_size=16), show=False)
    for split in (found.train, found.val, found.test):
        want = [pydicom.dcmread(path).PatientID for path in split.paths]
        assert len(set(zip(want, split.groups))) == len(set(want)) == len(set(split.groups))
    assert found.caveats == ("images enlarged from 10 px",) and "none of 15 groups" in found.notes[0]
    written(tmp_path / "set" / "a" / "60.dcm", patient="")
    assert readers.listing(tmp_path / "set", whole=False).caveats[0] == "no patient ids: slice-level split"


@pytest.mark.parametrize("given", [False, True])
def test_one_patient_id_in_all_files_leaves_it_to_the_folders(tmp_path, given):
    for i in range(60):
        where = ("train", "train", "val", "test")[i // 2 % 4] if given else ""
        written(tmp_path / "set" / where / "ab"[i % 2] / f"p{i // 2}" / f"{i}.dcm", patient="ANONYMOUS")
    found = readers.listing(tmp_path / "set")
    assert set(found.table["group"]) == {f"p{i}" for i in range(30)} and found.caveats == ()
    assert "Every file has the same PatientID" in found.notes[-1] and "none of 30 groups" in found.notes[0]


def test_one_patient_id_and_no_folders_is_named_as_the_cause(tmp_path):
    for i in range(6):
        written(tmp_path / "set" / "ab"[i % 2] / f"{i}.dcm", patient="ANONYMOUS")
    with pytest.raises(ValueError, match="no image in split .*: all count as images of one patient, since the Patient"
                                         "ID .*; write a manifest with a column group or split"):
        readers.listing(tmp_path / "set")


def test_the_package_is_optional_and_its_absence_is_no_damage(tmp_path, monkeypatch):
    for i in range(60):
        written(tmp_path / "set" / "ab"[i % 2] / f"{i}.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match="pip install pydicom"):
        data.load_data(DataConfig(source=str(tmp_path / "set"), img_size=16), cache=tmp_path / "c", show=False)


def test_a_compression_that_needs_another_package_is_no_damage(tmp_path, monkeypatch):
    def lacking(*_):
        raise RuntimeError("Unable to decompress pixel data because all plugins are missing dependencies:\n\tgdcm")
    source = written(tmp_path / "a.dcm")
    monkeypatch.setattr(pydicom.pixels, "pixel_array", lacking)
    with pytest.raises(ImportError, match="is compressed as .*, which needs one more package; say pip install python-"):
        readers.read_picture(source)


def test_one_slice_without_a_patient_is_named(tmp_path):
    for i in range(20):
        written(tmp_path / "set" / "ab"[i % 2] / f"{i}.dcm", patient=f"p{i}" if i else "")
    found = readers.listing(tmp_path / "set", whole=False)
    assert "group" not in found.table
    assert found.notes[1].startswith("1 of 20 images are not with a PatientID, the first is '0.dcm'")


@pytest.mark.parametrize("odd", ["no id", "no slice"])
def test_folders_that_share_a_patient_are_a_caveat(tmp_path, odd):
    rng = np.random.default_rng(0)
    for i in range(160):                                     # 80 series of 20 patients
        written(tmp_path / "set" / "ab"[i % 2] / f"series{i // 2}" / f"{i}.dcm", rng.permuted(STORED),
                patient=f"p{i // 8}")
    assert readers.listing(tmp_path / "set").table["group"].nunique() == 20
    if odd == "no id":
        written(tmp_path / "set" / "a" / "series0" / "0.dcm", rng.permuted(STORED), patient="")
    else:
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / "set/a/series0/photo.png")
    found = readers.listing(tmp_path / "set")
    assert found.table["group"].nunique() == 80
    assert found.caveats == ("folders count as patients, but 20 PatientIDs lie in more than one",)
    name = "0.dcm" if odd == "no id" else "photo.png"
    assert any(f"images are not with a PatientID, the first is '{name}'" in note for note in found.notes)
    for path in Path(tmp_path / "set").rglob("*.dcm"):                      # as after de-identification
        written(path, rng.permuted(STORED), patient="" if path.name == "0.dcm" and odd == "no id" else "ANONYMOUS")
    assert readers.listing(tmp_path / "set").caveats == ()
