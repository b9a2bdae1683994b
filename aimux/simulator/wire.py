"""Puts an answer on the wire as its scenario says: framing, chunks, coding, gaps, and the ways a connection can die.

The head and the framing are written by hand to aiohttp's transport, because a server library rightly refuses most of
what has to happen here.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from email.utils import formatdate
from typing import TYPE_CHECKING, NoReturn

from aiohttp import web

from aimux.simulator.scenarios import CODINGS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aimux.simulator.answers import Pairs, SimulatedAnswer
    from aimux.simulator.scenarios import Scenario

LEAKY: Pairs = [
    ("set-cookie", "__cf_bm=simulator; path=/; HttpOnly; Secure"),
    ("set-cookie", "session=simulator; Path=/"),
    ("connection", "keep-alive, x-hop"),
    ("x-hop", "names itself in connection"),
    ("keep-alive", "timeout=5"),
    ("proxy-authenticate", 'Basic realm="simulator"'),
    ("proxy-connection", "keep-alive"),
    ("alt-svc", 'h3=":443"; ma=86400'),
]
"""What no gateway may pass on: cookies, hop-by-hop headers, and another way to the vendor."""


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer is on the wire already, and whether the connection goes on."""

    def __init__(self, status: int, *, keep: bool) -> None:
        super().__init__(status=status)
        self._keep = keep

    @property
    def keep_alive(self) -> bool:
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


class Broken(Exception):
    """The scenario broke the connection: the exchange is over, without an abort by the client."""


class Wire:
    """One answer's way out. `pause`, `hold` and `forever` are the server's, which ends them when it closes."""

    def __init__(
        self,
        request: web.BaseRequest,
        scenario: Scenario,
        pause: Callable[[float], Awaitable[None]],
        hold: Callable[[], Awaitable[None]],
        forever: Callable[[], Awaitable[None]],
    ) -> None:
        self._request = request
        self._scenario = scenario
        self.pause = pause
        self._hold = hold
        self._forever = forever

    async def send(self, answer: SimulatedAnswer) -> bool:
        """Send everything; True if the connection goes on. Raises Broken, and ConnectionError if the client left."""
        await self.open()
        for number in range(self._scenario.interim):
            await self.write(b"HTTP/1.1 103 Early Hints\r\nlink: </hint/%d>; rel=preload\r\n\r\n" % number)
        return await self._send(answer)

    async def open(self) -> None:
        """What happens before any head, and possibly instead of one. Raises Broken."""
        scenario = self._scenario
        if (transport := self._request.transport) is not None:
            transport.set_write_buffer_limits(high=0)
        if scenario.slow_start:
            await self.pause(scenario.slow_start)
        if scenario.hang:
            await self._forever()
        if scenario.ending == "drop":
            self.close()
        if scenario.ending == "drop-rst":
            self.reset()
        if scenario.raw is not None:
            await self.write(scenario.raw)
            if scenario.stall is not None:
                await self._forever()
            self.close()

    async def _send(self, answer: SimulatedAnswer) -> bool:
        scenario = self._scenario
        headers, chunks = encoded(answer, scenario.encode, self._request.headers.get("accept-encoding", ""))
        chunks = cut(chunks, scenario)
        if scenario.ending == "end":
            chunks = chunks[: scenario.ending_at] if answer.streamed else [b"".join(chunks)[:-2]]
        bodyless = self._request.method == "HEAD" or answer.status in {204, 304}
        framing = scenario.framing
        if framing == "usual":
            framing = "chunked" if answer.streamed else "length"
        if framing == "chunked" and self._request.version < (1, 1):
            framing = "http10"
        if framing == "length" and answer.status not in {204, 304}:
            headers.append(("content-length", str(sum(map(len, chunks)))))
        elif framing == "chunked" and not bodyless:
            headers.append(("transfer-encoding", "chunked"))
            if scenario.trailers:
                headers.append(("trailer", "x-simulator-trailer"))
        keep = framing in {"chunked", "length"} or bodyless
        if framing == "close" or (framing != "http10" and not self._request.keep_alive):
            headers.append(("connection", "close"))
        if scenario.leaky:
            headers += LEAKY
        await self.write(head(answer, headers, "1.0" if framing == "http10" else "1.1"))
        await self.mark(0)
        if not bodyless:
            await self._body(chunks, chunked=framing == "chunked")
        if scenario.ending == "stale" or not keep:
            self.close()
        return keep and self._request.keep_alive

    async def _body(self, chunks: list[bytes], *, chunked: bool) -> None:
        scenario = self._scenario
        breaks = scenario.ending in {"reset", "cut"}
        for number, chunk in enumerate(chunks):
            if breaks and (number == scenario.ending_at or number == len(chunks) - 1):
                await self._break(chunk, chunked=chunked)
            if number and scenario.gap:
                await self.pause(scenario.gap)
            await self.write(frame(chunk, scenario.extensions) if chunked else chunk)
            await self.mark(number + 1)
            await asyncio.sleep(0)  # lets a reader in this process see one chunk at a time
        if breaks:
            await self._break(b"", chunked=chunked)
        if chunked:
            await self.write(b"0\r\nx-simulator-trailer: 1\r\n\r\n" if scenario.trailers else b"0\r\n\r\n")

    async def mark(self, sent: int) -> None:
        """This many chunks are sent: wait here if the scenario says so."""
        if self._scenario.hold == sent:
            await self._hold()
        if self._scenario.stall == sent:
            await self._forever()

    async def _break(self, chunk: bytes, *, chunked: bool) -> None:
        """RST (between two chunks if there are any), or FIN after half a chunk."""
        half = chunk[: len(chunk) // 2]
        if self._scenario.ending == "reset":
            await self.write(b"" if chunked else half)
            self.reset()
        await self.write(b"%x\r\n%b" % (len(chunk), half) if chunked and half else half)
        self.close()

    async def write(self, data: bytes) -> None:
        """Write, and wait until the kernel has it: what follows may end the connection, and a gap should be a real
        one."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        if data:
            transport.write(data)
        await self._request.writer.drain()

    def close(self) -> NoReturn:
        """FIN, after what was written. Raises Broken."""
        if (transport := self._request.transport) is not None:
            transport.close()
        raise Broken

    def reset(self) -> NoReturn:
        """RST. Raises Broken."""
        transport = self._request.transport
        if transport is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        raise Broken


def head(answer: SimulatedAnswer, headers: Pairs, version: str) -> bytes:
    lines = [
        f"HTTP/{version} {answer.status} {answer.reason}",
        f"date: {formatdate(usegmt=True)}",
        "server: cloudflare",
    ]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(chunk: bytes, extensions: bool) -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(chunk), b';simulator="a;b"' if extensions else b"", chunk)


def cut(chunks: list[bytes], scenario: Scenario) -> list[bytes]:
    """The same bytes in other chunks."""
    if scenario.chunk == "event":
        return [chunk for chunk in chunks if chunk]
    whole = b"".join(chunks)
    if scenario.chunk == "huge":
        return [whole] if whole else []
    if scenario.chunk == "tiny":
        return [whole[at : at + scenario.chunk_size] for at in range(0, len(whole), scenario.chunk_size)]
    # After the first byte of every multi-byte character, and three bytes into every event.
    points = {at + 1 for at, byte in enumerate(whole) if byte >= 0xC0}
    start = 0
    for chunk in chunks:
        points.add(start + min(3, len(chunk)))
        start += len(chunk)
    ends = [*sorted(point for point in points if 0 < point < len(whole)), len(whole)]
    return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def encoded(answer: SimulatedAnswer, coding: str | None, accepted: str) -> tuple[Pairs, list[bytes]]:
    """Headers and chunks in a content coding, flushed after each chunk so that every event can be read at once."""
    if coding == "accepted":
        offers = [offer.partition(";")[0].strip().lower() for offer in accepted.split(",")]
        coding = next((offer for offer in offers if offer in CODINGS), None)
    if coding is None or not answer.chunks:
        return list(answer.headers), answer.chunks
    compress, flush, finish = _compressor(coding)
    chunks = [compress(chunk) + flush() for chunk in answer.chunks]
    chunks[-1] += finish()
    return [*answer.headers, ("content-encoding", coding), ("vary", "accept-encoding")], chunks


def _compressor(coding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes], Callable[[], bytes]]:
    if coding == "br":
        import brotli  # only this scenario needs it

        br = brotli.Compressor(quality=4)
        return br.process, br.flush, br.finish
    if coding == "zstd":
        import zstandard  # as above

        zstd = zstandard.ZstdCompressor().compressobj()
        return zstd.compress, lambda: zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK), zstd.flush
    z = zlib.compressobj(wbits=zlib.MAX_WBITS | (16 if coding == "gzip" else 0))
    return z.compress, lambda: z.flush(zlib.Z_SYNC_FLUSH), z.flush
