"""The prices of the models in use: kept in the database, looked up for each new model."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from aimux.background import end, keep_going
from aimux.metering.apart import run_apart
from aimux.metering.tariff import Tariff
from aimux.storage import StorageError
from aimux.storage.times import now

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
"""Models that wait to be looked up; clients can name more, but only charged ones get here."""


class PriceBook:
    """Keeps `prices.tariffs` as the database has them, and looks up what is missing."""

    def __init__(
        self,
        database: Database,
        prices: Prices,
        wanted: Callable[[str, str], Wanted],
        found: Callable[[list[tuple[str, str]], int], Awaitable[None]],
    ) -> None:
        """`wanted(provider, model)` says where to look; `found` is called with models that have a price now, and since
        when (milliseconds) there may be requests that were written without one. If it raises StorageError, it is called
        again.
        """
        self._database = database
        self._prices = prices
        self._wanted_of = wanted
        self._found = found
        self._wanted: dict[tuple[str, str], int] = {}
        """Models without a price, and their oldest request's time in milliseconds."""
        self._fresh: dict[tuple[str, str], int] = {}
        """The same for models that have one now, but for which `found` has not succeeded yet."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reload = True
        self._problem = ""
        """Why the last attempt failed."""
        self._unreadable: set[tuple[str, str]] = set()
        self.sources: dict[tuple[str, str], str] = {}
        """Which list each model was looked up in."""
        prices.on_unknown = self._unknown

    async def start(self) -> None:
        """Read the known prices, and look up others as they are needed, until `close`."""
        if self._database.touched(TOPIC):
            try:
                await self._read_first()
            except StorageError as error:
                log.warning("prices can't be read yet: %s", error)
        self._unsubscribe = self._database.subscribe(TOPIC, self._changed)
        self._loop = asyncio.get_running_loop()
        if self._wanted:
            self._wake.set()
        self._task = keep_going("looking up prices", self._run)

    async def close(self) -> None:
        if self._task is not None:
            self._unsubscribe()
            await end(self._task)

    async def update(self, url: str = "") -> tuple[int, int, str]:
        """Take the newest list. Returns how many models were looked up, how many of them it has, and its name.

        Models that it lacks keep their price: a list without a model, or an empty one, must not make it free.
        Raises OSError, ValueError, StorageError.
        """
        models = sorted(await self._models())
        source, tariffs = await _in_a_process([self._wanted_of(*model) for model in models], url)
        await self.read()
        before = self._prices.tariffs
        found = zip(models, tariffs, strict=True)
        news = [(model, tariff) for model, tariff in found if tariff is not None or before.get(model) is None]
        await store(self._database, news, source)
        await self.read()
        return len(models), sum(tariff is not None for tariff in tariffs), source

    async def _models(self) -> set[tuple[str, str]]:
        """The models that were looked up, or charged for."""
        from sqlalchemy import select

        from aimux.storage.schema.ledger import prices, usage_keys

        charged = select(usage_keys.c.provider, usage_keys.c.model).where(usage_keys.c.model != "")
        known = select(prices.c.provider, prices.c.model)
        async with self._database.read() as connection:
            return {(row.provider, row.model) for row in await connection.execute(charged.union(known))}

    def _unknown(self, provider: str, model: str, at: int) -> None:
        """This model's prices have not been looked up yet. Also called in the ledger's threads."""
        if not model:
            return  # a refused request, or one without a model
        wanted = self._wanted
        known = wanted.get((provider, model))
        if known is None and len(wanted) < MOST_WANTED:
            wanted[provider, model] = at
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake.set)
        elif known is not None and at < known:
            wanted[provider, model] = at

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
                    await self.read()
                self._move_known()
                if self._wanted:
                    await self._look_up(sorted(self._wanted))
                    self._move_known()
                if self._fresh:
                    await self._found(sorted(self._fresh), min(self._fresh.values()))
                    self._fresh.clear()
                self._problem = ""
            except (StorageError, OSError, ValueError) as error:
                if str(error) != self._problem:  # each request without a price wakes it
                    log.warning("prices can't be looked up now: %s", error)
                self._problem = str(error)
                self._reload = True
                asyncio.get_running_loop().call_later(RETRY, self._wake.set)

    def _move_known(self) -> None:
        for model in self._wanted.keys() & self._prices.tariffs.keys():
            at = self._wanted.pop(model)
            if self._prices.tariffs[model] is not None or self._prices.configured_kinds(model[1]):
                self._fresh[model] = min(at, self._fresh.get(model, at))

    async def read(self) -> None:
        """Take what the database has. Raises StorageError."""
        from sqlalchemy import select

        from aimux.storage.schema.ledger import prices

        async with self._database.read() as connection:
            rows = (await connection.execute(select(prices))).all()
        self._take((row.provider, row.model, row.tariff, row.source) for row in rows)

    async def _read_first(self) -> None:
        """The same at a start, if possible without SQLAlchemy."""
        if (found := await self._database.quick(["SELECT provider, model, tariff, source FROM prices"])) is None:
            await self.read()
            return
        self._take(
            (row["provider"], row["model"], row["tariff"] and json.loads(row["tariff"]), row["source"])
            for row in found[0]
        )

    def _take(self, rows: Iterable[tuple[str, str, Any, str]]) -> None:
        tariffs: dict[tuple[str, str], Tariff | None] = {}
        sources = {}
        for provider, model, tariff, source in rows:
            sources[provider, model] = source
            try:
                tariffs[provider, model] = None if tariff is None else Tariff.of_json(tariff)
            except ValueError as error:
                # What was known before another node wrote it goes on.
                tariffs[provider, model] = self._prices.tariffs.get((provider, model))
                if (provider, model) not in self._unreadable:
                    self._unreadable.add((provider, model))
                    log.warning(
                        "%s: the price of %s can't be read (%s): if no newer aimux has written it, "
                        "`aimux prices update` writes it anew",
                        provider,
                        model,
                        error,
                    )
        self._prices.tariffs, self.sources = tariffs, sources

    async def _look_up(self, models: list[tuple[str, str]]) -> None:
        wanted = [self._wanted_of(*model) for model in models]
        source, tariffs = await _in_a_process(wanted)
        # Meanwhile another node, or an update of the list, may have found more than the packaged list has.
        await store(self._database, zip(models, tariffs, strict=True), source, over=False)
        await self.read()
        for provider, model in models:
            if self._prices.tariffs.get((provider, model)) is None:
                log.warning("%s: the price of %s is not known (%s): `aimux prices update`", provider, model, source)


async def store(
    database: Database, found: Iterable[tuple[tuple[str, str], Any]], source: str, *, over: bool = True
) -> None:
    """Keep tariffs by provider and model, None for "not in the list"; `over`: replace existing ones. Raises
    StorageError."""
    from sqlalchemy import delete, exists

    from aimux.storage.schema.ledger import prices

    async with database.write(TOPIC) as connection:
        for (provider, model), tariff in sorted(found, key=lambda one: one[0]):
            same = (prices.c.provider == provider) & (prices.c.model == model)
            if over:
                await connection.execute(delete(prices).where(same))
            elif (await connection.execute(exists().where(same).select())).scalar():
                continue
            row = {"provider": provider, "model": model, "tariff": tariff, "source": source, "at": now()}
            await connection.execute(prices.insert().values(row))


async def _in_a_process(wanted: list[Wanted], fetch: str | None = None) -> tuple[str, list[Any]]:
    """What price_list finds, in a list from `fetch` ("": where it is published). Raises OSError, ValueError."""
    try:
        answer = await run_apart(
            "aimux.metering.price_list",
            {"wanted": wanted, "fetch": fetch},
            longest=LONGEST,
            needs=lambda name: name.upper().endswith("_PROXY"),  # what leads to a proxy
        )
    except TimeoutError:
        raise OSError("the list of prices takes too long to read") from None
    return answer["source"], answer["tariffs"]
