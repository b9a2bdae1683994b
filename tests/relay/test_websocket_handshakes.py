"""Handshakes, sans-IO; through a whole gateway they are in tests/gateway/websockets."""

from __future__ import annotations

import pytest

from aimux.http.errors import ProtocolError
from aimux.http.websocket import ClientSide, HandshakeRefused, UpstreamSide
from tests.relay.sockets import response_head

GOOD_HANDSHAKE = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def test_the_answer_to_a_handshake_is_the_one_of_the_rfc() -> None:
    codec = ClientSide()
    fields = dict(codec.accept_handshake([*GOOD_HANDSHAKE.items(), ("Sec-WebSocket-Protocol", "a, b")]))
    assert fields[b"Sec-WebSocket-Accept"] == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert b"Sec-WebSocket-Extensions" not in fields
    assert b"Sec-WebSocket-Protocol" not in fields, "the upstream's choice is added later"
    assert codec.subprotocols == ["a", "b"]


@pytest.mark.parametrize(
    "changed",
    [
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "not base64 at all!"},
        {"Upgrade": "h2c"},
        {"Connection": "close"},
        {"Sec-WebSocket-Extensions": ";;;"},
        {"Sec-WebSocket-Protocol": "a,,b c"},
    ],
)
def test_a_handshake_against_the_rules_is_refused(changed: dict[str, str | None]) -> None:
    headers = [(name, value) for name, value in {**GOOD_HANDSHAKE, **changed}.items() if value is not None]
    with pytest.raises(HandshakeRefused):
        ClientSide().accept_handshake(headers)


@pytest.mark.parametrize(
    "changed",
    [
        {"sec-websocket-accept": "c3Vycm9nYXRl"},
        {"sec-websocket-accept": None},
        {"upgrade": "h2c"},
        {"connection": "keep-alive"},
        {"sec-websocket-extensions": "permessage-deflate"},
        {"sec-websocket-extensions": "x-unknown"},
        {"sec-websocket-protocol": "never-offered"},
        {"sec-websocket-protocol": "mine, yours"},
    ],
)
def test_an_upstream_must_answer_the_handshake_that_was_asked(changed: dict[str, str | None]) -> None:
    from websockets.utils import accept_key

    codec = UpstreamSide(deflate=False, subprotocols=["mine", "yours"])  # type: ignore[list-item]
    fields = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": accept_key(codec.key),
        "sec-websocket-protocol": "yours",
    }
    codec.check_handshake(response_head(101, fields.items()))
    assert codec.subprotocol == "yours"
    wrong = [(name, value) for name, value in {**fields, **changed}.items() if value is not None]
    with pytest.raises(ProtocolError, match="handshake"):
        codec.check_handshake(response_head(101, wrong))


def test_deflate_is_offered_without_context_takeover_and_only_where_the_client_offered_it() -> None:
    offered = dict(UpstreamSide(deflate=True, subprotocols=[]).request_handshake())
    value = offered[b"Sec-WebSocket-Extensions"]
    assert value == b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    assert b"Sec-WebSocket-Extensions" not in dict(UpstreamSide(deflate=False, subprotocols=[]).request_handshake())
