"""What aimux writes to a client: relayed answers through a sink, and its own errors in the provider's wire format."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.provider import ErrorAnswer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.tap import Tap
    from aimux.plugin.provider import Provider
    from aimux.relay.errors import RelayError
    from aimux.relay.head import ResponseHead
    from aimux.relay.request import RequestHead


DONE = "done"
"""A request's error until it is recorded, where the client hung up behind the protocol's last event: it is none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of aimux's own. `headers` are all but the date, the length and the connection's."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    close: bool = False
    """Its connection ends with it."""

    def encode(self, request: RequestHead, *, keep_alive: bool) -> bytes:
        """For the wire."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", f"date: {formatdate(usegmt=True)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status not in {204, 304}:
            lines.append(f"content-length: {len(self.body)}")
        if not keep_alive:
            lines.append("connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")
        return head if request.method == "HEAD" or self.status in {204, 304} else head + self.body


class Sent:
    """In an answer's place: it is on the wire already."""


SENT = Sent()


class ClientSink:
    """The client's side of a streamed answer."""

    __slots__ = ("_error_event", "_tap", "flush", "observe", "write")

    def __init__(
        self, transport: asyncio.Transport, tap: Tap | None, error_event: Callable[[GatewayError], bytes] | None
    ) -> None:
        """`error_event` None: the body can't carry one."""
        self._error_event = error_event
        self._tap = tap
        self.write: Callable[[bytes], None] = transport.write
        self.observe: Callable[[bytes], None] = tap.pending.append if tap is not None else _unseen
        self.flush: Callable[[], None] = tap.flush if tap is not None else _nothing

    def complete(self) -> bytes | None:
        tap = self._tap
        if tap is None:
            return None
        tap.end()
        if not tap.truncated:
            return None
        return self._event("The upstream ended this answer before it was complete; try again.")

    def broken(self, error: RelayError) -> bytes:
        if self._tap is not None:
            self._tap.end()
            if self._tap.complete:  # behind the protocol's last event an error would make a failure of a whole answer
                return b""
        return self._event(f"This answer broke off: {error}; try again.")

    def _event(self, message: str) -> bytes:
        # Behind half an event an error is unreadable: SDKs then fail on its JSON, where a broken connection is plain.
        if self._error_event is None or (self._tap is not None and self._tap.torn):
            return b""
        return self._error_event(GatewayError(ErrorKind.BAD_GATEWAY, message))


def own_lines(call: Call, attempt: Attempt) -> list[bytes]:
    """The header lines that aimux adds to every relayed answer."""
    lines = [b"x-request-id: %b\r\n" % call.record.request_id.encode()]
    user = call.admitted.caller.user
    if user is not None and user.pin_accounts:
        lines.append(b"x-aimux-account: %b\r\n" % attempt.account.name.encode())
        lines.append(b"x-aimux-attempts: %d\r\n" % call.record.attempts)
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
    headers["content-type"] = answer.content_type
    return Answer(answer.status or error.status, headers, answer.body, close)


def plain_answer(status: int, detail: str, fields: bytes = b"") -> bytes:
    """An answer where no request could be read, the last one on its connection."""
    body = json.dumps({"error": {"type": "bad_request", "message": detail}}).encode()
    phrase = HTTPStatus(status).phrase.encode()
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
        % (
            status,
            phrase,
            len(body),
            fields,
            body,
        )
    )


def redirected(name: str, head: ResponseHead) -> GatewayError:
    """A client would follow with its own token (`x-api-key` crosses origins) and its prompt, past aimux."""
    where = head.get("location").partition("?")[0]
    return GatewayError(
        ErrorKind.BAD_GATEWAY,
        f"{name} redirects ({head.status}) to {where!r}, and aimux passes no redirect on; "
        "if it has moved, set the provider's base_url to where it is now.",
        retry=False,
    )


def _unseen(payload: bytes) -> None:
    """Nobody wants to see it."""


def _nothing() -> None:
    """As above."""
