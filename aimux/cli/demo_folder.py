"""The demo's state folder, which is removed with the process. The next demo removes what a killed one left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "aimux-demo-"
LOCK = ".aimux-demo.lock"


@contextmanager
def demo_folder() -> Iterator[Path]:
    """A new folder, held by a lock for as long as the block or the process lasts, and removed after the block."""
    _remove_left()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    # Cleaning up skips folders without this file, and locks it first: no demo loses a folder that it has just made.
    fd = os.open(folder / f"{LOCK}.new", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        (folder / f"{LOCK}.new").rename(folder / LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _remove_left() -> None:
    """Remove this user's folders that no process holds any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            fd = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(fd)
