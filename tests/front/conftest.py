"""A gateway on raw sockets, and an upstream that reads more strictly than any real one and keeps every byte."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.blocking import _nothing_blocks_the_loop  # noqa: F401 - a fixture
from tests.gateway.conftest import SECRET, TOKEN, Aimux, Start, Upstream, start, way

__all__ = [
    "SECRET",
    "SMUGGLED",
    "TOKEN",
    "Aimux",
    "Start",
    "StrictUpstream",
    "aimux",
    "ask",
    "head",
    "honest",
    "must_refuse",
    "pytest_asyncio_loop_factories",
    "start",
    "upstream",
    "way",
]

SMUGGLED = b"GET /plain/v1/smuggled HTTP/1.1\r\nHost: gateway\r\nX-Tag: smuggled\r\n\r\n"
"""What stands behind an attacker's request, where a lenient reader would take it for another one."""


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that aimux runs on: it ends and pauses connections in its own ways."""
    return {"uvloop": uvloop.new_event_loop}


_REQUEST_LINE = re.compile(rb"[A-Z]+(?:-[A-Z]+)* /[!-~]* HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\t -~\x80-\xff]*)")


class StrictUpstream(Upstream):
    """Answers each request with its own `x-tag`. `faults`: what is not exactly one well-formed request after another.

    Not an HTTP server: it takes nothing but what aimux may write (RFC 9112 without any leniency, and no framing but a
    single content-length), so that no byte can be read in two ways.
    """

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.raw = b""
        """All that was received, of all connections."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = b""
        while data := await reader.read(1 << 16):
            self.raw += data
            buffer += data
            while (parsed := self._take(buffer)) is not None:
                request, buffer = parsed
                self.requests.append(request)
                tag = re.search(rb"\r\nx-tag: (\S+)", request, re.IGNORECASE)
                body = tag[1] if tag else b"untagged"
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                async with self.changed:
                    self.changed.notify_all()
        if buffer:
            self.faults.append(f"a request that never ends: {buffer[:200]!r}")

    def _take(self, buffer: bytes) -> tuple[bytes, bytes] | None:
        block, found, rest = buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        lines = block.split(b"\r\n")
        if not _REQUEST_LINE.fullmatch(lines[0]):
            self.faults.append(f"request line {lines[0]!r}")
        names = []
        length = 0
        for line in lines[1:]:
            field = _FIELD.fullmatch(line)
            if field is None:
                self.faults.append(f"header line {line!r}")
                continue
            name = field[1].lower()
            names.append(name)
            if name == b"content-length":
                if not re.fullmatch(rb"0|[1-9][0-9]*", field[2]):
                    self.faults.append(f"content-length {field[2]!r}")
                    continue
                length = int(field[2])
            elif name in {b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer", b"expect"}:
                self.faults.append(f"hop-by-hop {line!r}")
        for name in (b"host", b"authorization"):
            if names.count(name) != 1:
                self.faults.append(f"{name!r} is there {names.count(name)} times")
        if names.count(b"content-length") > 1:
            self.faults.append("two content-lengths")
        return (block + found + rest[:length], rest[length:]) if len(rest) >= length else None


@pytest.fixture
async def upstream() -> AsyncIterator[StrictUpstream]:
    async with StrictUpstream().running() as fake:
        yield fake


@pytest.fixture
async def aimux(start: Start) -> Aimux:
    return await start()


def head(line: str = "POST /plain/v1/chat HTTP/1.1", *fields: str, tag: str = "evil", close: bool = False) -> bytes:
    """A request's head as an attacker writes it, the needful in front. What is in `fields` goes out as it stands."""
    lines = [line, "Host: gateway", f"Authorization: Bearer {TOKEN}", f"X-Tag: {tag}"]
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1")


async def ask(aimux: Aimux, *pieces: bytes, until: bytes | None = None) -> bytes:
    """Send the pieces one by one on a connection of its own; what comes back, up to its end or `until`."""
    reader, writer = await aimux.connect()
    async with asyncio.timeout(10):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        if until is not None:
            return await reader.readuntil(until)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b"reset"


async def honest(aimux: Aimux, upstream: StrictUpstream) -> None:
    """Whatever was tried: another client gets its own answer, and no fault came up before."""
    answer = await ask(aimux, head("GET /plain/v1/honest HTTP/1.1", tag="honest", close=True))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhonest")
    assert upstream.faults == []


async def must_refuse(aimux: Aimux, upstream: StrictUpstream, request: bytes) -> bytes:
    """The one answer that refuses it. Nothing of it goes up, and its token into neither the answer nor the log."""
    answer = await ask(aimux, request)
    assert upstream.raw == b""
    status = answer.partition(b"\r\n")[0]
    assert status[:8] in {b"HTTP/1.1", b"HTTP/1.0"}
    assert 400 <= int(status[9:12]) < 600, "and said so, once"
    assert answer.count(b"HTTP/1.") == 1
    assert TOKEN.encode() not in answer
    await honest(aimux, upstream)
    assert TOKEN not in aimux.log
    assert "Traceback" not in aimux.log
    return answer
