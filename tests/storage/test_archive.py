"""Every row of every table, whatever its room, comes through an archive and the other engine."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from aimux.storage import Database, StorageError, archive, migrations
from aimux.storage.schema import METADATA
from aimux.storage.schema.people import users
from tests.storage.samples import fill, rows_of, sample


@pytest.fixture
async def pair(postgresql_url: str, tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    """One of each engine, empty."""
    both = [await Database.open(url, tmp_path / "state") for url in (None, postgresql_url)]
    yield both[0], both[1]
    for database in both:
        await database.close()


async def content(database: Database) -> list[tuple[str, Any]]:
    return [line async for line in archive.rows(database)]


@pytest.mark.parametrize("direction", ["to PostgreSQL", "to SQLite"])
async def test_every_row_of_every_table_arrives(
    pair: tuple[Database, Database], tmp_path: Path, direction: str
) -> None:
    source, target = pair if direction == "to PostgreSQL" else pair[::-1]
    filled = await fill(source)
    with archive.writing(tmp_path / "archive", source.name) as writer:
        async for kind, row in archive.rows(source):
            writer.add(kind, row)
    lines = [(kind, row) for kind, row in archive.read(tmp_path / "archive") if kind != archive.TOPIC]
    counts = await archive.put_rows(target, lines, ["people", "ledger"])

    assert counts == {table.name: 3 for table in METADATA.tables.values() if not table.info.get("local")}
    async with target.read() as connection:
        for name, expected in filled.items():
            table = METADATA.tables[name]
            found = await connection.execute(select(table).order_by(*table.primary_key.columns))
            assert [dict(row) for row in found.mappings()] == expected, name
    assert await content(target) == await content(source)
    assert await archive.occupied(target) == counts


async def test_numbers_that_the_database_gives_go_on_after_those_that_were_put_in(
    pair: tuple[Database, Database],
) -> None:
    source, target = pair
    filled = await fill(source)
    await archive.put_rows(target, [line async for line in archive.rows(source) if line[0] != archive.TOPIC], [])
    counted = [table for table in archive.tables() if table.autoincrement_column is not None]
    for table in counted:
        column = table.autoincrement_column
        assert column is not None
        last = max(row[column.name] for row in filled[table.name])
        more = rows_of(table, filled)[0]
        # What else is unique has to differ as well.
        row = {k: (sample(table.c[k], 9) if not table.c[k].foreign_keys else v) for k, v in more.items()}
        del row[column.name]
        async with target.write() as connection:
            result = await connection.execute(table.insert().values(row))
        assert result.inserted_primary_key is not None
        assert result.inserted_primary_key[0] > last, table.name


async def test_only_what_is_about_this_very_database_stays(pair: tuple[Database, Database]) -> None:
    local = {table.name for table in METADATA.tables.values() if table.info.get("local")}
    assert local == {"changes", "migrations", "sign_in_links"}, "each is a decision: what it holds does not move"


async def test_topics_move_along_so_that_a_start_knows_what_to_read(pair: tuple[Database, Database]) -> None:
    for database in pair:
        async with database.write("people"):
            pass
        async with database.write("people"):
            pass
        assert ("topic", {"name": "people"}) in await content(database)


async def test_all_rows_arrive_or_none(pair: tuple[Database, Database]) -> None:
    source, target = pair
    await fill(source)
    lines = [line async for line in archive.rows(source) if line[0] != archive.TOPIC]
    with pytest.raises(StorageError):
        await archive.put_rows(target, [*lines, lines[0]], [])
    with pytest.raises(StorageError, match="holds what does not belong there"):
        await archive.put_rows(target, [*lines, ("users", lines[0][1] | {"shoe_size": 43})], [])
    assert await archive.occupied(target) == {}


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    with archive.writing(path, "here") as writer:
        for number in range(2000):
            writer.add("users", {"id": str(number)})
    return path


def test_only_its_owner_can_read_it_and_nothing_is_written_over(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageError, match="already exists"), archive.writing(file, "here"):
        pass
    assert len(list(archive.read(file))) == 2000


def test_one_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LookupError), archive.writing(tmp_path / "archive", "here") as writer:
        writer.add("users", {})
        raise LookupError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "archive"
    with pytest.raises(StorageError, match=r"can't write .*nowhere/archive"), archive.writing(nowhere, "here"):
        pass
    with pytest.raises(StorageError, match=r"can't read .*nowhere/archive"):
        list(archive.read(nowhere))


def test_one_that_is_cut_short_anywhere_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in range(0, len(whole), len(whole) // 50):
        file.write_bytes(whole[:length])
        with pytest.raises(StorageError):
            list(archive.read(file))


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["not json"],
        [[]],
        [{"aimux_export": 2, "schema": "0001"}],
        [{"aimux_export": 1, "schema": migrations.HEAD}],
        [{"aimux_export": 1, "schema": migrations.HEAD}, {"users": {}}],
        [{"aimux_export": 1, "schema": migrations.HEAD}, {"users": {}}, {"end": {"users": 2}}],
        [{"aimux_export": 1, "schema": migrations.HEAD}, {"a": 1, "b": 2}, {"end": {}}],
        [{"aimux_export": 1, "schema": migrations.HEAD}, [], {"end": {}}],
    ],
)
def test_anything_else_is_refused(tmp_path: Path, lines: list[Any]) -> None:
    path = tmp_path / "archive"
    with gzip.open(path, "wt") as out:
        out.writelines(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    with pytest.raises(StorageError, match="export once more"):
        list(archive.read(path))


def test_plain_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("users:\n")
    with pytest.raises(StorageError, match="an archive of aimux db export"):
        list(archive.read(tmp_path / "archive"))


def test_another_version_s_schema_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "HEAD", "9998")
    with pytest.raises(StorageError, match=r"whose schema is \d+; this is .* with 9998: import it with that version"):
        list(archive.read(file))


async def test_many_rows_need_no_more_memory_than_some(pair: tuple[Database, Database]) -> None:
    """Read and written in batches: more than one comes through, in order."""
    source, target = pair
    many = rows_of(users, {}, archive.BATCH * 2 + 7)
    async with source.write("people") as connection:
        await connection.execute(users.insert(), many)
    lines = [line async for line in archive.rows(source) if line[0] != archive.TOPIC]
    assert await archive.put_rows(target, lines, ["people"]) == {"users": len(many)}
    assert await content(target) == await content(source)
