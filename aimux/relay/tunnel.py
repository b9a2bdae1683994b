"""A WebSocket between a client and an upstream: two connections, and what one reads goes out at the other.

What crosses: data frames as they came (fragments stay fragments), pings and pongs, close codes with their reasons, and
an end without any. What doesn't: a peer's violation of the protocol ends its own side with the code that names it, and
the other side with one that says where the fault lies.

Flow control reaches across as for HTTP: while one side's transport is full, the other side isn't read. A large packet
is taken in slices, one in each round of the event loop: its kilobytes may be megabytes of compressed text, which must
fill a transport only once, or thousands of empty frames, during which other clients want to be served.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from websockets.frames import CloseCode, Frame, Opcode

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.typing import BytesLike

    from aimux.http.websocket import ClientSide, Codec, UpstreamSide

SLICE = 16 * 1024
CLOSE_SECONDS = 10.0
"""How long a peer has to answer a close frame, and to read something of what was sent before it."""
_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""A machine that is gone without a word is noticed within two minutes; a socket may be silent for hours otherwise."""


class End(asyncio.Protocol):
    """One of the two connections. `peer` is set by the pipe."""

    peer: End
    judge: Callable[[bytes], bool] | None = None
    """Sees each whole message before any of it goes on; one that it answers False does not."""

    def __init__(
        self,
        codec: Codec,
        transport: asyncio.Transport,
        observe: Callable[[bytes], None],
        ended: Callable[[End], None],
        over: Callable[[], None],
    ) -> None:
        """`observe` sees each whole message of this end's peer.

        `ended` is called once, when the peer closes, breaks off or breaks the rules; `over` when nothing more can come
        from it or go to it, so that the connection can be closed.
        """
        self.codec = codec
        self.transport = transport
        self.bytes_in = 0
        self.bytes_out = 0
        self._loop = asyncio.get_running_loop()
        self._observe = observe
        self._ended: Callable[[End], None] | None = ended
        self._over = over
        self._message = bytearray()
        self._withheld: list[Frame] = []
        """Of a message that is still to be judged."""
        self._held = bytearray()
        self._next: asyncio.Handle | None = None
        self._stopped = False
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        _notice_when_gone(transport)

    # --- what comes in --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._stopped or self._held or len(data) > SLICE:
            self._held += data
            self._pause()
            if not self._stopped and self._next is None:
                self._take_slice()
        else:
            self.codec.receive_data(data)
            self._pass_on()

    def _take_slice(self) -> None:
        self._next = None
        if self._stopped:
            return
        piece = bytes(self._held[:SLICE])
        del self._held[:SLICE]
        self.codec.receive_data(piece)
        self._pass_on()
        self.go_on()

    def go_on(self) -> None:
        """Take what is held back, then read on; nothing happens while the other side is full."""
        if self._stopped or self._next is not None:
            return
        if self._held:
            self._next = self._loop.call_soon(self._take_slice)
        elif self._lost:
            self.gone()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def _pass_on(self) -> None:
        codec, peer = self.codec, self.peer
        for frame in codec.frames_received():
            if frame.opcode < Opcode.CLOSE:
                if self.judge is not None and not self._judged(frame, self.judge):
                    continue
                self._collect(frame.data, frame.fin)
            peer.codec.relay(frame)
            frame.data = b""  # the library's parser holds on to its last frame, and an idle socket's may be 900 kB
        peer.flush()
        self.flush()
        if not codec.open:
            self._end()

    def _judged(self, frame: Frame, judge: Callable[[bytes], bool]) -> bool:
        """Whether the frame goes on now: as the last one of a message, behind those that were withheld."""
        withheld = self._withheld
        if not frame.fin:
            withheld.append(Frame(frame.opcode, bytes(frame.data), fin=False))
            return False
        before, self._withheld = withheld, []
        if not judge(b"".join([*(one.data for one in before), frame.data])):
            return False
        for one in before:
            self._collect(one.data, last=False)
            self.peer.codec.relay(one)
        return True

    def _collect(self, data: BytesLike, last: bool) -> None:
        """Fragments are put together for the observer alone; the codec bounds what a message may hold."""
        if not last:
            self._message += data
        elif not self._message:
            self._observe(bytes(data))
        else:
            message = bytes(self._message + data)
            self._message.clear()
            self._observe(message)

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if not self._held:
            self.gone()

    def gone(self) -> None:
        """The connection is no more, and what it brought has been dealt with or does not matter."""
        self._lost = True
        self.leave()
        self._end()
        self._over()

    # --- what goes out --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what the codec has ready."""
        writes = self.codec.data_to_send()
        if not writes or self._lost or self.transport.is_closing():
            return
        data = b"".join(writes)
        self.bytes_out += len(data)
        if data:
            self.transport.write(data)
        if self.codec.open:
            return
        self._wait_for_end()
        if not writes[-1]:  # the library's sign that this side has nothing more to say
            self._say_no_more()

    def say(self, message: bytes) -> None:
        """Send a text message of aimux's own, unless the peer is in the middle of one."""
        if message and self.codec.open and not self.codec.expect_continuation_frame:
            self.codec.send_text(message)

    def close(self, code: int | None, reason: str = "") -> None:
        """Begin the closing handshake; None is a close frame without a code."""
        if self.codec.open:
            self._ended = None
            self.codec.send_close(code, reason)
            self.flush()
        self.let_go()

    def cut(self) -> None:
        """End without a close frame; what was written before still goes out."""
        if self.codec.open:
            self._ended = None
            self._over()

    def _say_no_more(self) -> None:
        """The handshake is complete, or the peer broke the rules. Then closing at once could cost it the close frame.

        A connection that is closed with unread bytes in it is reset, and a reset discards what the peer hasn't read.
        """
        if self.codec.closed_by_peer is not None:
            self._over()
        else:
            self.transport.write_eof()

    def _wait_for_end(self) -> None:
        if self._timer is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._timer = self._loop.call_later(CLOSE_SECONDS, self._give_up)

    def leave(self) -> None:
        """Whoever owns the connection ends it. Half a message goes now: only a collection would free the ends."""
        self._held.clear()
        self._message.clear()
        self._withheld.clear()
        self.codec.reader.discard()
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        self._timer = None
        if 0 < self.transport.get_write_buffer_size() < self._unsent:
            self._wait_for_end()  # slow, but still reading
        else:
            self.transport.abort()
            self._over()

    # --- flow control ---------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The transport is full: the other side has to wait."""
        self.peer.stop()

    def resume_writing(self) -> None:
        self.peer.let_go()

    def stop(self) -> None:
        """What this end reads can't be taken now."""
        self._stopped = True
        self._pause()

    def let_go(self) -> None:
        """It can be taken again, or is only waited out."""
        if self._stopped:
            self._stopped = False
            self.go_on()

    def _pause(self) -> None:
        if not self._lost and not self.transport.is_closing():
            self.transport.pause_reading()


class Pipe:
    """A relayed socket. Wait for `done`, then close the client's connection."""

    def __init__(
        self,
        client: tuple[ClientSide, asyncio.Transport],
        upstream: tuple[UpstreamSide, asyncio.Transport],
        *,
        asked: Callable[[bytes], None],
        answered: Callable[[bytes], None],
        judge: Callable[[bytes], bool] | None = None,
    ) -> None:
        """`asked` and `answered` see each whole message of the client and of the upstream; they must not raise.

        They are called before the message's end goes on. If they close the pipe, it does not. `judge` sees each whole
        message of the client before that, and before any of it goes on: one that it answers False does not.
        """
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error = ""
        """What ended it, if that was not a close frame: `client_gone`, `upstream_lost`, or who broke the protocol."""
        self.detail = ""
        self.client = End(*client, asked, self._client_ended, self._finish)
        self.client.judge = judge
        self.upstream = End(*upstream, answered, self._upstream_ended, upstream[1].close)
        self.client.peer, self.upstream.peer = self.upstream, self.client

    def start(self, early: bytes) -> None:
        """`early`: what the upstream sent right behind its handshake."""
        self.upstream.data_received(early)
        self.upstream.go_on()

    def close(self, code: int, reason: str) -> None:
        """End both sides from here: the client is told `code`, the upstream that its client goes away."""
        self.client.close(code, reason)
        self.upstream.close(CloseCode.GOING_AWAY)

    def abort(self) -> None:
        """The client's connection is gone, or is about to be closed whatever the client does."""
        self.client.gone()

    def _client_ended(self, client: End) -> None:
        if client.codec.fault:
            self._fail("bad_request", client.codec.fault)
            self.upstream.close(CloseCode.GOING_AWAY)
        elif client.codec.closed_by_peer is not None:
            self.upstream.close(*client.codec.closed_by_peer)
        else:
            self._fail("client_gone", "the client's connection broke off")
            self.upstream.transport.abort()

    def _upstream_ended(self, upstream: End) -> None:
        if upstream.codec.overfed:
            self._fail("too_large", upstream.codec.fault)
            reason = "this answer is larger than aimux passes on (max_websocket_message)"
            self.client.close(CloseCode.MESSAGE_TOO_BIG, reason)
        elif upstream.codec.fault:
            self._fail("bad_gateway", upstream.codec.fault)
            self.client.close(CloseCode.BAD_GATEWAY, "the upstream broke the WebSocket protocol")
        elif upstream.codec.closed_by_peer is not None:
            self.client.close(*upstream.codec.closed_by_peer)
        else:
            self._fail("upstream_lost", "the upstream's connection broke off")
            self.client.cut()

    def _fail(self, error: str, detail: str) -> None:
        self.error, self.detail = error, detail

    def _finish(self) -> None:
        self.client.leave()
        if not self.done.done():
            self.done.set_result(None)


def _notice_when_gone(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None or transport.is_closing() or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
