"""The vault on PostgreSQL: what lies in its rows, and its keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aimux.accounts import AccountPool, Missing, PoolOptions, VaultError
from aimux.accounts.database_vault import DatabaseVault
from aimux.accounts.sealing import Sealer, key_id
from aimux.accounts.vault import ROTATED, SPARE, Unreadable
from aimux.control.api.saving import Wanted, save
from aimux.storage import Database
from aimux.storage.schema.accounts import credentials
from tests.accounts.support import FILE, Clock, TokenServer, credential_file, provider
from tests.postgresql import Server

OLD, NEW = bytes(32), bytes(range(32))
SECRET = b'{"refresh": "a-refresh-token"}'


@pytest.fixture
async def database(tables_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tables_url, tmp_path)
    yield database
    await database.close()


async def rows(database: Database) -> list[dict[str, Any]]:
    async with database.read() as connection:
        return [dict(row) for row in (await connection.execute(credentials.select())).mappings()]


async def test_nothing_of_a_credential_lies_in_the_database(database: Database) -> None:
    vault = DatabaseVault(database, [NEW])
    await vault.write("demo", "a", FILE, SECRET, expect=None)
    [first] = await rows(database)
    assert b"refresh" not in bytes(first["sealed"])
    assert NEW.hex()[:8] not in repr(first)
    assert first["key_id"] == key_id(NEW)
    await vault.write("demo", "a", FILE, b"x", expect=SECRET)
    await vault.write("demo", "a", FILE, SECRET, expect=b"x")
    [again] = await rows(database)
    assert again["sealed"] != first["sealed"], "the same content does not look the same"


async def test_an_old_key_opens_and_the_new_one_seals(database: Database) -> None:
    await DatabaseVault(database, [OLD]).write("demo", "a", FILE, b"one", expect=None)
    await DatabaseVault(database, [OLD]).write("demo", "b", FILE, b"two", expect=None)
    both = DatabaseVault(database, [NEW, OLD])
    assert await both.read("demo", "a", FILE) == b"one"
    await both.write("demo", "a", FILE, b"three", expect=b"one")
    assert {row["account"]: row["key_id"] for row in await rows(database)} == {"a": key_id(NEW), "b": key_id(OLD)}
    assert await both.seal_anew() == 1
    assert await both.seal_anew() == 0
    alone = DatabaseVault(database, [NEW])
    assert (await alone.read("demo", "a", FILE), await alone.read("demo", "b", FILE)) == (b"three", b"two")


async def test_without_the_right_key_it_says_which_setting_and_is_left_alone(database: Database) -> None:
    await DatabaseVault(database, [OLD]).write("demo", "a", FILE, b"one", expect=None)
    stranger = DatabaseVault(database, [NEW])
    for attempt in (
        stranger.read("demo", "a", FILE),
        stranger.write("demo", "a", FILE, b"x", expect=b"one"),
        stranger.rename("demo", "a", "b", FILE),
    ):
        with pytest.raises(VaultError, match=r"demo/a/.*database\.old_encryption_keys") as caught:
            await attempt
        assert not isinstance(caught.value, Missing)
    assert await stranger.seal_anew() == 0
    assert await DatabaseVault(database, [OLD]).read("demo", "a", FILE) == b"one"


async def test_where_the_key_is_lost_a_login_can_be_saved_in_its_place(
    database: Database, server: TokenServer, clock: Clock
) -> None:
    await DatabaseVault(database, [OLD]).write("demo", "a", FILE, credential_file(), expect=None)
    vault = DatabaseVault(database, [NEW])
    pool = AccountPool(provider(), vault, server, options=PoolOptions(clock=clock))
    await pool.load()
    assert pool.accounts["a"].credential is None
    account = await save(vault, pool, credential_file("access-1"), Wanted("a", replace=True))
    assert (account.name, account.credential is None) == ("a", False)
    await pool.close()


async def test_where_the_key_is_lost_a_new_login_takes_its_place(database: Database) -> None:
    """As the remedy says; only a person's own: whoever renews one leaves it alone."""
    files = (FILE, FILE + SPARE, FILE + ROTATED)
    for file in files:
        await DatabaseVault(database, [OLD]).write("demo", "a", file, b"one", expect=None)
    vault = DatabaseVault(database, [NEW])
    with pytest.raises(Unreadable, match="if it is lost, log in again"):
        await vault.write("demo", "a", FILE, b"x", expect=None)
    await vault.write("demo", "a", FILE, b"two", expect=None, detach=True)
    assert await vault.read("demo", "a", FILE) == b"two"
    assert [row["file_name"] for row in await rows(database)] == [FILE]


@pytest.mark.parametrize("change", ["sealed", "account"])
async def test_a_row_that_was_tampered_with_is_refused(database: Database, change: str) -> None:
    vault = DatabaseVault(database, [NEW])
    await vault.write("demo", "a", FILE, b"one", expect=None)
    [row] = await rows(database)
    sealed = bytes(row["sealed"])
    new = {"sealed": sealed[:-1] + bytes([sealed[-1] ^ 1]), "account": "b"}[change]
    async with database.write() as connection:
        await connection.execute(credentials.update().values({change: new}))
    with pytest.raises(VaultError, match="was changed in the database: log in again"):
        await vault.read("demo", "b" if change == "account" else "a", FILE)


def test_every_byte_counts() -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal(SECRET, "demo/a/x")
    assert sealer.open(sealed, sealer.current, "demo/a/x") == SECRET
    for n in range(len(sealed)):
        with pytest.raises(VaultError):
            sealer.open(sealed[:n] + bytes([sealed[n] ^ 0x80]) + sealed[n + 1 :], sealer.current, "demo/a/x")
    for n in range(len(sealed)):
        with pytest.raises(VaultError):
            sealer.open(sealed[:n], sealer.current, "demo/a/x")


async def test_while_the_server_is_away_it_fails_and_afterwards_locks_again(
    postgresql: Server, database: Database
) -> None:
    vault = DatabaseVault(database, [NEW], lock_timeout=10)
    async with vault.lock("demo", "a", FILE):
        await asyncio.to_thread(postgresql.stop)
        try:
            with pytest.raises(VaultError, match="can't be reached"):
                await vault.read("demo", "a", FILE)
            with pytest.raises(VaultError, match="can't be reached"):
                await vault.write("demo", "b", FILE, b"x", expect=None)
        finally:
            await asyncio.to_thread(postgresql.start)
    await vault.write("demo", "a", FILE, b"one", expect=None)
    assert await vault.read("demo", "a", FILE) == b"one"


async def test_a_lock_that_is_not_given_up_is_told(database: Database, tables_url: str, tmp_path: Path) -> None:
    other = await Database.open(tables_url, tmp_path)
    async with DatabaseVault(other, [NEW]).lock("demo", "a", FILE):
        with pytest.raises(VaultError, match="account demo/a is in use by another node: is one of them stopped"):
            await DatabaseVault(database, [NEW], lock_timeout=0.1).write("demo", "a", FILE, b"x", expect=None)
    await other.close()


@pytest.mark.parametrize("times", [1, 2])
async def test_whoever_is_cancelled_as_the_server_grants_a_lock_gives_it_back(
    database: Database, tables_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Nobody would let go of it before this node ends. A wait that is too long and a stop may cancel together."""
    granted, ask = asyncio.Event(), asyncpg.Connection.fetchval

    async def granting(connection: asyncpg.Connection[Any], query: str, *values: Any, **options: Any) -> Any:
        answer = await ask(connection, query, *values, **options)
        if "pg_try_advisory_lock" in query and not granted.is_set():
            granted.set()
            await asyncio.sleep(0.05)  # its answer is on its way
        return answer

    monkeypatch.setattr(asyncpg.Connection, "fetchval", granting)
    vault = DatabaseVault(database, [NEW], lock_timeout=10)
    task = asyncio.create_task(vault.write("demo", "a", FILE, b"x", expect=None))
    await granted.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    other = await Database.open(tables_url, tmp_path)
    await DatabaseVault(other, [NEW], lock_timeout=5).write("demo", "a", FILE, b"y", expect=None)
    await vault.write("demo", "a", FILE, b"z", expect=b"y")
    await other.close()
