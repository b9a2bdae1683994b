"""The ledger and what belongs to it: prices, the calendar of its sums, reports."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from aimux.background import end, keep_going
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.ledger import Ledger
from aimux.metering.price_book import PriceBook
from aimux.metering.price_list import Wanted
from aimux.metering.prices import Prices, configured
from aimux.metering.reports import Reports
from aimux.metering.repricing import reprice
from aimux.metering.spill import FOLDER
from aimux.metering.windows import Sampler, compare
from aimux.storage import StorageError
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aimux.config import Config
    from aimux.metering.metrics import AccountView
    from aimux.metering.repricing import Beside
    from aimux.metering.spans import Span
    from aimux.metering.windows import Compared
    from aimux.plugin import Provider
    from aimux.storage import Database

log = logging.getLogger("aimux.metering")

SAMPLE_SECONDS = 60.0


class Metering:
    """The metering of one process. `start`, `reconfigure` as often as needed, `close`."""

    def __init__(
        self,
        database: Database,
        config: Config,
        providers: Mapping[str, Provider],
        accounts: Callable[[], Iterable[AccountView]] = tuple,
    ) -> None:
        """`providers`: by instance. `accounts`: whose windows are sampled."""
        self.database = database
        self.calendar = Calendar(ZoneInfo(config.limits.time_zone))
        self.prices = Prices()
        self.book = PriceBook(database, self.prices, self._wanted, self._priced)
        self.ledger = Ledger(
            database,
            Flattener(socket.gethostname(), self.prices),
            self.calendar,
            config.state_dir / FOLDER,
            spill_limit=config.ledger.spill_limit,
            keep=config.ledger.keep_requests,
        )
        self.on_priced: Callable[[], None] = lambda: None
        """Called when a new model was looked up: requests that had no price have one now."""
        self.beside_pricing: Beside | None = None
        """What else changes when requests get a price, where there are other nodes."""
        self.reports = Reports(database, self.calendar, lambda: self.ledger.keep)
        self._sampler = Sampler(database, accounts)
        self._sampling: asyncio.Task[None] | None = None
        self._configure_prices(config, providers)

    async def start(self) -> None:
        await self.book.start()
        await self.ledger.start()
        self._sampling = keep_going("sampling accounts' windows", self._sample)

    def reconfigure(self, config: Config, providers: Mapping[str, Provider]) -> None:
        """Take another configuration, from now on."""
        self.calendar.move(ZoneInfo(config.limits.time_zone))
        self.ledger.reconfigure(spill_limit=config.ledger.spill_limit, keep=config.ledger.keep_requests)
        self._configure_prices(config, providers)

    async def close(self) -> None:
        """Write what is not written yet."""
        await end(self._sampling)
        await self.book.close()
        await self.ledger.close()

    async def windows(self, span: Span) -> list[Compared]:
        """Accounts' windows beside what was metered. Raises StorageError."""
        await self.ledger.catch_up()
        return await compare(self.database, self.reports, span)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            try:
                await self._sampler.sample(now())
            except StorageError as error:
                log.debug("accounts' windows can't be sampled: %s", error)

    def _configure_prices(self, config: Config, providers: Mapping[str, Provider]) -> None:
        self._providers = providers
        factors = {
            (name, account): settings.price_factor
            for name, provider in providers.items()
            for account, settings in provider.settings.accounts.items()
            if settings.price_factor != 1.0
        }
        self.prices.configure(configured(config.prices), factors)

    def _wanted(self, provider: str, model: str) -> Wanted:
        known = self._providers.get(provider)
        return Wanted(known.price_list, known.settings.base_url, model) if known else Wanted("", "", model)

    async def reprice(self, since: int) -> int:
        """Price requests without a price, from `since` on (milliseconds). Returns how many have one now. Raises
        StorageError."""
        await self.ledger.catch_up()
        return await reprice(self.database, self.calendar, self.prices, since, self.beside_pricing)

    async def _priced(self, models: list[tuple[str, str]], since: int) -> None:
        """The first requests of a new model came before its price was looked up."""
        await self.ledger.rest()  # what is being written came before it, too
        count = await reprice(self.database, self.calendar, self.prices, since, self.beside_pricing)
        if count:
            names = ", ".join(f"{provider}: {model}" for provider, model in models)
            log.info("the prices of %s were looked up; %d earlier requests have a cost now", names, count)
        self.on_priced()  # also without any: what was priced in time to be written was counted without a price before
