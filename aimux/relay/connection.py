"""One connection to an upstream: used by one exchange at a time, or taken over by what a 101 switched to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aimux.relay.framing import chunk_lengths

if TYPE_CHECKING:
    from aimux.relay.exchange import Exchange
    from aimux.relay.pool import Pool


class Connection(asyncio.Protocol):
    """One connection to an origin, used by one exchange at a time."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything can use it
        self.exchange: Exchange | None = None
        self.tunnel: asyncio.Protocol | None = None
        """What took over after a 101."""
        self.served = 0
        self.idle_since = 0.0
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is not None:
            chunks = exchange.chunks
            if chunks is not None and chunks.between:
                # An upstream that flushes each event sends packets of exactly one chunk. What is done here for one is
                # what a turn costs, 300 times: hence in a single call.
                end = data.find(b"\r\n", 1, 18)
                if end > 0 and chunk_lengths[data[:end]] == len(data) and data[-2:] == b"\r\n":
                    exchange.bytes_out += len(data)
                    try:
                        exchange.write(data)
                    except RuntimeError:
                        pass  # a client that has just left, as in `Exchange._send`
                    exchange.observe(data[end + 2 : -2])
                    if exchange.bytes_out > exchange.flush_at:
                        exchange.flush()
                    return
            exchange.received(data)
        elif self.tunnel is not None:
            self.tunnel.data_received(data)
        else:
            self.abort()  # an answer that nobody asked for

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.pool.forget(self)
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

    def abort(self) -> None:
        """Close at once, unsent bytes dropped."""
        self.closed = True
        self.pool.forget(self)
        if self.transport is not None:
            self.transport.abort()
