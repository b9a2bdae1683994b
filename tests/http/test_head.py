"""The strict parser of answers' heads."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.http.errors import ProtocolError
from aimux.http.head import clean, parse_response_head

tokens = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=30)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
FRAMING = {"content-length", "transfer-encoding", "connection"}


def build(start: str, fields: list[tuple[str, str]]) -> bytes:
    return "\r\n".join([start, *(f"{name}: {value}" for name, value in fields)]).encode("latin-1")


@given(st.integers(100, 999), st.lists(st.tuples(tokens, values), max_size=20))
def test_what_is_built_is_parsed(status: int, fields: list[tuple[str, str]]) -> None:
    kept = [(name, value.strip(" ")) for name, value in fields if name.lower() not in FRAMING]
    head = parse_response_head(build(f"HTTP/1.1 {status} Fine", kept))
    assert head.status == status
    assert [*head.headers.items()] == kept
    assert head.keep_alive


@pytest.mark.parametrize(
    "block",
    [
        b"HTTP/2 200 OK",
        b"HTTP/1.1 99 No",
        b"HTTP/1.1 2000 No",
        b"ICY 200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200 OK\n",
        b"HTTP/1.1 200 OK\r\na b: c",
        b"HTTP/1.1 200 OK\r\na : c",
        b"HTTP/1.1 200 OK\r\n a: c",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded",
        b"HTTP/1.1 200 OK\r\na: b\nset-cookie: c",
        b"HTTP/1.1 200 OK\r\na: b\rc",
        b"HTTP/1.1 200 OK\r\na: \x00",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\na: b\n",
        b"HTTP/1.1 200 OK\r\na: b\nset-cookie: c\r\nd",
        b"HTTP/1.1 200 OK\r\na\x0b: b",
        b"HTTP/1.1 200 OK\r\n: empty",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5, 6",
        b"HTTP/1.1 200 OK\r\ncontent-length: +5",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0x5",
        b"HTTP/1.1 200 OK\r\ncontent-length: ",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(block: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_response_head(block)


@pytest.mark.parametrize("line", [b"X-A:b: c", b"X-A: \t b: c", b"X-A: b: c \t", b"X-A:\tb: c"])
def test_white_space_around_a_value_is_no_part_of_it(line: bytes) -> None:
    head = parse_response_head(b"HTTP/1.1 200 OK\r\nfirst: 1\r\n" + line + b"\r\nempty:")
    assert head.lines == [b"first: 1", b"X-A: b: c", b"empty: "]
    assert [*head.headers.items()] == [("first", "1"), ("X-A", "b: c"), ("empty", "")]


def test_repeated_equal_lengths_are_one_length() -> None:
    head = parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5, 5")
    assert head.length == 5


@pytest.mark.parametrize(
    ("block", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 200\r\nConnection: keep-alive, Close", False),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive", True),
    ],
)
def test_keep_alive(block: bytes, keep_alive: bool) -> None:
    assert parse_response_head(block).keep_alive is keep_alive


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        head = parse_response_head(b"HTTP/1.1 200 OK\r\n" + data)
    except ProtocolError:
        return
    again = parse_response_head(build("HTTP/1.1 200 OK", [*head.headers.items()]))
    assert again.lines == head.lines
    assert (again.length, again.chunked, again.connection) == (head.length, head.chunked, head.connection)
    assert data.count(b"\r\n") == len(head.lines) - 1


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0"])
def test_a_value_cannot_break_out_of_its_line(value: str) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        clean(value)
