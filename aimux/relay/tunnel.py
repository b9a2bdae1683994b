"""A WebSocket between a client and an upstream: two connections, and what one reads goes out at the other.

Passed on are data frames as they came (fragments stay fragments), pings and pongs, close codes with their reasons, and
an end without any. A peer's violation of the protocol is not: it ends its own side with the code that names it, and the
other side with one that says where the fault lies.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from websockets.frames import CloseCode

from aimux.relay.end import End
from aimux.relay.messages import Messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.http.websocket import ClientSide, UpstreamSide
    from aimux.relay.unfinished import Unfinished

MESSAGE_SECONDS = 30.0
"""How long a client's message may take to arrive, without what its size adds (`MESSAGE_RATE`)."""
UPSTREAM_SECONDS = 300.0
"""The same for an upstream's."""


class Pipe:
    """A relayed socket. Wait for `done`, then close the client's connection."""

    def __init__(
        self,
        client: tuple[ClientSide, asyncio.Transport],
        upstream: tuple[UpstreamSide, asyncio.Transport],
        *,
        asked: Callable[[bytes], None],
        answered: Callable[[bytes], bytes | None],
        unfinished: Unfinished,
        judge: Callable[[bytes], bool] | None = None,
    ) -> None:
        """`asked` and `answered` see each whole message of the client and of the upstream; they must not raise.
        `answered` may give another message for the client in its place.

        They are called before the message's end goes on. If they close the pipe, it does not. `judge` sees each whole
        message of the client before that, and before any of it goes on: one that it answers False does not.
        """
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error = ""
        """What ended it, if that was not a close frame: `client_gone`, `upstream_lost`, or who broke the protocol."""
        self.detail = ""
        self.upstream_left = False
        """The upstream was the first to close, by a close frame."""
        end = partial(End, refused=self._refuse, unfinished=unfinished)
        self.client = end(
            *client, Messages(asked, judge), ended=self._client_ended, over=self._finish, patience=MESSAGE_SECONDS
        )
        self.upstream = end(
            *upstream,
            Messages(answered, None),
            ended=self._upstream_ended,
            over=upstream[1].close,
            patience=UPSTREAM_SECONDS,
        )
        self.client.peer, self.upstream.peer = self.upstream, self.client

    def start(self, early: bytes) -> None:
        """`early`: what the upstream sent right behind its handshake."""
        self.upstream.data_received(early)
        self.upstream.go_on()

    def close(self, code: int, reason: str) -> None:
        """End both sides from here: the client is told `code`, and the upstream that its client goes away."""
        self.client.close(code, reason)
        self.upstream.close(CloseCode.GOING_AWAY)

    def _refuse(self, end: End, error: str, why: str) -> None:
        self._fail(error, why)
        end.drop()
        self.close(CloseCode.POLICY_VIOLATION, why)

    def abort(self) -> None:
        """The client's connection is gone, or is about to be closed whatever the client does."""
        self.client.gone()

    def _client_ended(self, client: End) -> None:
        if client.codec.fault:
            self._fail("too_large" if client.codec.overfed else "bad_request", client.codec.fault)
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
            self.upstream_left = True
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
