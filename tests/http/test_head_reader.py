"""Heads that are like one before them are read in another way than the first, and to the same effect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.http.errors import ProtocolError
from aimux.http.head import parse_response_head
from aimux.http.head_reader import HeadReader, Heads

ALIKE = b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nrequest-id: %b"


def told(block: bytes, heads: Heads | None = None) -> object:
    """What is read of a head, or that it is refused."""
    try:
        head = parse_response_head(block) if heads is None else heads.read(block)
    except ProtocolError as error:
        return str(error)
    values = {name.lower(): head.headers.getall(name) for name in head.names}
    how = (head.chunked, head.length, head.connection, head.keep_alive)
    return (head.status, head.reason, head.names, head.lines, values, how)


LINES = st.sampled_from(
    [
        *(b"Date: %d" % number for number in range(3)),
        *(b"content-length: %d" % number for number in range(2)),
        *(b"Set-Cookie: a=%d" % number for number in range(3)),
        *(b"vary: %b" % value for value in (b"a", b"b", b" spaced", b"bad\x01", b"l\xe4ngs", b"tab\there")),
        *(b"connection: %b" % value for value in (b"close", b"keep-alive", b"x-a, close")),
        b"transfer-encoding: chunked",
        b"transfer-encoding: gzip",
        b"content-length: x",
        b"x-a:",
        b"x-a: ",
        b"X-A: 1",
        b"no colon",
        b"",
    ]
)
HEADS = st.builds(
    lambda first, lines: b"\r\n".join([first, *lines]),
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 404 Not Found"]),
    st.lists(LINES, max_size=4),
)


@given(st.lists(HEADS, max_size=30))
def test_a_head_is_read_alike_whatever_came_before_it(blocks: list[bytes]) -> None:
    heads = Heads()
    for block in blocks * 2:
        assert told(block, heads) == told(block)


@given(st.data())
def test_each_value_of_a_head_that_is_known_is_looked_at(data: st.DataObject) -> None:
    """With what could end a line early, or stretch over two."""
    heads = Heads()
    for number in range(3):
        heads.read(ALIKE % (b"now %d" % number, number, b"req_%d" % number))
    values = st.lists(st.sampled_from([b"a", b"7", b"\r\n", b"\n", b"\r", b": ", b"\0", b" ", b"\xff", b"Date: "]))
    value = b"".join(data.draw(values))
    for block in (ALIKE % (value, 5, b"req"), ALIKE % (b"now", 5, value), ALIKE % (b"now", 5, b"req") + value):
        assert told(block, heads) == told(block)


def test_more_kinds_of_heads_than_are_remembered() -> None:
    heads = Heads()
    blocks = [ALIKE % (b"now", 1, b"req_%d" % number) + b"\r\nx-%d: 1" % (number % 40) for number in range(120)]
    for block in blocks * 2:
        assert told(block, heads) == told(block)


def test_interim_answers_end_here() -> None:
    reader = HeadReader()
    for _ in range(2):
        assert reader.feed(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n") is None
    found = reader.feed(b"HTTP/1.1 200 OK\r\n\r\nrest")
    assert found is not None
    assert (found[0].status, found[1]) == (200, b"rest")


def test_an_upstream_that_does_not_come_to_the_point() -> None:
    with pytest.raises(ProtocolError, match="more than 16 interim"):
        HeadReader().feed(b"HTTP/1.1 100 Continue\r\n\r\n" * 17)
    with pytest.raises(ProtocolError, match="larger than"):
        HeadReader().feed(b"HTTP/1.1 200 OK\r\na: " + b"a" * 70_000)


@pytest.mark.parametrize(
    "begins", [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", b"SSH-2.0-x\r\n", b"\x15\x03", b"HTTP/2", b" H"]
)
def test_another_protocol_is_not_waited_for(begins: bytes) -> None:
    with pytest.raises(ProtocolError, match="does not begin with an HTTP"):
        HeadReader().feed(begins)
    reader = HeadReader()
    with pytest.raises(ProtocolError):
        for byte in begins:
            reader.feed(bytes([byte]))


def test_a_head_may_come_byte_by_byte() -> None:
    reader, found = HeadReader(), []
    for byte in b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
        found.append(reader.feed(bytes([byte])))
    assert found.pop() is not None
    assert not any(found)
