"""What all tests share: one thread per test process, and nothing written outside a temporary folder."""

import os

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
