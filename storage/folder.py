"""The data folder: made when missing, checked for writing, held by one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from core.errors import DataFolderError


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """The folder for the time of the `with` block. Raises DataFolderError in one plain line.

    The lock is the kernel's and goes with the process, kill -9 included.
    """
    make(folder)
    try:
        handle = (folder / "lock").open("a+", encoding="ascii")
    except OSError as error:
        raise DataFolderError(f"data folder {folder}: cannot be written: {error.strerror}") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise DataFolderError(
                f"data folder {folder}: in use by another tizhuang (process {handle.read().strip() or 'unknown'})"
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield folder


def make(folder: Path) -> None:
    """The folder, if it is not there yet. Raises DataFolderError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFolderError(f"data folder {folder}: cannot be written: {error.strerror}") from None


def copy_aside(path: Path) -> Path | None:
    """A copy of a database file before it is changed; None when there is no such file."""
    if not path.exists():
        return None
    copy = path.with_name(f"{path.name}.{datetime.now().astimezone():%Y%m%d-%H%M%S}.bak")
    shutil.copy2(path, copy)
    return copy
