"""What the doctor says of the database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from aimux.accounts.database_vault import DatabaseVault
from aimux.cli.doctor import examine
from aimux.cli.doctor.database import of_database
from aimux.cli.doctor.finding import Finding
from aimux.plugin import loader
from aimux.storage import Database
from aimux.storage.migrations import HEAD
from tests.accounts.disks import read_only
from tests.cli.doctor.support import PLUGINS, by_subject, config_of
from tests.postgresql import Server, name_of

KEY, OTHER = "11" * 32, "22" * 32


async def looked(state_dir: Path, **fields: Any) -> tuple[Finding, bool]:
    [found], usable = await of_database(config_of(state_dir, **fields))
    return found, usable


@pytest.fixture
async def file(state_dir: Path) -> Path:
    database = await Database.open(None, state_dir)
    async with database.write("topic"):
        pass
    await database.close()
    return state_dir / "aimux.db"


async def test_one_that_is_not_there_yet_and_one_that_is_whole(state_dir: Path) -> None:
    found, _ = await looked(state_dir)
    assert (found.status, found.message) == ("ok", "there is none yet; aimux makes its tables")
    assert list(state_dir.iterdir()) == [], "looking makes nothing"
    database = await Database.open(None, state_dir)
    async with database.read():
        pass
    await database.close()
    found, usable = await looked(state_dir)
    assert (found.status, usable) == ("ok", True)
    assert f"SQLite, is whole and has schema {HEAD}" in found.message


async def test_what_keeps_it_from_being_used(file: Path) -> None:
    file.chmod(0o644)
    found, usable = await looked(file.parent)
    assert (found.status, found.remedy, usable) == ("warning", f"chmod 600 {file}", True)
    file.chmod(0o600)
    for version, status, words in (("9999", "error", "newer aimux"), ("0000", "warning", "the next start migrates")):
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        found, usable = await looked(file.parent)
        assert (found.status, usable) == (status, False)
        assert words in found.message
    file.write_bytes(b"nothing like a database" * 100)
    found, usable = await looked(file.parent)
    assert (found.status, usable) == ("error", False)
    assert "is damaged" in found.message


async def test_a_disk_that_is_read_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", read_only())
    found, _ = await looked(file.parent)
    assert (found.status, found.remedy) == ("error", "mount it read-write")


async def test_a_server_and_its_keys(state_dir: Path, postgresql_url: str) -> None:
    async def look(key: str, url: str = postgresql_url) -> tuple[Finding, bool]:
        return await looked(state_dir, database={"url": url, "encryption_key": key})

    assert "can be reached and is empty" in (await look(KEY))[0].message
    database = await Database.open(postgresql_url, state_dir)
    await DatabaseVault(database, [bytes.fromhex(KEY)]).write("fake", "a", "x.json", b"{}", expect=None)
    await database.close()
    found, usable = await look(KEY)
    assert (found.status, usable) == ("ok", True)
    found, usable = await look(OTHER)
    assert (found.status, usable) == ("error", True)
    assert "a key that is not configured encrypts 1 credential file" in found.message
    found, usable = await look(KEY, "postgresql://u:a-pass-word@127.0.0.1:1/x")
    assert (found.status, usable) == ("error", False)
    assert "can't be reached" in found.message
    assert "a-pass-word" not in str(found)


async def test_a_server_that_takes_no_writes(state_dir: Path, postgresql: Server, postgresql_url: str) -> None:
    name = name_of(postgresql_url)
    guest = postgresql_url.replace("aimux@", f"guest_{name}@")

    async def told(url: str) -> Finding:
        return (await looked(state_dir, database={"url": url, "encryption_key": KEY}))[0]

    postgresql.execute(f"CREATE ROLE guest_{name} LOGIN")
    postgresql.execute("REVOKE CREATE ON SCHEMA public FROM public", name)
    try:
        finding = await told(guest)
        assert (finding.status, finding.remedy[:24]) == ("error", "make the user its owner:")
        assert (await told(postgresql_url)).status == "ok"
        postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        finding = await told(postgresql_url)
        assert (finding.status, "is read-only, as a standby is" in finding.message) == ("error", True)
    finally:
        postgresql.execute(f"DROP ROLE guest_{name}")


async def test_a_server_that_is_away_is_told_once(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "load_plugins", lambda: PLUGINS)
    path = tmp_path / "config.yaml"
    path.write_text(
        f"state_dir: {state_dir}\nlisten: 127.0.0.1:0\nproviders: [fake]\n"
        f"database: {{url: 'postgresql://u@127.0.0.1:1/x', encryption_key: '{KEY}'}}\n"
    )
    found = await examine(path, offline=True)
    assert by_subject(found)["database"].status == "error"
    assert [finding for finding in found if "account" in finding.subject] == []
