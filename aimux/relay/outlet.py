"""The way of an answer's body to a client: framed as that client can read it, counted, and shown to an observer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from aimux.http.framing import LAST_CHUNK, Chunked, Length, UntilClose, chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aimux.http.errors import WireError
    from aimux.http.framing import Framer
    from aimux.http.head import ResponseHead

FLUSH_EVERY: Final = 8 * 1024
"""Bytes of a stream, some 60 events, between two looks of its observer."""

CHUNKED = b"transfer-encoding: chunked"


class Sink(Protocol):
    """Where a streamed answer goes: a client's connection."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Hands bytes to the client's transport. RuntimeError if that is closed."""

    @property
    def observe(self) -> Callable[[bytes], None]:
        """Takes a copy of the payload, after it was written. Must not raise."""

    @property
    def flush(self) -> Callable[[], None]:
        """Called now and then: the observer may look at what it took. Must not raise."""

    def complete(self) -> bytes | None:
        """The body ended. None: all is well. Bytes (may be empty): it was cut short; they tell the client so."""

    def over(self) -> bool:
        """Whether the protocol's last event was sent, and nothing behind it."""

    def broken(self, error: WireError) -> bytes | None:
        """The upstream died: what to write before the client's connection is broken. None: nothing is missing."""


class Outlet:
    """Made when the answer's head is known; `Exchange.begin` gives it the client's side."""

    sink: Sink
    header = b""
    """The header line, without its end, that says how the body is framed; none: by the connection's."""
    reframe: Callable[[Sequence[bytes]], bytes] | None = None
    """Frames the payload anew; None: the upstream's framing suits the client, and bytes pass as they came."""
    _end = b""
    """What ends the body."""

    def __init__(self, framer: Framer, head: ResponseHead, *, http11: bool) -> None:
        self.bytes_out = 0
        """Bytes of the body, framing included."""
        self.flush_at = FLUSH_EVERY
        self._framer = framer
        self._frame: Callable[[bytes], bytes] = bytes
        """Frames bytes of our own so that they can follow those already sent."""
        if isinstance(framer, Length):
            self._frame = framer.wrap
        elif isinstance(framer, Chunked):
            if http11:
                self._frame, self._end, self.header = framer.wrap, LAST_CHUNK, CHUNKED
            else:
                self.reframe = b"".join
        elif isinstance(framer, UntilClose) and http11:
            self.reframe, self._frame, self._end, self.header = _as_chunks, chunk, LAST_CHUNK, CHUNKED
        if head.length is not None and head.status != 204:
            self.header = b"content-length: %d" % head.length

    def send(self, data: bytes, payload: Sequence[bytes]) -> None:
        """Write, then let the observer see it."""
        self._write(data)
        for piece in payload:
            self.sink.observe(piece)
        if self.bytes_out > self.flush_at:
            self.flush()

    def flush(self) -> None:
        """Let the observer look at what it took."""
        self.flush_at = self.bytes_out + FLUSH_EVERY
        self.sink.flush()

    def finish(self, data: bytes, payload: Sequence[bytes]) -> bool:
        """The last bytes. They are observed before they are written: only then is it clear whether the answer is whole.

        False: it is not, and the client was told so.
        """
        for piece in payload:
            self.sink.observe(piece)
        cut = self.sink.complete()
        self._write(data + (self._end if cut is None else self._frame(cut)))
        return cut is None

    @property
    def lingers(self) -> bool:
        """The protocol's last event was sent, and the body can be ended for the upstream."""
        return self._framer.endable and self.sink.over()

    def farewell(self, error: WireError) -> bool:
        """The upstream died. True: behind the protocol's last event, and the body was ended for it."""
        last = self.sink.broken(error)
        if last is None and self._framer.endable:
            self._write(self._frame(b"") + self._end)
            return True
        self._write(self._frame(last or b""))
        return False

    def _write(self, data: bytes) -> None:
        if data:
            self.bytes_out += len(data)
            try:
                self.sink.write(data)
            except RuntimeError:
                pass  # a client that has just left: uvloop's transport raises before connection_lost is called


def _as_chunks(payload: Sequence[bytes]) -> bytes:
    return b"".join([chunk(piece) for piece in payload])
