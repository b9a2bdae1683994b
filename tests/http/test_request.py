"""A client's request, read strictly; what a whole gateway makes of it is in tests/front."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.http.request import MAX_KEPT, BodyReader, LastHead, RequestError, RequestHead, parse_request_head

LINES = [
    b"Host: gateway",
    b"Authorization: Bearer token-0123456789",
    b"Content-Length: 5",
    b"content-length: 12",
    b"Content-Length: 0",
    b"Content-Length:7",
    b"X-A: Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Connection: close",
    b"Connection: X-A, keep-alive",
    b"Expect: 100-Continue",
    b"X-A: b\xc3\xa9",
]
START = [b"POST /v1/chat?a=b HTTP/1.1", b"POST /v1/chat HTTP/1.0", b"GET /v1/chat HTTP/1.1"]
blocks = st.builds(
    lambda start, lines: b"\r\n".join([start, *lines]), st.sampled_from(START), st.lists(st.sampled_from(LINES))
)


def told(head: RequestHead) -> tuple[object, ...]:
    pairs = tuple((name.lower(), value) for name, value in head.headers.items())
    return head.method, head.target, head.http11, head.length, head.keep_alive, head.expects, head.connection, pairs


def outcome(block: bytes) -> object:
    try:
        return told(parse_request_head(block))
    except RequestError as error:
        return error.status


@given(st.lists(blocks, min_size=2, max_size=6))
def test_a_head_that_is_recognized_reads_as_if_it_were_parsed(sent: list[bytes]) -> None:
    last = LastHead()
    for block in sent:
        known = last.known(block)
        if known is not None:
            assert told(known) == outcome(block)
            continue
        try:
            last.keep(block, parse_request_head(block))
        except RequestError:
            return  # its connection ends


@given(st.integers(0, 10**19), st.integers(0, 10**19), st.sampled_from([b"\r\nX-A: b", b""]))
def test_only_the_length_may_differ(first: int, second: int, behind: bytes) -> None:
    def block(length: int) -> bytes:
        return b"POST /v1/chat HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d%b" % (length, behind)

    last = LastHead()
    try:
        last.keep(block(first), parse_request_head(block(first)))
    except RequestError:
        assert first >= 10**18
        return
    known = last.known(block(second))
    if known is not None:
        assert told(known) == outcome(block(second))
    for other in (b"x", b"\r\nX-B: c"):
        assert last.known(block(second) + other) is None
    assert last.known(block(second).replace(b"gateway", b"gateweg")) is None


def test_a_large_head_is_not_kept_for_an_idle_connection() -> None:
    last, small = LastHead(), b"GET / HTTP/1.1\r\nHost: a"
    large = small + b"\r\nX-A: " + b"a" * MAX_KEPT
    last.keep(small, parse_request_head(small))
    assert last.known(small) is not None
    last.keep(large, parse_request_head(large))
    assert last.known(large) is None
    assert last.known(small) is None


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        head = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + data)
    except RequestError as error:
        assert 400 <= error.status < 600
        return
    again = parse_request_head(b"GET / HTTP/1.1\r\n" + b"\r\n".join(head.lines))
    assert again.lines == head.lines
    assert told(again) == told(head)
    assert len(head.lines) == data.count(b"\r\n") + 2


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.booleans(), st.data())
def test_a_body_is_the_same_however_it_is_cut(payload: list[bytes], chunked: bool, data: st.DataObject) -> None:
    whole = b"".join(payload)
    if chunked:
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in payload) + b"0\r\nX-T: 1\r\n\r\n"
        reader = BodyReader(None)
    else:
        sent, reader = whole, BodyReader(len(whole))
    sent += b"NEXT"
    while not reader.complete:
        cut = data.draw(st.integers(1, len(sent)))
        reader.feed(sent[:cut])
        sent = sent[cut:]
    assert reader.take() == whole
    assert reader.rest + sent == b"NEXT"
    assert reader.size == len(whole)


@pytest.mark.parametrize("trailer", [b"Content-Length: 5", b"transfer-encoding: chunked", b"no colon", b" folded: x"])
def test_a_trailer_that_would_be_framing_is_refused(trailer: bytes) -> None:
    with pytest.raises(RequestError):
        BodyReader(None).feed(b"1\r\nx\r\n0\r\n" + trailer + b"\r\n\r\n")


def test_a_secret_line_is_not_remembered() -> None:
    from aimux.http import request

    parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: abc\r\nX-Plain: abc")
    assert b"X-Plain: abc" in request._fields
    assert b"X-Api-Key: abc" not in request._fields
