"""An upstream that means harm, and a client that reads its answer without any leniency."""

from __future__ import annotations

import asyncio
import re

from tests.gateway.conftest import Upstream

from .conftest import Aimux, ask, head

OK = b"HTTP/1.1 200 OK\r\n"
EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nset-cookie: evil=1\r\n\r\nevil"
"""An answer that nobody asked for."""

_STATUS_LINE = re.compile(rb"HTTP/1\.1 [1-9][0-9]{2} [\t -~\x80-\xff]*")
_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: ?[\t -~\x80-\xff]*")


def read_strictly(answer: bytes, *, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of what must be exactly one whole answer with one reading."""
    block, end, rest = answer.partition(b"\r\n\r\n")
    lines = block.split(b"\r\n")
    assert end
    assert _STATUS_LINE.fullmatch(lines[0]), lines[0]
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        assert _FIELD.fullmatch(line), line
        name, _, value = line.partition(b":")
        assert name.lower() not in {b"content-length", b"transfer-encoding", b"connection"} & headers.keys(), line
        headers[name.lower()] = value.strip()
    status = int(lines[0][9:12])
    assert not {b"content-length", b"transfer-encoding"} <= headers.keys()
    if method == "HEAD" or status in {204, 304}:
        assert rest == b""
    elif b"transfer-encoding" in headers:
        assert headers[b"transfer-encoding"] == b"chunked"
        body = b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size.partition(b";")[0], 16)
            body, rest = body + rest[:length], rest[length:]
            assert rest[:2] == b"\r\n"
            rest = rest[2:]
            if not length:
                assert rest == b""
                return status, headers, body
    else:
        assert len(rest) == int(headers[b"content-length"]), answer
    return status, headers, rest


def says(upstream: Upstream, *pieces: bytes, hang_up: bool = True) -> None:
    """From now on it answers everything but the honest client with these bytes, then FIN (or silence)."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await upstream.read(reader):
            if b" /v1/honest " in request:
                writer.write(OK + b"content-length: 6\r\n\r\nhonest")
                continue
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            if hang_up:
                return

    upstream.script = script


async def honest(aimux: Aimux) -> None:
    for _ in range(2):
        answer = await ask(aimux, head("GET /plain/v1/honest HTTP/1.1", close=True))
        status, headers, body = read_strictly(answer)
        assert (status, body) == (200, b"honest")
        assert b"set-cookie" not in headers


async def evil(aimux: Aimux, line: str = "GET /plain/v1/evil HTTP/1.1") -> bytes:
    return await ask(aimux, head(line, close=True))
