"""The database as a start would find it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from aimux import atomic
from aimux.cli.doctor.finding import Finding
from aimux.documents import document_path
from aimux.storage import StorageError
from aimux.storage.status import status

if TYPE_CHECKING:
    from aimux.config import Config
    from aimux.storage.status import Status

SUBJECT = "database"


async def of_database(config: Config) -> tuple[list[Finding], bool]:
    """What was found, and whether its content can be read as it is. Nothing is migrated or written."""
    try:
        found = await status(config.database.address, config.state_dir)
    except StorageError as error:
        return [Finding("error", SUBJECT, error.reason, error.remedy)], False
    if (refused := _of_server(found)) is not None:
        return [refused], found.schema == found.wanted
    if found.schema is None:
        where = "there is none yet" if found.engine == "sqlite" else f"{found.where} can be reached and is empty"
        return [Finding("ok", SUBJECT, f"{where}; aimux makes its tables")], False
    problems = _problems(found, config)
    if problems:
        return problems, found.schema == found.wanted and not found.damage
    kind = "SQLite" if found.engine == "sqlite" else f"PostgreSQL {found.server}"
    return [Finding("ok", SUBJECT, f"{found.where}, {kind}, is whole and has schema {found.schema}")], True


def _of_server(found: Status) -> Finding | None:
    """What keeps a PostgreSQL server from taking what aimux writes."""
    if found.read_only:
        remedy = "let database.url lead to the primary, or name all hosts: aimux takes the one that takes writes"
        return Finding("error", SUBJECT, f"{found.where} is read-only, as a standby is", remedy)
    if not found.may_create and found.schema != found.wanted:
        remedy = "make the user its owner: ALTER DATABASE NAME OWNER TO USER"
        return Finding("error", SUBJECT, f"{found.where} lets the user make no tables, which aimux has to", remedy)
    return None


def _problems(found: Status, config: Config) -> list[Finding]:
    problems = []
    assert found.schema is not None
    if found.damage:
        remedy = f"put a copy in its place (aimux db backup makes them); {document_path('docs/database.md')} says more"
        problems.append(Finding("error", SUBJECT, f"{found.where} is damaged: {found.damage}", remedy))
    if found.schema > found.wanted:
        message = f"{found.where} was written by a newer aimux (schema {found.schema}, this knows {found.wanted})"
        problems.append(Finding("error", SUBJECT, message, "install the aimux that it was last used with"))
    elif found.schema < found.wanted:
        message = f"{found.where} has schema {found.schema}: the next start migrates it to {found.wanted}"
        problems.append(Finding("warning", SUBJECT, message, "stop the nodes of an older version before"))
    if found.engine == "sqlite":
        problems += _of_file(Path(found.where))
    return problems + _of_keys(found, config)


def _of_file(path: Path) -> list[Finding]:
    obstacle = atomic.obstacle(path.parent)
    if obstacle is not None and obstacle.errno == errno.EROFS:
        return [Finding("error", SUBJECT, f"{path} is on a file system that is read-only", "mount it read-write")]
    if not os.access(path, os.R_OK | os.W_OK):
        remedy = f"run aimux and its doctor as user id {path.stat().st_uid}, or chown the file"
        return [Finding("error", SUBJECT, f"user id {os.geteuid()} can't read and write {path}", remedy)]
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return [Finding("warning", SUBJECT, f"{path} is open to other users", f"chmod 600 {path}")]
    return []


def _of_keys(found: Status, config: Config) -> list[Finding]:
    from aimux.accounts.sealing import key_id

    known = set(map(key_id, config.database.keys))
    lost = sum(count for key, count in found.keys.items() if key not in known)
    if not lost:
        return []
    message = f"a key that is not configured encrypts {lost} credential file{'s' * (lost != 1)}"
    return [Finding("error", SUBJECT, message, "add it to database.old_encryption_keys, or log in again")]
