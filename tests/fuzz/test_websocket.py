"""WebSocket frames of either side: what crosses is well-formed, and what breaks the rules ends the socket."""

from __future__ import annotations

import asyncio

from aimux.http.errors import ProtocolError
from aimux.http.head_reader import HeadReader
from aimux.http.websocket import HANDSHAKE_HEADERS, ClientSide, HandshakeRefused, UpstreamSide
from tests.relay.sockets import Peer, Socket

from .harness import fuzz, splits

_FRAMES = (
    b"\x81\x80\0\0\0\0",
    b"\x81\x00",
    b"\x01\x01a",
    b"\x80\x00",
    b"\x00\x80\0\0\0\0",
    b"\x88\x00",
    b"\x88\x02\x03\xe8",
    b"\x88\x80\0\0\0\0",
    b"\x89\x00",
    b"\x8a\x80\0\0\0\0",
    b"\xc1\x07\xf2H\xcd\xc9\xc9\x07\x00",
    b"\xff",
    b"\x7f",
    b"\xfe\xff\xff",
)


async def relay(pieces: list[bytes], *, from_client: bool, deflate: bool) -> tuple[object, ...]:
    socket = Socket(client_deflate=deflate, upstream_deflate=deflate)
    sender, receiver = (socket.client, socket.upstream) if from_client else (socket.upstream, socket.client)
    arrived = []
    for piece in pieces:
        sender.send(piece)
        await socket.settle()
        arrived += receiver.got()  # which says whether the frames are well-formed
    seen = socket.asked if from_client else socket.answered
    check(socket, sender, arrived)
    return tuple(arrived), tuple(seen), socket.pipe.error, receiver.closed_with


def check(socket: Socket, sender: Peer, arrived: list[tuple[int, bytes, bool]]) -> None:
    end, other = (socket.pipe.client, socket.pipe.upstream)
    if sender is socket.upstream:
        end, other = other, end
    if end.codec.fault:
        assert not other.codec.open, "the other side hears of it"
        assert socket.pipe.error in {"bad_request", "bad_gateway", "too_large"}
    for opcode, data, _ in arrived:
        assert opcode in {0, 1, 2, 8, 9, 10}
        assert opcode < 8 or len(data) <= 125
    assert socket.unfinished.total <= 16 * 1024 * 1024


def target(data: bytes, *, from_client: bool) -> None:
    """However the bytes are cut, the same frames cross; with compression only that nothing breaks."""
    results = [asyncio.run(relay(pieces, from_client=from_client, deflate=False)) for pieces in splits(data)]
    assert results[0] == results[1] == results[2]
    asyncio.run(relay([data], from_client=from_client, deflate=True))


@fuzz("frames_from_client", *_FRAMES, share=4)
def test_frames_from_a_client(data: bytes) -> None:
    target(data, from_client=True)


@fuzz("frames_from_upstream", *_FRAMES, share=4)
def test_frames_from_an_upstream(data: bytes) -> None:
    target(data, from_client=False)


@fuzz(
    "handshakes",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b"; server_max_window_bits=8",
    b"; client_max_window_bits=16",
    b"; server_no_context_takeover",
    b"Sec-WebSocket-Protocol: ",
    b"Sec-WebSocket-Key: ",
    b"Sec-WebSocket-Version: 8",
    b",",
    b";",
    b'"',
    b"=",
    b"\n",
    b"\xff",
    b"h2c",
)
def test_a_handshake(data: bytes) -> None:
    """A client's is refused, or answered and made anew for the upstream; an upstream's is taken, or is its fault."""
    try:
        found = HeadReader().feed(b"HTTP/1.1 101 Fine\r\n" + data.replace(b"\n", b"\r\n") + b"\r\n\r\n")
    except ProtocolError:
        return
    assert found is not None
    head, offered = found[0], []
    client = ClientSide()
    try:
        written = client.accept_handshake(head.headers.items())
    except HandshakeRefused as error:
        assert str(error)
        written = []
    else:
        offered = client.subprotocols
    for deflate in (True, False):
        upstream = UpstreamSide(deflate=deflate, subprotocols=offered)
        written += upstream.request_handshake()
        try:
            upstream.check_handshake(head)
        except ProtocolError:
            continue
        assert deflate or not upstream.extensions, "what was not offered can't be chosen"
        assert upstream.subprotocol is None or upstream.subprotocol in offered
    for name, value in written:
        assert name.decode().lower() in HANDSHAKE_HEADERS | {"connection", "upgrade"}
        assert value.decode().isprintable()
