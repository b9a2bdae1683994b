"""What aimux writes to a client: relayed answers through a sink, and its own errors in the provider's wire format."""

from __future__ import annotations

import json
import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from aimux.front.answer import Answer
from aimux.people import Role
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.provider import ErrorAnswer
from aimux.relay.errors import Stopped

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.meter_feed import MeterFeed
    from aimux.http.errors import WireError
    from aimux.http.head import ResponseHead
    from aimux.plugin.provider import Provider


log = logging.getLogger("aimux.gateway")

DONE = "done"
"""A request's error until it is recorded, if the client hung up behind the protocol's last event: that is not an
error."""
UPSTREAM_FAILED = "upstream_failed"
"""… and if the protocol's last event said that the answer failed, in spite of a status of 200."""


class ClientSink:
    """The client's side of a streamed answer."""

    __slots__ = ("_error_event", "_feed", "flush", "observe", "write")

    def __init__(
        self, transport: asyncio.Transport, feed: MeterFeed | None, error_event: Callable[[GatewayError], bytes] | None
    ) -> None:
        """`error_event` None: the body can't carry one."""
        self._error_event = error_event
        self._feed = feed
        self.write: Callable[[bytes], None] = transport.write
        self.observe: Callable[[bytes], None] = feed.pending.append if feed is not None else _unseen
        self.flush: Callable[[], None] = feed.flush if feed is not None else _nothing

    def complete(self) -> bytes | None:
        feed = self._feed
        if feed is None:
            return None
        feed.end()
        if not feed.truncated:
            return None
        return self._event(_cut("The upstream ended this answer before it was complete; try again."))

    def over(self) -> bool:
        return self._feed is not None and self._feed.over

    def broken(self, error: WireError) -> bytes | None:
        if self._feed is not None:
            self._feed.end()
            if self._feed.whole:
                return None
            if self._feed.complete:  # behind the protocol's last event an error would make a whole answer look failed
                return b""
        return self._event(
            error.told if isinstance(error, Stopped) else _cut(f"This answer broke off: {error}; try again.")
        )

    def _event(self, error: GatewayError) -> bytes:
        # Behind half an event an error is unreadable: SDKs would fail to parse it, while a broken connection is clear.
        if self._error_event is None or (self._feed is not None and self._feed.torn):
            return b""
        try:
            return self._error_event(error)
        except Exception:  # a plugin's fault: the broken connection says enough
            log.exception("a provider can't word an error for a stream")
            return b""


def _cut(message: str) -> GatewayError:
    return GatewayError(ErrorKind.BAD_GATEWAY, message)


def own_lines(call: Call, attempt: Attempt) -> list[bytes]:
    """The header lines that aimux adds to every relayed answer."""
    lines = [b"x-request-id: %b" % call.record.request_id.encode()]
    access = call.admitted.caller.access
    # A token with scopes is for what they say, and has no role.
    if access is not None and (access.user.pin_accounts or (access.user.role is Role.ADMIN and not access.scopes)):
        lines.append(b"x-aimux-account: %b" % attempt.account.name.encode())
        lines.append(b"x-aimux-attempts: %d" % call.record.attempts)
    return lines


def error_answer(error: GatewayError, provider: Provider | None, request_id: str, *, close: bool = False) -> Answer:
    """aimux's own error, in the provider's format where there is one."""
    headers = {"x-request-id": request_id}
    if error.retry is not None:
        headers["x-should-retry"] = "true" if error.retry else "false"
    if error.retry_after is not None:
        headers["retry-after"] = str(max(0, math.ceil(error.retry_after)))
    if error.kind is ErrorKind.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="aimux"'
    if error.kind is ErrorKind.UPGRADE_REQUIRED:
        headers |= {"upgrade": "HTTP/1.1", "connection": "upgrade"}
    answer = None
    if provider is not None:
        try:
            answer = provider.error(error)
        except Exception:  # a plugin's fault: the client hears of the error all the same
            log.exception("%s: %s can't word an error", request_id, provider.instance)
    if answer is None:
        # Problem details (RFC 9457), as the admin API's; `error` is where the vendors' SDKs look for a message.
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(error.status).phrase,
            "status": error.status,
            "detail": error.message,
            "error": {"type": error.kind.name.lower(), "message": error.message},
        }
        answer = ErrorAnswer(json.dumps(problem).encode(), "application/problem+json")
    headers |= answer.headers
    headers["content-type"] = answer.content_type
    return Answer(answer.status or error.status, headers, answer.body, close)


def redirected(name: str, head: ResponseHead) -> GatewayError:
    """A client would follow with its own token (`x-api-key` crosses origins) and its prompt, past aimux."""
    where = head.get("location").partition("?")[0]
    return GatewayError(
        ErrorKind.BAD_GATEWAY,
        f"{name} redirects ({head.status}) to {where!r}, and aimux does not pass redirects on; "
        "if it has moved, set the provider's base_url to where it is now.",
        retry=False,
    )


def _unseen(payload: bytes) -> None:
    """Nobody wants to see it."""


def _nothing() -> None:
    """As above."""
