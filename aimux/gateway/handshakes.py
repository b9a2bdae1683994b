"""A client's WebSocket handshake, and those that are made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.http.websocket import ClientSide, HandshakeRefused, UpstreamSide
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from aimux.front.request import Request
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import RequestHead

RESTARTING = "aimux is restarting"
_UPGRADES = frozenset({"websocket", "tcp"})
"""Other protocols (h2c) may be asked for, and are ignored."""
_STRIPPED = (
    "This WebSocket handshake has lost its `Upgrade` on the way: have the proxy in front of aimux speak HTTP/1.1 and "
    "pass Upgrade and Connection on, or use HTTP without an upgrade."
)


class Handshake:
    """A client's handshake, accepted, and the one that each attempt makes of it."""

    def __init__(self, client: ClientSide, fields: list[tuple[bytes, bytes]]) -> None:
        self.client = client
        self.fields = fields
        """The fields of the 101 for the client; the subprotocol is the upstream's choice."""
        self.upstream: UpstreamSide | None = None
        """Of the last attempt."""

    def request_fields(self, token: bytes) -> list[tuple[bytes, bytes]]:
        """The header fields of one more handshake with an upstream. `token` is the client's secret: a subprotocol that
        holds it, as browsers have no header for one, is not offered."""
        client, secret = self.client, token.decode("latin-1")
        offered = [one for one in client.subprotocols if not secret or secret not in one]
        self.upstream = UpstreamSide(largest=client.largest, deflate=bool(client.extensions), subprotocols=offered)
        return self.upstream.request_handshake()


def handshake(
    request: Request, provider: Provider, head: RequestHead, *, largest: int, draining: bool
) -> Handshake | None:
    """For a request with an `Upgrade` header, or a WebSocket's key; None where that is for another protocol. `largest`:
    bytes of a message.

    GatewayError: 426 where there is no WebSocket, 400, 503.
    """
    received, headers = request.head, request.head.headers
    asked = headers.get("upgrade", "").strip().lower() in _UPGRADES
    passed = asked and received.http11 and "upgrade" in {option.strip() for option in received.connection.split(",")}
    if not passed and received.method == "GET" and "sec-websocket-key" in headers:
        # As a GET it would get the upstream's 404: Codex tries again for seven seconds before it goes on without.
        raise GatewayError(ErrorKind.UPGRADE_REQUIRED, _STRIPPED)
    if not passed:
        return None
    if received.method != "GET" or not provider.websocket(head):
        raise GatewayError(ErrorKind.UPGRADE_REQUIRED, "aimux serves this path over HTTP/1.1 without an upgrade.")
    client = ClientSide(largest)
    try:
        if received.length != 0:
            raise HandshakeRefused("it has a body")
        fields = client.accept_handshake(headers.items())
    except HandshakeRefused as error:
        raise GatewayError(
            ErrorKind.BAD_REQUEST, f"This WebSocket handshake is not acceptable: {error}.", retry=False
        ) from None
    if draining:
        raise GatewayError(ErrorKind.UNAVAILABLE, f"{RESTARTING}; connect again.", retry_after=1)
    return Handshake(client, fields)
