"""The price lists of the models that were asked for: kept in the database, looked up when a new model comes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from aimux.metering.calendar import now
from aimux.metering.tariff import Tariff
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aimux.metering.price_list import Wanted
    from aimux.metering.prices import Prices
    from aimux.storage import Database

log = logging.getLogger("aimux.metering")

TOPIC = "prices"
RETRY = 60.0
LONGEST = 60.0
"""Seconds for a look at the list."""
MOST_WANTED = 100
"""Models that wait to be looked up; clients can name more, but only those that were charged for come here."""


class PriceBook:
    """Keeps `prices.tariffs` as the database has them, and looks up what is missing."""

    def __init__(
        self,
        database: Database,
        prices: Prices,
        wanted: Callable[[str, str], Wanted],
        found: Callable[[list[tuple[str, str]]], Awaitable[None]],
    ) -> None:
        """`wanted(provider, model)` says where to look; `found` hears of models that have a price now."""
        self._database = database
        self._prices = prices
        self._wanted_of = wanted
        self._found = found
        self._wanted: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reload = True
        prices.on_unknown = self._unknown

    async def start(self) -> None:
        """Read what is there, and look up the rest as it comes, until `close`."""
        if self._database.touched(TOPIC):
            try:
                await self._read()
            except StorageError as error:
                log.warning("prices can't be read yet: %s", error)
        self._unsubscribe = self._database.subscribe(TOPIC, self._changed)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._unsubscribe()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _unknown(self, provider: str, model: str) -> None:
        """Nobody has looked for this model's prices yet."""
        if len(self._wanted) < MOST_WANTED:
            self._wanted.add((provider, model))
            self._wake.set()

    def _changed(self) -> None:
        self._reload = True
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._reload:
                    self._reload = False
                    await self._read()
                self._wanted -= self._prices.tariffs.keys()
                if self._wanted:
                    await self._look_up(sorted(self._wanted))
            except (StorageError, OSError, ValueError) as error:
                log.warning("prices can't be looked up now: %s", error)
                asyncio.get_running_loop().call_later(RETRY, self._wake.set)

    async def _read(self) -> None:
        from sqlalchemy import select

        from aimux.storage.schema.ledger import prices

        async with self._database.read() as connection:
            rows = (await connection.execute(select(prices.c.provider, prices.c.model, prices.c.tariff))).all()
        self._prices.tariffs = {
            (provider, model): None if tariff is None else Tariff.of_json(tariff) for provider, model, tariff in rows
        }

    async def _look_up(self, models: list[tuple[str, str]]) -> None:
        wanted = [self._wanted_of(*model) for model in models]
        source, tariffs = await _in_a_process(wanted)
        await store(self._database, zip(models, tariffs, strict=True), source)
        priced = [model for model, tariff in zip(models, tariffs, strict=True) if tariff is not None]
        self._prices.tariffs |= {
            model: None if tariff is None else Tariff.of_json(tariff)
            for model, tariff in zip(models, tariffs, strict=True)
        }
        for model in models:
            if model not in priced:
                log.warning("%s: the price of %s is not known (%s): `aimux prices update`", *model, source)
        if priced:
            await self._found(priced)


async def store(database: Database, found: Iterable[tuple[tuple[str, str], Any]], source: str) -> None:
    """Keep tariffs by provider and model, None for "not in the list". Raises StorageError."""
    from sqlalchemy import delete

    from aimux.storage.schema.ledger import prices

    async with database.write(TOPIC) as connection:
        for (provider, model), tariff in sorted(found, key=lambda one: one[0]):
            await connection.execute(delete(prices).where(prices.c.provider == provider, prices.c.model == model))
            row = {"provider": provider, "model": model, "tariff": tariff, "source": source, "at": now()}
            await connection.execute(prices.insert().values(row))


async def _in_a_process(wanted: list[Wanted]) -> tuple[str, list[Any]]:
    """What price_list finds. Raises OSError, ValueError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aimux.metering.price_list",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A packaged program's modules may be on a path that only it was told.
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.environ.get("PATH", "")},
    )
    try:
        async with asyncio.timeout(LONGEST):
            out, problem = await process.communicate(json.dumps(wanted).encode())
    except TimeoutError:
        raise OSError("the list of prices takes too long to read") from None
    finally:
        if process.returncode is None:  # a stop does not wait for it either, and leaves no process behind
            process.kill()
            await process.wait()
    if process.returncode:
        last = problem.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise OSError(f"the list of prices can't be read: {last}")
    answer = json.loads(out)
    return answer["source"], answer["tariffs"]
