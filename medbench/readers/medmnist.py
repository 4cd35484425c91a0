"""MedMNIST (Yang et al. 2023, doi:10.1038/s41597-022-01721-8) through its own package `medmnist`.

A local file (`breastmnist.npz`, `breastmnist_64.npz`) or `medmnist:breastmnist`, `medmnist:breastmnist:64`, which
downloads it, once for all processes. The official splits are taken as they are.
"""

from __future__ import annotations

import contextlib
import errno
import re
import zipfile
import zlib
from pathlib import Path

from ..checks import one_of
from ..files import lock
from .listing import SPLITS, UNCHECKED, Listing

HAS_SUBSETS = False
SCHEME = "medmnist:"
TASKS = ("binary-class", "multi-class", "ordinal-regression")
OF_THE_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def knows(source: str) -> bool:
    """Whether this is `medmnist:NAME` or an existing `.npz` file."""
    return source.startswith(SCHEME) or (source.endswith(".npz") and Path(source).expanduser().is_file())


def read(source: str, subset: str = "", cache: Path | None = None) -> Listing:
    """The images of a MedMNIST set of single-label pictures.

    Raises: ValueError for an unknown name or size, for volumes and for several labels an image; FileNotFoundError
        where the download fails, with the address; OSError where it cannot be written; ImportError without the package.
    """
    import pandas
    flag, size, folder = _asked(source, cache)
    package, info = _package(flag, size)
    own = getattr(package, info["python_class"])
    rows, arrays = [], []
    download = source.startswith(SCHEME)
    with lock(folder / f"{flag}_{size}") if download else contextlib.nullcontext():    # several would write one file
        parts = {split: _opened(own, split, folder, size, download, info) for split in SPLITS}
    for split, part in parts.items():
        for row, (image, label) in enumerate(zip(part.imgs, part.labels)):
            rows.append((f"{flag}/{split}/{row}", info["label"][str(int(label[0]))], split))
            arrays.append(image)
    table = pandas.DataFrame(rows, columns=["path", "label", "split"])
    classes = tuple(info["label"][str(i)] for i in range(len(info["label"])))
    note = (f"MedMNIST {info['python_class']}, {size} x {size} px, official split, licence {info['license']}. Its "
            f"authors' split is taken as given.")
    return Listing(table, (UNCHECKED,), (note,), classes=classes, arrays=arrays)


def _asked(source: str, cache: Path | None) -> tuple[str, int, Path]:
    """Name, size in px and folder of what is asked for."""
    if source.startswith(SCHEME):
        name, _, size = source.removeprefix(SCHEME).partition(":")
        if size and not size.isdigit():
            raise ValueError(f"data source is {source!r}; wanted medmnist:NAME or medmnist:NAME:SIZE, such as "
                             f"medmnist:breastmnist:64")
        folder = Path(cache or ".") / "medmnist"
        folder.mkdir(parents=True, exist_ok=True)
        return name, int(size or 28), folder
    file = Path(source).expanduser()
    name, _, size = file.stem.partition("_")
    if size and not re.fullmatch(r"\d+", size):
        raise ValueError(f"{file.name!r} is not named as MedMNIST names its files; wanted NAME.npz or NAME_SIZE.npz, "
                         f"such as breastmnist_64.npz")
    wanted = f"{name}.npz" if int(size or 28) == 28 else f"{name}_{int(size)}.npz"
    if file.name != wanted:                                  # the package would open that one
        raise ValueError(f"{file.name!r} is not named as MedMNIST names its files; wanted {wanted!r} (no number for "
                         f"28 px): rename it")
    return name, int(size or 28), file.parent


def _package(flag: str, size: int):
    """The package and what it knows of this set; refuses what is no picture with one label."""
    try:
        import medmnist
    except ImportError as error:
        raise ImportError("MedMNIST needs the package medmnist; say pip install medmnist") from error
    one_of("MedMNIST name", flag, tuple(medmnist.INFO))
    info = medmnist.INFO[flag]
    if flag.endswith("3d"):
        raise ValueError(f"{flag} holds volumes; these models take pictures: choose a set without 3d")
    if info["task"] not in TASKS:
        raise ValueError(f"{flag} has several labels an image ({info['task']}); these models choose one class")
    one_of(f"size of {flag}", size, tuple(medmnist.dataset.MedMNIST2D.available_sizes))
    return medmnist, info


def _opened(own, split: str, folder: Path, size: int, download: bool, info: dict):
    """One split of the package's data set; its errors say what to do."""
    try:
        part = own(split=split, root=str(folder), size=size, download=download)
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        address = info["url" if size == 28 else f"url_{size}"]
        raise _absent(own.flag, folder, address if download else "", error) from error
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{own.flag} in {str(folder)!r} is no whole MedMNIST file ({error}); fetch it "
                         f"again") from error
    if len(part.imgs) != info["n_samples"][split] or len(part.labels) != len(part.imgs):
        raise ValueError(f"{own.flag} in {str(folder)!r} has {len(part.imgs)} images in {split}; the official set has "
                         f"{info['n_samples'][split]}: fetch it again")
    return part


def _absent(flag: str, folder: Path, address: str, error: BaseException | None) -> OSError:
    """Why there is no file; `address` of the download, if any. The package says the same of a full disk as of a missing
    connection, so what it met counts."""
    if not address:
        return FileNotFoundError(f"{flag} is no longer in {str(folder)!r}; put its file there again")
    while error := error.__context__:
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            return OSError(error.errno, f"{flag} could not be written to {str(folder)!r} ({error.strerror}); make room "
                                        f"or give permission there, or set MEDBENCH_CACHE to another folder")
    return FileNotFoundError(f"{flag} could not be downloaded (is there a connection?); fetch {address} elsewhere and "
                             f"give that file as the data source")
