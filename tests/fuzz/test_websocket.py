"""WebSocket frames of either side: what crosses is well-formed, and what breaks the rules ends the socket."""

from __future__ import annotations

import asyncio

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
        assert socket.pipe.error in {"bad_request", "bad_gateway"}
    for opcode, data, _ in arrived:
        assert opcode in {0, 1, 2, 8, 9, 10}
        assert opcode < 8 or len(data) <= 125
    assert len(end._message) <= 16 * 1024 * 1024


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
