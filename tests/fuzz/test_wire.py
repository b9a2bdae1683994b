"""Heads, framing, targets and addresses: what is read can be read in one way only, and nothing else comes out."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any
from urllib.parse import unquote

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, HttpResponseParser
from multidict import CIMultiDict

from aimux.gateway.client_address import LONGEST, TrustedProxies
from aimux.gateway.mounts import OTHER_GATEWAYS, MountTable, check_target
from aimux.http.errors import ProtocolError
from aimux.http.framing import LAST_CHUNK, Chunked, Length
from aimux.http.head import ResponseHead, clean
from aimux.http.head_reader import HeadReader
from aimux.http.request import BodyReader, RequestError, RequestHead, parse_request_head
from aimux.plugin import GatewayError
from aimux.plugin.parts import OWN_PATHS

from .harness import fuzz, splits
from .test_requests import WORDS


def as_a_client_reads(answer: bytes) -> tuple[int, str, list[tuple[bytes, bytes]], bytes]:
    """Status, reason, headers and body, by a parser of others (llhttp). Raises if it is not exactly one answer."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpResponseParser(BaseProtocol(loop), loop, 1 << 20, auto_decompress=False, max_field_size=1 << 16)
        messages, _, tail = parser.feed_data(answer)
        assert tail == b""
        ((message, payload),) = messages
        body = b"".join(getattr(payload, "_buffer", ()))
        assert payload.is_eof(), "the answer ends where the bytes end"
        return message.code, message.reason, list(message.raw_headers), body
    finally:
        loop.close()


def read_head(pieces: list[bytes]) -> tuple[ResponseHead, bytes] | None:
    """The head, and all that followed it."""
    reader = HeadReader()
    for number, piece in enumerate(pieces):
        if (found := reader.feed(piece)) is not None:
            return found[0], found[1] + b"".join(pieces[number + 1 :])
    return None


def outcome(pieces: list[bytes]) -> tuple[Any, ...] | str:
    try:
        found = read_head(pieces)
    except ProtocolError as error:
        return str(error)
    if found is None:
        return "more"
    head, rest = found
    parted = (line.decode("latin-1").partition(": ") for line in head.lines)
    fields = tuple((name, value) for name, _, value in parted)
    return head.status, head.reason, fields, head.chunked, head.length, head.keep_alive, rest


@fuzz(
    "heads", b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b"chunked", b"content-length: 3", b"HTTP/1.1 200 OK\r\n"
)
def test_an_answers_head(data: bytes) -> None:
    """However it is cut, it reads the same; and what is sent on in its place, a client reads as it was."""
    whole, *others = [outcome(pieces) for pieces in splits(data)]
    for other in others:
        assert other == whole or (isinstance(whole, str) and isinstance(other, str))
    if isinstance(whole, str):
        return
    status, reason, fields, chunked, length = whole[:5]
    assert length is None or not chunked
    assert length is None or length >= 0
    if status == 101:
        return
    framing = {"content-length", "transfer-encoding", "connection", "upgrade", "content-encoding"}
    passed = [(name, value) for name, value in fields if name.lower() not in framing]
    lines = "".join(f"{name}: {value}\r\n" for name, value in passed)
    answer = b"HTTP/1.1 %d %b\r\n%bcontent-length: 0\r\n\r\n" % (status, reason, lines.encode("latin-1"))
    read = as_a_client_reads(answer)
    assert read[0] == status
    assert read[2][:-1] == [(name.encode("latin-1"), value.encode("latin-1")) for name, value in passed]


Asked = tuple[str, bytes, list[tuple[bytes, bytes]], bytes]
"""Method, target, headers and body of a request."""


def as_an_upstream_reads(data: bytes) -> Asked | None:
    """The request that `data` begins with, by a parser of others (llhttp); None where it refuses it."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 1 << 20, auto_decompress=False, max_field_size=1 << 16)
        messages = []
        for byte in range(len(data)):
            messages += parser.feed_data(data[byte : byte + 1])[0]
            if messages and messages[0][1].is_eof():
                break
    except HttpProcessingError:
        return None
    finally:
        loop.close()
    message, payload = messages[0]
    headers = [(name, value.strip(b" \t")) for name, value in message.raw_headers]
    target = message.path.encode("utf-8", "surrogateescape")
    return message.method, target, headers, b"".join(getattr(payload, "_buffer", ()))


def as_aimux_reads(data: bytes) -> tuple[Asked, bytes, bool] | None:
    """The same by ours, with what follows it and whether that is a request too. None for half a one, too."""
    block, end, rest = data.partition(b"\r\n\r\n")
    try:
        head: RequestHead = parse_request_head(block)
        results = []
        for pieces in splits(rest):
            body = BodyReader(head.length)
            while pieces and not body.complete:
                body.feed(pieces.pop(0))
            results.append((body.complete, body.rest + b"".join(pieces), body.take()))
    except RequestError:
        return None
    assert results[0] == results[1] == results[2], "however it is cut"
    complete, rest, payload = results[0]
    if not end or not complete:
        return None
    fields = [
        (name.encode("latin-1"), value.encode("utf-8", "surrogateescape")) for name, value in head.headers.items()
    ]
    return (head.method, head.target.encode("latin-1"), fields, payload), rest, head.keep_alive


@fuzz("requests", *WORDS)
def test_a_request(data: bytes) -> None:
    """What is taken for requests, others take for the same ones, or refuse."""
    goes_on = True
    while goes_on:
        while data.startswith(b"\r\n"):
            data = data[2:]
        read = as_aimux_reads(data)
        if read is None:
            return
        ours, rest, goes_on = read
        theirs = as_an_upstream_reads(data)
        assert theirs is None or theirs == ours
        data = rest


@fuzz(
    "chunks", b"\r\n", b"0\r\n\r\n", b"\n", b";x=y", b"ffffffffffffffff", b"-1", b"+1", b"0x1", b" ", b"5\r\nhello\r\n"
)
def test_a_chunked_body(data: bytes) -> None:
    """Forwarded bytes and payload don't depend on the cuts, and a client reads the payload out of the bytes."""
    results: list[tuple[object, ...]] = []
    for pieces in splits(data):
        framer = Chunked()
        forwarded, payload = b"", b""
        try:
            for piece in pieces:
                if framer.done:
                    framer.clean = False
                    break
                sent, seen = framer.feed(piece)
                forwarded += sent
                payload += b"".join(seen)
        except ProtocolError:
            results.append(("refused",))
            continue
        results.append((framer.done, payload if framer.done else None))
        assert data.startswith(forwarded), "as it came"
        if framer.done:
            head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            assert as_a_client_reads(head + forwarded + LAST_CHUNK)[3] == payload
        else:
            # Broken off anywhere, our own words can follow; then they are what a client reads last.
            told = b"event: error\n\n"
            assert told.endswith(framer.wrap(told)[-4:]) or framer.wrap(told).endswith((b"\r\n", told))
    assert len(set(results)) == 1, results


@fuzz("chunks")
def test_a_body_with_a_length(data: bytes) -> None:
    for length in {len(data) // 2, len(data), len(data) + 1}:
        for pieces in splits(data):
            framer = Length(length)
            forwarded = b"".join(framer.feed(piece)[0] for piece in pieces)
            assert forwarded == data[:length]
            assert framer.done == (len(data) >= length)
            assert framer.clean == (len(data) <= length)


MOUNTS = MountTable({"/claude": "claude", "/": "root", "/api/latest/anthropic": "deep"})
_WORDS = (b"%2e", b"%2f", b"%5c", b"%25", b"..", b"//", b"\\", b"/./", b"@", b"?", b"#", b"%00", b"\r\n", b"\xc3\xa9")


@fuzz("targets", *_WORDS)
def test_a_target(data: bytes) -> None:
    """What passes stays below its mount however often it is decoded, and in its line."""
    target = data.decode("utf-8", "surrogateescape")
    try:
        check_target(target)
    except GatewayError as error:
        assert error.status == 400
        return
    found = MOUNTS.find(target)
    assert found is not None or target.partition("?")[0] == "/" or target.startswith((*OWN_PATHS, *OTHER_GATEWAYS))
    if found is not None:
        mount, below = found
        assert below.startswith("/")
        assert (mount.prefix + below).replace("/?", "?").rstrip("/") == target.replace("/?", "?").rstrip("/")
    assert clean(target) == data
    assert not set(data) & set(b"\r\n\0 \t#\\")
    path = target.partition("?")[0]
    for _ in range(3):
        assert not {".", ".."} & set(path.replace("\\", "/").split("/"))
        again = unquote(path, errors="replace")
        assert again.count("/") == path.count("/")
        path = again


@fuzz("forwarded", b",", b"10.0.0.1", b"127.0.0.1", b"::1", b"%", b" ", b"[::1]:80", b"unknown")
def test_a_chain_of_addresses(data: bytes) -> None:
    """Without a trusted proxy nobody's word counts; with one, a local address is believed only from it."""
    value = data.decode("utf-8", "surrogateescape")
    for name in ("x-forwarded-for", "forwarded"):
        headers = CIMultiDict({name: value})
        nobody = TrustedProxies()
        assert nobody.address(headers, "203.0.113.9") == "203.0.113.9"
        assert not nobody.is_here(headers, "127.0.0.1"), "it came through somebody who isn't trusted"
        trusting = TrustedProxies([ipaddress.ip_network("10.0.0.0/8")])
        assert len(trusting.address(headers, "10.0.0.1")) <= LONGEST
        if trusting.is_here(headers, "10.0.0.1"):
            assert "127." in value or "1" in value
        assert trusting.address(headers, "203.0.113.9") == "203.0.113.9"


def test_the_second_reader_is_no_push_over() -> None:
    """The comparison with it would otherwise prove nothing."""
    for bad in (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", b"HTTP/1.1 200 OK\r\n\0: a\r\n\r\n", b"x" * 10):
        try:
            as_a_client_reads(bad)
        except Exception:  # whatever it calls it
            continue
        raise AssertionError(bad)
