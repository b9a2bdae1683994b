"""The vault for several nodes: encrypted rows in PostgreSQL."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aimux.accounts.sealing import Sealer
from aimux.accounts.vault import (
    ACCOUNT_NAME,
    BESIDE,
    ROTATED,
    SPARE,
    Away,
    Conflict,
    Missing,
    Unreadable,
    Vault,
    VaultError,
    check_new,
)
from aimux.storage import StorageError, Unusable
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy import ColumnElement

    from aimux.storage import Database
    from aimux.storage.engine import Connection

TOPIC = "credentials"
Where = tuple[str, str, str]
"""Instance, account, file name."""


class DatabaseVault(Vault):
    """A row for each file. What is written is sealed with the first key; locks hold over all nodes."""

    def __init__(self, database: Database, keys: Sequence[bytes], *, lock_timeout: float = 90.0) -> None:
        self._database = database
        self._sealer = Sealer(keys)
        self._lock_timeout = lock_timeout
        self._holders: dict[tuple[str, str], asyncio.Task[object] | None] = {}

    async def scan(self, instance: str, file_name: str) -> dict[str, str]:
        from aimux.storage.schema.accounts import credentials as t

        async with self._reading() as connection:
            query = t.select().with_only_columns(t.c.account, t.c.tag)
            rows = await connection.execute(query.where(t.c.instance == instance, t.c.file_name == file_name))
            return {row.account: row.tag for row in rows}

    async def list(self, instance: str, file_name: str) -> list[str]:
        return sorted(await self.scan(instance, file_name))

    async def read(self, instance: str, account: str, file_name: str) -> bytes:
        where = _where(instance, account, file_name)
        async with self._reading() as connection:
            raw = await self._read(connection, where)
        if raw is None:
            raise Missing(f"{_place(where)} is not there", remedy="log in, or import a login")
        return raw

    async def write(
        self, instance: str, account: str, file_name: str, raw: bytes, *, expect: bytes | None, detach: bool = False
    ) -> None:
        where = _where(instance, account, file_name)
        if expect is None:
            check_new(account, file_name)
        async with self._locked(where), self._writing() as connection:
            try:
                current = await self._read(connection, where, update=True)
            except Unreadable:
                if expect is not None or not detach:
                    raise
                current = None
                await self._delete(connection, (instance, account, file_name + ROTATED))  # as little to be read
            if current == raw:
                return  # a commit that came through though its answer was lost
            if current != expect:
                raise Conflict(f"{_place(where)} was changed by somebody else meanwhile")
            await self._write(connection, where, raw)
            if detach:
                await self._delete(connection, (instance, account, file_name + SPARE))

    async def delete(self, instance: str, account: str, file_name: str) -> None:
        where = _where(instance, account, file_name)
        async with self._locked(where), self._writing() as connection:
            if not await self._delete(connection, where):
                raise Missing(f"{_place(where)} is not there")
            for suffix in BESIDE:
                await self._delete(connection, (instance, account, file_name + suffix))

    async def rename(self, instance: str, account: str, new: str, file_name: str) -> None:
        source, target = _where(instance, account, file_name), _where(instance, new, file_name)
        check_new(new, file_name)
        if source == target:
            raise Conflict(f"account {new!r} already has that name")
        first, second = sorted((source, target))  # the same order everywhere, or two renames could wait for each other
        async with self._locked(first), self._locked(second), self._writing() as connection:
            if await self._read(connection, target, update=True) is not None:
                raise Conflict(f"{_place(target)} already exists")
            for suffix in ("", *BESIDE):
                old = (instance, account, file_name + suffix)
                raw = await self._read(connection, old, update=True)  # sealed anew: it is bound to its place
                if raw is not None:
                    await self._write(connection, (instance, new, file_name + suffix), raw)
                    await self._delete(connection, old)
                elif not suffix:
                    raise Missing(f"{_place(source)} is not there")

    async def links(self, instance: str, file_name: str) -> dict[str, str]:
        return {}

    async def reserve(self, instance: str, account: str, file_name: str, size: int) -> None:
        """Does nothing: a database that gave the lock a moment ago has room, as far as anybody can know."""

    @asynccontextmanager
    async def lock(self, instance: str, account: str, file_name: str) -> AsyncIterator[None]:
        async with self._hold(_where(instance, account, file_name)):
            yield

    async def seal_anew(self) -> int:
        """Encrypt with the first key what is encrypted with one of our old keys; return how many there were. Raises
        VaultError."""
        from aimux.storage.schema.accounts import credentials as t

        async with self._reading() as connection:
            columns = (t.c.instance, t.c.account, t.c.file_name)
            query = t.select().with_only_columns(*columns).where(t.c.key_id.in_(self._sealer.old))
            old = (await connection.execute(query)).all()
        for row in old:
            where = (row.instance, row.account, row.file_name)
            async with self._writing() as connection:
                raw = await self._read(connection, where, update=True)
                if raw is not None:
                    await self._write(connection, where, raw)
        return len(old)

    # --- rows --------------------------------------------------------------------------------------------------------

    async def _read(self, connection: Connection, where: Where, *, update: bool = False) -> bytes | None:
        from aimux.storage.schema.accounts import credentials as t

        query = t.select().with_only_columns(t.c.sealed, t.c.key_id).where(*_is(where))
        row = (await connection.execute(query.with_for_update() if update else query)).first()
        return None if row is None else self._sealer.open(row.sealed, row.key_id, _place(where))

    async def _write(self, connection: Connection, where: Where, raw: bytes) -> None:
        from aimux.storage.schema.accounts import credentials as t

        values: dict[str, Any] = {
            "sealed": self._sealer.seal(raw, _place(where)),
            "key_id": self._sealer.current,
            "tag": secrets.token_hex(8),
            "updated_at": now(),
        }
        changed = await connection.execute(t.update().where(*_is(where)).values(values))
        if not changed.rowcount:
            key = dict(zip(("instance", "account", "file_name"), where, strict=True))
            await connection.execute(t.insert().values(key | values))

    async def _delete(self, connection: Connection, where: Where) -> bool:
        from aimux.storage.schema.accounts import credentials as t

        return bool((await connection.execute(t.delete().where(*_is(where)))).rowcount)

    # --- the database ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        try:
            async with self._database.read() as connection:
                yield connection
        except Unusable as error:
            raise Away(error.reason, remedy=error.remedy) from None
        except StorageError as error:
            raise VaultError(error.reason, remedy=error.remedy) from None

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Connection]:
        try:
            async with self._database.write(TOPIC) as connection:
                yield connection
        except StorageError as error:
            raise VaultError(error.reason, remedy=error.remedy) from None

    @asynccontextmanager
    async def _locked(self, where: Where) -> AsyncIterator[None]:
        if self._holders.get(where[:2]) is asyncio.current_task():
            yield
        else:
            async with self._hold(where):
                yield

    @asynccontextmanager
    async def _hold(self, where: Where) -> AsyncIterator[None]:
        account = where[:2]  # whose spare it covers too
        try:
            async with self._database.lock("account {}/{}".format(*account), patience=self._lock_timeout):
                self._holders[account] = asyncio.current_task()
                try:
                    yield
                finally:
                    del self._holders[account]
        except StorageError as error:
            raise VaultError(error.reason, remedy=error.remedy) from None


def _where(instance: str, account: str, file_name: str) -> Where:
    for name in (instance, account):
        if not ACCOUNT_NAME.fullmatch(name):
            raise VaultError(
                f"{name!r} can't be a name", remedy="use letters, digits and . _ @ + - (at most 64, no dot first)"
            )
    return instance, account, file_name


def _place(where: Where) -> str:
    return "/".join(where)


def _is(where: Where) -> list[ColumnElement[bool]]:
    from aimux.storage.schema.accounts import credentials as t

    return [t.c.instance == where[0], t.c.account == where[1], t.c.file_name == where[2]]
