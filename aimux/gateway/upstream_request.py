"""A request's bytes as the upstream gets them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from aimux.gateway.caps import HEAD_TOO_LARGE, MAX_HEAD
from aimux.gateway.headers import to_upstream
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.relay.head import clean
from aimux.relay.pool import Origin
from aimux.relay.websocket_codec import HANDSHAKE_HEADERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.gateway.call import Call
    from aimux.plugin.types import Body, Upstream

origin_of = lru_cache(maxsize=256)(Origin.parse)


def build_request(
    upstream: Upstream, call: Call, body: Body, extra_headers: Mapping[str, str]
) -> tuple[list[bytes], Origin]:
    """The head and the body, ready for the wire, and where they go. `extra_headers` come from the configuration.

    Raises GatewayError (431) where the head is too large to be anybody's.
    """
    origin = origin_of(upstream.base_url)
    replaced = {name.lower(): value for name, value in upstream.set_headers.items()}
    if extra_headers:
        replaced.update(extra_headers)
    dropped = upstream.drop_headers
    if body is not call.body:
        dropped |= {"content-encoding"}  # its model was changed, and it is no longer compressed
    if call.upgrade is not None:
        dropped |= HANDSHAKE_HEADERS
    method = call.head.method
    lines = to_upstream(
        call.fields, token=call.caller.token, connection=call.connection, dropped=dropped, replaced=replaced
    )
    for name, value in replaced.items():
        lines.append(b"%b: %b\r\n" % (name.encode("latin-1"), clean(value)))
    if call.upgrade is not None:
        lines += [b"%b: %b\r\n" % field for field in call.upgrade.request_fields()]
    raw = body.raw
    if raw or method in {"POST", "PUT", "PATCH"}:
        lines.append(b"Content-Length: %d\r\n" % len(raw))
    head = b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (
        method.encode("latin-1"),
        origin.base_path,
        clean(upstream.target),
        origin.host_header,
        b"".join(lines),
    )
    if len(head) > MAX_HEAD:
        raise GatewayError(ErrorKind.BAD_REQUEST, HEAD_TOO_LARGE, status=431, retry=False)
    return ([head, raw] if raw else [head]), origin
