"""The exchange of one request and its answer on an upstream's connection.

An exchange holds the answer back until somebody decides: `peek` shows its start, `begin` sends it to a client and from
then on each packet goes from the upstream's socket to the client's in one call, without a task switch. Flow control
reaches across: while the client can't take more, the upstream isn't read.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from aimux.http.errors import ProtocolError, WireError
from aimux.http.framing import Chunked, Framer, UntilClose, framer_for
from aimux.http.head_reader import HeadReader
from aimux.http.rounds import soon
from aimux.http.turn import PAUSE
from aimux.relay.errors import HeadTimeout, ReadError, StaleConnection, Stopped
from aimux.relay.outlet import Outlet

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from aimux.http.head import ResponseHead
    from aimux.http.turn import Turn
    from aimux.plugin.errors import GatewayError
    from aimux.relay.connection import Connection
    from aimux.relay.outlet import Sink

HELD_BACK: Final = 128 * 1024
"""Bytes of an answer kept while nobody has decided about it, unless whoever peeks wants more; reading pauses above."""
SWEPT_SECONDS: Final = 5.0
"""A head's deadline that is at least this far away is left to the pool's sweep, which may be a second late: a timer
would cost each request 2 µs."""


class State(Enum):
    """The state of an exchange. It only ever moves further down this list."""

    AWAITED = "the answer's head has not come"
    HELD = "the answer is held back: nobody has decided about it"
    STREAMING = "the answer goes to a client as it comes"
    ENDED = "all of the answer has come, or no more of it will, or what it switched to has the connection"


AWAITED: Final = State.AWAITED
HELD: Final = State.HELD
STREAMING: Final = State.STREAMING
ENDED: Final = State.ENDED
"""To look one up in its class takes 60 ns; Final, so that compiled code need not look one up at all."""


class Exchange:
    """One request and its answer. Its holder has to end it: `begin` and `rest` do so themselves, otherwise call
    `discard`."""

    # As long as it lasts.
    paused = False
    """The upstream isn't being read for now, so its silence is not its fault."""

    # Until the head is there.
    deadline: float | None = None
    """When it must be, by the loop's clock."""
    _timeout = 0.0

    # From the head on.
    _head: ResponseHead | None = None
    _framer: Framer | None = None

    # While the answer is held back.
    _most_held = HELD_BACK

    # What the pool's sweep last saw of it, and since when it has been so.
    seen = 0
    since = 0.0

    def __init__(
        self,
        connection: Connection,
        turn: Turn[Any],
        method: str,
        loop: asyncio.AbstractEventLoop,
        over: Callable[[Exchange], None],
        *,
        upgrade: bool = False,
    ) -> None:
        """`turn` awaits the answer; `over` is told of the exchange's end, once.

        `upgrade`: the request asks for another protocol, so that 101 is an answer, and `switch` follows it.
        """
        self.connection = connection
        self.method = method
        self.progress = 0
        """Bytes received, except for chunks that the connection passed on by itself: the outlet counts those."""
        self.error: WireError | None = None
        """What ended the answer before its time: then the client's connection has to be broken."""
        self._state = AWAITED
        self._loop = loop
        self._over = over
        self._upgrade = upgrade
        self._turn = turn
        self._reader = HeadReader()
        self._held: list[bytes] = []
        self._held_payload: list[bytes] = []
        self._held_size = 0
        self._outlet: Outlet | None = None
        """While it streams."""
        connection.exchange = self

    # --- the request and the answer's head ------------------------------------------------------------------------

    async def start(self, request: list[bytes], head_timeout: float) -> ResponseHead:
        """Send, and wait for the answer's head. Raises WireError by phase; then the connection is closed already."""
        self._timeout = head_timeout
        self.connection.transport.writelines(request)
        timer = None
        if head_timeout < SWEPT_SECONDS:
            timer = self._loop.call_later(head_timeout, self.head_timeout)
        else:
            self.deadline = self._loop.time() + head_timeout
        try:
            while self._state is AWAITED:
                await PAUSE
        except BaseException:
            self.discard()
            raise
        finally:
            self.deadline = None
            if timer is not None:
                timer.cancel()
        if self.error is not None:
            raise self.error
        assert self._head is not None
        return self._head

    def received(self, data: bytes) -> None:
        """Called by the connection with each packet."""
        self.progress += len(data)
        try:
            if self._state is AWAITED:
                self._read_head(data)
            else:
                self._read_body(data)
        except ProtocolError as error:
            self._fail(error)

    def _read_head(self, data: bytes) -> None:
        found = self._reader.feed(data)
        if found is None:
            return
        head, rest = found
        if head.status == 408 and self.connection.served and not head.keep_alive:
            # Sent when it had been idle for long, while the request was on its way (RFC 9110, section 15.5.9).
            self._fail(StaleConnection("the upstream had given the idle connection up"))
            return
        if head.status != 101:
            self._framer = framer_for(self.method, head.status, chunked=head.chunked, length=head.length)
        elif self._upgrade:
            self._framer = UntilClose()  # what follows is the other protocol's, whatever the head says of it
        else:
            raise ProtocolError("the upstream switched protocols without being asked")
        self._head, self._state = head, HELD
        if rest or self._framer.done:
            self._read_body(rest)  # which wakes
        else:
            self._turn.resume()

    # --- the answer's body ----------------------------------------------------------------------------------------

    def _read_body(self, data: bytes) -> None:
        framer, outlet = self._framer, self._outlet
        assert framer is not None
        forward, payload = framer.feed(data) if data or framer.unread else (b"", ())
        if framer.unread:
            self._reads()
            soon(self._read_unread)
        if outlet is None:
            self._hold(forward, payload)
            return
        if outlet.reframe is not None:
            forward = outlet.reframe(payload)
        if framer.done:
            self._finish(outlet, forward, payload)
            self._release()
            self._turn.resume()
        elif forward:
            outlet.send(forward, payload)

    def _read_unread(self) -> None:
        """Go on with the chunks of a packet that had too many of them."""
        if self._state is not ENDED:
            self.received(b"")
            self._reads()

    def _hold(self, forward: bytes, payload: Sequence[bytes]) -> None:
        assert self._framer is not None
        self._held.append(forward)
        self._held_payload.extend(payload)
        self._held_size += len(forward)
        if self._framer.done:
            self._release()
        elif self._held_size > self._most_held:
            self._read(False)
        self._turn.resume()

    def _finish(self, outlet: Outlet, forward: bytes, payload: Sequence[bytes]) -> None:
        if not outlet.finish(forward, payload):
            self.error = ReadError("the upstream ended the stream before its last event")

    def lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        framer = self._framer
        while self._state is not ENDED and framer is not None and framer.unread:
            self.received(b"")
        if self._state is ENDED:
            return
        if framer is None:
            if self.connection.served and not self._reader.began:
                self._fail(StaleConnection("the upstream had closed the idle connection"))
            else:
                self._fail(ReadError("the upstream closed the connection without an answer"))
            return
        framer.eof()
        if not framer.done or exc is not None:
            self._fail(ReadError("the upstream closed the connection in the middle of its answer"))
            return
        if self._outlet is not None:
            self._finish(self._outlet, b"", ())
        self._release()
        self._turn.resume()

    def _fail(self, error: WireError) -> None:
        if self._state is ENDED:
            return
        self.error = error
        try:
            if self._outlet is not None and self._outlet.farewell(error):
                self.error = None
        finally:  # whatever a sink does: else nobody would ever end this
            self._close()
            self._turn.resume()

    def head_timeout(self) -> None:
        """The head did not come in time."""
        self._fail(HeadTimeout(f"no answer within {round(self._timeout, 2):g} s"))

    def stop(self, error: GatewayError) -> None:
        """Break the answer off from our side: the client is told `error`."""
        self._fail(Stopped(error))

    def idle_timeout(self, seconds: float) -> None:
        """The pool saw no byte for this long."""
        self._fail(ReadError(f"no data from the upstream for {seconds:g} s"))

    # --- deciding about the answer --------------------------------------------------------------------------------

    async def peek(
        self,
        enough: Callable[[bytes], bool],
        timeout: float,  # noqa: ASYNC109
        most: int = HELD_BACK,
    ) -> bytes:
        """The payload so far, as soon as `enough(payload)` is true, the body ends or fails, there are `most` bytes, or
        time is up.

        Nothing is consumed: `begin` sends it all.
        """
        if most > self._most_held:
            self._most_held = most
            self._read(True)
        deadline = self._loop.time() + timeout
        timer: asyncio.TimerHandle | None = None
        try:
            while True:
                payload = b"".join(self._held_payload)
                # Always ask `enough`: the caller may draw conclusions from what it was shown.
                if (
                    enough(payload)
                    or self._state is ENDED
                    or self._held_size > self._most_held
                    or self._loop.time() >= deadline
                ):
                    return payload
                if timer is None:
                    timer = self._loop.call_at(deadline, self._turn.resume)
                await PAUSE
        finally:
            if timer is not None:
                timer.cancel()

    @property
    def passed(self) -> int:
        """A count that grows with each byte of the answer."""
        return self.progress + (self._outlet.bytes_out if self._outlet is not None else 0)

    @property
    def lingers(self) -> bool:
        """All that the protocol has to say was sent, and only the body's end is missing."""
        return self._outlet is not None and self._outlet.lingers

    @property
    def held_whole(self) -> bool:
        """All of the answer is there, and nothing of it was sent yet."""
        return self._state is ENDED and self.error is None

    def outlet(self, *, http11: bool) -> Outlet:
        """For `begin`; its `header` belongs into the head."""
        assert self._framer is not None
        assert self._head is not None
        return Outlet(self._framer, self._head, http11=http11)

    def begin(self, outlet: Outlet, sink: Sink, head: bytes, *, paused: bool = False) -> bool:
        """Send the answer: `head`, and what was held back. True: this was all; otherwise await `rest`.

        `paused`: the client can't take more yet, `resume` will be called.
        """
        payload = self._held_payload
        body = b"".join(self._held) if outlet.reframe is None else outlet.reframe(payload)
        data = head + body
        self._held, self._held_payload = [], []
        outlet.sink = sink
        outlet.bytes_out = -len(head)
        if self._state is ENDED and self.error is None:
            self._finish(outlet, data, payload)
            return True
        outlet.send(data, payload)
        if self.error is not None:
            if outlet.farewell(self.error):
                self.error = None
            return True
        self._outlet, self._state = outlet, STREAMING
        if isinstance(self._framer, Chunked) and outlet.reframe is None:
            self.connection.chunks = outlet, self._framer, sink.write, sink.observe
        self._read(not paused)
        return False

    async def rest(self) -> None:
        """Wait until all was sent as it comes, or sending failed. If it is cancelled (the client left), it stops the
        upstream."""
        try:
            while self._state is not ENDED:
                await PAUSE
        finally:
            self.discard()

    def switch(self, tunnel: asyncio.Protocol) -> bytes:
        """After a 101: `tunnel` takes over until the connection ends. Raises WireError if it has ended already.

        Returns what followed the head. If that was much, the transport is not being read: the tunnel has to resume it.
        """
        if self._state is ENDED:
            raise self.error or ReadError("the upstream closed the connection right after it switched protocols")
        self._end()
        self.connection.tunnel = tunnel
        return b"".join(self._held)

    def pause(self) -> None:
        """The client can't take more."""
        if self._state is STREAMING:
            self._read(False)

    def resume(self) -> None:
        """The client can take more."""
        if self._state is STREAMING:
            self._read(True)

    def _read(self, on: bool) -> None:
        if self._state is not ENDED:
            self.paused = not on
            self._reads()

    def _reads(self) -> None:
        """Read from the upstream, unless the client can't take more or a packet is still being dealt with."""
        transport, framer = self.connection.transport, self._framer
        if self._state is ENDED or transport.is_closing():
            return
        if self.paused or (framer is not None and framer.unread):
            transport.pause_reading()
        else:
            transport.resume_reading()

    def discard(self) -> None:
        """Give up the answer. A complete one has already returned its connection."""
        if self._state is not ENDED:
            self._close()

    def _release(self) -> None:
        """The answer is complete: the connection can serve again, or not."""
        self._end()
        connection, head, framer = self.connection, self._head, self._framer
        assert head is not None
        assert framer is not None
        # If the answer came before the whole request was sent, the rest of the request is in the way.
        unsent = connection.transport.get_write_buffer_size()
        if head.keep_alive and framer.clean and not unsent and not connection.closed:
            connection.keeper.give_back(connection)
        else:
            connection.abort()

    def _close(self) -> None:
        self._end()
        self.connection.abort()

    def _end(self) -> None:
        self._state = ENDED
        self.connection.part()
        self._over(self)
