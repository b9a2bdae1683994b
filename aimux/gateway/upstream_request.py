"""A request's bytes as the upstream gets them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from aimux.front.bounds import HEAD_TOO_LARGE, MAX_HEAD
from aimux.gateway.headers import to_upstream
from aimux.http.head import CONTENT_ENCODING, clean
from aimux.http.websocket import HANDSHAKE_HEADERS
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.redaction import mask_error
from aimux.relay.pool import Origin

if TYPE_CHECKING:
    from aimux.gateway.call import Call
    from aimux.gateway.route import Route
    from aimux.plugin.body import Body
    from aimux.plugin.types import Credential

origin_of = lru_cache(maxsize=256)(Origin.parse)


def build_request(
    call: Call, body: Body, route: Route, credential: Credential, account: str = ""
) -> tuple[list[bytes], Origin]:
    """The head and the body, ready for the wire, and where they go. `account`: whose credential it is, where it is one
    of aimux's.

    Raises RequestRefused (this account can't serve it), or GatewayError (431) where the head is too large to be
    anybody's.
    """
    admitted, raw = call.admitted, body.raw
    sent = admitted.sent
    if sent is not None and sent[1] is credential and sent[0] is route and body is call.body and call.upgrade is None:
        origin, head = sent[2:]
    else:
        origin, head = _head(call, body, route, credential, account)
        if body is call.body and call.upgrade is None:
            admitted.sent = (route, credential, origin, head)
    if raw or admitted.head.method in {"POST", "PUT", "PATCH"}:
        head += b"Content-Length: %d\r\n\r\n" % len(raw)
    else:
        head += b"\r\n"
    return ([head, raw] if raw else [head]), origin


def _head(call: Call, body: Body, route: Route, credential: Credential, account: str) -> tuple[Origin, bytes]:
    """Where it goes, and all of the head but its length and its end."""
    admitted = call.admitted
    try:
        upstream = route.provider.prepare(admitted.head, credential)
    except GatewayError as error:
        mask_error(error, credential.secret)
        raise
    origin = origin_of(upstream.base_url)
    replaced = {name.lower(): value for name, value in upstream.set_headers.items()} | route.extra_headers
    keys = {admitted.route.provider.key_header, route.provider.key_header}
    dropped = upstream.drop_headers | route.dropped.names | keys
    if not body.encoding and CONTENT_ENCODING in admitted.head.headers:
        dropped |= {CONTENT_ENCODING}  # it is no longer compressed: its model was changed, or the upstream wants that
    if call.upgrade is not None:
        dropped |= HANDSHAKE_HEADERS
    if account and (echoed := route.provider.echoed_header):
        value = admitted.head.headers.get(echoed)
        if value and route.accounts.echoed.is_anothers(value, account):
            dropped |= {echoed}
    lines = to_upstream(
        admitted.received,
        token=admitted.caller.token,
        dropped=dropped,
        replaced=replaced,
        prefixes=route.dropped.prefixes,
    )
    lines += [b"%b: %b" % (name.encode("latin-1"), clean(value)) for name, value in replaced.items()]
    if call.upgrade is not None:
        lines += [b"%b: %b" % field for field in call.upgrade.request_fields(admitted.caller.token)]
    head = b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b" % (
        admitted.head.method.encode("latin-1"),
        origin.base_path,
        clean(upstream.target),
        origin.host_header,
        b"".join([b"%b\r\n" % line for line in lines]),
    )
    if len(head) > MAX_HEAD:
        raise GatewayError(ErrorKind.BAD_REQUEST, HEAD_TOO_LARGE, status=431, retry=False)
    return origin, head
