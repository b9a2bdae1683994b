"""One request of a client, from its whole head on."""

from __future__ import annotations

import asyncio  # noqa: TC003 - compiled, a protocol's annotations are looked up
from typing import TYPE_CHECKING, Protocol

from aimux.compiling import mypyc_attr
from aimux.front import bounds
from aimux.http.turn import PAUSE, Turn
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from aimux.front.answer import Answer, Sent
    from aimux.http.request import BodyReader, RequestHead


class BodyError(GatewayError):
    """It is unclear where this request ends: its connection can't carry another one."""


class Flow(Protocol):
    """What is being sent to a client."""

    def pause(self) -> None:
        """The client can't take more."""

    def resume(self) -> None:
        """The client can take more."""

    def stop(self, error: GatewayError) -> None:
        """Send nothing more but `error`, in the protocol's own form."""


class Connection(Protocol):
    """A client's connection, as its requests and whoever serves them know it."""

    transport: asyncio.Transport
    peer: str
    """The client's address; "" for a unix socket's."""
    reached: str
    """Which of this machine's addresses it has reached; as above."""
    flow: Flow | None
    """The answer, or the WebSocket, that is streaming to it."""
    full: bool
    """The client takes less than it is sent: an answer that starts now starts paused."""
    admission: object
    """What the server derived from the last head alone, for the next request with the same head."""

    @property
    def lost(self) -> bool:
        """The client has gone."""

    def turn_ended(self, answer: Answer | Sent | None) -> None:
        """The request was served: with `answer`, which is to be sent, or one that was. None: it could not be."""

    def upgrade(self, tunnel: asyncio.Protocol) -> None:
        """Everything that comes from here on, and what came behind the handshake, is `tunnel`'s."""


class ReadConnection(Connection, Protocol):
    """One that the front reads itself."""

    def body_wanted(self, reader: BodyReader, *, continues: bool) -> float:
        """Somebody waits for the body; the client may wait to be told. Returns the time on the loop's clock."""

    def read(self, on: bool) -> None:
        """Take more of what the client sends, or not for now."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Request:
    """What whoever serves it knows of it. `keep_alive`: its connection can carry another one; they may say no."""

    __slots__ = ("connection", "head", "keep_alive", "turn")

    def __init__(self, connection: Connection, head: RequestHead) -> None:
        self.connection = connection
        self.head = head
        self.keep_alive = head.keep_alive
        self.turn: Turn[Answer | Sent] = Turn(connection.turn_ended)

    def whole(self, limit: int) -> bytes | None:
        """The body, where all of it is there; None: `read` it. GatewayError: 413 above `limit`."""
        raise NotImplementedError

    async def read(self, limit: int) -> bytes:
        """The body, when all of it has come. GatewayError: 413 above `limit`, 408 where it comes too slowly, 400."""
        raise NotImplementedError

    def stop(self, error: GatewayError) -> None:
        """End it from outside: `error` is its answer, or breaks off the one that has begun."""
        flow = self.connection.flow
        if flow is None:
            self.turn.fail(error)
        else:
            flow.stop(error)


class ReceivedRequest(Request):
    """One that the front has read."""

    __slots__ = ("asked_at", "body_error", "front", "limit", "raw", "reader", "seen", "seen_at")

    front: ReadConnection
    """Its connection, as the reading side sees it."""
    asked_at: float
    seen: int
    """Bytes of the body when the sweep last saw that there were more, at `seen_at`."""
    seen_at: float

    def __init__(self, connection: ReadConnection, head: RequestHead) -> None:
        self.connection = self.front = connection  # not by `super`: 0.2 µs
        self.head = head
        self.keep_alive = head.keep_alive
        self.turn: Turn[Answer | Sent] = Turn(connection.turn_ended)
        self.raw = b""
        """Its body, when `reader` is None."""
        self.reader: BodyReader | None = None
        """Reads what is still to come of it."""
        self.body_error: BodyError | None = None
        self.limit: int | None = None
        """Bytes that somebody wants of the body, since `asked_at`."""

    def whole(self, limit: int) -> bytes | None:
        length = self.head.length
        if (length is not None and length > limit) or len(self.raw) > limit:
            raise too_large(limit)
        if self.reader is not None:
            return None
        raw, self.raw = self.raw, b""
        return raw

    async def read(self, limit: int) -> bytes:
        reader = self.reader
        if reader is not None:
            self.want(reader, limit, continues=self.head.expects and not reader.received)
            while self.reader is not None and self.body_error is None and reader.size <= limit:
                await PAUSE
            self.limit = None
            if self.body_error is not None:
                raise self.body_error
            if reader.size > limit:
                raise too_large(limit)
        raw = self.whole(limit)
        assert raw is not None
        return raw

    def want(self, reader: BodyReader, limit: int, *, continues: bool) -> None:
        """Somebody waits for the body from now on; the client may wait to be told."""
        self.limit = limit
        self.seen = -1
        self.asked_at = self.seen_at = self.front.body_wanted(reader, continues=continues)

    def sweep(self, now: float) -> None:
        """Let go of a client that sends nothing of the body, or too little, for too long."""
        if self.reader is None or self.limit is None:
            return
        received, waited = self.reader.received, now - self.asked_at
        if received != self.seen:
            self.seen, self.seen_at = received, now
        if now - self.seen_at >= bounds.BODY_SECONDS:
            self.fail(408, f"The request's body did not arrive: nothing came for {bounds.BODY_SECONDS:g} s.")
        elif received < bounds.BODY_RATE * (waited - bounds.BODY_GRACE):
            self.fail(408, f"The request's body did not arrive: less than {bounds.BODY_RATE} bytes a second came.")

    def fail(self, status: int, message: str) -> None:
        """The rest of the body can't be read."""
        self.body_error = BodyError(
            ErrorKind.BAD_REQUEST, message, status=status, retry=None if status == 408 else False
        )
        if self.reader is not None:
            self.reader.drop()
        self.turn.resume()


def too_large(limit: int) -> GatewayError:
    return GatewayError(
        ErrorKind.TOO_LARGE, f"The request's body is larger than {limit} bytes (`max_body_size`).", retry=False
    )
