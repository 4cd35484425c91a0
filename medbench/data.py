"""Images, labels and splits: from the phantom, from a manifest, from plain class folders.

What lives here, top to bottom: `Split` and `Data`; `load_data` and `load_test`; the phantom; real images (`readers`
knows what a source holds, `decoding` opens its images); the cache; `to_input`, the one place where bytes become the
numbers that a model sees.

Whatever the source, images are drawn or decoded once, kept as 8-bit arrays in the cache folder and checked by hash each
time they are opened.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import decoding, readers
from .config import DataConfig, fingerprint
from .files import array_file, cache_dir, lock, new_folder, progress, read_json, sha256, write_array, write_json
from .readers import read_image

__all__ = ["Data", "Split", "cache_dir", "data_root", "load_data", "load_test", "read_image", "to_input"]

FIRST_INDEX = {"train": 0, "val": 10_000_000, "test": 20_000_000}      # a larger training set leaves the others alone
CHUNK = 64                                                             # images drawn at once
LAYOUT = 1                                                             # of the cached files
MAPPED = ("images", "masks")
CLOSED = (OSError, ValueError, RuntimeError)                           # what opening data raises where it fails
ASSUMED = "scores that depend on class frequencies answer for those of training, on images as they are"


# --------------------------------------------------------------------------------------------- what is returned
@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split and what is known about them.

    `images` (n, H, W) uint8, memory-mapped. `labels` (n,) int64. `indices` (n,): the phantom's sample numbers or the
    manifest's rows. `boxes` (n, 4): centre x, centre y, width and height as shares of the sides of `images`, which are
    squares, NaN where unknown. `prior` (k,): class frequencies in training. `population` (k,): class frequencies of the
    population that prior-dependent scores speak of; `None` where that is the split as it is. `groups` (n,): a number
    for the patient of each image, `None` where the source names none. `caveats`: short sentences that go with every
    result on this split.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    classes: tuple[str, ...]
    prior: np.ndarray
    in_chans: int = 1
    population: np.ndarray | None = None
    boxes: np.ndarray | None = None
    packed: np.ndarray | None = None
    paths: tuple[str, ...] | None = None
    groups: np.ndarray | None = None
    caveats: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def masks(self) -> np.ndarray | None:
        """Lesion masks (n, H, W) bool, unpacked at each call; `None` where the source has none."""
        if self.packed is None:
            return None
        return np.unpackbits(self.packed, axis=-1, count=self.images.shape[-1]).view(bool)

    @property
    def class_counts(self) -> dict[str, int]:
        """How many images of each class."""
        return dict(zip(self.classes, np.bincount(self.labels, minlength=len(self.classes)).tolist()))

    def take(self, positions) -> Split:
        """The images at these positions (integers, or n booleans) as a split of their own."""
        def part(array):
            return None if array is None else array[positions]
        paths = None if self.paths is None else tuple(np.array(self.paths, dtype=object)[positions])
        return replace(self, images=self.images[positions], labels=self.labels[positions], paths=paths,
                       indices=self.indices[positions], boxes=part(self.boxes), packed=part(self.packed),
                       groups=part(self.groups))


@dataclass(frozen=True, eq=False)
class Data:
    """The three splits of a data set.

    `notes` are sentences that its reader has to know. `set_aside`: path and reason of each image that is not used.
    """

    train: Split
    val: Split
    test: Split
    fingerprint: str
    notes: tuple[str, ...] = ()
    set_aside: tuple[tuple[str, str], ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class keys in the order of the labels."""
        return self.train.classes

    @property
    def caveats(self) -> tuple[str, ...]:
        """Short sentences that go with every result on these data."""
        return self.train.caveats

    @property
    def class_counts(self) -> dict[str, int]:
        """How many training images of each class."""
        return self.train.class_counts

    @property
    def prior(self) -> np.ndarray:
        """Class frequencies (k,) with which training images are drawn."""
        return self.train.prior


# --------------------------------------------------------------------------------------------- load
def load_data(config: DataConfig, cache: str | os.PathLike | None = None, show: bool = True) -> Data:
    """Open the data set that `config` describes; draw or decode it first where the cache lacks it.

    Args: `config.source` is `"phantom"`, a manifest, a MedMNIST file, RadImageNet's folder or a folder with one
        sub-folder a class (`readers`). `cache`: a folder in place of the default one. `show`: progress bars in the
        terminal.
    Returns: `Data`, whose fingerprint stands for the very bytes of images and labels.
    Raises: FileNotFoundError, ValueError: before any training, naming what is wrong and the fix. OSError: a folder
        could not be read, or the cache not be written, because the disk is full for example. RuntimeError: an image
        could not be read this time.
    """
    return (_phantom if config.source == "phantom" else _real)(config, cache_dir(cache), show)


def load_test(config: DataConfig, classes: tuple[str, ...], prior, cache: str | os.PathLike | None = None,
              show: bool = True, *, every: bool = False) -> tuple[Split, tuple[str, ...]]:
    """Images from elsewhere, to test a trained model on: those of a source's split `test`, or all with `every`.

    Args: `config`, `cache`, `show`: as in `load_data`; `classes`: those of the model, in its order, of which the source
        may lack some; `prior` (k,): how frequent they were in its training. Scores that depend on class frequencies
        take the model as it is, so they answer for these.
    Returns: the split, and sentences that its reader has to know.
    Raises: FileNotFoundError, ValueError: as `load_data`, and for images of a class that the model does not know.
    """
    prior = np.asarray(prior, np.float64) / np.sum(prior)
    told = "Class frequencies in training: " + ", ".join(f"{key} {share:.3g}" for key, share in zip(classes, prior))
    if config.source == "phantom":
        if every:
            raise ValueError("the phantom is drawn, as many images as you like; leave --every-image out")
        opened = _phantom(config, cache_dir(cache), show)
        if opened.classes != tuple(classes):
            raise ValueError(f"the model knows the classes {', '.join(classes)} but the phantom has "
                             f"{', '.join(opened.classes)}; name data with the model's own classes")
        test = replace(opened.test, prior=prior, population=None, caveats=(*opened.caveats, ASSUMED))
        return test, (*opened.notes, f"{told}.")
    found = readers.unseen(config.source, classes, config.subset, cache_dir(cache), every=every)
    own, _, aside = _decoded("test", found, config, cache_dir(cache), show)
    lost = _named(found, aside)
    decoding.refuse_too_many(lost, len(own["kept"]) + len(lost), config.max_damaged, more="")
    emptied = decoding.refuse_emptied(found, {"test": own}, lost)
    caveats, notes = decoding.said_of({"test": own}, config.img_size, lost)
    return (_split("test", found, own, prior, config.in_chans, (*found.caveats, *emptied, *caveats, ASSUMED)),
            (*found.notes, *notes, f"{told}."))


def data_root() -> Path:
    """Where real data sets lie: the folder in `MEDBENCH_DATA`, else `shared/data` beside the checkout.

    Raises: FileNotFoundError if there is no such folder.
    """
    named = os.environ.get("MEDBENCH_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not root.is_dir():
        what = f"MEDBENCH_DATA is {named!r}, which is no folder" if named else "MEDBENCH_DATA is not set"
        raise FileNotFoundError(f"{what}; set it to the folder that holds the data sets, such as brain-tumor-mri/")
    return root


# --------------------------------------------------------------------------------------------- phantom
def _phantom(config: DataConfig, cache: Path, show: bool) -> Data:
    """The phantom's splits: training and validation follow the prior, the test set has equal classes."""
    from . import phantom
    classes = tuple(phantom.CLASSES)
    sizes = {"train": config.num_train, "val": config.num_val, "test": config.num_test_per_class * len(classes)}
    look = {name: getattr(config, name) for name in ("seed", "img_size", "difficulty", "confounding")}
    splits, hashes = {}, {}
    for name, size in sizes.items():
        indices = FIRST_INDEX[name] + np.arange(size)
        labels = np.arange(size) % len(classes) if name == "test" else None
        drawn = look | {"prior": "uniform" if name == "test" else config.prior}
        key = fingerprint(LAYOUT, phantom.VERSION, name, size, drawn)

        def draw(folder, name=name, labels=labels, indices=indices, drawn=drawn):
            with progress(len(indices), f"drawing {name} phantoms", "img", show) as bar:
                _draw(folder, phantom.generate, labels, indices, drawn, bar)
        arrays, hashes[name] = _cached(cache / "phantom" / key, draw)
        splits[name] = Split(name, arrays["images"], arrays["labels"], indices, classes, phantom.prior(config.prior),
                             config.in_chans, phantom.prior("study"), packed=arrays["masks"])
    note = "Each phantom depends on the seed and its own number alone; all heads are warps of one atlas."
    return Data(**splits, fingerprint=fingerprint(hashes, classes, config.in_chans), notes=(note,))


def _draw(folder: Path, generate, labels, indices, drawn: dict, bar) -> None:
    """Draw one split into `images.npy`, `labels.npy` and `masks.npy`, the last with eight pixels a byte."""
    n, side = len(indices), drawn["img_size"]
    found = np.empty(n, np.int64)
    with (array_file(folder / "images.npy", side, side) as more_images,
          array_file(folder / "masks.npy", side, (side + 7) // 8) as more_masks):
        for start in range(0, n, CHUNK):
            part = slice(start, min(start + CHUNK, n))
            batch = generate(None if labels is None else labels[part], indices[part], **drawn)
            more_images(np.asarray(batch.images))
            more_masks(np.packbits(np.asarray(batch.lesion), axis=-1))
            found[part] = np.asarray(batch.labels)
            bar.update(part.stop - part.start)
    write_array(folder / "labels.npy", found)


# --------------------------------------------------------------------------------------------- real images
def _real(config: DataConfig, cache: Path, show: bool) -> Data:
    """The splits of real images; those that are damaged or blank are set aside, too many of them are an error."""
    found = readers.listing(config.source, config.subset, cache)
    arrays, hashes, lost = {}, {}, []
    for name in readers.SPLITS:
        arrays[name], hashed, aside = _decoded(name, found, config, cache, show)
        hashes[name] = {part: hashed[part] for part in ("images", "labels")}      # what training sees
        lost += _named(found, aside)
    decoding.refuse_too_many(lost, len(found.table), config.max_damaged)
    emptied = decoding.refuse_emptied(found, arrays, lost)
    caveats, notes = decoding.said_of(arrays, config.img_size, lost)
    counts = np.bincount(arrays["train"]["labels"], minlength=len(found.classes))
    said = (*found.caveats, *emptied, *caveats)
    splits = {name: _split(name, found, own, counts / counts.sum(), config.in_chans, said)
              for name, own in arrays.items()}
    return Data(**splits, fingerprint=fingerprint(hashes, found.classes, config.in_chans),
                notes=(*found.notes, *notes), set_aside=tuple(lost))


def _decoded(name: str, found: readers.Listing, config: DataConfig, cache: Path, show: bool) -> tuple[dict, dict, list]:
    """The arrays of one split, their hashes, and (row, reason) of each image that is set aside."""
    rows = np.flatnonzero(found.table["split"] == name)
    labels = found.table["label"].iloc[rows].map(found.classes.index).to_numpy(np.int64)
    key = fingerprint(decoding.VERSION, config.img_size, decoding.stamps(found, rows), labels.tolist())
    folder = cache / "images" / key

    def decode(folder):
        with progress(len(rows), f"reading {name} images", "img", show) as bar:
            decoding.decode(folder, found, rows, labels, config.img_size, bar)
    arrays, hashed = _cached(folder, decode)
    arrays["rows"] = rows[arrays["kept"]]
    return arrays, hashed, read_json(folder / decoding.SET_ASIDE)


def _named(found: readers.Listing, aside: list) -> list[tuple[str, str]]:
    """Path and reason of images that are set aside."""
    return [(found.table["path"].iloc[row], reason) for row, reason in aside]


def _split(name: str, found: readers.Listing, own: dict, prior: np.ndarray, in_chans: int,
           caveats: tuple[str, ...]) -> Split:
    """One split of real images, with what the listing tells of those that are kept."""
    table, boxes = found.table.iloc[own["rows"]], None
    if set(readers.BOXES) <= set(table.columns):
        boxes = readers.fitted_boxes(table[list(readers.BOXES)].to_numpy(np.float64), own["sizes"])
    return Split(name, own["images"], own["labels"], own["rows"], found.classes, prior, in_chans,
                 boxes=boxes, paths=tuple(table["path"]),
                 groups=None if found.groups is None else found.groups[own["rows"]], caveats=caveats)


# --------------------------------------------------------------------------------------------- cache
def _cached(path: Path, make) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays under `path` and their hashes; `make(folder)` writes them where they are missing or damaged.

    One process makes and others wait; the folder appears whole or not at all. Images and masks are mapped, not read.
    What is intact needs no lock, so that a cache which may only be read will do.
    """
    if not _intact(path):
        with lock(path):
            if not _intact(path):
                _write(path, make)
    hashes = read_json(path / "meta.json")["hashes"]
    return {name: np.load(path / f"{name}.npy", mmap_mode="r" if name in MAPPED else None) for name in hashes}, hashes


def _write(path: Path, make) -> None:
    """Make the folder `path`, or leave nothing of it and say what to do."""
    try:
        with new_folder(path) as folder:
            make(folder)
            hashes = {file.stem: sha256(file) for file in sorted(folder.glob("*.npy"))}
            write_json(folder / "meta.json", {"layout": LAYOUT, "hashes": hashes})
    except OSError as error:
        raise OSError(error.errno, f"images could not be written to {str(path)!r} ({error.strerror or error}); make "
                      f"room or give permission there, or set MEDBENCH_CACHE to another folder") from error


def _intact(path: Path) -> bool:
    """Whether every array is there with the hash that was noted when it was written."""
    noted = (read_json(path / "meta.json") or {}).get("hashes", {})
    files = {name: path / f"{name}.npy" for name in noted}
    return bool(noted) and all(file.is_file() and sha256(file) == noted[name] for name, file in files.items())


# --------------------------------------------------------------------------------------------- what a model sees
def to_input(images, in_chans: int = 1):
    """Bytes to what a model sees: $x = (u / 255 - 0.5) / 0.5$, grey repeated over the channels.

    Args: `images` (n, H, W) or (n, C, H, W) uint8, array or tensor on any device; `in_chans`: the model's channels.
    Returns: float tensor (n, in_chans, H, W) from -1 to 1. Raises: ValueError for another dtype or number of channels.
    """
    import torch
    images = images if isinstance(images, torch.Tensor) else torch.from_numpy(np.array(images))
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}; wanted uint8 (n, H, W), as a Split holds them")
    images = images.unsqueeze(1) if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] not in (1, in_chans):
        raise ValueError(f"images have shape {tuple(images.shape)}; wanted (n, H, W) or (n, C, H, W) with C = 1 or the "
                         f"model's {in_chans} channels")
    return images.float().div_(127.5).sub_(1.0).expand(-1, in_chans, -1, -1)
