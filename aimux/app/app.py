"""One running aimux: starts its parts, reloads their configuration, and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from aimux.accounts import AccountPool, ControlHttp, Keeper, PoolOptions, VaultError, stores_in
from aimux.app.files import admin_key, adopt_keys, claim, tls_files
from aimux.app.outside import Outside
from aimux.app.pools import Pools
from aimux.app.setup import compatibility, health_text, refuse_lost_file, setup_of, with_what_stays
from aimux.app.warnings import warn_of_surroundings, warn_of_unknown
from aimux.background import end, keep_going
from aimux.certificates import ServerTLS
from aimux.config import ConfigError, provider_instances, secrets_in
from aimux.control.running import Reload, Running
from aimux.front.listening import address_of, listen_on
from aimux.gateway import Gateway
from aimux.gateway.deposit_rows import DepositRows
from aimux.gateway.guesses import Guesses
from aimux.gateway.limiting import Limiting
from aimux.gateway.vendor_storage import VendorStorage
from aimux.limits import FairMeter, FairShare, Limits, Policy, Settlement
from aimux.limits.fair_keeper import FairKeeper
from aimux.limits.keeper import LimitKeeper
from aimux.limits.shares import Claims
from aimux.metering.activity import Activity
from aimux.metering.journal import Journal
from aimux.metering.metering import Metering
from aimux.metering.metrics import Kept, Metrics, RefreshOutcome
from aimux.metering.record import LATER, RecordSinks
from aimux.notices import Teller, Watch
from aimux.people import Actor, People, audit, from_config
from aimux.people.trust import Trust
from aimux.people.upkeep import Uses, upkeep
from aimux.plugin.parts import DASHBOARD
from aimux.redaction import holding
from aimux.relay.pool import Pool
from aimux.storage import Database
from aimux.systemd import Notifier, listen_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, MutableMapping

    from aimux.accounts import Account
    from aimux.config import Config
    from aimux.control.key import Key
    from aimux.control.state import Control
    from aimux.gateway import Setup
    from aimux.logs import HostLogs, Logs
    from aimux.metering.record import RequestRecord
    from aimux.plugin.loader import Plugins

log = logging.getLogger("aimux")

OUTCOMES: dict[str, RefreshOutcome] = {"renewed": "ok", "rejected": "rejected", "unavailable": "failed"}


class App:
    """One running aimux: `start`, then `reload` as often as needed, then `stop`."""

    def __init__(
        self, load: Callable[[], Config], plugins: Plugins, logs: Logs | HostLogs, environ: MutableMapping[str, str]
    ) -> None:
        """`load` gives the configuration, anew at each reload; it raises ConfigError."""
        self.plugins = plugins
        self.addresses: list[str] = []
        """Where it listens: URLs, or `unix:/path`."""
        self.pools = Pools()
        self.config: Config
        self.database: Database
        self.people: People
        self.trust: Trust
        self.uses: Uses
        self.deposits: DepositRows
        self.gateway: Gateway
        self.outside: Outside
        self.key: Key | None = None
        self.made_key: str | None = None
        """The admin key that this start has made, until it is announced."""
        self.tls: ServerTLS | None = None
        self.load = load
        """Called at the start and at each reload."""
        self._logs = logs
        self._environ = environ
        self._notifier = Notifier(environ)
        self._guesses = Guesses()
        self._reloading = asyncio.Lock()
        self._servers: list[asyncio.Server] = []
        self._running = Running(
            lambda: self.config,
            plugins.plugins,
            lambda: self.addresses,
            self._certificate_ends,
            lambda: self.tls.own_certificate if self.tls else None,
            lambda: self.activity,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._configured: frozenset[str] = frozenset()
        """Secrets of the configuration; of both while a new one replaces an old one."""
        self._stack = contextlib.AsyncExitStack()

    # --- start ----------------------------------------------------------------------------------------------------

    async def start(self, *, listen: bool = True) -> None:
        """Build everything and listen. Raises ConfigError, StorageError, TLSError, VaultError or ListenError, and then
        leaves nothing open. Without `listen`, requests come by an aiohttp application with this `control`.
        """
        self.config = config = self.load()
        self._configured = frozenset(secrets_in(config))
        self._adopt_logging(config)
        warn_of_surroundings(config, self.plugins)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(holding(self._secrets))
            pool = await self._open_stores(config, stack)
            await self._admit_people(config, stack)
            setup = await self._setup(config)
            for accounts in self.pools.values():
                await accounts.load()
            warn_of_unknown(config, self.pools, self.people.directory.stored)
            limits = await self._begin_metering(config, stack)
            self.deposits = deposits = DepositRows(self.database, shared=config.database.address is not None)
            stack.push_async_callback(deposits.close)
            await deposits.start()
            self._build_gateway(config, setup, pool, limits, VendorStorage(deposits.deposits, deposits.look_up), stack)
            deposits.on_counted = self.records
            self.records.soon = self._logs.access.soon = asyncio.get_running_loop().call_soon
            if listen:
                await self._listen(config)
            self._stack = stack.pop_all()
        keeper = Keeper(self.pools.values(), config.refresh_check_interval)
        regular: dict[str, Callable[[], Coroutine[None, None, None]]] = {
            "keeping credentials fresh": keeper.run,
            "giving signs of life": self._notifier.watch,
            "noting the use of tokens": lambda: upkeep(self.uses, self.people),
            "looking for notices": self.watch.run,
            "sharing accounts fairly": FairKeeper(self.database, self.fair, self.accounts).run,
        }
        if config.database.address is not None:
            regular["telling other nodes what runs here"] = self.activity.run
        if self.tls:
            regular["watching the certificate"] = self.tls.watch
        self._tasks += [keep_going(what, work) for what, work in regular.items()]
        self._notifier.ready(f"listening on {', '.join(self.addresses)}")

    async def _open_stores(self, config: Config, stack: contextlib.AsyncExitStack) -> Pool:
        """Open the database, the vault and the connections to the outside. Returns the pool that requests use."""
        async with self._notifier.patience():  # a migration of many rows takes minutes
            self.database = await Database.open(config.database.address, config.state_dir)
        stack.push_async_callback(self.database.close)
        self._vault, self._state = await stores_in(config, self.database)
        stack.callback(claim(config.state_dir).release)
        self._http = ControlHttp()
        stack.push_async_callback(self._http.close)
        stack.push_async_callback(self._state.flush)
        stack.push_async_callback(self.pools.close)
        pool = Pool(connect_timeout=config.connect_timeout, idle_timeout=config.stream_idle_timeout)
        stack.push_async_callback(pool.close)
        files = tls_files(config)
        self.tls = ServerTLS(files) if files else None
        return pool

    async def _admit_people(self, config: Config, stack: contextlib.AsyncExitStack) -> None:
        self.people = People(self.database, from_config(config))
        self.uses = Uses(self.database)
        stack.push_async_callback(self.uses.close)
        stack.push_async_callback(self.people.close)
        await self.people.start()
        self.trust = Trust(self.people, self._http, config.state_dir)
        stack.push_async_callback(self.trust.close)
        await adopt_keys(self.trust, config)

    async def _begin_metering(self, config: Config, stack: contextlib.AsyncExitStack) -> Limits:
        """Metrics, ledger, limits and the notices of them."""
        self.metrics = Metrics(
            accounts=self.accounts,
            certificate_not_after=self._certificate_ends,
            kept=self._kept,
            per_user=config.metrics.per_user,
        )
        self.journal = Journal()
        self.metering = Metering(self.database, config, self.pools.providers, self.accounts)
        stack.push_async_callback(self.metering.close)
        nodes, several = None, config.database.address is not None
        if several:
            from aimux.notices.nodes import Nodes

            nodes = Nodes(self.database)
        self.notices = Teller(config.notices, nodes)
        stack.push_async_callback(self.notices.close)
        self.watch = Watch(self.notices, self.pools, self.metering.prices, self._certificate_ends_soon)
        claims = Claims() if several else None
        limits = Limits(Policy(), ZoneInfo(config.limits.time_zone), claims=claims, on_mark=self.watch.marked)
        self.limits = LimitKeeper(self.database, limits, config.limits, self.metering.ledger)
        stack.push_async_callback(self.limits.close)
        self.fair = FairShare(on=config.limits.fair_share, tells=claims is not None)
        self.metering.ledger.on_left = self.limits.left
        self.metering.on_priced = self.limits.count_again
        if claims is not None:
            self.metering.ledger.store.beside = self.limits.wrote
            self.metering.beside_pricing = self.limits.repriced
        await self.limits.start()
        await self.metering.start()  # by then the limits are loaded that left-over records count for
        return limits

    def _build_gateway(
        self,
        config: Config,
        setup: Setup,
        pool: Pool,
        limits: Limits,
        storage: VendorStorage,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        """The gateway, and what is outside the mounts."""
        self.records = RecordSinks(
            Settlement(limits, self.metering.prices.of_record),
            FairMeter(self.fair, self.pools.quota, self.metering.prices.of_record),
            self.metrics.record,
            self._logs.access.record,
            self.journal.record,
            self.metering.ledger.record,
            self._note_use,
            *self.plugins.sinks,
        )
        limiting = Limiting(limits, self.fair, self.metering.prices, self.records.flush)
        self.outside = Outside(self._make_control, [*self.plugins.routes.values()])
        stack.push_async_callback(self.outside.close)
        self.gateway = Gateway(setup, pool, self.metrics, self.records, self.outside.serve, limiting, storage)
        self.people.on_change = lambda: self._begin(self.gateway.setup)
        self.activity = Activity(self.database, self.journal, lambda: self.gateway.running)
        self.key = self._admin_key(config)

    def _make_control(self) -> Control:
        from aimux.control.api.api import Api
        from aimux.control.api.parts import Parts
        from aimux.control.dashboard.sessions import Dashboard, Sessions
        from aimux.control.state import Control

        parts = Parts(
            self.pools,
            self._vault,
            self._http,
            self.gateway.pool,
            self.journal,
            self.people,
            self.limits,
            self.metering,
            self.uses,
            self.deposits,
            self.notices.recent,
            trust=self.trust,
            reload=self.take_again,
            process=self._running,
        )
        sessions = Sessions(self.database, lambda: self.people.directory, lambda: self.key)
        return Control(
            self.gateway,
            Api(parts),
            self.metering,
            self.database,
            Dashboard(sessions, self.database),
            self.key,
            self.config.metrics_public,
            compatibility(self.config, self.plugins),
            health_text(self.config, self.plugins),
        )

    async def _listen(self, config: Config) -> None:
        served = compatibility(config, self.plugins)
        if any(not one.compatibility or one.compatibility in served for one in self.plugins.routes.values()):
            await self.outside.open()  # a plugin's application may have work of its own, from the start on
        inherited = [sock for _, sock in listen_sockets(self._environ)]
        context = self.tls.context if self.tls else None
        self.gateway.use_lane(config.lane)
        self._servers = await listen_on(self.gateway.server, config.listen, context, inherited)
        scheme = "https" if self.tls else "http"
        self.addresses = [address_of(sock, scheme) for server in self._servers for sock in server.sockets]

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Run it as a task that ends before what it may use is closed."""
        self._tasks.append(asyncio.create_task(work))

    async def sign_in_link(self) -> str:
        """A URL that signs a browser in as an administrator, once and within five minutes. Raises StorageError."""
        from aimux.people import links

        code = await links.make(self.database, "", self.key.id if self.key is not None else "")
        return f"{self.addresses[0]}{DASHBOARD}/sign-in?code={code}"

    @property
    def control(self) -> Control:
        """What the control plane shows and changes."""
        return self.outside.control

    @property
    def watched(self) -> bool:
        """Whether somebody is watching live values."""
        return self.outside.made is not None and self.outside.made.dashboard.watching > 0

    def accounts(self) -> Iterator[Account]:
        """Every account of every provider."""
        return self.pools.accounts()

    def _kept(self) -> Kept:
        ledger = self.metering.ledger
        return Kept(self.database.trouble is None, ledger.waiting_bytes, ledger.lost)

    def _certificate_ends(self) -> float | None:
        return self.tls.not_after if self.tls is not None else None

    def _certificate_ends_soon(self, now: float) -> float | None:
        return self.tls.not_after if self.tls is not None and self.tls.pair.ends_soon(now) else None

    def _secrets(self) -> Iterator[str]:
        """Every secret that it holds, to be kept out of logs and errors."""
        yield from self._configured
        yield from self.pools.secrets()

    def _adopt_logging(self, config: Config) -> None:
        self._logs.configure(config.log_level, config.log_format)
        for warning in config.warnings:
            log.warning("%s", warning)

    async def _setup(self, config: Config) -> Setup:
        """The gateway's view of one configuration. Live account state is carried over."""
        providers = provider_instances(config, self.plugins.providers)
        options = PoolOptions(
            refresh_before_expiry=config.refresh_before_expiry, state=self._state, on_renewal=self._renewed
        )
        await self.pools.adopt(
            providers, lambda provider: AccountPool(provider, self._vault, self._http, options=options)
        )
        self.pools.reserve(self.people.directory.reserved)
        return setup_of(config, providers, self.pools, self.people.directory, self.trust.signed, self._guesses)

    def _begin(self, setup: Setup) -> None:
        """Begin an epoch with the current people: what was revoked ends, wherever it is in use."""
        directory = self.people.directory
        self.pools.reserve(directory.reserved)
        self.gateway.begin(
            replace(setup, authentication=setup.authentication.with_people(directory, self.trust.signed))
        )

    def _note_use(self, record: RequestRecord) -> None:
        if record.method != LATER:
            self.uses.note(record.sender.token, record.time, record.sender.address)

    def _renewed(self, account: Account, outcome: str) -> None:
        if outcome in OUTCOMES:
            self.metrics.refresh(account.provider, account.name, OUTCOMES[outcome])

    def _admin_key(self, config: Config) -> Key | None:
        key, self.made_key = admin_key(config)
        return key

    # --- reload and stop ------------------------------------------------------------------------------------------

    async def reload(self) -> bool:
        """Like `take_again`, but nobody waits for its errors: for SIGHUP, which is what the audit log says."""
        try:
            await self.take_again()
        except Exception:  # told by then; whatever it is, requests are served
            return False
        await audit.note(self.database, Actor("SIGHUP"), "config.reload", "config")
        return True

    async def take_again(self) -> Reload:
        """Take the configuration again. A bad one changes nothing; open streams go on in any case.

        Raises ConfigError, and what nobody expected: a machine without memory or threads, a fault of ours.
        """
        async with self._reloading:
            self._notifier.reloading()
            try:
                return await self._take_again()
            except ConfigError as error:
                log.error("the new configuration is refused, the old one stays:\n%s", error)
                self._notifier.ready("the new configuration was refused, the old one stays")
                raise
            except Exception:
                log.exception("the configuration could not be taken again")
                self._notifier.ready("the configuration could not be taken again")
                raise

    async def _take_again(self) -> Reload:
        config = await asyncio.to_thread(self.load)  # 10,000 users take a second
        refuse_lost_file(config, self.config)
        before, fresh = self._configured, await asyncio.to_thread(lambda: frozenset(secrets_in(config)))
        self._configured = before | fresh
        await adopt_keys(self.trust, config)
        setup = await self._setup(config)
        for name, accounts in self.pools.items():
            try:
                await accounts.load()
            except VaultError as error:  # a faulty disk must not stop what serves from memory
                log.error("%s: can't look for accounts, those that were known stay: %s", name, error)
        warn_of_unknown(config, self.pools, self.people.directory.stored)
        config, after_restart = with_what_stays(config, self.config)
        files = tls_files(config)
        if (files is None) != (self.tls is None):
            after_restart.append("tls.enabled")
        elif self.tls is not None:
            self.tls.reload(files)
        self._adopt_logging(config)
        for name in after_restart:
            log.warning("`%s` changed: that needs a restart", name)
        await self.limits.reconfigure(config.limits)
        self.fair.on = config.limits.fair_share
        self.notices.settings = config.notices
        self.people.reconfigure(from_config(config))
        self._begin(setup)
        self.key = await asyncio.to_thread(self._admin_key, config)
        if (control := self.outside.made) is not None:
            control.key = self.key
            control.metrics_public = config.metrics_public
            control.compatibility = compatibility(config, self.plugins)
            control.health = health_text(config, self.plugins)
        self.gateway.use_lane(config.lane)
        self.gateway.pool.connect_timeout = config.connect_timeout
        self.metrics.per_user = config.metrics.per_user
        self.metering.reconfigure(config, self.pools.providers)
        self.gateway.pool.idle_timeout = config.stream_idle_timeout
        self.config = config
        self._configured = fresh | frozenset(secrets_in(config.database))
        log.info("the configuration was reloaded")
        self._notifier.ready(f"listening on {', '.join(self.addresses)}")
        return Reload([str(warning) for warning in config.warnings], after_restart)

    async def stop(self) -> None:
        """Accept nothing more, let open requests end within `drain_timeout`, then close everything."""
        self._notifier.stopping(f"finishing open requests (at most {self.config.drain_timeout:g} s)")
        self._notifier.extend(self.config.drain_timeout + 10)
        for server in self._servers:
            server.close()
        self.gateway.open.draining = True
        self.gateway.server.pre_shutdown()
        await self.outside.shutdown()
        await self.gateway.drained(self.config.drain_timeout)
        await self.gateway.server.shutdown(1.0)
        self.records.soon = self._logs.access.soon = None
        self.records.flush()
        await end(*self._tasks)
        await self._stack.aclose()

    def hurry(self) -> None:
        """Stop waiting for open requests. For a `stop` that is under way or about to begin."""
        self.gateway.open.hurry()
