"""Files that hold secrets, as blocking calls: `aimux.threads` runs them beside the event loop."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aimux import atomic

if TYPE_CHECKING:
    from collections.abc import Collection

_LOCK = ".aimux.lock"
_NOT_HERE = {errno.EROFS, errno.EACCES, errno.EPERM}
"""We can't create files in the folder, although we may be able to write the file itself."""
_MOUNT_POINT = {errno.EBUSY, errno.EXDEV}
"""What a rename onto a bind-mounted file answers (Docker's `-v file:file`)."""


def reserve(path: Path, size: int) -> Path | None:
    """Reserve a file with this many bytes of room, for `replace` of this one. None: it will be written in place.

    Raises OSError if there is no room, or if nothing can be written at all.
    """
    try:
        fd, name = tempfile.mkstemp(prefix=atomic.PREFIX, suffix=atomic.SUFFIX, dir=path.parent)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        return None
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            os.write(fd, bytes(size))
        os.fsync(fd)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return Path(name)


def replace(path: Path, raw: bytes, reserved: Path | None = None) -> bool:
    """Put `raw` in the place of the file (0600, owner kept). False: it had to be written in place. Raises OSError.

    `reserved`: a file with room for it, of the same folder.

    Temporary file, fsync, rename, fsync of the folder: at any moment the old or the new content is there, whole.
    A file that is itself a mount point, or whose folder is read-only, can only be written in place.
    """
    try:
        before = path.stat()
    except FileNotFoundError:
        before = None
    try:
        if reserved is not None:
            fd, name = os.open(reserved, os.O_RDWR | os.O_CLOEXEC), str(reserved)
        else:
            fd, name = tempfile.mkstemp(prefix=atomic.PREFIX, suffix=atomic.SUFFIX, dir=path.parent)
    except OSError as error:
        if before is None or error.errno not in _NOT_HERE:
            raise
        _overwrite(path, raw)
        return False
    try:
        try:
            if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, before.st_uid, before.st_gid)  # a linked login stays its owner's
            atomic.fill(fd, raw)
        finally:
            os.close(fd)
        Path(name).rename(path)
    except OSError as error:
        if before is None or error.errno not in _MOUNT_POINT | {errno.EPERM}:
            raise
        _overwrite(path, raw)
        return False
    finally:
        Path(name).unlink(missing_ok=True)
    atomic.sync_folder(path.parent)
    return True


def link_over(path: Path, target: Path) -> None:
    """Put a symbolic link in the place of whatever bears that name. Raises OSError."""
    made = Path(tempfile.mkdtemp(prefix=atomic.PREFIX, dir=path.parent))
    try:
        link = made / "link"
        link.symlink_to(target)
        link.rename(path)
    finally:
        (made / "link").unlink(missing_ok=True)
        made.rmdir()
    atomic.sync_folder(path.parent)


def _overwrite(path: Path, raw: bytes) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        old = os.pread(fd, os.fstat(fd).st_size, 0)
        try:
            atomic.fill(fd, raw)
        except OSError:
            atomic.fill(fd, old)  # its blocks are reserved already, so this fits even on a full disk
            raise
    finally:
        os.close(fd)


def sweep(folder: Path, spared: Collection[Path] = ()) -> None:
    """Remove what a killed writer left. Only under the folder's lock, or a running writer loses its file."""
    for left in folder.glob(f"{atomic.PREFIX}*{atomic.SUFFIX}"):
        if left not in spared:
            left.unlink(missing_ok=True)


class Grip:
    """A lock on a folder that other processes respect: flock on a small file in it, never waiting."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def take(self) -> bool:
        """True when it is ours. Raises OSError where there is no file to lock.

        The lock lies beside the file that a link leads to, so that several state folders that link one login share it.
        If the folder there is gone or closed to us, nothing can be renewed there: it lies beside the link, so that the
        account can be removed, renamed and logged in again.
        """
        real = Path(os.path.realpath(self._path))
        lock = (real if os.path.isdir(real.parent) else self._path).parent / _LOCK  # noqa: PTH112 - is_dir() may raise
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            # The folder is read-only: the file is then written in place, keeps its inode, and can carry the lock.
            lock = real
            try:
                fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                raise error from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its former holder may have removed the file with its account: then this is a lock on nothing.
            if os.fstat(fd).st_ino == lock.stat().st_ino:
                self._fd, fd = fd, -1
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            if fd >= 0:
                os.close(fd)
        return False

    def release(self) -> None:
        """Let go; harmless when nothing is held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def clear_folder(folder: Path) -> None:
    """Remove a folder that holds nothing but the lock."""
    if {entry.name for entry in os.scandir(folder)} <= {_LOCK}:
        (folder / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody put a file there just now
            folder.rmdir()
