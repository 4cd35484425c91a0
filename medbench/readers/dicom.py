"""DICOM slices through the optional package `pydicom`: rescaled, windowed, one grey image.

What lives here, top to bottom: `knows`, `patient`, `read`; the window.
"""

from __future__ import annotations

import os

import numpy as np

from .listing import NOT_DAMAGE, why

SUFFIXES = (".dcm", ".dicom")
# tags with which a file without a preamble begins: of groups 2 and 8, in little endian
FIRST = tuple(bytes((group, 0, element, 0)) for group, elements in ((2, (0, 1, 2)), (8, (0, 1, 5, 8, 0x16, 0x18)))
              for element in elements)


def knows(path: str | os.PathLike) -> bool:
    """Whether a file begins as DICOM files do (PS3.10, section 7.1: 128 bytes, then `DICM`), or, as some old ones,
    without that, with one of the tags that come first."""
    with open(path, "rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or head[:4] in FIRST


def patient(path: str | os.PathLike) -> str:
    """The PatientID in the header, empty where there is none or the file cannot be read."""
    pydicom = _pydicom()
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=knows(path), specific_tags=["PatientID"])
        return str(header.get("PatientID") or "")
    except NOT_DAMAGE:
        raise
    except Exception:
        return ""


def read(path: str | os.PathLike) -> np.ndarray:
    r"""The grey levels of one slice: stored values times slope plus intercept, then the file's first window.

    Without a window the range of the rescaled values is left to the caller. MONOCHROME1, in which high values are
    dark, is turned over. Colour comes as it is.

    Returns: (h, w) uint8 where there is a window, else (h, w) float64; (h, w, 3) uint8 for colour.
    Raises: ValueError for what is no whole single image; ImportError without pydicom, or without the package that its
        compression needs.
    Source: DICOM PS3.3, C.7.6.3.1.2 (photometric interpretation), C.11.1 (modality LUT), C.11.2 (VOI LUT).
    """
    pydicom = _pydicom()
    try:
        file = pydicom.dcmread(path, force=True)             # which `knows` has looked at
        if "TransferSyntaxUID" not in file.file_meta:        # then the way its elements are written tells
            file.file_meta.TransferSyntaxUID = (pydicom.uid.ImplicitVRLittleEndian if file.original_encoding[0]
                                                else pydicom.uid.ExplicitVRLittleEndian)
        if int(file.get("NumberOfFrames") or 1) > 1:
            raise ValueError(f"it has {file.NumberOfFrames} frames; wanted one slice a file")
        stored = pydicom.pixels.pixel_array(file)
        if file.get("PhotometricInterpretation") == "PALETTE COLOR":
            colour = pydicom.pixels.apply_color_lut(stored, file)
            return (colour >> 8 * (colour.dtype.itemsize - 1)).astype(np.uint8)
        if stored.ndim == 3:
            return (stored >> max(file.BitsStored - 8, 0)).astype(np.uint8)
        grey = _windowed(pydicom, pydicom.pixels.apply_modality_lut(stored, file), file)
    except NOT_DAMAGE:
        raise
    except Exception as error:
        if "missing dependencies" in str(error):
            kind = file.file_meta.TransferSyntaxUID.name
            raise ImportError(f"{str(path)!r} is compressed as {kind}, which needs one more package; say pip install "
                              f"python-gdcm") from error
        raise ValueError(f"{str(path)!r} is no whole DICOM image ({why(error)})") from error
    if file.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = 255 - grey if grey.dtype == np.uint8 else -grey
    return grey


def _windowed(pydicom, values: np.ndarray, file) -> np.ndarray:
    """The first window, or look-up table, of the file, scaled from its own lowest and highest answer to 0 to 255.

    A window without a centre or width, or of no width, counts as none.
    """
    centre, width = (np.atleast_1d(file.get(name) if file.get(name) not in (None, "") else np.nan)[0]
                     for name in ("WindowCenter", "WindowWidth"))
    if np.isfinite(float(centre)) and float(width) > 0:
        shown = pydicom.pixels.apply_windowing(values, file)
        with np.errstate(over="ignore"):                     # of a sigmoid, which reaches its ends at infinity
            ends = pydicom.pixels.apply_windowing(np.array([[-1e9, 1e9]]), file).ravel()
    elif not file.get("VOILUTSequence"):
        return values.astype(np.float64)
    else:
        entries, first = file.VOILUTSequence[0].LUTDescriptor[:2]
        table = pydicom.pixels.apply_voi(first + np.arange(entries or 2**16)[None], file)
        shown = pydicom.pixels.apply_voi(values, file).astype(np.float64)
        ends = np.array([table.min(), table.max()], np.float64)
    return np.round(255 * np.clip((shown - ends[0]) / max(ends[1] - ends[0], 1e-12), 0, 1)).astype(np.uint8)


def _pydicom():
    try:
        import pydicom
        import pydicom.pixels
        return pydicom
    except ImportError as error:
        raise ImportError("DICOM images need the package pydicom; say pip install pydicom") from error
