"""A request's framing and body. llhttp reads HTTP; what it lets pass and an upstream could read otherwise ends here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import HttpVersion10, HttpVersion11

from aimux.gateway.server import BodyError, ClientProtocol, SlowBody
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web

_REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})
"""One asks for a tunnel; the other makes an upstream say what it got, and that holds the account's credential."""


class Unframed(GatewayError):
    """It is unclear where this request ends: its connection can't carry another one."""


def check_message(request: web.BaseRequest) -> None:
    """Refuse what isn't for a gateway, or has a framing with more than one reading. Raises Unframed."""
    version = request.version
    if version not in {HttpVersion11, HttpVersion10}:
        raise Unframed(ErrorKind.BAD_REQUEST, "aimux speaks HTTP/1.1 and HTTP/1.0.", status=505, retry=False)
    if request.method in _REFUSED_METHODS:
        raise Unframed(ErrorKind.METHOD_NOT_ALLOWED, f"aimux does not serve {request.method}.", retry=False)
    coding = request.headers.get("transfer-encoding")
    if coding is not None and (
        coding.lower() != "chunked" or version != HttpVersion11 or "content-length" in request.headers
    ):
        raise Unframed(
            ErrorKind.BAD_REQUEST,
            "The request's framing is not acceptable: send a content-length, or `transfer-encoding: chunked` alone.",
            retry=False,
        )


async def read_body(request: web.BaseRequest, limit: int, transport: asyncio.Transport) -> bytes:
    """The whole body, kept for replay. GatewayError: 413 above `limit`, 408 where it comes too slowly, 400."""
    content = request.content
    length = request.headers.get("content-length")
    if length is not None and int(length) > limit:
        raise _too_large(limit)
    if content.is_eof() and not content.total_bytes:
        return b""
    if request.headers.get("expect", "").lower() == "100-continue" and request.version == HttpVersion11:
        transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    protocol = request.protocol
    assert isinstance(protocol, ClientProtocol)
    parts: list[bytes] = []
    size = 0
    protocol.expect_body(content)
    try:
        while part := await content.readany():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
    except SlowBody as error:
        raise Unframed(ErrorKind.BAD_REQUEST, f"The request's body did not arrive: {error}.", status=408) from None
    except BodyError as error:
        raise Unframed(ErrorKind.BAD_REQUEST, f"The request's body is broken: {error}.", retry=False) from None
    finally:
        protocol.expect_body(None)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> GatewayError:
    return GatewayError(
        ErrorKind.TOO_LARGE, f"The request's body is larger than {limit} bytes (`max_body_size`).", retry=False
    )
