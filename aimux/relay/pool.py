"""Keep-alive connections to upstream origins."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from yarl import URL

from aimux.http.tls import connect, trusting
from aimux.relay.connection import Connection
from aimux.relay.errors import ConnectError, ConnectTimeout, ReadError, StaleConnection
from aimux.relay.exchange import Exchange
from aimux.relay.liveness import is_unheard, notice_when_gone
from aimux.relay.proxy import UnusableProxy, open_tunnel, proxy_for, reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.http.head import ResponseHead
    from aimux.http.turn import Turn

IDLE_SECONDS = 50.0
"""Below the 60 s after which common load balancers drop an idle connection, so that few requests meet a stale one."""
SWEEP_SECONDS = 1.0
LINGER_SECONDS = 15.0
"""How long an upstream has for the end of a body after the protocol's last event: some never end it, while Claude Code
waits for that, and asks again after five minutes."""
ASLEEP_SECONDS = 5.0
"""If the wall clock has moved by this much more than the loop's clock, the machine slept: the loop's stands still
then."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where connections go. Make it once per base URL: only the same object shares connections, because comparing field
    by field would cost each request 1 µs. `base_path` has no slash at its end.
    """

    scheme: str
    host: str
    port: int
    host_header: bytes
    base_path: bytes
    proxy: URL | None
    obstacle: str = ""
    """Why nothing can be connected: a proxy that can't be used."""

    @classmethod
    def parse(cls, base_url: str) -> Origin:
        """From a checked http(s) URL; the proxy comes from HTTPS_PROXY, HTTP_PROXY and NO_PROXY."""
        url = URL(base_url)
        host, port = url.host, url.port
        assert host
        assert port
        authority = url.raw_authority.rpartition("@")[2]
        proxy, obstacle = None, ""
        try:
            proxy = proxy_for(url.scheme, host, port)
        except UnusableProxy as error:
            obstacle = str(error)
        return cls(
            url.scheme,
            host,
            port,
            authority.encode("ascii"),
            url.raw_path.rstrip("/").encode("ascii"),
            proxy,
            obstacle,
        )


def _left(making: asyncio.Task[Connection]) -> None:
    """Whoever it was made for left just as it was."""
    if not making.cancelled() and making.exception() is None:
        making.result().abort()


class Pool:
    """Connections by origin, last used first. One pool serves a whole process; it must be closed."""

    def __init__(
        self,
        *,
        connect_timeout: float = 10.0,
        idle_timeout: float = 300.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.connect_timeout = connect_timeout
        self.idle_timeout = idle_timeout
        """Seconds without a byte in the middle of an answer."""
        self._loop = asyncio.get_running_loop()
        self._ssl = ssl_context
        self._idle: defaultdict[Origin, deque[Connection]] = defaultdict(deque)
        self._origins: dict[Connection, Origin] = {}
        self._active: set[Exchange] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._ahead = 0.0
        """By how much the wall clock is ahead of the loop's."""
        self._closed = False

    @property
    def open_connections(self) -> int:
        return len(self._origins)

    @property
    def active_exchanges(self) -> int:
        return len(self._active)

    async def request(
        self,
        turn: Turn[Any],
        origin: Origin,
        method: str,
        request: list[bytes],
        head_timeout: float,
        *,
        upgrade: bool = False,
    ) -> tuple[Exchange, ResponseHead]:
        """Send a request whose bytes are ready and wait, in `turn`, for the answer's head. Raises WireError by phase.

        A reused connection that turns out to be closed is replaced by a new one, once: nothing of an answer had come.
        """
        connection = self._take(origin) or await self._connect(turn, origin)
        exchange = self._begin(turn, connection, method, upgrade)
        try:
            return exchange, await exchange.start(request, head_timeout)
        except StaleConnection:
            pass
        exchange = self._begin(turn, await self._connect(turn, origin), method, upgrade)
        return exchange, await exchange.start(request, head_timeout)

    def _begin(self, turn: Turn[Any], connection: Connection, method: str, upgrade: bool) -> Exchange:
        exchange = Exchange(connection, turn, method, self._loop, self._active.discard, upgrade=upgrade)
        self._active.add(exchange)
        if self._sweeper is None:
            self._ahead = time.time() - self._loop.time()
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return exchange

    def _take(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if not connection.closed and not connection.transport.is_closing():
                return connection
        return None

    def give_back(self, connection: Connection) -> None:
        connection.served += 1
        connection.idle_since = self._loop.time()
        connection.transport.resume_reading()
        if self._closed:
            connection.abort()
        else:
            self._idle[self._origins[connection]].append(connection)

    def forget(self, connection: Connection) -> None:
        origin = self._origins.pop(connection, None)
        if origin is not None and connection.exchange is None and (idle := self._idle.get(origin)):
            try:
                idle.remove(connection)
            except ValueError:
                pass

    async def _connect(self, turn: Turn[Any], origin: Origin) -> Connection:
        making = self._loop.create_task(self._new(origin))
        try:
            connection = await turn.apart(making)
        except BaseException:
            making.add_done_callback(_left)
            raise
        if connection.closed or connection.transport.is_closing():
            raise ReadError("the upstream closed the connection, or spoke, before it was asked anything")
        return connection

    async def _new(self, origin: Origin) -> Connection:
        if origin.obstacle:
            raise ConnectError(origin.obstacle)
        through = f" through the proxy {origin.proxy.host}:{origin.proxy.port}" if origin.proxy is not None else ""
        try:
            async with asyncio.timeout(self.connect_timeout):
                connection = await self._open(origin)
        except TimeoutError:
            raise ConnectTimeout(
                f"no connection to {origin.host}:{origin.port}{through} within {self.connect_timeout:g} s"
            ) from None
        except (OSError, ssl.CertificateError) as error:
            raise ConnectError(f"can't connect to {origin.host}:{origin.port}: {reason(error)}") from error
        if not connection.closed:  # or it would never be forgotten
            self._origins[connection] = origin
        return connection

    async def _open(self, origin: Origin) -> Connection:
        connection = Connection(self)
        app = cast("asyncio.Protocol", connection)
        tls = self._context() if origin.scheme == "https" else None
        if origin.proxy is not None:
            # Also for plain http: the proxy then sees where the request goes and nothing of it.
            to_proxy = self._context() if origin.proxy.scheme == "https" else None
            await open_tunnel(origin.proxy, origin.host, origin.port, app, tls, to_proxy)
        else:
            await connect(app, origin.host, origin.port, tls)
        notice_when_gone(connection.transport)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._ssl is None:
            self._ssl = trusting()
            self._ssl.options |= ssl.OP_NO_RENEGOTIATION  # TLSTransport writes when it is told to
        return self._ssl

    def _sweep(self) -> None:
        """Once a second instead of a timer per packet: end silent answers, close connections idle for too long."""
        self._sweeper = self._loop.call_later(
            SWEEP_SECONDS, self._sweep
        )  # first: a fault must not make it the last one
        now = self._loop.time()
        ahead, self._ahead = self._ahead, time.time() - now
        if self._ahead - ahead > ASLEEP_SECONDS:
            self._drop_idle(self._idle.values())
        for exchange in list(self._active):
            connection = exchange.connection
            if connection.served and not exchange.progress and is_unheard(connection.transport):
                # The network may have changed, so that all its connections are dead.
                self._drop_idle([self._idle[self._origins[connection]]])
                connection.abort()
                exchange.lost(None)
            elif exchange.deadline is not None and now >= exchange.deadline:
                exchange.head_timeout()
            elif (passed := exchange.passed) != exchange.seen or exchange.paused:
                # Letting go of a client that takes nothing is the server's task.
                exchange.seen, exchange.since = passed, now
            elif exchange.progress and now - exchange.since >= self.idle_timeout:
                exchange.idle_timeout(self.idle_timeout)
            elif now - exchange.since >= LINGER_SECONDS and exchange.lingers:
                exchange.idle_timeout(LINGER_SECONDS)
        for idle in self._idle.values():
            while idle and now - idle[0].idle_since >= IDLE_SECONDS:
                idle.popleft().abort()
        if not self._active and not self._origins:
            self._sweeper.cancel()
            self._sweeper = None

    def _drop_idle(self, origins: Iterable[deque[Connection]]) -> None:
        for idle in origins:
            while idle:
                idle.pop().abort()

    async def close(self) -> None:
        """Close every connection; exchanges under way fail."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for exchange in list(self._active):
            exchange.discard()
        for connection in list(self._origins):
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # let the transports call connection_lost
