"""Framers see the same whatever way the bytes are split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.http.errors import ProtocolError
from aimux.http.framing import (
    LAST_CHUNK,
    MAX_CHUNKS,
    Chunked,
    Framer,
    Length,
    NoBody,
    UntilClose,
    chunk,
    chunk_heads,
    framer_for,
)

payloads = st.lists(st.binary(min_size=1, max_size=400), max_size=8)
cuts = st.lists(st.integers(min_value=0, max_value=4000), max_size=12)


def split(data: bytes, at: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(cut, len(data)) for cut in at), len(data)]
    return [part for part in (data[a:b] for a, b in itertools.pairwise(bounds)) if part]


def run(framer: Framer, parts: list[bytes]) -> tuple[bytes, bytes]:
    forward, payload = b"", b""
    for part in parts:
        out, pieces = framer.feed(part)
        forward += out
        payload += b"".join(pieces)
    return forward, payload


@given(payloads, cuts, st.sampled_from([b"", b"trailer: x\r\n", b"a: 1\r\nset-cookie: b\r\n"]))
def test_chunked_is_forwarded_as_it_came_less_its_end(pieces: list[bytes], at: list[int], trailers: bytes) -> None:
    body = b"".join(chunk(piece) for piece in pieces)
    framer = Chunked()
    forward, payload = run(framer, split(body + b"0\r\n" + trailers + b"\r\n", at))
    assert forward == body
    assert payload == b"".join(pieces)
    assert framer.done
    assert framer.clean


@given(st.lists(st.binary(min_size=1, max_size=3), min_size=7, max_size=9), cuts)
def test_many_chunks_are_read_in_pieces(some: list[bytes], at: list[int]) -> None:
    pieces = some * 100  # 900 drawn one by one take a second
    body = b"".join(chunk(piece) for piece in pieces)
    framer = Chunked()
    forward, payload = b"", b""
    for part in [*split(body + LAST_CHUNK, at), *[b""] * len(pieces)]:
        out, seen = framer.feed(part)
        assert len(seen) <= MAX_CHUNKS
        forward += out
        payload += b"".join(seen)
    assert forward == body
    assert payload == b"".join(pieces)
    assert framer.done
    assert framer.clean


@given(payloads, cuts)
def test_the_last_chunk_is_held_back_until_it_is_complete(pieces: list[bytes], at: list[int]) -> None:
    body = b"".join(chunk(piece) for piece in pieces)
    for missing in range(1, len(LAST_CHUNK) + 1):
        framer = Chunked()
        forward, _ = run(framer, split((body + LAST_CHUNK)[:-missing], at))
        assert forward == body
        assert not framer.done


@given(payloads, cuts, st.binary(min_size=1, max_size=20))
def test_bytes_after_the_end_spoil_the_connection(pieces: list[bytes], at: list[int], extra: bytes) -> None:
    body = b"".join(chunk(piece) for piece in pieces)
    framer = Chunked()
    forward, _ = framer.feed(body + LAST_CHUNK + extra)
    assert forward == body
    assert framer.done
    assert not framer.clean


@given(payloads.filter(bool), cuts, st.integers(min_value=0, max_value=3000), st.binary(min_size=1, max_size=900))
def test_an_error_event_fits_in_wherever_the_upstream_died(
    pieces: list[bytes], at: list[int], died: int, event: bytes
) -> None:
    body = b"".join(chunk(piece) for piece in pieces)
    framer = Chunked()
    forward, payload = run(framer, split(body[:died], at))
    rest = Chunked()
    _, seen = rest.feed(forward + framer.wrap(event))
    assert b"".join(seen) == payload + event
    assert not rest.done


@pytest.mark.parametrize(
    "bad",
    [
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5_0\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"-1\r\n",
        b"\r\nhello\r\n",
        b"5\nhello\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n\n",
        b"5;\r\nhello\r\n",
        b"5;a=\r\nhello\r\n",
        b"5;\x00\r\nhello\r\n",
        b"f" * 16 + b"\r\n",
        b"1" * 300,
        b"5;" + b"x" * 300 + b"\r\nhello\r\n",
        b"0\r\n" + b"a: b\r\n" * 5000,
    ],
)
def test_malformed_chunks_are_refused(bad: bytes) -> None:
    for parts in ([bad], [bad[i : i + 1] for i in range(len(bad))]):
        with pytest.raises(ProtocolError):
            run(Chunked(), parts)


@given(st.binary(max_size=500), cuts, st.binary(max_size=5))
def test_length(body: bytes, at: list[int], extra: bytes) -> None:
    framer = Length(len(body))
    forward, payload = run(framer, split(body + extra, at)) if body else (b"", b"")
    assert forward == payload == body
    assert framer.done


def test_a_length_that_is_not_reached_is_not_done() -> None:
    framer = Length(10)
    framer.feed(b"12345")
    framer.eof()
    assert not framer.done


@pytest.mark.parametrize("missing", range(1, 30))
def test_an_error_event_never_fills_up_a_length(missing: int) -> None:
    framer, event = Length(100), b"an error event"
    framer.feed(b"x" * (100 - missing))
    wrapped = framer.wrap(event)
    assert wrapped == (event if len(event) < missing else b"")


def test_until_close_ends_with_the_connection_and_never_serves_again() -> None:
    framer = UntilClose()
    assert framer.feed(b"all") == (b"all", (b"all",))
    assert not framer.done
    framer.eof()
    assert framer.done
    assert not framer.clean


@pytest.mark.parametrize(
    ("method", "status", "chunked", "length", "kind"),
    [
        ("HEAD", 200, False, 10, NoBody),
        ("HEAD", 200, True, None, NoBody),
        ("GET", 204, True, None, NoBody),
        ("GET", 304, False, 5, NoBody),
        ("POST", 200, True, None, Chunked),
        ("POST", 200, False, 5, Length),
        ("POST", 200, False, None, UntilClose),
    ],
)
def test_framing_by_rfc_9112(method: str, status: int, chunked: bool, length: int | None, kind: type[Framer]) -> None:
    assert type(framer_for(method, status, chunked=chunked, length=length)) is kind


def test_the_size_of_a_whole_chunk_tells_how_it_begins() -> None:
    whole = [chunk(b"x" * size) for size in (*range(1, 5000), 2**16 - 1, 2**16)]
    assert all(one.startswith(chunk_heads[len(one)]) and len(chunk_heads[len(one)]) > 2 for one in whole)
    assert {size for size in range(1000) if not chunk_heads[size]} == {*range(6), 21, 262}
