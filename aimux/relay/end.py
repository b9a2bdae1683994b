"""One side of a relayed WebSocket: what its peer sends is read in pieces and goes to the other side.

Flow control reaches across as for HTTP: while one side's transport is full, the other side isn't read. A large packet
is taken in pieces, one in each round of the event loop: its kilobytes may be megabytes of compressed text, which must
fill a transport only once, or thousands of empty frames, which must not keep other clients waiting.

A message has to arrive in time, and all unfinished ones together hold no more than the process can spare.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from websockets.frames import Opcode

from aimux.http.rounds import soon
from aimux.relay.intake import Intake
from aimux.relay.liveness import notice_when_gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.http.websocket import Codec
    from aimux.relay.messages import Messages
    from aimux.relay.unfinished import Unfinished

MESSAGE_RATE = 4096
"""A message gets one more second for each so many of its bytes on the wire."""
CLOSE_SECONDS = 10.0
"""How long a peer has to answer a close frame, and to read something of what was sent before it."""


class End(asyncio.Protocol):
    """One of a socket's two connections. `peer`, the other one, is set by the pipe."""

    peer: End

    def __init__(
        self,
        codec: Codec,
        transport: asyncio.Transport,
        messages: Messages,
        *,
        ended: Callable[[End], None],
        over: Callable[[], None],
        refused: Callable[[End, str, str], None],
        unfinished: Unfinished,
        patience: float,
    ) -> None:
        """`ended` is called once, when the peer closes, breaks off or breaks the rules; `over` when nothing more can
        come from it or go to it, so that the connection can be closed; `refused`, with an error and why, where the
        socket has to end because of what this end holds. `patience`: seconds for a message.
        """
        self.codec = codec
        self.transport = transport
        self.bytes_in = 0
        self.bytes_out = 0
        self._loop = asyncio.get_running_loop()
        self._messages = messages
        self._ended: Callable[[End], None] | None = ended
        self._over = over
        self._refused = refused
        self._unfinished = unfinished
        self._patience = patience
        self._deadline: asyncio.TimerHandle | None = None
        """Runs while a part of a message is held, …"""
        self._began = 0.0
        self._before = 0
        """… which began at that time, behind so many bytes."""
        self._intake = Intake()
        self._reading_on = False
        self._stopped = False
        self._closing = False
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        notice_when_gone(transport)

    # --- what comes in --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if not self._stopped and self._intake.at_once(data):
            self.codec.receive_data(data)
            self._pass_on()
            return
        self._intake.put(data)
        if not (self._stopped or self._reading_on) and (piece := self._intake.take(quick=True)):
            self.codec.receive_data(piece)
            self._pass_on()
        if self._stopped or self._intake.ready:
            self._pause()
            self.go_on()

    def _take_piece(self) -> None:
        self._reading_on = False
        if self._stopped:
            return
        if piece := self._intake.take():
            self.codec.receive_data(piece)
            self._pass_on()
        self.go_on()

    def go_on(self) -> None:
        """Take what is held back, then read on; nothing happens while the other side is full."""
        if self._stopped or self._reading_on:
            return
        if self._intake.ready:
            self._reading_on = True
            soon(self._take_piece)
        elif self._lost:
            self.gone()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def _pass_on(self) -> None:
        codec, peer, ended = self.codec, self.peer, False
        for frame in codec.frames_received():
            if frame.opcode >= Opcode.CLOSE:
                peer.codec.relay(frame)
            elif not self._closing:  # nobody waits for what comes behind our own close frame
                ended = ended or frame.fin
                for one in self._messages.take(frame):
                    peer.codec.relay(one)
            frame.data = b""  # the library's parser holds on to its last frame, and an idle socket's may be 900 kB
        peer.flush()
        self.flush()
        if not codec.open:
            self._end()
        if ended and self._deadline is not None:
            self._hold(0)
        size = self._messages.size + len(codec.reader.buffer)
        if size or self._deadline is not None:
            self._hold(size)

    # --- messages that have not ended ---------------------------------------------------------------------------------

    def _hold(self, size: int) -> None:
        """This many bytes of a message are there."""
        if size and self._deadline is None:
            self._began, self._before = self._loop.time(), self.bytes_in
            self._deadline = self._loop.call_later(self._patience, self._late)
        elif not size and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._unfinished.holds(self, size)

    def _late(self) -> None:
        now = self._loop.time()
        if self._stopped:  # it can't be accepted, which is not its peer's fault
            self._began, self._before = now, self.bytes_in
        left = self._began + self._patience + (self.bytes_in - self._before) / MESSAGE_RATE - now
        if left > 0:
            self._deadline = self._loop.call_later(left, self._late)
        else:
            self._refused(self, "timeout", f"a message did not arrive within {now - self._began:.0f} s")

    def give_up(self, why: str) -> None:
        """End the socket: see Unfinished."""
        self._refused(self, "too_large", why)

    def drop(self) -> None:
        """Forget what was sent and not passed on."""
        self._intake.clear()
        self._messages.clear()
        self.codec.reader.discard()
        self._hold(0)

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if not self._intake.ready:
            self.gone()

    def gone(self) -> None:
        """The connection is gone, and what it brought has been dealt with or does not matter."""
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
        self._closing = True
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
        """The closing handshake is complete, or the peer broke the rules. Closing at once could lose the close frame.

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
        """The connection's owner ends it. Drop half a message now: only a collection would free the ends."""
        self.drop()
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
        """It can be taken again, or this end only waits for the close."""
        if self._stopped:
            self._stopped = False
            self.go_on()

    def _pause(self) -> None:
        if not self._lost and not self.transport.is_closing():
            self.transport.pause_reading()
