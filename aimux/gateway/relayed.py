"""What a client gets of an upstream's answer besides its body: the head, and errors in a form that clients show."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from aimux.gateway.answers import own_lines
from aimux.gateway.credential_checks import ERROR_BODY, ERROR_BODY_SECONDS
from aimux.gateway.headers import to_client, under_name
from aimux.gateway.preview import Preview

if TYPE_CHECKING:
    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.cors import Cors

_STATUSES = frozenset(HTTPStatus)


def head_lines(call: Call, attempt: Attempt, limits: list[bytes] | None, cors: Cors) -> list[bytes]:
    """The header lines, without their ends. `limits`: those of the caller's own limits, in place of the account's."""
    record, answer, route = call.record, attempt.head, attempt.route
    lines = to_client(answer, route.blocked, "" if limits is None else route.provider.limit_header_prefix)
    if attempt.model != record.model:
        lines = under_name(lines, attempt.model, record.model)
    if limits is not None:
        lines += limits
    own: dict[bytes, bytes] = {}
    if attempt.retry_after is not None:
        own[b"retry-after"] = b"%d" % max(1, round(attempt.retry_after))
    if answer.status == 401 and call.admitted.caller.own is None:
        # The refused credential is aimux's: the client can't change that by trying again.
        own[b"x-should-retry"] = b"false"
    if own:  # replaces the upstream's (and its retry-after-ms): Claude Code ignores a header that is there twice
        lines = [line for line in lines if not line.lower().startswith(tuple(own))]
        lines += [b"%b: %b" % field for field in own.items()]
    return cors.with_headers(lines, call.head.headers) + own_lines(call, attempt)


def note_echoed(attempt: Attempt) -> None:
    """Remember whose it is what an answer gives the client to send back."""
    name = attempt.route.provider.echoed_header
    if name and not attempt.own and (value := attempt.head.headers.get(name)):
        attempt.route.accounts.echoed.note(value, attempt.account.name)


async def explained(attempt: Attempt) -> bytes | None:
    """An error's body in the form that the format's clients show; None: it passes as it came."""
    exchange, head = attempt.exchange, attempt.head
    if not attempt.route.explains or head.status not in _STATUSES:
        return None
    payload = await exchange.peek(lambda payload: len(payload) >= ERROR_BODY, ERROR_BODY_SECONDS)
    if not exchange.held_whole:
        return None
    body = Preview(head.coding, ERROR_BODY).read(payload)
    return attempt.route.provider.explained(head.status, body)


def as_headers(lines: list[bytes]) -> dict[str, str]:
    """The same lines for an answer with another body, which is JSON."""
    fields = (line.decode("latin-1").partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    headers.pop("content-encoding", None)
    return headers | {"content-type": "application/json"}
