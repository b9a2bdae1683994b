"""Where rows wait for the database: append-only files in the state folder, one for each process.

A killed process leaves its file; the next one to start (or one that still runs) takes it over. Files are locked by
their owners, so that nobody takes one that is in use.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import uuid
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from aimux.metering.rows import decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aimux.metering.rows import Values

log = logging.getLogger("aimux.metering")

FOLDER, SUFFIX = "ledger", ".rows"
"""Where the files are in the state folder, and how their names end."""


class SpillFull(Exception):
    """No more fits below the limit."""


class _File:
    """One file, locked. `start`: where the rows begin that are not in the database. `told`: where the other process's
    rows end that `Ledger.on_left` knows. `complained`: up to where it is in the log what can't be read."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.start = 0
        self.told = self.complained = 0
        self.end = os.fstat(fd).st_size

    def read(self, most: int) -> tuple[list[Values], int]:
        """Some rows from `start` on, and their end."""
        data = os.pread(self.fd, min(most, self.end - self.start), self.start)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:  # half a line, before a crash; or what a failing disk made of many
            return [], self.end if len(data) < most else self.start + most
        lines, end = whole.splitlines(), self.start + len(whole)
        rows = [row for line in lines if (row := decode(line)) is not None]
        if len(rows) < len(lines) and self.complained < end:  # it may be read again
            self.complained = end
            log.error("%s: lines that can't be read are left out: %d", self.path, len(lines) - len(rows))
        return rows, end

    def remove(self) -> None:
        """If the file system is read-only now, it stays, and `Spill.adopt` will find it again."""
        with suppress(OSError):
            self.path.unlink()
        os.close(self.fd)


def _flush(fd: int) -> None:
    if sys.platform == "darwin":
        os.fsync(fd)
    else:
        os.fdatasync(fd)


class Spill:
    """Rows that wait. Its methods do file I/O: call them in threads; any number of threads may."""

    READ = 1024 * 1024
    """Bytes read at a time, about 2,500 rows."""

    def __init__(self, folder: Path, limit: int) -> None:
        """`limit`: bytes in all files together."""
        self._folder = folder
        self.limit = limit
        self._own: _File | None = None
        self._files: list[_File] = []
        self._read_to = 0
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(file.end - file.start for file in self._files)

    def append(self, rows: Sequence[Values]) -> None:
        """Add rows; they are on the disk when this returns. Raises SpillFull (then none was added), OSError."""
        data = b"".join(map(encode, rows))
        with self._lock:
            self._append(data)

    def _append(self, data: bytes) -> None:
        if self.size + len(data) > self.limit:
            raise SpillFull
        file = self._own
        if file is None:
            while (file := _open(self._folder / f"{uuid.uuid4().hex}{SUFFIX}", create=True)) is None:
                pass  # another process saw it before it was locked, and took it for an abandoned one
            self._own = file
            self._files.append(file)
        try:
            _write(file.fd, data)
            _flush(file.fd)
        except OSError:
            try:
                os.ftruncate(file.fd, file.end)
            except OSError:  # what comes after half a line would be lost with it
                self._leave(file)
            if not file.end:  # otherwise nobody would ever read and remove it
                self._files.remove(file)
                self._own = None
                file.remove()
            raise
        file.end += len(data)

    def _leave(self, file: _File) -> None:
        """Put nothing more into our own file. Whoever counts usage knows what is in it."""
        file.told = file.end
        self._own = None

    def read(self) -> list[Values]:
        """The first rows that wait; call `written` once they are in the database."""
        with self._lock:
            while self._files:
                file = self._files[0]
                try:
                    rows, self._read_to = file.read(self.READ)
                except OSError:  # the others have their turn first, the next time
                    self._files.append(self._files.pop(0))
                    if file is self._own:
                        self._leave(file)
                    raise
                if rows:
                    return rows
                self._written()
            return []

    def untold(self) -> bool:
        """Whether the rows read last were left by another process, and `told` was not called for them."""
        with self._lock:
            file = self._files[0]
            return file is not self._own and file.told < self._read_to

    def told(self) -> None:
        """The rows read last were passed on to whoever counts usage."""
        with self._lock:
            self._files[0].told = self._read_to

    def written(self) -> None:
        """The rows read last are in the database."""
        with self._lock:
            self._written()

    def _written(self) -> None:
        file = self._files[0]
        file.start = self._read_to
        if file.start >= file.end:
            self._files.pop(0)
            file.remove()
            if file is self._own:
                self._own = None

    def adopt(self) -> None:
        """Take over what other processes left. Raises OSError where one of the files can't be taken, after the others
        were."""
        problem: OSError | None = None
        with self._lock:
            mine = {file.path for file in self._files}
            for path in sorted(self._folder.glob(f"*{SUFFIX}")):
                try:
                    if path in mine or (file := _open(path)) is None:
                        continue
                except OSError as error:
                    error.filename = str(path)
                    problem = error
                    continue
                if file.end:
                    self._files.append(file)
                else:  # its process ended before it wrote: otherwise nobody would ever read and remove it
                    file.remove()
        if problem is not None:
            raise problem

    def close(self) -> None:
        """Close the files; what waits stays in them."""
        with self._lock:
            for file in self._files:
                os.close(file.fd)
            self._files.clear()
            self._own = None


def _open(path: Path, *, create: bool = False) -> _File | None:
    """None if another process has it."""
    if create:
        for folder in (path.parent.parent, path.parent):  # `parents` alone would open the state folder to others
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return None
        if create:
            path.unlink()
        raise
    if not os.fstat(fd).st_nlink:  # it was written and removed in between
        os.close(fd)
        return None
    return _File(path, fd)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
