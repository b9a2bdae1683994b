"""A file is there whole, the old one or the new, at any moment: written beside its place, brought to disk, renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

PREFIX, SUFFIX = ".aimux-", ".tmp"
"""Of a file's name before it has its own; one that is left has lost its writer."""


def write(path: Path, raw: bytes, mode: int = 0o600) -> None:
    """Put a new file in the place of whatever bears that name, a link for instance. Blocks. Raises OSError."""
    fd, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX, dir=path.parent)
    try:
        try:
            fill(fd, raw)
            if mode != 0o600:
                os.fchmod(fd, mode)
        finally:
            os.close(fd)
        Path(name).rename(path)
    finally:
        Path(name).unlink(missing_ok=True)
    sync_folder(path.parent)


def fill(fd: int, raw: bytes) -> None:
    """Have an open file hold just this, on disk. Raises OSError."""
    done = 0
    while done < len(raw):
        done += os.pwrite(fd, raw[done:], done)
    os.ftruncate(fd, len(raw))
    os.fsync(fd)


def obstacle(folder: Path) -> OSError | None:
    """What keeps files from being made there, found out by making one, as permissions do not tell. Blocks."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error
    return None


def sync_folder(folder: Path) -> None:
    """Make a rename durable. Some network file systems can't; there it is as durable as they make it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(fd)
