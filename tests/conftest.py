"""What all tests share: one thread per test process, and nothing written outside a temporary folder."""

import builtins
import errno
import os
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import medbench  # noqa: E402, F401  (its guard for a CPU-only torch, before a test imports timm)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Two test processes share two cores; a torch that takes both would slow each other down."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Generated data and trained runs of the tests go into a folder of their own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MEDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def only_read(monkeypatch):
    """A function: from then on the system lets nobody, not even root, make or write a file below a folder."""
    def refuse(folder):
        def refusing(whole, writes):
            def call(path, *args, **kwargs):
                if not isinstance(path, int) and Path(folder) in Path(path).parents and writes(*args):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
                return whole(path, *args, **kwargs)
            return call
        monkeypatch.setattr(os, "open", refusing(os.open, lambda flags, *_: flags & (os.O_WRONLY | os.O_RDWR)))
        monkeypatch.setattr(os, "mkdir", refusing(os.mkdir, lambda *_: True))
        monkeypatch.setattr(builtins, "open", refusing(open, lambda mode="r", *_: set(mode) & set("wax+")))
    return refuse
