"""What aimux writes to a client: relayed answers through a sink, and its own errors in the provider's wire format."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.provider import ErrorAnswer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.tap import Tap
    from aimux.plugin.provider import Provider
    from aimux.relay.errors import RelayError
    from aimux.relay.head import ResponseHead


DONE = "done"
"""A request's error until it is recorded, where the client hung up behind the protocol's last event: it is none."""


class Sent(web.StreamResponse):
    """Tells aiohttp's server that the answer is on the wire already, as its own file responses do."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._sent_keep_alive = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._sent_keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


# They hold no state of a request: two serve all, which saves 4 µs for each answer.
SENT = Sent(keep_alive=True)
SENT_LAST = Sent(keep_alive=False)


class ClientSink:
    """The client's side of a streamed answer."""

    __slots__ = ("_error_event", "_transport", "observe", "tap")

    def __init__(
        self, transport: asyncio.Transport, tap: Tap | None, error_event: Callable[[GatewayError], bytes] | None
    ) -> None:
        """`error_event` None: the body can't carry one."""
        self._transport = transport
        self._error_event = error_event
        self.tap = tap
        self.observe = tap.feed if tap is not None else None

    def write(self, data: bytes) -> None:
        # A client that has just left: uvloop's transport raises before connection_lost is called.
        if not self._transport.is_closing():
            self._transport.write(data)

    def complete(self) -> bytes | None:
        tap = self.tap
        if tap is None:
            return None
        tap.end()
        if not tap.truncated:
            return None
        return self._event("The upstream ended this answer before it was complete; try again.")

    def broken(self, error: RelayError) -> bytes:
        if self.tap is not None:
            self.tap.end()
        return self._event(f"This answer broke off: {error}; try again.")

    def _event(self, message: str) -> bytes:
        # Behind half an event an error is unreadable: SDKs then fail on its JSON, where a broken connection is plain.
        if self._error_event is None or (self.tap is not None and self.tap.torn):
            return b""
        return self._error_event(GatewayError(ErrorKind.BAD_GATEWAY, message))


def own_lines(call: Call, attempt: Attempt) -> list[str]:
    """The header lines that aimux adds to every relayed answer."""
    lines = [f"x-request-id: {call.record.request_id}\r\n"]
    if call.caller.user is not None and call.caller.user.pin_accounts:
        lines.append(f"x-aimux-account: {attempt.account.name}\r\n")
        lines.append(f"x-aimux-attempts: {call.record.attempts}\r\n")
    return lines


def error_response(
    error: GatewayError, provider: Provider | None, request_id: str, *, close: bool = False
) -> web.Response:
    """aimux's own error, in the provider's format where there is one."""
    headers = {"x-request-id": request_id}
    if error.retry is not None:
        headers["x-should-retry"] = "true" if error.retry else "false"
    if error.retry_after is not None:
        headers["retry-after"] = str(max(0, math.ceil(error.retry_after)))
    if error.kind is ErrorKind.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="aimux"'
    if error.kind is ErrorKind.UPGRADE_REQUIRED:
        headers["upgrade"] = "HTTP/1.1"
    if provider is None:
        # Problem details (RFC 9457), as the admin API's; `error` is where the vendors' SDKs look for a message.
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(error.kind.value).phrase,
            "status": error.status,
            "detail": error.message,
            "error": {"type": error.kind.name.lower(), "message": error.message},
        }
        answer = ErrorAnswer(json.dumps(problem).encode(), "application/problem+json")
    else:
        answer = provider.error(error)
    status = answer.status or error.status
    response = web.Response(status=status, body=answer.body, headers=headers, content_type=answer.content_type)
    if close:
        response.force_close()
    return response


def redirected(name: str, head: ResponseHead) -> GatewayError:
    """A client would follow with its own token (`x-api-key` crosses origins) and its prompt, past aimux."""
    where = head.get("location").partition("?")[0]
    return GatewayError(
        ErrorKind.BAD_GATEWAY,
        f"{name} redirects ({head.status}) to {where!r}, and aimux passes no redirect on; "
        "if it has moved, set the provider's base_url to where it is now.",
        retry=False,
    )
