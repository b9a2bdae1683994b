"""What a client gets of an upstream's answer besides its body: the head, and errors in a form that clients show."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from aimux.gateway.answers import own_lines
from aimux.gateway.credential_checks import ERROR_BODY, ERROR_BODY_SECONDS
from aimux.gateway.headers import to_client, under_name
from aimux.gateway.preview import Preview
from aimux.http.head import CONTENT_TYPE
from aimux.plugin.provider import is_object
from aimux.redaction import mask

if TYPE_CHECKING:
    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.cors import Cors

JSON = "application/json"
_STATUSES = frozenset(HTTPStatus)


def head_lines(call: Call, attempt: Attempt, limits: list[bytes] | None, cors: Cors) -> list[bytes]:
    """The header lines, without their ends. `limits`: those of the caller's own limits, in place of the account's."""
    record, answer, route = call.record, attempt.head, attempt.route
    hidden = "" if limits is None else route.provider.limit_header_prefix
    lines = to_client(answer, route.blocked, hidden, secret=attempt.credential.secret)
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


async def explained(attempt: Attempt) -> tuple[bytes, str] | None:
    """An error's body in the form that the format's clients show, and its media type; None: it passes as it came.

    Some upstreams quote the key that they refuse, whole even, as Gemini does of one that is suspended.
    """
    exchange, head = attempt.exchange, attempt.head
    if head.status not in _STATUSES or (attempt.own and not attempt.route.explains):
        return None
    payload = await exchange.peek(lambda payload: len(payload) >= ERROR_BODY, ERROR_BODY_SECONDS)
    if not exchange.held_whole:
        return None
    body = Preview(head.coding, ERROR_BODY).read(payload)
    told = attempt.route.provider.explained(head.status, body) if attempt.route.explains else None
    shown, secret = body if told is None else told, attempt.credential.secret
    if not attempt.own and secret.encode() in shown:
        told = mask(shown.decode("utf-8", "replace"), [secret]).encode()
    elif told is None:
        return None
    return told, JSON if is_object(told) else head.headers.get(CONTENT_TYPE, "")


def as_headers(lines: list[bytes], content_type: str = JSON) -> dict[str, str]:
    """The same lines for an answer with another body."""
    fields = (line.decode("latin-1").partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    for name in ("content-encoding", "date"):  # an answer of aimux's own has a date already
        headers.pop(name, None)
    return headers | {"content-type": content_type}
