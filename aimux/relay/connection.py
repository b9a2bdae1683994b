"""One connection to an upstream: used by one exchange at a time, or taken over by what a 101 switched to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aimux.http.framing import chunk_heads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aimux.http.framing import Chunked
    from aimux.relay.outlet import Outlet


class Receiver(Protocol):
    """Gets the received bytes: an exchange."""

    def received(self, data: bytes) -> None:
        """A packet."""

    def lost(self, exc: Exception | None) -> None:
        """The connection is gone."""


class Keeper(Protocol):
    """The owner of connections: a pool."""

    def give_back(self, connection: Connection) -> None:
        """The connection is ready for another exchange."""

    def forget(self, connection: Connection) -> None:
        """The connection is closed or about to be."""


class Connection:
    """One connection to an origin, used by one exchange at a time."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything can use it
        self.exchange: Receiver | None = None
        self.chunks: tuple[Outlet, Chunked, Callable[[bytes], None], Callable[[bytes], None]] | None = None
        """Where the exchange's answer streams chunk by chunk: its outlet and framer, and who writes and observes."""
        self.tunnel: asyncio.Protocol | None = None
        """Has taken over after a 101."""
        self.served = 0
        self.idle_since = 0.0
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.chunks is not None:
            outlet, framer, write, observe = self.chunks
            if framer.between:
                # An upstream that flushes each event sends packets of exactly one chunk. A turn does this 300 times, so
                # it is a single call, written by counted instructions.
                size = len(data)
                rest = data.removeprefix(chunk_heads[size])
                if rest is not data:  # which it is where there was no such beginning
                    payload = rest.removesuffix(b"\r\n")
                    if payload is not rest:
                        sent = outlet.bytes_out = outlet.bytes_out + size
                        try:
                            write(data)
                        except RuntimeError:
                            pass  # a client that has just left, as in `Outlet._write`
                        observe(payload)
                        if sent > outlet.flush_at:
                            outlet.flush()
                        return
        if self.exchange is not None:
            self.exchange.received(data)
        elif self.tunnel is not None:
            self.tunnel.data_received(data)
        else:
            self.abort()  # an answer that nobody asked for

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.keeper.forget(self)
        if self.exchange is not None:
            self.exchange.lost(exc)
        elif self.tunnel is not None:
            self.tunnel.connection_lost(exc)

    def pause_writing(self) -> None:
        if self.tunnel is not None:
            self.tunnel.pause_writing()

    def resume_writing(self) -> None:
        if self.tunnel is not None:
            self.tunnel.resume_writing()

    def part(self) -> None:
        """The exchange is over."""
        self.exchange = self.chunks = None

    def abort(self) -> None:
        """Close at once, unsent bytes dropped."""
        self.closed = True
        self.keeper.forget(self)
        if self.transport is not None:
            self.transport.abort()
