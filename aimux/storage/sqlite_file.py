"""SQLite's file without SQLAlchemy: whether it is there, intact, writable, and of which version. Blocking."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimux import atomic
from aimux.storage.errors import StorageError, Unusable
from aimux.storage.migrations import MIGRATED, Schema, sqlite_statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 10.0
"""How long to wait for another writer, in seconds."""
CHECK_FOR = 0.05
"""How long to search for damage at a start, in seconds: enough for ten thousand users, and a tenth of a start."""
_NO_ROOM = {
    sqlite3.SQLITE_FULL,
    # The index beside the file, which processes share, can't be made.
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
_NOT_LOCAL = {
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_PROTOCOL,
}
"""Locks, or memory that is shared by way of a file, are not to be had: so it is on many a network's file system, and on
what a virtual machine passes on of its host's."""
_READ_ONLY = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
}
"""SQLite's errors for a disk that is read-only or full, and for a process that may open no more files."""
_PERMISSION = {errno.EACCES: "give the user that runs aimux access to it", errno.EROFS: "mount it read-write"}


@dataclass(frozen=True, slots=True)
class Found:
    """What a file holds; `changes`: how often each topic was written."""

    schema: Schema = field(default_factory=Schema)
    changes: dict[str, int] = field(default_factory=dict)


def connect(path: Path, *, timeout: float = BUSY_TIMEOUT, locks: bool = True) -> sqlite3.Connection:
    """A plain connection, for one thread at a time, that begins no transactions by itself. Makes no file. Raises
    sqlite3.Error."""
    address = f"{path.absolute().as_uri()}?mode=rw{'' if locks else '&vfs=unix-none'}"
    return sqlite3.connect(address, timeout=timeout, uri=True, isolation_level=None, check_same_thread=False)


def there(path: Path) -> bool:
    """Whether there is such a file. Raises StorageError if its folder can't be read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _closed(path, error) from None
    return True


def _closed(path: Path, error: OSError) -> StorageError:
    return StorageError(f"can't open {path} ({error.strerror})", remedy=_PERMISSION.get(error.errno or 0, ""))


def make(path: Path) -> None:
    """Make the file (0600, in a folder with 0700) and its tables if they do not exist, in WAL mode.

    With a plain connection: SQLAlchemy would need longer for its fifty statements. Raises StorageError.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Only if there is none: closing a file drops all locks that this process has on it, and without them the next
        # program that closes the database believes that it is the last one, and removes the WAL.
        with contextlib.suppress(FileExistsError):
            # SQLite gives the files beside it the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _closed(path, error) from None
    try:
        with contextlib.closing(connect(path)) as connection:
            if _empty(connection):
                # The transaction is the lock: another process waits for it, and then finds nothing left to do.
                connection.execute("BEGIN IMMEDIATE")
                for statement in sqlite_statements() if _empty(connection) else ():
                    connection.execute(statement)
                connection.execute("COMMIT")
            _write_ahead(connection)  # only now: what goes to the WAL is written, and synced, twice
    except sqlite3.Error as error:
        raise explain(path, error) from None


def _empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def ahead_of(path: Path) -> Path:
    """Where SQLite keeps what was written last: beside the file itself, if that is a link."""
    real = path.resolve()
    return real.with_name(f"{real.name}-wal")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for reading; it needs no room on the disk, nor one that takes writes, unless somebody has the file
    open. Raises sqlite3.Error."""
    connection = connect(path)
    try:
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            ahead = ahead_of(path)
            cramped = error.sqlite_errorcode in _NO_ROOM or _obstacle(path) == errno.EROFS
            if not cramped or (ahead.exists() and ahead.stat().st_size):
                raise
            connection.close()
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None)
        yield connection
    finally:
        connection.close()


def inspect(path: Path) -> Found:
    """Check that the file is an intact database of ours. Raises StorageError."""
    _tighten(path)
    try:
        with reading(path) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                if 0 < path.stat().st_size < 512:  # which SQLite would overwrite
                    raise damaged(path, "it is too short")
                return Found()
            if "alembic_version" not in tables:
                raise StorageError(f"{path} is a database, but not aimux's", remedy="move it away")
            if damage := check(connection, CHECK_FOR):
                raise damaged(path, damage)
            (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            changes = {}
            if "changes" in tables:  # not from a newer schema
                changes = dict(connection.execute("SELECT topic, version FROM changes").fetchall())
            by = None
            if "migrations" in tables:
                row = connection.execute("SELECT aimux FROM migrations WHERE version = ?", (version,)).fetchone()
                by = row[0] if row else None
            return Found(Schema(version, by), changes)
    except sqlite3.Error as error:
        raise explain(path, error) from None


def try_to_write(path: Path) -> None:
    """Find out at the start whether it can be written, instead of at the first change. Raises StorageError."""
    try:
        with contextlib.closing(connect(path)) as connection:
            (opened,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA user_version = {(opened + 1) % 2**31}")  # the smallest write there is
    except sqlite3.Error as error:
        explained = explain(path, error)
        # With a full disk everybody can still be served.
        if error.sqlite_errorcode not in _NO_ROOM:
            raise explained from None
        log.error("%s; until then nobody can be added or changed, and no usage is recorded", explained)


def rows(path: Path, queries: Sequence[str]) -> list[list[Mapping[str, Any]]]:
    """The rows of each query, by their columns' names, all of one state. Raises StorageError."""
    try:
        with reading(path) as connection:
            connection.row_factory = _by_name
            connection.execute("BEGIN")
            return [connection.execute(query).fetchall() for query in queries]
    except sqlite3.Error as error:
        raise explain(path, error) from None


def _by_name(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {about[0]: value for about, value in zip(cursor.description, row, strict=True)}


def check(connection: sqlite3.Connection, seconds: float | None = None) -> str:
    """What is damaged, in SQLite's words; "" if nothing is, as far as could be checked in that time."""
    if seconds is not None:
        end = time.monotonic() + seconds
        connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return ""
    finally:
        connection.set_progress_handler(None, 0)
    return "" if found == "ok" else str(found)


def copy(path: Path, target: Path) -> None:
    """Make a whole copy of the file as it is now, while others use it; 0600, and it appears once it is complete.

    Raises StorageError.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(fd, 0o600)  # one that lies there may be open to others
            with contextlib.ExitStack() as stack:
                # Reading holds this one state: without it the copy begins anew each time that somebody has written, so
                # that a large one never ends, and waits for ever where somebody has locked the file.
                try:
                    source = stack.enter_context(reading(path))
                    source.execute("BEGIN")
                    source.execute("SELECT 1 FROM sqlite_master").fetchone()
                except sqlite3.Error as error:
                    raise explain(path, error) from None
                # Copies go to network shares, which may have no locks: Python waits for them for ever. Nobody else uses
                # this file.
                sink = stack.enter_context(contextlib.closing(connect(part, locks=False)))
                sink.execute("PRAGMA locking_mode = EXCLUSIVE")  # in WAL mode, as it comes, it asks for locks otherwise
                source.backup(sink)
                sink.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
            os.fsync(fd)
        finally:
            os.close(fd)
        part.rename(target)
    except sqlite3.Error as error:
        raise explain(part, error) from None
    except OSError as error:
        raise StorageError(f"can't write {target} ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):  # on a disk that takes no writes, what is wrong has been said
            part.unlink(missing_ok=True)


def damaged(path: Path, how: str) -> StorageError:
    """The error for a file that is not an intact database."""
    return Unusable(
        f"{path} is damaged ({' '.join(how.split())}); it is left as it is",
        remedy="put a copy in its place (`aimux db backup` makes them), or save what can still be read: "
        f"sqlite3 {path} .recover",
    )


def explain(path: Path, error: BaseException) -> StorageError:
    """Words for one of SQLite's errors."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _NOT_LOCAL:
        remedy = "let state_dir be on a local disk, or set database.url (PostgreSQL)"
        return Unusable(f"{path} is on a file system without the locks and shared memory that it needs", remedy=remedy)
    code = sqlite3.SQLITE_FULL if code in _NO_ROOM else code & 0xFF  # the rest of the code is detail
    match code, _obstacle(path) if code in _READ_ONLY else 0:
        case _, errno.EROFS:
            return Unusable(f"the disk of {path} is read-only", remedy=_PERMISSION[errno.EROFS])
        case sqlite3.SQLITE_CANTOPEN, errno.ENOSPC:
            return Unusable(f"the disk of {path} takes no new file", remedy="free some space, or inodes (`df -i`)")
        case sqlite3.SQLITE_CANTOPEN, errno.EMFILE | errno.ENFILE:
            remedy = "raise LimitNOFILE= or `ulimit -n`"
            return Unusable(f"{path} can't be opened, for there are no file descriptors left", remedy=remedy)
    match code:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, str(error))
        case sqlite3.SQLITE_FULL:
            return Unusable(f"the disk of {path} is full", remedy="free some space; nothing is lost")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unusable(f"{path} is locked by another program", remedy=f"end it (fuser {path} shows which)")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            reason = f"{path} can't be written" if there(path) else f"{path} is not there"
            return Unusable(reason, remedy=f"let the user that runs aimux write it and its folder {path.parent}")
        case sqlite3.SQLITE_IOERR:
            return Unusable(f"{path} can't be read or written ({error})", remedy="look at the disk")
        case sqlite3.SQLITE_ERROR:  # a table or column that is not there: whatever was to be written
            return Unusable(f"{path}: {error}", remedy=MIGRATED)
    return StorageError(f"{path}: {error}")


def _obstacle(path: Path) -> int:
    """The number of the error that keeps files from being made beside it, 0 if nothing does."""
    obstacle = atomic.obstacle(path.resolve().parent)
    return (obstacle.errno or 0) if obstacle is not None else 0


def _write_ahead(connection: sqlite3.Connection) -> None:
    """If two do this in a new file at once, SQLite refuses one of them without waiting for its busy timeout."""
    end = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _tighten(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        try:
            path.chmod(0o600)
        except OSError:
            log.warning("%s can be read by others, and only its owner can change that", path)
        else:
            log.warning("%s could be read by others; it is 0600 now", path)
