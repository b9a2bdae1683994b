"""Text is UTF-8, wherever it is cut. Autobahn's group 6."""

from __future__ import annotations

import pytest

from tests.relay.sockets import BINARY, CLOSE, CONT, PING, TEXT, Socket, close, raw

GOOD_TEXTS = {
    "Greek": "κόσμε".encode(),
    "Latin": "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    "the first of each length": b"\x00" + "\x80\u0800\U00010000".encode(),
    "the last of each length": "\x7f\u07ff\uffff\U0010ffff".encode(),
    "around the surrogates": b"\xed\x9f\xbf\xee\x80\x80",
    "the replacement character": b"\xef\xbf\xbd",
    "what is no character": b"\xef\xbf\xbe\xef\xbf\xbf\xf0\x9f\xbf\xbe\xf4\x8f\xbf\xbf\xef\xb7\x90",
    "specials and a byte order mark": "\ufeff\ufff9\ufffa\ufffb\ufffc\u200b".encode(),
}
BAD_TEXTS = {
    "a surrogate in a text": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "a long way beyond": b"\xf7\xbf\xbf\xbf",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "a continuation": b"\x80",
    "the last continuation": b"\xbf",
    "continuations": bytes(range(0x80, 0xC0)),
    "no byte of UTF-8": b"\xfe",
    "none either": b"\xff",
    "neither of them": b"\xfe\xfe\xff\xff",
    "ends early": b"ends early \xe1\xbd",
    **{f"{first:x} alone": bytes([first, 0x20]) for first in (0xC2, 0xDF, 0xE0, 0xEF, 0xF0, 0xF4)},
    **{
        f"{data.hex()} ends early": data
        for data in (b"\xc3", b"\xe0\xa0", b"\xef\xbf", b"\xf0\x90\x80", b"\xf4\x8f\xbf")
    },
    **{
        f"{data.hex()} is overlong": data
        for data in (
            *(b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"),
            *(b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf"),
            *(b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80"),
        )
    },
    **{
        f"{data.hex()} is a surrogate": data
        for data in (
            *(b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbf\xbf"),
            *(b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf"),
        )
    },
}


@pytest.mark.parametrize("data", GOOD_TEXTS.values(), ids=GOOD_TEXTS)
async def test_text_may_be_split_anywhere_even_inside_a_character(data: bytes) -> None:
    for cut in range(len(data) + 1):
        socket = Socket()
        socket.client.send(raw(TEXT, data[:cut], fin=False) + raw(PING) + raw(CONT, data[cut:]))
        assert [frame for frame in socket.upstream.got() if frame[0] != PING] == [
            (TEXT, data[:cut], False),
            (CONT, data[cut:], True),
        ]
        assert socket.asked == [data]


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS)
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
    for data in BAD_TEXTS.values():
        socket.upstream.send(raw(BINARY, data[:1], fin=False, masked=False) + raw(CONT, data[1:], masked=False))
        assert socket.client.got() == [(BINARY, data[:1], False), (CONT, data[1:], True)]


async def test_a_reason_that_is_not_utf8_is_refused() -> None:
    socket = Socket()
    socket.client.send(raw(CLOSE, close(1000, b"\xff\xfe")))
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1007


@pytest.mark.parametrize("sizes", [(0,), (0, 0, 0), (0, 5, 0), (1,) * 12])
async def test_a_text_may_be_empty_and_so_may_its_fragments(sizes: tuple[int, ...]) -> None:
    socket = Socket()
    for number, size in enumerate(sizes):
        socket.client.send(raw(CONT if number else TEXT, b"x" * size, fin=number == len(sizes) - 1))
    assert [len(data) for _, data, _ in socket.upstream.got()] == [*sizes]
    assert socket.asked == [b"x" * sum(sizes)]


async def test_a_text_that_can_become_none_is_refused_before_its_end() -> None:
    socket = Socket()
    socket.client.send(raw(TEXT, "κόσμε".encode(), fin=False))
    assert len(socket.upstream.got()) == 1
    socket.client.send(raw(CONT, b"\xf4\x90", fin=False))
    socket.client.got()
    assert socket.client.closed_with is not None
    assert socket.client.closed_with[0] == 1007
    assert all(opcode != CONT for opcode, _, _ in socket.upstream.got())
    assert socket.pipe.error == "bad_request"
