"""A request's bytes as the upstream gets them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from aimux.gateway.headers import to_upstream
from aimux.relay.head import build_head, clean
from aimux.relay.pool import Origin
from aimux.relay.websocket_codec import HANDSHAKE_HEADERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.gateway.attempts import Call
    from aimux.plugin.types import Body, Upstream

origin_of = lru_cache(maxsize=256)(Origin.parse)


def build_request(
    upstream: Upstream, call: Call, body: Body, extra_headers: Mapping[str, str]
) -> tuple[list[bytes], Origin]:
    """The head and the body, ready for the wire, and where they go. `extra_headers` come from the configuration."""
    origin = origin_of(upstream.base_url)
    replaced = {name.lower(): value for name, value in upstream.set_headers.items()}
    replaced.update(extra_headers)
    dropped = upstream.drop_headers
    if body is not call.body:
        dropped |= {"content-encoding"}  # its model was changed, and it is no longer compressed
    if call.upgrade is not None:
        dropped |= HANDSHAKE_HEADERS
    fields = [(b"Host", origin.host_header)]
    fields += to_upstream(call.raw_headers, token=call.caller.token, dropped=dropped, replaced=replaced)
    fields += [(name.encode("latin-1"), clean(value)) for name, value in replaced.items()]
    if call.upgrade is not None:
        fields += call.upgrade.request_fields()
    method = call.head.method
    if body.raw or method in {"POST", "PUT", "PATCH"}:
        fields.append((b"Content-Length", b"%d" % len(body.raw)))
    start = b"%b %b%b HTTP/1.1" % (method.encode("latin-1"), origin.base_path, clean(upstream.target))
    head = build_head(start, fields)
    return ([head, body.raw] if body.raw else [head]), origin
