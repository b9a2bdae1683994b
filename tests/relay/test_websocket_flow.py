"""Back pressure, abrupt ends, peers that do not answer, and what they cost."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from aimux.relay import end, tunnel
from aimux.relay.intake import FRAMES
from aimux.relay.unfinished import Unfinished
from tests.relay.sockets import BINARY, CLOSE, CONT, PING, TEXT, Peer, Socket, close, raw

# --- back pressure ---------------------------------------------------------------------------------------------------


def sides(socket: Socket, sender: str) -> tuple[Peer, Peer, bool]:
    return (socket.client, socket.upstream, True) if sender == "client" else (socket.upstream, socket.client, False)


@pytest.mark.parametrize("slow", ["client", "upstream"])
async def test_while_one_side_is_full_the_other_is_not_read(slow: str) -> None:
    socket = Socket()
    sender, receiver, masked = sides(socket, "upstream" if slow == "client" else "client")
    receiver.wire.room = 10_000
    messages = [b"%d " % number * 200 for number in range(40)]
    for message in messages:
        sender.send(raw(TEXT, message, masked=masked))
    assert not sender.wire.reading
    assert receiver.wire.get_write_buffer_size() < 11_000
    got: list[bytes] = []
    while len(got) < len(messages):
        got += [data for _, data, _ in receiver.got()]
        await socket.settle()
    assert got == messages
    assert sender.wire.reading


async def test_the_slow_side_can_still_talk() -> None:
    socket = Socket()
    socket.client.wire.room = 100
    socket.upstream.send(raw(TEXT, b"x" * 200, masked=False))
    assert not socket.upstream.wire.reading
    socket.client.send(raw(TEXT, b"and yet"))
    assert socket.upstream.got() == [(TEXT, b"and yet", True)]


@pytest.mark.parametrize("opcode", [PING, TEXT], ids=["pings", "messages"])
async def test_a_flood_towards_a_peer_that_does_not_read_is_bounded(opcode: int) -> None:
    socket = Socket()
    socket.upstream.wire.room = 64 * 1024
    sent = 0
    while socket.client.wire.reading:
        socket.client.send(raw(opcode, b"flood" * 20) * 100)
        sent += 100
        await socket.settle()
        assert sent < 10_000, "nothing ever stops it"
    assert socket.upstream.wire.get_write_buffer_size() < 64 * 1024 + 32 * 1024
    assert len(socket.pipe.client._intake._held) < 64 * 1024


async def test_a_packet_of_bombs_fills_a_slow_transport_only_once() -> None:
    """64 kB that decompress to 64 MiB."""
    mib = 1024 * 1024
    socket = Socket(upstream_deflate=True)
    socket.client.wire.room = 64 * 1024
    codec = socket.upstream.codec
    for _ in range(64):
        codec.send_binary(bytes(mib))
    socket.upstream.send(b"".join(codec.data_to_send()))
    await socket.settle()
    assert socket.client.wire.get_write_buffer_size() < 17 * mib
    assert not socket.upstream.wire.reading
    total = 0
    while total < 64 * mib:
        total += sum(len(data) for _, data, _ in socket.client.got())
        await socket.settle()
    assert socket.upstream.wire.reading


async def test_a_packet_of_tiny_frames_leaves_room_for_others() -> None:
    socket = Socket()
    sent = raw(TEXT, b"", fin=False) + raw(CONT, b"", fin=False) * 50_000
    socket.client.send(sent)
    crossed = most = 0
    while not socket.client.wire.reading:
        await asyncio.sleep(0)
        now = len(socket.upstream.got())
        crossed, most = crossed + now, max(most, now)
    assert crossed + len(socket.upstream.got()) == 50_001
    assert most <= 2 * FRAMES, "in a round, the first one with what was read at once"


async def test_a_slow_reader_costs_no_memory() -> None:
    socket = Socket()
    socket.client.wire.room = 64 * 1024
    piece = raw(TEXT, b"x" * 900, masked=False)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20_000):
            if socket.upstream.wire.reading:
                socket.upstream.send(piece)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 1024 * 1024


@pytest.mark.parametrize("deflate", [False, True])
async def test_an_idle_socket_keeps_nothing_of_its_last_messages(deflate: bool) -> None:
    socket = Socket(client_deflate=deflate, upstream_deflate=deflate)
    messages = []
    for peer in (socket.client, socket.upstream):
        peer.codec.send_text(b"x" * 900_000)
        messages.append(b"".join(peer.codec.data_to_send()))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for peer, message in zip((socket.client, socket.upstream), messages, strict=True):
            peer.send(message)
            await socket.settle()
        for peer in (socket.client, socket.upstream):
            assert peer.wire.sent
            peer.wire.sent.clear()
        assert [len(message) for message in socket.asked + socket.answered] == [900_000, 900_000]
        socket.asked.clear()
        socket.answered.clear()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000


async def test_an_owner_who_resumes_the_transport_does_not_undo_the_pressure() -> None:
    socket = Socket()
    socket.upstream.wire.room = 100
    socket.client.send(raw(TEXT, b"x" * 200))
    socket.client.wire.resume_reading()
    socket.client.send(raw(TEXT, b"y"))
    assert not socket.client.wire.reading
    assert socket.upstream.got() == [(TEXT, b"x" * 200, True)]
    await socket.settle()
    assert socket.upstream.got() == [(TEXT, b"y", True)]


# --- abrupt ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exc", [None, ConnectionResetError()], ids=["FIN", "RST"])
async def test_a_client_that_vanishes_takes_the_upstream_along_at_once(exc: Exception | None) -> None:
    socket = Socket()
    socket.client.send(raw(TEXT, b"half a mess", fin=False))
    socket.pipe.client.connection_lost(exc)
    assert socket.upstream.wire.aborted
    assert socket.upstream.closed_with is None
    assert socket.pipe.done.done()
    assert socket.pipe.error == "client_gone"


@pytest.mark.parametrize("exc", [None, ConnectionResetError()], ids=["FIN", "RST"])
async def test_an_upstream_that_vanishes_leaves_the_client_without_a_close_frame(exc: Exception | None) -> None:
    socket = Socket()
    socket.upstream.send(raw(TEXT, b"the last of it", masked=False))
    socket.pipe.upstream.connection_lost(exc)
    assert socket.pipe.done.done(), "the caller closes the connection, which sends what is in it"
    assert socket.pipe.error == "upstream_lost"
    assert socket.client.got() == [(TEXT, b"the last of it", True)]
    assert socket.client.closed_with is None
    socket.client.send(raw(TEXT, b"anyone?") + raw(CLOSE, close(1000)))
    assert socket.pipe.error == "upstream_lost"


async def _read_behind(socket: Socket) -> list[tuple[int, bytes, bool]]:
    """The upstream vanishes, and then a slow client reads."""
    socket.pipe.upstream.connection_lost(None)
    assert not socket.pipe.done.done()
    got = []
    for _ in range(4):
        got += socket.client.got()
        await socket.settle()
    return got


async def test_what_an_upstream_said_before_it_vanished_reaches_a_slow_client() -> None:
    socket = Socket()
    socket.client.wire.room = 1000
    last = raw(TEXT, b"x" * 2000, masked=False) + raw(TEXT, b"the end", masked=False)
    socket.upstream.send(last + raw(CLOSE, close(4000, b"limit"), masked=False) + b"\x00" * 16 * 1024)
    got = await _read_behind(socket)
    assert [data for opcode, data, _ in got if opcode == TEXT] == [b"x" * 2000, b"the end"]
    assert socket.client.closed_with == (4000, "limit")
    assert socket.pipe.error == ""


async def test_an_upstream_that_vanished_without_a_word_ends_the_socket_when_a_slow_client_has_read() -> None:
    socket = Socket()
    socket.client.wire.room = 1000
    last = raw(TEXT, b"x" * 2000, masked=False) + raw(TEXT, b"y" * 32 * 1024, masked=False)
    socket.upstream.send(last)
    got = await _read_behind(socket)
    assert [len(data) for _, data, _ in got] == [2000, 32 * 1024]
    assert socket.pipe.done.done()
    assert socket.pipe.error == "upstream_lost"


async def test_a_client_that_is_given_up_takes_what_it_sent_with_it() -> None:
    socket = Socket()
    socket.upstream.wire.room = 100
    socket.client.send(raw(TEXT, b"x" * 200) + raw(TEXT, b"never sent" * 16 * 1024))
    socket.pipe.client.connection_lost(None)
    assert not socket.upstream.wire.aborted, "it may have said goodbye in what is held back"
    socket.pipe.abort()
    assert socket.upstream.wire.aborted
    assert socket.pipe.error == "client_gone"
    assert not socket.pipe.client._intake.ready


@pytest.mark.parametrize(
    "begun",
    [raw(BINARY, bytes(8 << 20))[:-10], raw(BINARY, bytes(8 << 20), fin=False)],
    ids=["half a frame", "half a message"],
)
@pytest.mark.parametrize("gone", ["client", "upstream"])
async def test_half_a_message_does_not_outlive_its_socket(begun: bytes, gone: str) -> None:
    """Even where no garbage is collected: who opens one socket after another could fill the memory with it."""
    gc.disable()
    tracemalloc.start()
    try:
        socket = Socket()
        before = tracemalloc.get_traced_memory()[0]
        socket.client.send(begun)
        await socket.settle()
        socket.upstream.wire.sent.clear()
        (socket.pipe.client if gone == "client" else socket.pipe.upstream).connection_lost(None)
        assert socket.pipe.done.done()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert grown < 100_000


# --- peers that do not answer ----------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end, "CLOSE_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_never_answers_the_close_frame_is_given_up() -> None:
    socket = Socket()
    socket.upstream.send(raw(CLOSE, close(1000), masked=False))
    await asyncio.wait_for(socket.pipe.done, 5)
    assert socket.client.wire.aborted


@pytest.mark.usefixtures("impatient")
async def test_an_upstream_that_never_ends_the_connection_is_given_up() -> None:
    socket = Socket()
    socket.client.send(raw(CLOSE, close(1000)))
    assert socket.pipe.done.done()
    while not socket.upstream.wire.closed:
        await asyncio.sleep(0)
    assert socket.upstream.wire.aborted


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_still_reads_is_waited_for() -> None:
    socket = Socket()
    socket.client.wire.room = 10
    socket.upstream.send(raw(BINARY, b"x" * 900, masked=False) + raw(CLOSE, close(1000), masked=False))
    while not socket.client.wire.closed and socket.client.wire.taken < 900:
        socket.client.wire.take(50)
        await asyncio.sleep(0)
    assert socket.client.wire.taken >= 900
    await asyncio.wait_for(socket.pipe.done, 5)


async def test_a_culprit_is_not_listened_to_any_more() -> None:
    socket = Socket()
    socket.client.send(raw(3))
    for _ in range(3):
        socket.client.send(raw(TEXT, b"but") + b"\xff" * 50_000)
    await socket.settle()
    assert socket.upstream.got() == [(CLOSE, close(1001), True)]
    assert socket.client.wire.reading, "it is read all the same: a reset would cost it the close frame"


# --- messages that don't end -----------------------------------------------------------------------------------------

HALVES = {
    "half a frame": raw(BINARY, bytes(1 << 20))[:-10],
    "half a message": raw(BINARY, b"half", fin=False),
    "half a compressed message": None,
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
async def test_a_message_has_to_arrive_in_time(half: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "MESSAGE_SECONDS", 0.01)
    monkeypatch.setattr(end, "MESSAGE_RATE", 1 << 40)
    socket = Socket(client_deflate=True)
    if half is None:
        socket.client.codec.send_text(bytes(1 << 20), fin=False)
        half = b"".join(socket.client.codec.data_to_send())
    socket.client.send(half)
    await socket.settle()
    assert socket.unfinished.total
    async with asyncio.timeout(10):
        while socket.client.closed_with is None:
            await asyncio.sleep(0.005)
            socket.client.got()
    assert socket.client.closed_with[0] == 1008
    assert "did not arrive" in socket.client.closed_with[1]
    assert socket.pipe.error == "timeout"
    assert socket.unfinished.total == 0
    socket.upstream.got()
    assert socket.upstream.closed_with == (1001, "")


@pytest.fixture
async def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Awaitable[None]]:
    """Lets seconds pass that nobody waits for, and what was due by then happen."""
    loop = asyncio.get_running_loop()
    real, passed = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + passed)

    async def wait(seconds: float) -> None:
        nonlocal passed
        passed += seconds
        for _ in range(3):
            await asyncio.sleep(0)

    return wait


async def test_a_message_that_begins_right_behind_another_gets_its_own_time(
    wait: Callable[[float], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "MESSAGE_SECONDS", 100.0)
    socket = Socket()
    begun, rest = raw(BINARY, b"begun", fin=False), raw(CONT, b"rest")
    socket.client.send(begun)
    for _ in range(5):
        await wait(80)
        socket.client.send(rest + begun)
        assert socket.pipe.error == ""
    assert socket.asked == [b"begunrest"] * 5
    await wait(80)
    socket.client.send(raw(CONT, b"more", fin=False))
    assert socket.pipe.error == ""
    await wait(80)
    assert socket.pipe.error == "timeout"
    socket.client.send(raw(CONT, b"too late"))
    socket.client.send(raw(TEXT, b"and another one"))
    await socket.settle()
    assert len(socket.asked) == 5, "nothing counts behind it"


async def test_a_long_message_gets_the_time_it_needs_and_one_that_has_ended_none(
    wait: Callable[[float], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "MESSAGE_SECONDS", 100.0)
    socket = Socket()
    socket.client.send(raw(BINARY, b"x", fin=False))
    socket.client.send(raw(CONT))
    await wait(1000)
    assert socket.pipe.error == ""
    socket.client.send(raw(BINARY, b"x", fin=False))
    piece = raw(CONT, bytes(5 * end.MESSAGE_RATE - 8), fin=False)
    for _ in range(10):
        socket.client.send(piece)
        await wait(14)
        assert socket.pipe.error == ""
    await wait(9)
    assert socket.pipe.error == ""
    await wait(2)
    assert socket.pipe.error == "timeout"


async def test_what_the_other_side_does_not_take_is_not_late(
    wait: Callable[[float], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "MESSAGE_SECONDS", 100.0)
    socket = Socket()
    socket.upstream.wire.room = 100
    socket.client.send(raw(BINARY, bytes(1000), fin=False))
    await wait(1000)
    assert socket.pipe.error == ""
    socket.upstream.got()
    await socket.settle()
    await wait(99)
    assert socket.pipe.error == ""
    await wait(2)
    assert socket.pipe.error == "timeout"


async def test_where_too_much_is_held_the_largest_goes() -> None:
    unfinished = Unfinished(most=100_000)
    small, middle, large = (Socket(unfinished=unfinished) for _ in range(3))
    small.client.send(raw(BINARY, bytes(1_000), fin=False))
    large.client.send(raw(BINARY, bytes(60_000), fin=False))
    middle.client.send(raw(BINARY, bytes(45_000))[:-1])
    assert (small.pipe.error, middle.pipe.error, large.pipe.error) == ("", "", "too_large")
    assert unfinished.total < 100_000
    for socket in (small, middle):
        socket.client.send(raw(CONT, b"end") if socket is small else b"\0")
        assert len(socket.asked) == 1
    assert unfinished.total == 0
    large.client.got()
    assert large.client.closed_with == (1008, "too much of unfinished messages is held")
    large.client.send(raw(CONT, bytes(60_000), fin=False) * 5)
    await large.settle()
    assert unfinished.total == 0, "and what still comes is not kept"


async def test_withheld_fragments_count_with_what_they_cost() -> None:
    unfinished = Unfinished(most=1_000_000)
    socket = Socket(unfinished=unfinished, judge=lambda _: True)
    socket.client.send(raw(TEXT, b"x", fin=False))
    tracemalloc.start()
    try:
        before, frames = tracemalloc.get_traced_memory()[0], 0
        while not socket.pipe.error:
            socket.client.send(raw(CONT, b"x", fin=False))
            frames += 1
        assert frames < 10_000
        assert tracemalloc.get_traced_memory()[1] - before < 3_000_000
    finally:
        tracemalloc.stop()
