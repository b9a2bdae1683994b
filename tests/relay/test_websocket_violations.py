"""Frames against the rules, and what each side is told. Autobahn's groups 3, 4 and the refusals of 2, 5 and 7."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.http.websocket import MAX_MESSAGE
from tests.relay.sockets import BINARY, CLOSE, CONT, PING, PONG, TEXT, Socket, close, raw


def bad_frames(*, masked: bool) -> dict[str, bytes]:
    """Of a client, where they are masked, else of an upstream."""

    def frame(opcode: int, data: bytes = b"", **options: Any) -> bytes:
        return raw(opcode, data, **{"masked": masked, **options})

    begun = frame(TEXT, b"x", fin=False)
    return {
        "long ping": frame(PING, b"p" * 126),
        "long pong": frame(PONG, b"p" * 126),
        "long close": frame(CLOSE, close(1000, b"r" * 124)),
        "fragmented ping": frame(PING, b"", fin=False),
        "fragmented pong": frame(PONG, b"p", fin=False) + frame(CONT, b"p"),
        "fragmented close": frame(CLOSE, close(1000), fin=False),
        "continuation of nothing": frame(CONT, b"x"),
        "unfinished continuation of nothing": frame(CONT, b"x", fin=False) + frame(CONT, b"y"),
        "continuation after the end": begun + frame(CONT, b"y") + frame(CONT, b"z"),
        "message within a message": begun + frame(TEXT, b"y"),
        "unfinished message within a message": begun + frame(BINARY, b"y", fin=False),
        "one byte of a code": frame(CLOSE, b"\x03"),
        "close within a message": begun + frame(CLOSE, close(1000)),
        "masked as only the other side may": frame(TEXT, b"x", masked=not masked),
        "ping masked as only the other side may": frame(PING, b"x", masked=not masked),
        "close masked as only the other side may": frame(CLOSE, close(1000), masked=not masked),
        **{
            f"rsv {rsv}, opcode {opcode}": frame(opcode, close(1000) if opcode == CLOSE else b"x", rsv=rsv)
            for rsv in range(1, 8)
            for opcode in (TEXT, BINARY, PING, PONG, CLOSE)
        },
        **{
            f"opcode {opcode}, {len(data)} bytes": frame(opcode, data)
            for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
            for data in (b"", b"x")
        },
        **{
            f"code {code}": frame(CLOSE, close(code))
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
        },
    }


@pytest.mark.parametrize("wire", bad_frames(masked=True).values(), ids=bad_frames(masked=True))
@pytest.mark.parametrize("before", [b"", raw(TEXT, b"before")], ids=["alone", "behind a message"])
@pytest.mark.parametrize("packet", [1000, 1])
async def test_a_client_that_breaks_the_rules_is_told_so_and_the_upstream_that_it_left(
    wire: bytes, before: bytes, packet: int
) -> None:
    socket = Socket()
    wire = before + wire + raw(TEXT, b"after") + raw(PING, b"after")
    for start in range(0, len(wire), packet):
        socket.client.send(wire[start : start + packet])
    await socket.settle()
    got = socket.upstream.got()
    assert got[:1] == ([(TEXT, b"before", True)] if before else got[:1])
    assert all(data != b"after" for _, data, _ in got)
    assert socket.upstream.closed_with == (1001, "")
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1002
    assert socket.client.wire.half_closed
    assert socket.pipe.error == "bad_request"
    assert socket.pipe.detail.startswith("1002: ")


@pytest.mark.parametrize("wire", bad_frames(masked=False).values(), ids=bad_frames(masked=False))
async def test_an_upstream_that_breaks_the_rules_is_a_bad_gateway_to_the_client(wire: bytes) -> None:
    socket = Socket()
    socket.upstream.send(raw(TEXT, b"fine", masked=False) + wire + raw(TEXT, b"after", masked=False))
    got = socket.client.got()
    assert got[0] == (TEXT, b"fine", True)
    assert all(data != b"after" for _, data, _ in got)
    assert socket.client.closed_with == (1014, "the upstream broke the WebSocket protocol")
    socket.upstream.got()
    assert socket.upstream.closed_with is not None
    assert socket.upstream.closed_with[0] == 1002
    assert socket.pipe.error == "bad_gateway"


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE, CONT])
async def test_compression_is_marked_on_a_messages_first_frame_alone(opcode: int) -> None:
    socket = Socket(client_deflate=True)
    begun = raw(TEXT, b"x", fin=False) if opcode == CONT else b""
    socket.client.send(begun + raw(opcode, close(1000) if opcode == CLOSE else b"x", rsv=4))
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1002
    assert socket.pipe.error == "bad_request"


FRAMES = st.builds(
    raw,
    st.integers(0, 15),
    st.one_of(st.binary(max_size=130), st.text(max_size=40).map(str.encode)),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 4, 1, 7]),
    masked=st.sampled_from([True, True, True, False]),
)


@given(
    st.lists(st.one_of(FRAMES, st.binary(max_size=20)), max_size=12), st.booleans(), st.booleans(), st.integers(1, 50)
)
async def test_whatever_one_side_sends_the_other_side_gets_what_follows_the_rules(
    pieces: list[bytes], from_client: bool, deflate: bool, packet: int
) -> None:
    socket = Socket(client_deflate=deflate, upstream_deflate=deflate)
    culprit, other = (socket.client, socket.upstream) if from_client else (socket.upstream, socket.client)
    wire = b"".join(pieces)
    for start in range(0, len(wire), packet):
        culprit.send(wire[start : start + packet])
    await socket.settle()
    other.got()  # which checks it
    culprit.got()
    assert (culprit.closed_with is None) == (other.closed_with is None), "both sides end, or neither"
    assert not other.wire.aborted


@pytest.mark.parametrize("deflate", [False, True])
async def test_an_answer_beyond_the_bound_is_called_that(deflate: bool) -> None:
    """It is no fault of the upstream's: a generated image is as large as it is."""
    socket = Socket(client_deflate=deflate, upstream_deflate=deflate)
    socket.upstream.say(bytes(MAX_MESSAGE + 1), opcode=BINARY)
    await socket.settle()
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1009
    assert "max_websocket_message" in socket.client.closed_with[1]
    socket.upstream.got()
    assert socket.upstream.closed_with is not None
    assert socket.upstream.closed_with[0] == 1009
    assert socket.pipe.error == "too_large"
