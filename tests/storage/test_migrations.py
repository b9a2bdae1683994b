"""From one schema to the next."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import JSON, BigInteger, Connection, DateTime, select

from aimux import __version__
from aimux.people import links
from aimux.storage import Database, StorageError, migrations, postgresql_hosts
from aimux.storage.schema import METADATA
from aimux.storage.schema.limits import limit_shares
from tests.postgresql import Server, name_of
from tests.storage.conftest import Open, keys, put, whole

NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "9998", "{head}"


def upgrade():
    op.add_column("meta", sa.Column("note", sa.Text))
    {more}
"""
NOW = migrations.HEAD


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is one revision further: its file."""
    scripts = tmp_path / "scripts"
    shutil.copytree(migrations.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrations, "SCRIPTS", scripts)
    monkeypatch.setattr(migrations, "HEAD", "9998")
    file = scripts / "versions" / "9998_next.py"
    file.write_text(NEXT.format(head=NOW, more=""))
    return file


async def test_the_migrations_lead_to_the_metadata(opened: Open) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def empty(connection: Connection) -> None:
        METADATA.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")

    database = await opened()
    made: list[set[tuple[str, str]]] = []
    for way in ("made at once", "migrated"):
        async with database.write() as connection:
            if way == "migrated":
                await whole(connection).run_sync(empty)
                await whole(connection).run_sync(migrations.upgrade, database.name)
            found = await whole(connection).run_sync(migrations.schema_of, "")
            differences = await whole(connection).run_sync(
                lambda c: compare_metadata(
                    MigrationContext.configure(c, opts={"compare_server_default": True}), METADATA
                )
            )
            # Alembic compares no WITHOUT ROWID, and no condition of an index.
            described = await connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
                if connection.dialect.name == "sqlite"
                else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
            )
            made.append({(name, " ".join(sorted(re.findall(r"[^\s,]+", sql)))) for name, sql in described})
        assert (found, differences) == ((migrations.HEAD, __version__), []), way
    assert made[0] == made[1]


async def test_a_database_of_the_first_schema_gets_what_came_after(opened: Open) -> None:
    def first(connection: Connection) -> None:
        connection.exec_driver_sql("DROP TABLE sign_in_links")
        connection.exec_driver_sql("ALTER TABLE limit_shares RENAME COLUMN gone TO reserved")
        connection.exec_driver_sql("INSERT INTO limit_shares VALUES ('x', 1, 'node', 500, 300, 40, 2)")
        connection.exec_driver_sql("ALTER TABLE deposits DROP COLUMN due")
        connection.exec_driver_sql("ALTER TABLE usage_keys DROP COLUMN asked")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
        connection.exec_driver_sql("UPDATE migrations SET version = '0001'")

    database = await opened()
    await put(database, "a")
    async with database.write() as connection:
        await whole(connection).run_sync(first)
    upgraded = await opened()
    code = await links.make(upgraded, "ann", "t1")
    assert await links.use(upgraded, code) == ("ann", "t1")
    assert await keys(upgraded) == ["a"]
    async with upgraded.read() as connection:
        [row] = (await connection.execute(select(limit_shares))).mappings()
    expected = {"counter": "x", "start": 1, "node": "node", "share": 500, "used": 300, "gone": 340, "heard_at": 2}
    assert dict(row) == expected, "what a node had told counts on"


def test_columns_are_of_the_common_kinds() -> None:
    for column in (column for table in METADATA.tables.values() for column in table.columns):
        if isinstance(column.type, JSON) and column.nullable:
            assert column.type.none_as_null, f"{column}: use base.Json, or None becomes the JSON value null"
        assert not isinstance(column.type, DateTime), f"{column}: use base.moment"
        if column.name.endswith("_at"):
            assert isinstance(column.type, BigInteger), f"{column}: use base.moment"


def test_the_head_is_the_last_revision() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(migrations.SCRIPTS))
    assert scripts.get_current_head() == migrations.HEAD
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True), "versions are compared as text"


def test_what_an_older_node_writes_fits_the_newer_schema() -> None:
    """Nodes are replaced one by one: until the last is, an older one writes, and its requests must not be lost."""
    added = 0
    for file in sorted((migrations.SCRIPTS / "versions").glob("[0-9]*.py")):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name == "op.add_column":
                column = call.args[1]
                assert isinstance(column, ast.Call)
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in column.keywords}
                fits = given.get("nullable") == "True" or "server_default" in given
                assert fits, f"{file.name}, line {call.lineno}: say nullable=True, or give it a server_default"
                added += 1
            elif file.stem > "0004_shares":  # which came before the first release
                assert name != "op.drop_column", f"{file.name}, line {call.lineno}: older nodes write it"
                assert "new_column_name" not in {keyword.arg for keyword in call.keywords}, f"{file.name}: the same"
    assert added


async def test_an_older_database_is_migrated_once_by_whoever_comes_first(
    opened: Open, database_url: str | None, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    await put(await opened(), "a")
    request.getfixturevalue("next_version")
    nodes = await asyncio.gather(*(opened() for _ in range(3)))
    for node in nodes:
        async with node.read() as connection:
            assert (await connection.exec_driver_sql("SELECT note FROM meta WHERE key = 'a'")).all() == [(None,)]
            found = await connection.exec_driver_sql("SELECT version_num FROM alembic_version")
            assert found.scalars().all() == ["9998"]
    # SQLite's nodes are the one server and the commands beside it.
    assert caplog.text.count("is migrated while nodes use it: restart") == (database_url is not None)


async def test_a_migration_may_take_longer_than_any_other_command(
    postgresql: Server,
    postgresql_url: str,
    state_dir: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an index on millions of rows does, and another node waits for it: whatever the database's own limits are."""
    await (await Database.open(postgresql_url, state_dir)).close()
    for limit in ("statement_timeout", "lock_timeout"):
        postgresql.execute(f"ALTER DATABASE {name_of(postgresql_url)} SET {limit} = '500ms'")
    monkeypatch.setattr(postgresql_hosts, "COMMAND_TIMEOUT", 0.5)
    more = "op.execute('SELECT pg_sleep(1)')"
    request.getfixturevalue("next_version").write_text(NEXT.format(head=NOW, more=more))
    nodes = await asyncio.gather(*(Database.open(postgresql_url, state_dir) for _ in range(2)))
    for node in nodes:
        async with node.read() as connection:
            assert (await connection.exec_driver_sql("SELECT version_num FROM alembic_version")).scalar_one() == "9998"
        await node.close()


@pytest.mark.parametrize("fault", ["raise RuntimeError('no')", "op.execute('UPDATE nowhere SET x = 1')"])
async def test_a_migration_that_fails_changes_nothing(opened: Open, request: pytest.FixtureRequest, fault: str) -> None:
    database = await opened()
    await put(database, "a")
    request.getfixturevalue("next_version").write_text(NEXT.format(head=NOW, more=fault))
    with pytest.raises((RuntimeError, StorageError)):
        await opened()
    async with database.read() as connection:
        row = (await connection.exec_driver_sql("SELECT * FROM meta WHERE key = 'a'")).one()
        assert tuple(row) == ("a", "1")
        assert (await connection.exec_driver_sql("SELECT version_num FROM alembic_version")).scalar_one() == NOW


async def test_a_version_that_no_migration_leads_from_is_refused(opened: Open) -> None:
    async with (await opened()).write() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(StorageError, match=f"can't be migrated to schema {NOW}"):
        await opened()


async def test_sqlite_is_copied_before(state_dir: Path, request: pytest.FixtureRequest) -> None:
    database = await Database.open(None, state_dir)
    await put(database, "a")
    request.getfixturevalue("next_version")
    await (await Database.open(None, state_dir)).close()  # while the other one still uses it
    await database.close()
    copy = state_dir / "aimux.db.before-9998"
    assert copy.stat().st_mode & 0o777 == 0o600
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(NOW,)]
        assert connection.execute("SELECT key, value FROM meta WHERE key = 'a'").fetchall() == [("a", "1")]
    # Put in its place, it is the old database again, and is migrated again.
    for name in ("aimux.db-wal", "aimux.db-shm"):
        (state_dir / name).unlink(missing_ok=True)
    copy.replace(state_dir / "aimux.db")
    again = await Database.open(None, state_dir)
    assert await keys(again) == ["a"]
    await again.close()
