"""permessage-deflate, on each side for itself. Autobahn's groups 12 and 13."""

from __future__ import annotations

import random
import zlib

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Offer
from websockets.utils import accept_key

from aimux.http.errors import ProtocolError
from aimux.http.websocket import COMPRESS_FROM, MAX_MESSAGE, UpstreamSide
from tests.relay.sockets import BINARY, CONT, PING, TEXT, Socket, raw, response_head


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("upstream", [False, True])
async def test_each_side_compresses_for_itself(client: bool, upstream: bool) -> None:
    socket = Socket(client_deflate=client, upstream_deflate=upstream)
    assert bool(socket.client.codec.extensions) is client
    assert bool(socket.upstream.codec.extensions) is upstream
    for size in (0, 10, COMPRESS_FROM - 1, COMPRESS_FROM, 40_000):
        message = b"the quick brown fox "[: size or 20] * (size // 20 + 1) if size else b""
        for sender, receiver, compressed in (
            (socket.client, socket.upstream, upstream),
            (socket.upstream, socket.client, client),
        ):
            start = len(receiver.wire.sent)
            sender.say(message)
            await socket.settle()
            written = receiver.wire.sent[start:]
            assert receiver.got() == [(TEXT, message, True)]
            long = compressed and len(message) >= COMPRESS_FROM
            assert bool(written[0] & 0x40) is long
            assert len(written) < max(200, len(message) // 2) if long else len(written) >= len(message)


async def test_compressed_fragments_cross_with_pings_between_them() -> None:
    socket = Socket(client_deflate=True, upstream_deflate=True)
    codec = socket.client.codec
    codec.send_text(b"first " * 400, fin=False)
    codec.send_ping(b"?")
    codec.send_continuation(b"second", fin=True)
    socket.client.flush()
    assert socket.upstream.got() == [(TEXT, b"first " * 400, False), (PING, b"?", True), (CONT, b"second", True)]


async def test_no_window_is_kept_between_messages() -> None:
    socket = Socket(client_deflate=True, upstream_deflate=True)
    for _ in range(2):
        socket.client.say(b"question " * 1000)
        socket.upstream.say(b"answer " * 1000)
    for end in (socket.pipe.client, socket.pipe.upstream):
        deflate = end.codec.extensions[0]._deflate  # type: ignore[attr-defined]
        assert not hasattr(deflate, "encoder")
        assert not hasattr(deflate, "decoder")


async def test_rubbish_in_place_of_deflate_is_refused() -> None:
    socket = Socket(client_deflate=True)
    socket.client.send(raw(TEXT, b"\xff\xff\xff\xff", rsv=4))
    socket.client.got()
    assert socket.client.closed_with == (1002, "decompression failed")


OFFERS = {
    "nothing": [Offer(client_max_window_bits=None)],
    "no takeover": [Offer(server_no_context_takeover=True, client_no_context_takeover=True)],
    "a small window": [Offer(server_max_window_bits=9, client_max_window_bits=9)],
    "the largest window": [Offer(server_max_window_bits=15, client_max_window_bits=15)],
    "a small window and no takeover": [Offer(server_no_context_takeover=True, server_max_window_bits=9)],
    "three of them": [
        Offer(server_no_context_takeover=True, server_max_window_bits=9),
        Offer(server_no_context_takeover=True),
        Offer(),
    ],
}
MESSAGES = (16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072)


@pytest.mark.parametrize("offers", OFFERS.values(), ids=OFFERS)
async def test_whatever_a_client_offers_messages_of_any_size_cross_both_ways(offers: list[Offer]) -> None:
    socket = Socket(offers=offers, upstream_deflate=True)
    assert socket.client.codec.extensions
    for size in MESSAGES:
        message = (b"the quick brown fox %d " % size * (size // 16))[:size]
        for _ in range(5):
            for sender, receiver in ((socket.client, socket.upstream), (socket.upstream, socket.client)):
                sender.say(message)
                await socket.settle()
                assert receiver.got() == [(TEXT, message, True)]


@pytest.mark.parametrize("size", [1, 256, 1024, 4096, 32_768])
async def test_a_compressed_message_may_be_fragmented_anywhere(size: int) -> None:
    """Where a fragment ends says nothing of the compressed data: frames are cut by hand here."""
    socket = Socket(client_deflate=True, upstream_deflate=True)
    message = random.Random(0).randbytes(3000 if size == 1 else 70_000)
    packer = zlib.compressobj(wbits=-15)
    packed = (packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
    parts = [packed[at : at + size] for at in range(0, len(packed), size)]
    for number, part in enumerate(parts):
        wire = raw(CONT if number else BINARY, part, fin=number == len(parts) - 1, rsv=0 if number else 4)
        socket.client.send(wire)
        await socket.settle()
    assert b"".join(data for _, data, _ in socket.upstream.got()) == message
    assert socket.asked == [message]


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("wbits", [-9, -15])
async def test_however_a_peer_compresses(level: int, wbits: int) -> None:
    """Stored blocks, small windows, several blocks, a message that is compressed although it is empty."""
    socket = Socket(client_deflate=True)
    for message in (b"", b"x", b"hello " * 20_000):
        packer = zlib.compressobj(level, wbits=wbits)
        half = len(message) // 2
        packed = packer.compress(message[:half]) + packer.flush(zlib.Z_SYNC_FLUSH) + packer.compress(message[half:])
        packed += packer.flush(zlib.Z_SYNC_FLUSH)
        socket.client.send(raw(TEXT, packed.removesuffix(b"\0\0\xff\xff"), rsv=4))
        await socket.settle()
        assert socket.upstream.got() == [(TEXT, message, True)]


async def test_fragments_may_not_unpack_to_more_than_the_limit_together() -> None:
    socket = Socket(client_deflate=True)
    packer = zlib.compressobj(wbits=-15)
    mib = bytes(1 << 20)
    for number in range(MAX_MESSAGE // len(mib) + 1):
        part = packer.compress(mib) + packer.flush(zlib.Z_SYNC_FLUSH)
        socket.client.send(raw(CONT if number else BINARY, part, fin=False, rsv=0 if number else 4))
        await socket.settle()
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1009
    assert socket.asked == []


async def test_text_is_checked_as_it_unpacks() -> None:
    socket = Socket(client_deflate=True)
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(b"\xed\xa0\x80") + packer.flush(zlib.Z_SYNC_FLUSH)
    socket.client.send(raw(TEXT, packed.removesuffix(b"\0\0\xff\xff"), rsv=4))
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1007


NO_TAKEOVER = "server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("chosen", "fine"),
    [
        (f"permessage-deflate; {NO_TAKEOVER}", True),
        ("permessage-deflate; server_no_context_takeover", True),
        (f"permessage-deflate; {NO_TAKEOVER}; server_max_window_bits=10", True),
        ("permessage-deflate", False),
        (f"permessage-deflate; {NO_TAKEOVER}; client_max_window_bits=10", False),
        (f"permessage-deflate; {NO_TAKEOVER}; server_max_window_bits=7", False),
        (f"permessage-deflate; {NO_TAKEOVER}; server_max_window_bits=16", False),
        (f"permessage-deflate; {NO_TAKEOVER}; server_no_context_takeover", False),
        (f"permessage-deflate; {NO_TAKEOVER}; x=1", False),
        (f"permessage-deflate; {NO_TAKEOVER}, permessage-deflate; {NO_TAKEOVER}", False),
        ("x-webkit-deflate-frame", False),
    ],
)
def test_what_an_upstream_may_choose(chosen: str, fine: bool) -> None:
    codec = UpstreamSide(deflate=True, subprotocols=[])
    codec.request_handshake()
    fields = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": accept_key(codec.key)}
    answer = response_head(101, [*fields.items(), ("sec-websocket-extensions", chosen)])
    if fine:
        codec.check_handshake(answer)
        assert codec.extensions
    else:
        with pytest.raises(ProtocolError, match="handshake"):
            codec.check_handshake(answer)
