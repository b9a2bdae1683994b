"""`aimux db`: what it shows, its copies, and an installation that moves to the other engine and back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aimux.accounts import FileVault
from aimux.cli.db import ELSEWHERE
from aimux.cli.main import cli
from aimux.storage import Database, archive
from aimux.storage.migrations import HEAD
from tests.accounts.disks import failing, read_only
from tests.control.live import running
from tests.storage.samples import fill

KEY, OTHER = "11" * 32, "22" * 32
CLAUDE, CHATGPT = ".credentials.json", "auth.json"
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in this process, on a state folder of its own."""

    def run(*arguments: str, expect: int = 0, **environ: str) -> Result:
        environ = {"AIMUX_STATE_DIR": str(tmp_path / "state"), "HOME": str(tmp_path)} | environ
        result = CliRunner(env=environ).invoke(cli, ["db", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == expect, result.output
        return result

    return run


ACCOUNTS = {"claude": {"second": {"disabled": True, "settings": {"weight": 2.0, "groups": ["ci"]}}}}


def in_postgresql(url: str, key: str = KEY) -> dict[str, str]:
    return {"AIMUX_DATABASE__URL": url, "AIMUX_DATABASE__ENCRYPTION_KEY": key}


def furnish(state_dir: Path) -> None:
    """Three rows in every table, three credentials and an account that is disabled and has settings."""

    async def run() -> None:
        database = await Database.open(None, state_dir)
        await fill(database, ELSEWHERE)
        await database.close()
        vault = FileVault(state_dir)
        await vault.write("claude", "default", CLAUDE, b'{"secret": "one"}', expect=None)
        await vault.write("claude", "second", CLAUDE, b'{"secret": "two"}', expect=None)
        await vault.write("chatgpt", "default", CHATGPT, b"\xffnot even text", expect=None)
        await vault.write("claude", "second", CLAUDE + ".spare", b"kept", expect=None)

    asyncio.run(run())
    state = {"version": 1, "accounts": ACCOUNTS}
    (state_dir / "accounts.json").write_text(json.dumps(state))


def credential_files(state_dir: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(state_dir)): path.read_bytes()
        for path in state_dir.glob("c*/**/*")
        if path.is_file() and path.name != ".aimux.lock"
    }


def rows_in(state_dir: Path) -> dict[str, list[Any]]:
    """Every row of every table that moves."""
    with contextlib.closing(sqlite3.connect(state_dir / "aimux.db")) as connection:
        names = [table.name for table in archive.tables(ELSEWHERE)]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}


def test_an_installation_moves_to_postgresql_and_back(run: Run, tmp_path: Path, postgresql_url: str) -> None:
    furnish(tmp_path / "state")
    there, back = tmp_path / "there", tmp_path / "back"
    said = run("export", str(there))
    assert "4 credential, 1 account state" in said.output
    assert "3 users" in said.output
    assert "keep it as safe" in said.output
    assert there.stat().st_mode & 0o777 == 0o600

    counts = json.loads(run("import", str(there), "--json", **in_postgresql(postgresql_url)).output)["counts"]
    assert (counts["users"], counts["tokens"], counts["credential"], counts["account_state"]) == (3, 3, 4, 1)
    run("export", str(back), **in_postgresql(postgresql_url))

    elsewhere = {"AIMUX_STATE_DIR": str(tmp_path / "new")}
    run("import", str(back), **elsewhere)
    assert credential_files(tmp_path / "new") == credential_files(tmp_path / "state")
    assert len(credential_files(tmp_path / "new")) == 4
    assert json.loads((tmp_path / "new" / "accounts.json").read_bytes())["accounts"] == ACCOUNTS
    assert rows_in(tmp_path / "state") == rows_in(tmp_path / "new")


def test_nothing_is_imported_into_one_that_holds_something(run: Run, tmp_path: Path, postgresql_url: str) -> None:
    furnish(tmp_path / "state")
    file = str(tmp_path / "archive")
    run("export", file)
    said = run("import", file, expect=1)
    assert "is not empty (" in said.output
    assert "3 users" in said.output
    taken = tmp_path / "taken"
    asyncio.run(FileVault(taken).write("claude", "second", CLAUDE, b"another", expect=None))
    said = run("import", file, expect=1, AIMUX_STATE_DIR=str(taken))
    assert "claude/second has another credential there: remove that account first" in said.output
    assert list(credential_files(taken)) == ["claude/second/.credentials.json"]


def test_an_import_that_failed_can_be_done_again(run: Run, tmp_path: Path, postgresql_url: str) -> None:
    furnish(tmp_path / "state")
    file = str(tmp_path / "archive")
    run("export", file)
    new = tmp_path / "new"
    asyncio.run(FileVault(new).write("claude", "default", CLAUDE, b'{"secret": "one"}', expect=None))
    run("import", file, AIMUX_STATE_DIR=str(new))
    assert credential_files(new) == credential_files(tmp_path / "state")


def test_export_says_what_is_in_the_way(run: Run, tmp_path: Path) -> None:
    (tmp_path / "archive").touch()
    assert "already exists: choose another name" in run("export", str(tmp_path / "archive"), expect=1).output
    assert "archive of aimux db export" in run("import", str(__file__), expect=1).output
    assert "can't read" in run("import", str(tmp_path / "nowhere"), expect=1).output


def test_export_says_what_a_move_would_lose(run: Run, tmp_path: Path) -> None:
    furnish(tmp_path / "state")
    (tmp_path / "state" / "ledger").mkdir()
    (tmp_path / "state" / "ledger" / "0.rows").write_bytes(b"[]\n[]\n")
    said = run("export", str(tmp_path / "killed")).output
    assert f"2 requests in {tmp_path}/state/ledger never reached the database, and the export lacks them" in said
    (tmp_path / "runs").mkdir()
    with running(tmp_path / "runs", listen="127.0.0.1:0") as live:
        listen = live.app.addresses[0].removeprefix("http://")
        said = run("export", str(tmp_path / "early"), AIMUX_LISTEN=listen).output
    assert "aimux runs: what it does from now on is not in the export" in said


# --- status, migrate, backup -----------------------------------------------------------------------------------------


def test_status_of_none_and_of_one(run: Run, tmp_path: Path) -> None:
    said = run("status").output
    assert f"{tmp_path}/state/aimux.db (SQLite" in said
    assert "no tables yet" in said
    assert not (tmp_path / "state").exists()
    furnish(tmp_path / "state")
    said = run("status").output
    assert "damage   none" in said
    assert "users" in said
    shown: dict[str, Any] = json.loads(run("status", "--json").output)
    assert (shown["engine"], shown["schema"], shown["wanted"], shown["damage"]) == ("sqlite", HEAD, HEAD, "")
    assert (shown["tables"]["users"], shown["tables"]["tokens"]) == (3, 3)
    assert shown["size"] > 0


def test_status_of_postgresql_shows_which_keys_are_in_use(run: Run, tmp_path: Path, postgresql_url: str) -> None:
    furnish(tmp_path / "state")
    assert "no tables yet" in run("status", **in_postgresql(postgresql_url)).output
    run("export", str(tmp_path / "archive"))
    run("import", str(tmp_path / "archive"), **in_postgresql(postgresql_url))
    said = run("status", **in_postgresql(postgresql_url)).output
    assert "encrypts 4 credential files" in said
    assert "not configured" not in said
    assert "which is not configured!" in run("status", **in_postgresql(postgresql_url, OTHER)).output
    old = {**in_postgresql(postgresql_url, OTHER), "AIMUX_DATABASE__OLD_ENCRYPTION_KEYS": json.dumps([KEY])}
    assert "(an old one) encrypts 4" in run("status", **old).output
    assert KEY not in said + json.dumps(json.loads(run("status", "--json", **old).output))


def test_what_can_t_be_used_exits_with_1(run: Run, tmp_path: Path) -> None:
    furnish(tmp_path / "state")
    path = tmp_path / "state" / "aimux.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert "newer than this aimux" in run("status", expect=1).output
    assert "install the aimux" in run("migrate", expect=1).output
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + bytes(8192) + whole[16384:])
    assert "damage" in run("status", expect=1).output
    path.write_bytes(b"nothing like a database, but long enough to look like one to a glance" * 100)
    assert "is damaged" in run("status", expect=1).output
    unreachable = in_postgresql("postgresql://aimux:a-pass-word@127.0.0.1:1/x")
    said = run("status", expect=1, **unreachable).output
    assert "can't be reached" in said
    assert "a-pass-word" not in said


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_migrate_makes_it_and_says_so(run: Run, request: pytest.FixtureRequest, engine: str) -> None:
    environ = in_postgresql(request.getfixturevalue("postgresql_url")) if engine == "postgresql" else {}
    assert f"schema none → {HEAD}" in run("migrate", **environ).output
    assert f"has schema {HEAD} already" in run("migrate", **environ).output
    assert json.loads(run("migrate", "--json", **environ).output)["to"] == HEAD


def test_a_backup_is_a_database_that_can_be_put_in_place(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.db"
    assert "no database yet" in run("backup", str(copy), expect=1).output
    furnish(tmp_path / "state")
    assert "Credentials are not in it" in run("backup", str(copy)).output
    assert copy.stat().st_mode & 0o777 == 0o600
    assert "already exists" in run("backup", str(copy), expect=1).output
    assert "can't write" in run("backup", str(tmp_path / "nowhere" / "copy.db"), expect=1).output
    with monkeypatch.context() as patch:  # a disk that is mounted read-only
        patch.setattr(os, "open", read_only())
        patch.setattr(os, "unlink", failing(errno.EROFS))
        assert "can't write" in run("backup", str(tmp_path / "readonly.db"), expect=1).output
    told = json.loads(run("backup", str(tmp_path / "other.db"), "--json").output)
    assert told["size"] == (tmp_path / "other.db").stat().st_size > 0
    (tmp_path / "again").mkdir()
    copy.rename(tmp_path / "again" / "aimux.db")
    shown = json.loads(run("status", "--json", AIMUX_STATE_DIR=str(tmp_path / "again")).output)
    assert (shown["damage"], shown["tables"]["users"]) == ("", 3)
    said = run("backup", str(copy), expect=1, **in_postgresql("postgresql://h/d")).output
    assert "pg_dump" in said
