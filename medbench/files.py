"""Files that are never half written, locks between processes, and bars in the terminal.

What lives here, top to bottom: `cache_dir`; `environment`, variables for child processes; atomic writing of bytes, JSON
and whole folders; arrays; hashes; messages without folders; the progress bar.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sys
from pathlib import Path

WAITS = 5.0                    # seconds for a lock before it is said whose it is
SEEN_LATE = 90.0               # seconds until a folder that machines share, such as NFS, shows what another one wrote
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)              # answers of a file system that has none


def cache_dir(cache: str | os.PathLike | None = None) -> Path:
    """Where images and trained runs are kept: `cache`, else `MEDBENCH_CACHE`, else the user's cache folder."""
    if cache is not None:
        return Path(cache)
    if os.environ.get("MEDBENCH_CACHE"):
        return Path(os.environ["MEDBENCH_CACHE"])
    import platformdirs
    return Path(platformdirs.user_cache_dir("medbench"))


@contextlib.contextmanager
def environment(**names):
    """Variables that child processes inherit, for a while."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


# --------------------------------------------------------------------------------------------- atomic writing
def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, whatever happens in between.

    Who may read it is for the umask to say, as with any new file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content) -> None:
    """Write JSON atomically; NaN is refused, because other readers of JSON do not know it."""
    write_bytes(path, (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict | None:
    """The content of a JSON file, or `None` where there is no such file or it was cut short."""
    try:
        return json.loads(Path(path).read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


@contextlib.contextmanager
def new_folder(path: Path):
    """A folder to fill, which appears under its name only when the block has ended without an error.

    Call it with the folder's `lock` held: what an interrupted writer left is removed first.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def lock(path: Path, seconds: float = -1):
    """Hold the folder or file `path` alone among processes; others wait, and say so. The lock lies beside it.

    Raises: OSError: its file system has no locks, or the lock cannot be written. RuntimeError: another process holds it
        for more than `seconds`, if these are not negative.
    """
    from filelock import FileLock, Timeout
    path = Path(path)
    one = FileLock(str(path.with_name(path.name + ".lock")), fallback_to_soft=False)       # which would outlive a kill
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            one.acquire(timeout=WAITS if seconds < 0 else min(WAITS, seconds))
        except Timeout:
            print(f"another process holds {str(path)!r}; waiting for it", file=sys.stderr, flush=True)
            one.acquire(timeout=seconds if seconds < 0 else max(0, seconds - WAITS))
    except Timeout as error:
        raise RuntimeError(f"another process has held {str(path)!r} for {seconds:g} s; is the same work going on "
                           f"there? Wait for its end, or end it") from error
    except OSError as error:
        raise OSError(error.errno, _no_lock(path, error)) from error
    try:
        yield
    finally:
        one.release()


def _no_lock(path: Path, error: OSError) -> str:
    """Why there is no lock, and what to do."""
    if error.errno in NO_LOCKS:
        return (f"the file system of {str(path.parent)!r} has no locks (flock), without which two processes may write "
                f"one file; have it mounted with them, or set MEDBENCH_CACHE to a folder elsewhere")
    return (f"the lock of {str(path)!r} could not be written beside it ({error.strerror or error}); make room or give "
            f"permission there, or set MEDBENCH_CACHE (for records MEDBENCH_RESULTS) to another folder")


# --------------------------------------------------------------------------------------------- arrays
def write_array(path: Path, array) -> None:
    """What `np.save` writes, which on a full disk cuts a small array short without a word.

    Raises: OSError: it could not be written.
    """
    import numpy as np
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_bytes(path, content.getvalue())


@contextlib.contextmanager
def array_file(path: Path, *row: int):
    """What `np.save` writes of uint8 (n, *row), part by part: yields a function that appends some rows.

    Not through a map of the file: when the disk is full, that ends the process, where a write raises OSError.
    """
    import numpy as np
    count = 0

    def header():
        file.seek(0)                                         # its length is the same for any number of rows
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, *row)})

    def append(rows):
        nonlocal count
        file.write(np.asarray(rows, np.uint8).tobytes())
        count += len(rows)

    with open(path, "wb") as file:
        header()
        yield append
        header()


# --------------------------------------------------------------------------------------------- small parts
def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_folders(text: str) -> str:
    """A message without the folders of the paths in it, which may name a user and have no place in a record."""
    text = text.replace("file://", "").replace(str(Path.home()), "~")
    return re.sub(r"(?<![\w/:~.+@-])(?:~?/)?(?:[\w.+@-]+/){2,}", "", text)


# --------------------------------------------------------------------------------------------- progress
def progress(total: int, description: str, unit: str = "it", show: bool = True, initial: int = 0):
    """A tqdm bar on standard error; from a notebook it goes to the terminal behind it, never into the notebook."""
    from tqdm import tqdm
    stream = terminal() if show else None
    live = stream is not None and stream.isatty()
    return tqdm(total=total, initial=initial, desc=description, unit=unit, file=stream, disable=stream is None,
                dynamic_ncols=live, leave=True, mininterval=0.5 if live else 10.0, maxinterval=1.0 if live else 10.0)


def terminal():
    """Standard error, or the terminal that a notebook's kernel was started from; `None` where there is none."""
    behind = getattr(sys.stderr, "_original_stdstream_copy", None)          # ipykernel keeps the real one there
    if behind is not None:
        return open(behind, "w", buffering=1, closefd=False)
    return sys.stderr
