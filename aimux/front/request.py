"""One request of a client, from its whole head on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.http.turn import Turn, pause
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from aimux.front.answer import Answer, Sent
    from aimux.front.connection import ClientConnection
    from aimux.http.request import BodyReader, RequestHead


class BodyError(GatewayError):
    """It is unclear where this request ends: its connection can't carry another one."""


class Request:
    """`keep_alive`: its connection can carry another one behind it; whoever answers may say no."""

    __slots__ = (
        "answered",
        "asked_at",
        "body_error",
        "connection",
        "head",
        "keep_alive",
        "limit",
        "raw",
        "reader",
        "turn",
    )

    def __init__(self, connection: ClientConnection, head: RequestHead) -> None:
        self.connection = connection
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
        self.asked_at = 0.0
        self.answered = False
        """Its answer was there before its body, of which the rest is dropped."""

    def whole(self, limit: int) -> bytes | None:
        """The body, where all of it is there; None: `read` it. GatewayError: 413 above `limit`."""
        length = self.head.length
        if (length is not None and length > limit) or len(self.raw) > limit:
            raise _too_large(limit)
        if self.reader is not None:
            return None
        raw, self.raw = self.raw, b""
        return raw

    async def read(self, limit: int) -> bytes:
        """The body, when all of it has come. GatewayError: 413 above `limit`, 408 where it comes too slowly, 400."""
        reader = self.reader
        if reader is not None:
            self.limit = limit
            self.asked_at = self.connection.body_wanted(reader, continues=self.head.expects and not reader.received)
            while self.reader is not None and self.body_error is None and reader.size <= limit:
                await pause()
            self.limit = None
            if self.body_error is not None:
                raise self.body_error
            if reader.size > limit:
                raise _too_large(limit)
        raw = self.whole(limit)
        assert raw is not None
        return raw

    def stop(self, error: GatewayError) -> None:
        """End it from outside: `error` is its answer, or breaks off the one that has begun."""
        flow = self.connection.flow
        if flow is None:
            self.turn.fail(error)
        else:
            flow.stop(error)

    def fail(self, status: int, message: str) -> None:
        """The rest of the body can't be read."""
        self.body_error = BodyError(
            ErrorKind.BAD_REQUEST, message, status=status, retry=None if status == 408 else False
        )
        if self.reader is not None:
            self.reader.drop()
        self.turn.resume()


def _too_large(limit: int) -> GatewayError:
    return GatewayError(
        ErrorKind.TOO_LARGE, f"The request's body is larger than {limit} bytes (`max_body_size`).", retry=False
    )
