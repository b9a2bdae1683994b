"""What crosses: messages, fragments, pings, of any size. Autobahn's groups 1, 2, 5, 9 and 10."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.http.unpacking import FREE
from aimux.http.websocket import MAX_MESSAGE
from tests.relay.sockets import BINARY, CLOSE, CONT, PING, PONG, TEXT, Socket, close, raw

SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536, 70_000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("packet", [1 << 20, 997, 1])
async def test_a_message_crosses_both_ways_however_it_is_cut_into_packets(size: int, opcode: int, packet: int) -> None:
    if packet == 1 and size > 1000:
        packet = 7
    socket = Socket()
    message = bytes(97 + at % 26 for at in range(size))
    for sender, receiver, masked in ((socket.client, socket.upstream, True), (socket.upstream, socket.client, False)):
        wire = raw(opcode, message, masked=masked)
        for start in range(0, len(wire), packet):
            sender.send(wire[start : start + packet])
        await socket.settle()
        assert receiver.got() == [(opcode, message, True)]
    assert socket.asked == socket.answered == [message]


async def test_what_the_client_is_sent_is_not_masked_and_what_the_upstream_is_sent_is() -> None:
    socket = Socket()
    socket.client.send(raw(TEXT, b"question"))
    socket.upstream.send(raw(TEXT, b"answer", masked=False))
    assert bytes(socket.client.wire.sent) == raw(TEXT, b"answer", masked=False)
    assert socket.upstream.wire.sent[1] == 0x80 | len(b"question")
    assert b"question" not in socket.upstream.wire.sent


async def test_fragments_stay_fragments_with_control_frames_between_them() -> None:
    socket = Socket()
    socket.client.send(raw(TEXT, b"one ", fin=False) + raw(PING, b"here") + raw(CONT, b"", fin=False) + raw(PONG))
    socket.client.send(raw(CONT, b"two"))
    expected = [
        (TEXT, b"one ", False),
        (PING, b"here", True),
        (CONT, b"", False),
        (PONG, b"", True),
        (CONT, b"two", True),
    ]
    assert socket.upstream.got() == expected
    assert socket.asked == [b"one two"]


async def test_pings_are_answered_by_the_other_end_and_not_by_aimux() -> None:
    socket = Socket()
    for sender, receiver, masked in ((socket.client, socket.upstream, True), (socket.upstream, socket.client, False)):
        for payload in (b"", b"\x00\xff\xfe", b"p" * 125):
            sender.send(raw(PING, payload, masked=masked))
            assert receiver.got() == [(PING, payload, True)]
            assert sender.got() == []
            receiver.codec.send_pong(payload)
            receiver.flush()
            assert sender.got() == [(PONG, payload, True)]


@given(
    st.lists(st.tuples(st.sampled_from([TEXT, BINARY, PING, PONG]), st.text(max_size=40), st.booleans()), max_size=8),
    st.lists(st.integers(1, 60), max_size=30),
)
async def test_any_sequence_of_frames_cut_anywhere_crosses_unchanged(
    frames: list[tuple[int, str, bool]], cuts: list[int]
) -> None:
    socket = Socket()
    wire, expected = b"", []
    for opcode, text, fragmented in frames:
        data = text.encode()[:120] if opcode in {PING, PONG} else text.encode()
        if fragmented and opcode in {TEXT, BINARY}:
            half = len(data) // 2
            expected += [(opcode, data[:half], False), (CONT, data[half:], True)]
            wire += raw(opcode, data[:half], fin=False) + raw(CONT, data[half:])
        else:
            expected.append((opcode, data, True))
            wire += raw(opcode, data)
    for cut in cuts:
        socket.client.send(wire[:cut])
        wire = wire[cut:]
    socket.client.send(wire)
    await socket.settle()
    assert socket.upstream.got() == expected


@pytest.mark.parametrize("deflate", [False, True])
async def test_a_frame_of_16_mib_crosses_both_ways(deflate: bool) -> None:
    message = os.urandom(MAX_MESSAGE // 2).hex().encode()
    socket = Socket(client_deflate=deflate, upstream_deflate=deflate)
    socket.client.say(message)
    await socket.settle()
    assert socket.upstream.got() == [(TEXT, message, True)]
    socket.upstream.say(message)
    await socket.settle()
    assert socket.client.got() == [(TEXT, message, True)]


async def test_a_larger_message_is_refused_before_it_is_read() -> None:
    socket = Socket()
    socket.client.send(raw(BINARY, bytes(MAX_MESSAGE + 1))[:14])
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1009
    assert socket.pipe.error == "too_large"
    assert socket.upstream.got() == [(CLOSE, close(1001), True)]


async def test_fragments_may_not_add_up_to_more_either() -> None:
    socket = Socket()
    part = bytes(MAX_MESSAGE // 2)
    socket.client.send(raw(BINARY, part, fin=False) + raw(CONT, part, fin=False) + raw(CONT, b"1"))
    await socket.settle()
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1009


async def test_a_bomb_is_refused_when_it_grows_past_the_limit() -> None:
    socket = Socket(client_deflate=True, upstream_deflate=True)
    socket.client.say(bytes(MAX_MESSAGE + 1), opcode=BINARY)
    await socket.settle()
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1009
    assert socket.asked == []


async def test_millions_of_empty_fragments_cost_no_memory() -> None:
    socket = Socket()
    socket.client.send(raw(BINARY, b"", fin=False))
    for _ in range(5000):
        socket.client.send(raw(CONT, b"", fin=False))
    assert socket.unfinished.total == 0
    socket.client.send(raw(CONT, b"end"))
    assert socket.asked == [b"end"]


@pytest.mark.parametrize("size", [1300, 256, 64 * 1024, 1 << 20])
@pytest.mark.parametrize("from_client", [True, False])
async def test_a_long_message_crosses_in_its_fragments(size: int, from_client: bool) -> None:
    socket = Socket()
    sender, receiver = (socket.client, socket.upstream) if from_client else (socket.upstream, socket.client)
    message = bytes(97 + at % 26 for at in range(1024)) * 1024
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    wire = b"".join(
        raw(CONT if number else TEXT, part, fin=number == len(parts) - 1, masked=from_client)
        for number, part in enumerate(parts)
    )
    for start in range(0, len(wire), 60_000):
        sender.send(wire[start : start + 60_000])
        await socket.settle()
    got = receiver.got()
    assert [data for _, data, _ in got] == parts
    assert [(opcode, fin) for opcode, _, fin in got] == [
        (CONT if number else TEXT, number == len(parts) - 1) for number in range(len(parts))
    ]
    assert (socket.asked or socket.answered) == [message]


@pytest.mark.parametrize("size", [0, 16, 64, 256, 1024, 4096, 16_384])
async def test_a_thousand_messages_are_answered_one_by_one(size: int) -> None:
    socket = Socket()
    message = b"x" * size
    question = raw(TEXT, message)
    for _ in range(1000):
        socket.client.send(question)
        await socket.settle()
        (asked,) = socket.upstream.got()
        socket.upstream.send(raw(TEXT, asked[1], masked=False))
        await socket.settle()
        assert socket.client.got() == [(TEXT, message, True)]
    assert len(socket.asked) == len(socket.answered) == 1000


async def test_pongs_that_nobody_asked_for_and_many_pings_cross_in_order() -> None:
    socket = Socket()
    frames = [(PONG, b"", True), (PONG, b"beat", True), *((PING, b"%d" % number, True) for number in range(10))]
    wire = b"".join(raw(opcode, data) for opcode, data, _ in frames)
    for byte in wire:
        socket.client.send(bytes([byte]))
    assert socket.upstream.got() == frames
    for _, data, _ in frames[2:]:
        socket.upstream.codec.send_pong(data)
    socket.upstream.flush()
    assert socket.client.got() == [(PONG, data, True) for _, data, _ in frames[2:]]


@pytest.mark.parametrize("packet", [1000, 1])
async def test_fragments_with_pauses_and_pings_between_them(packet: int) -> None:
    socket = Socket()
    frames = [
        (TEXT, b"one", False),
        (CONT, b"two", False),
        (PING, b"first", True),
        (CONT, b"three", False),
        (PING, b"second", True),
        (CONT, b"four", True),
    ]
    got = []
    for opcode, data, fin in frames:
        wire = raw(opcode, data, fin=fin)
        for start in range(0, len(wire), packet):
            socket.client.send(wire[start : start + packet])
        got += socket.upstream.got()
        await asyncio.sleep(0)
    assert got == frames
    assert socket.asked == [b"onetwothreefour"]


@pytest.mark.parametrize("head", [b"\xfe\x00\x05", b"\xff" + bytes(7) + b"\x05"], ids=["16 bits", "64 bits"])
async def test_a_length_in_more_bytes_than_it_needs_goes_on_in_as_few(head: bytes) -> None:
    socket = Socket()
    socket.client.send(b"\x82" + head + bytes(4) + b"short")
    assert socket.upstream.wire.sent[1] == 0x80 | 5
    assert socket.upstream.got() == [(BINARY, b"short", True)]


async def test_a_length_beyond_63_bits_is_refused() -> None:
    socket = Socket()
    socket.client.send(b"\x82\xff" + b"\xff" * 8 + bytes(4))
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1009


async def test_what_unpacks_to_much_more_than_it_is_is_refused() -> None:
    """15 kB that are 16 MB are made to be; a message of up to a megabyte may be as repetitive as it likes."""
    for size, fine in ((FREE, True), (4 * FREE, False)):
        socket = Socket(client_deflate=True, upstream_deflate=True)
        socket.client.say(b"x" * size)
        await socket.settle()
        assert (len(socket.asked) == 1) is fine
        socket.client.got()
        assert socket.client.closed_with is None or socket.client.closed_with[0] == 1009
        assert (socket.client.closed_with is None) is fine
