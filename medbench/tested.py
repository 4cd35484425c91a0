"""The images that a finished run is scored on: the test set of its own data, or others.

What lives here, top to bottom: `Images`; `images_of`; which frequencies of classes its scores are for; what is told of
images and patients that the run was trained on.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np

from . import readers
from .data import CLOSED, Data, Split, cache_dir, load_data, load_test
from .finished import Finished, seen
from .recipe import evens_out

CHANGED = "the data have changed since the training"
UNCHECKED = "not known whether any of these images were trained on"
EVENED = "frequencies of classes in training are not known: scores that depend on them are for equal ones"


@dataclass(frozen=True, eq=False)
class Images:
    """What a run is scored on.

    `own`: the data of its training, `None` where these cannot be opened; `intact`: they are what they were then;
    `home`: `test` is theirs; `notes`: what a reader has to know.
    """

    test: Split
    notes: tuple[str, ...]
    own: Data | None
    intact: bool
    home: bool


def images_of(run: Finished, every: bool) -> Images:
    """The images that a run is scored on: its own test set, or others, looked through for some that it was trained on.

    Raises: FileNotFoundError, ValueError: they cannot be opened, or are no images for this run.
    """
    own, why = _own(run)
    home = run.data == run.noted
    if home and own is None:
        raise ValueError(f"run {run.folder.name} cannot be scored: {why}; if they lie elsewhere now, name them with "
                         f"--data")
    if own is None and (moved := _moved(run)):
        if every:
            raise seen(run.folder.name, run.data.source)
        own, home = moved, True
    intact = own is not None and own.fingerprint == run.info["data"]
    if home:
        if own.classes != tuple(run.info["classes"]):
            raise ValueError(f"run {run.folder.name} knows the classes {', '.join(run.info['classes'])} but its data "
                             f"have {', '.join(own.classes)} by now; name others with --data")
        test = own.test if intact else dataclasses.replace(own.test, caveats=(*own.caveats, CHANGED))
        return Images(test, own.notes, own, intact, home)
    prior, caveats = _frequencies(run, own)
    test, notes = load_test(run.data, tuple(run.info["classes"]), prior, every=every)
    caveats += _trained_on(own, intact, test)
    if own is not None:
        caveats += _patients(run, every)
    if UNCHECKED in caveats:
        notes += (f"Whether run {run.folder.name} was trained on any of these images could not be checked: "
                  f"{CHANGED if own else why}.",)
    return Images(dataclasses.replace(test, caveats=(*test.caveats, *caveats)), notes, own, intact, home)


def _own(run: Finished) -> tuple[Data | None, str]:
    """The data that a run noted, as they are today, or why they cannot be opened."""
    try:
        return load_data(run.noted) if run.noted else None, "it does not say which data those were"
    except CLOSED as error:
        return None, f"its own data cannot be opened, {error}"


def _moved(run: Finished) -> Data | None:
    """The data that it is to be scored on, if they are those of its training, which lie elsewhere now."""
    try:
        found = load_data(run.data)
    except CLOSED:
        return None
    return found if found.fingerprint == run.info["data"] else None


def _frequencies(run: Finished, own: Data | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """How frequent classes were in training (k,), and what to say where that is not known: where loss or sampling evens
    them out, a run notes equal ones."""
    if not evens_out(run.experiment.training):
        return run.prior, ()
    return (run.prior, (EVENED,)) if own is None else (own.train.prior, ())


# --------------------------------------------------------------------------------------------- leaks
def _trained_on(own: Data | None, intact: bool, test: Split) -> tuple[str, ...]:
    """What to say of tested images that the run was trained on, pixel by pixel."""
    if own is None:
        return (UNCHECKED,)
    twice = len(_pixels(own.train, own.val) & _pixels(test))
    if not twice:
        return () if intact else (UNCHECKED,)
    return (f"{'' if intact else 'at least '}{twice} images are among those of the training, pixel by pixel",)


def _pixels(*splits: Split) -> set[bytes]:
    """A hash of each different image of some splits, as a model sees them."""
    return {hashlib.sha256(image).digest() for split in splits for image in split.images}


def _patients(run: Finished, every: bool) -> tuple[str, ...]:
    """What to say of tested patients whose names occur in the training: other slices of them would be a leak too."""
    if "phantom" in (run.data.source, run.noted.source):
        return ()
    trained = readers.listing(run.noted.source, run.noted.subset, cache_dir(), whole=False).table
    tested = readers.unseen(run.data.source, tuple(run.info["classes"]), run.data.subset, cache_dir(),
                            every=every).table
    if not all("group" in table.columns for table in (trained, tested)):
        return ()
    names = set(tested.loc[tested["split"] == "test", "group"])
    both = names & set(trained.loc[trained["split"] != "test", "group"])
    return (f"{len(both)} of {len(names)} patients have names that occur in the training: the same people, unless two "
            f"hospitals count alike",) if both else ()
