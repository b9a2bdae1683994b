"""At any moment the whole old or the whole new file is there: it is written beside its place, synced and renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

PREFIX, SUFFIX = ".aimux-", ".tmp"
"""Prefix of a file's name until it is renamed; one that is left over has lost its writer."""


def write(path: Path, raw: bytes, mode: int = 0o600) -> None:
    """Put a new file in place of whatever has that name, for instance a link. Blocks. Raises OSError."""
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
    """Make an open file hold just this, on disk. Raises OSError."""
    done = 0
    while done < len(raw):
        done += os.pwrite(fd, raw[done:], done)
    os.ftruncate(fd, len(raw))
    os.fsync(fd)


def obstacle(folder: Path) -> OSError | None:
    """What keeps files from being made there. Found out by making one, because permissions do not tell. Blocks."""
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
