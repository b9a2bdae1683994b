"""What crosses, what is refused, and what each side is told: the ground that the Autobahn test suite covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.relay.errors import ProtocolError
from aimux.relay.websocket_codec import COMPRESS_FROM, MAX_MESSAGE, ClientSide, HandshakeRefused, UpstreamSide
from tests.relay.sockets import BINARY, CLOSE, CONT, PING, PONG, TEXT, Socket, close, raw, response_head

SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536, 70_000)


# --- messages --------------------------------------------------------------------------------------------------------


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


# --- what breaks the rules -------------------------------------------------------------------------------------------

BAD_FRAMES = {
    "fragmented ping": raw(PING, b"", fin=False),
    "long ping": raw(PING, b"p" * 126),
    "long close": raw(CLOSE, close(1000, b"r" * 124)),
    "fragmented close": raw(CLOSE, close(1000), fin=False),
    "continuation of nothing": raw(CONT, b"x"),
    "continuation after the end": raw(TEXT, b"x", fin=False) + raw(CONT, b"y") + raw(CONT, b"z"),
    "message within a message": raw(TEXT, b"x", fin=False) + raw(TEXT, b"y"),
    "not masked": raw(TEXT, b"x", masked=False),
    "one byte of a code": raw(CLOSE, b"\x03"),
    "close within a message": raw(TEXT, b"x", fin=False) + raw(CLOSE, close(1000)),
    **{f"rsv {rsv}": raw(TEXT, b"x", rsv=rsv) for rsv in range(1, 8)},
    **{f"opcode {opcode}": raw(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{
        f"code {code}": raw(CLOSE, close(code))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("wire", BAD_FRAMES.values(), ids=BAD_FRAMES)
@pytest.mark.parametrize("before", [b"", raw(TEXT, b"before")], ids=["alone", "behind a message"])
async def test_a_client_that_breaks_the_rules_is_told_so_and_the_upstream_that_it_left(
    wire: bytes, before: bytes
) -> None:
    socket = Socket()
    socket.client.send(before + wire + raw(TEXT, b"after"))
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


async def test_an_upstream_that_breaks_the_rules_is_a_bad_gateway_to_the_client() -> None:
    socket = Socket()
    socket.upstream.send(raw(TEXT, b"fine", masked=False) + raw(TEXT, b"masked"))
    assert socket.client.got()[0] == (TEXT, b"fine", True)
    assert socket.client.closed_with == (1014, "the upstream broke the WebSocket protocol")
    socket.upstream.got()
    assert socket.upstream.closed_with is not None
    assert socket.upstream.closed_with[0] == 1002
    assert socket.pipe.error == "bad_gateway"


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


# --- text ------------------------------------------------------------------------------------------------------------

GOOD_TEXTS = ["κόσμε", "Hello-µ@ßöäüàá-UTF-8!!", "\x00", "\u07ff\u0800\uffff\U00010000\U0010ffff", "\ufffd\ud7ff\ue000"]
BAD_TEXTS = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xc0\xaf",  # overlong
    b"\xe0\x80\x80",
    b"\xf0\x80\x80\xaf",
    b"\x80",
    b"\xff",
    b"\xfe",
    b"\xf8\x88\x80\x80\x80",
    b"\xed\xbf\xbf",
    b"ends early \xe1\xbd",
]


@pytest.mark.parametrize("text", GOOD_TEXTS)
async def test_text_may_be_split_anywhere_even_inside_a_character(text: str) -> None:
    data = text.encode()
    for cut in range(len(data) + 1):
        socket = Socket()
        socket.client.send(raw(TEXT, data[:cut], fin=False) + raw(PING) + raw(CONT, data[cut:]))
        assert [frame for frame in socket.upstream.got() if frame[0] != PING] == [
            (TEXT, data[:cut], False),
            (CONT, data[cut:], True),
        ]
        assert socket.asked == [data]


@pytest.mark.parametrize("text", BAD_TEXTS)
async def test_text_that_is_not_utf8_ends_the_socket_wherever_it_is_split(text: bytes) -> None:
    for cut in range(len(text) + 1):
        socket = Socket()
        socket.client.send(raw(TEXT, text) if not cut else raw(TEXT, text[:cut], fin=False) + raw(CONT, text[cut:]))
        socket.client.got()
        assert socket.client.closed_with is not None
        assert socket.client.closed_with[0] == 1007
        assert socket.asked == []


async def test_bytes_that_are_not_utf8_are_fine_in_binary_messages() -> None:
    socket = Socket()
    for data in BAD_TEXTS:
        socket.upstream.send(raw(BINARY, data[:1], fin=False, masked=False) + raw(CONT, data[1:], masked=False))
        assert socket.client.got() == [(BINARY, data[:1], False), (CONT, data[1:], True)]


async def test_a_reason_that_is_not_utf8_is_refused() -> None:
    socket = Socket()
    socket.client.send(raw(CLOSE, close(1000, b"\xff\xfe")))
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1007


# --- closing ---------------------------------------------------------------------------------------------------------

GOOD_CODES = [None, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("code", GOOD_CODES)
@pytest.mark.parametrize("reason", ["", "r" * 123])
async def test_close_codes_and_reasons_cross_from_the_client(code: int | None, reason: str) -> None:
    socket = Socket()
    if code is None and reason:
        return
    socket.client.send(raw(TEXT, b"last") + raw(CLOSE, close(code, reason.encode())) + raw(TEXT, b"too late"))
    told = (1005 if code is None else code, reason)
    assert socket.upstream.got() == [(TEXT, b"last", True), (CLOSE, close(code, reason.encode()), True)]
    socket.client.got()
    assert socket.upstream.closed_with == socket.client.closed_with == told
    assert socket.pipe.done.done()
    assert socket.pipe.error == ""
    assert not socket.upstream.wire.closed, "the upstream, as the server, ends the connection"
    socket.upstream.flush()
    socket.pipe.upstream.connection_lost(None)
    assert socket.upstream.wire.closed


@pytest.mark.parametrize("code", GOOD_CODES)
async def test_close_codes_cross_from_the_upstream(code: int | None) -> None:
    socket = Socket()
    socket.upstream.send(
        raw(TEXT, b"last", masked=False) + raw(CLOSE, close(code, b"why" if code else b""), masked=False)
    )
    assert socket.client.got()[0] == (TEXT, b"last", True)
    assert socket.client.closed_with == (1005 if code is None else code, "why" if code else "")
    assert not socket.pipe.done.done(), "the client has not answered yet"
    socket.client.flush()
    assert socket.pipe.done.done()
    assert socket.pipe.error == ""
    socket.upstream.got()
    assert socket.upstream.closed_with == socket.client.closed_with


async def test_both_sides_may_close_at_once() -> None:
    socket = Socket()
    socket.pipe.close(1001, "bye")
    socket.upstream.send(raw(CLOSE, close(4000), masked=False))
    socket.client.send(raw(CLOSE, close(4001)))
    socket.client.got()
    socket.upstream.got()
    assert socket.client.closed_with == (1001, "bye")
    assert socket.upstream.closed_with == (1001, "")
    assert socket.pipe.done.done()
    assert socket.pipe.error == ""


async def test_what_the_upstream_still_says_after_the_clients_close_is_dropped() -> None:
    socket = Socket()
    socket.client.send(raw(CLOSE, close(1000)))
    socket.upstream.send(raw(TEXT, b"too late", masked=False) + raw(PING, masked=False))
    assert socket.client.got() == [(CLOSE, close(1000), True)]


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deflate", [False, True])
async def test_a_frame_of_16_mib_crosses_both_ways(deflate: bool) -> None:
    message = b"0123456789abcdef" * (MAX_MESSAGE // 16)
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
    assert socket.pipe.client._message == b""
    socket.client.send(raw(CONT, b"end"))
    assert socket.asked == [b"end"]


# --- compression -----------------------------------------------------------------------------------------------------


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
        deflate = end.codec.extensions[0]._deflate
        assert not hasattr(deflate, "encoder")
        assert not hasattr(deflate, "decoder")


async def test_rubbish_in_place_of_deflate_is_refused() -> None:
    socket = Socket(client_deflate=True)
    socket.client.send(raw(TEXT, b"\xff\xff\xff\xff", rsv=4))
    socket.client.got()
    assert socket.client.closed_with == (1002, "decompression failed")


# --- handshakes ------------------------------------------------------------------------------------------------------

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
