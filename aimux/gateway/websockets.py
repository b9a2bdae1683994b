"""A WebSocket's way: its handshake goes through the attempt loop like any request; then a pipe, metered and drained.

The socket belongs to the account that answered the handshake until it ends. Its record says how long it was open and
how many bytes crossed it; each of its turns has a record of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from websockets.frames import CloseCode

from aimux.front.answer import SENT, Sent
from aimux.gateway.answers import DONE, own_lines
from aimux.gateway.handshakes import RESTARTING
from aimux.gateway.headers import to_client
from aimux.gateway.open_socket import OpenSocket
from aimux.gateway.relayed import note_echoed
from aimux.http.errors import WireError
from aimux.http.websocket import HANDSHAKE_HEADERS
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.relay.tunnel import Pipe
from aimux.relay.unfinished import Unfinished

if TYPE_CHECKING:
    from aimux.front.request import Request
    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.handshakes import Handshake
    from aimux.gateway.limiting import Limiting
    from aimux.gateway.vendor_storage import VendorStorage
    from aimux.metering.estimates import Estimates
    from aimux.metering.metrics import Metrics
    from aimux.metering.record import RecordSink

log = logging.getLogger("aimux.gateway")


class WebSockets:
    """The open sockets of a gateway."""

    def __init__(
        self, metrics: Metrics, finished: RecordSink, limiting: Limiting, storage: VendorStorage, estimates: Estimates
    ) -> None:
        """`finished` takes the record of each turn."""
        self._metrics = metrics
        self._finished = finished
        self._limiting = limiting
        self._storage = storage
        self._estimates = estimates
        self._open: set[OpenSocket] = set()
        self._unfinished = Unfinished()

    def __len__(self) -> int:
        return len(self._open)

    def drain(self) -> None:
        """Close each socket as soon as no turn is under way."""
        for socket in list(self._open):
            socket.drain()

    def cut(self) -> None:
        """Close the sockets that are left in the middle of a turn."""
        for socket in list(self._open):
            socket.pipe.close(CloseCode.SERVICE_RESTART, RESTARTING)

    async def relay(self, request: Request, call: Call, attempt: Attempt, upgrade: Handshake, started: float) -> Sent:
        """From the upstream's 101 to the socket's end. Raises GatewayError as long as the client has no byte."""
        record, provider, connection = call.record, attempt.route.provider, request.connection
        transport, upstream = connection.transport, upgrade.upstream
        assert upstream is not None
        socket = OpenSocket(call, attempt, self._finished, self._limiting, self._storage, self._estimates)
        try:
            upstream.check_handshake(attempt.head)
            pipe = Pipe(
                (upgrade.client, transport),
                (upstream, attempt.exchange.connection.transport),
                asked=socket.asked,
                answered=socket.answered,
                unfinished=self._unfinished,
                judge=socket.admits,
            )
            early = attempt.exchange.switch(pipe.upstream)
        except WireError as error:
            raise GatewayError(ErrorKind.BAD_GATEWAY, f"{provider.instance} gave no answer: {error}.") from error
        socket.pipe = pipe
        note_echoed(attempt)
        transport.write(_answer(call, attempt, upgrade, self._limiting))
        record.status = 101
        record.ttfb = time.perf_counter() - started
        request.keep_alive = False
        self._metrics.opened(record.provider)
        self._open.add(socket)
        client = _ToClient(socket)
        connection.flow = client
        try:
            if connection.full:
                client.pause()
            pipe.start(early)
            connection.upgrade(pipe.client)
            await request.turn.apart(pipe.done)
        except asyncio.CancelledError:
            if connection.lost:
                pipe.abort()
            else:
                pipe.close(CloseCode.SERVICE_RESTART, RESTARTING)
                record.error = "shutdown"
            raise
        finally:
            connection.flow = None
            self._open.discard(socket)
            self._metrics.closed(record.provider)
            record.bytes_in, record.bytes_out = pipe.client.bytes_in, pipe.client.bytes_out
            # Codex hangs up without a close frame; between two turns that is no abort.
            gone_at_rest = pipe.error == "client_gone" and socket.at_rest
            record.error = record.error or (pipe.error if pipe.error and not gone_at_rest else DONE)
            left = "upstream_lost" if pipe.upstream_left else "client_gone"
            socket.ended(left if record.error == DONE else record.error)
            if pipe.error not in {"", "client_gone"}:
                log.warning("%s: %s account %s: %s", record.request_id, record.provider, record.account, pipe.detail)
        return SENT


class _ToClient:
    """The socket's flow, as a client's connection knows it."""

    __slots__ = ("_end", "stop")

    def __init__(self, socket: OpenSocket) -> None:
        self._end = socket.pipe.client
        self.stop = socket.stop

    def pause(self) -> None:
        self._end.pause_writing()

    def resume(self) -> None:
        self._end.resume_writing()


def _answer(call: Call, attempt: Attempt, upgrade: Handshake, limiting: Limiting) -> bytes:
    provider = attempt.route.provider
    limits = limiting.told_first(call.admitted.who, provider, attempt.shared)
    prefix = "" if limits is None else provider.limit_header_prefix
    blocked = attempt.route.blocked | HANDSHAKE_HEADERS
    lines = to_client(attempt.head, blocked, prefix, secret=attempt.credential.secret)
    lines += (limits or []) + own_lines(call, attempt)
    if upgrade.upstream is not None and upgrade.upstream.subprotocol:
        lines.append(b"Sec-WebSocket-Protocol: %b" % upgrade.upstream.subprotocol.encode())
    fields = [b"%b: %b" % field for field in upgrade.fields]
    return b"\r\n".join([b"HTTP/1.1 101 Switching Protocols", *lines, *fields, b"", b""])
