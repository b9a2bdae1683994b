"""Attackers, each a program of its own: `python -m tests.attacks.attackers NAME PORT [TOKEN]`, until it is killed.

It prints a line when it has begun. Whatever aimux does to a connection, it opens another one.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gzip
import sys
import zlib
from collections.abc import AsyncIterator, Callable

TINY = b"1\r\nx\r\n" * 10_000
CONNECTIONS = 8


def head(token: str, *fields: str, line: str = "POST /claude/v1/messages HTTP/1.1") -> bytes:
    own = [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([line, "Host: x", "Content-Type: application/json", *own, *fields, "", ""]).encode()


class Attacker:
    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.token = token
        self._begun = False

    def begun(self) -> None:
        if not self._begun:
            self._begun = True
            sys.stdout.write("begun\n")
            sys.stdout.flush()

    async def again_and_again(self, connections: int, pieces: Callable[[], AsyncIterator[bytes]]) -> None:
        """So many connections at a time, on each of which `pieces` are written; what comes back is not looked at."""
        await asyncio.gather(*(self._one(pieces) for _ in range(connections)))

    async def _one(self, pieces: Callable[[], AsyncIterator[bytes]]) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    async for piece in pieces():
                        writer.write(piece)
                        await writer.drain()
                        self.begun()
                finally:
                    writer.transport.abort()

    async def tiny_chunks(self) -> None:
        """Chunks of one byte each, as fast as they are taken."""

        async def pieces() -> AsyncIterator[bytes]:
            yield head(self.token, "Transfer-Encoding: chunked")
            while True:
                yield TINY

        await self.again_and_again(CONNECTIONS, pieces)

    async def packed_bodies(self) -> None:
        """60 kB each, of which 60 MB are made."""
        await self._bodies(gzip.compress(b'{"a":[' + b"[],{}," * 10_000_000 + b'0],"model":"m"}'), "gzip")

    async def plain_bodies(self) -> None:
        """60 MB each, of brackets."""
        await self._bodies(b'{"a":[' + b"[],{}," * 10_000_000 + b'0],"model":"m"}', connections=1)

    async def brackets(self) -> None:
        """As much as is parsed at once, with as many objects in it as there can be."""
        await self._bodies(b'{"a":[' + b"[[[[]]]]," * 14_000 + b"0]}")

    async def one_byte(self) -> None:
        """Connections that bring what is no request."""
        await self._crowd(b"\x16")

    async def guesses(self) -> None:
        """Wrong tokens, each another one, as fast as they are answered."""
        number = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal number
            while True:
                number += 1
                yield head(f"wrong-token-{number:012d}", "Content-Length: 0")
                await asyncio.sleep(0.002)

        await self.again_and_again(4 * CONNECTIONS, pieces)

    async def refused_posts(self) -> None:
        """Connections with a request that is refused, and its body to come."""
        await self._crowd(head("", "Content-Length: 100000"))

    async def half_messages(self) -> None:
        """16 kB of a message on each of twenty WebSockets, of which 16 MB are made, and nothing more for a while."""
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(b"a" * (16 * 1024 * 1024 - 1)) + packer.flush(zlib.Z_SYNC_FLUSH)
        frame = b"\x41\xfe" + len(packed).to_bytes(2, "big") + bytes(4) + packed
        await self._sockets(20, lambda: frame, 1.0)

    async def tiny_frames(self) -> None:
        """Frames without anything in them, as fast as they are taken."""
        frames = b"\x02\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 10_000
        await self._sockets(CONNECTIONS, lambda: frames, 0.0)

    async def _sockets(self, count: int, frames: Callable[[], bytes], pause: float) -> None:
        fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        more = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Extensions: permessage-deflate")
        shake = head(self.token, *fields, *more, line="GET /chatgpt/v1/responses HTTP/1.1")

        async def pieces() -> AsyncIterator[bytes]:
            yield shake
            await asyncio.sleep(0.1)  # for its answer
            while True:
                yield frames()
                if pause:
                    await asyncio.sleep(pause)
                    return

        await self.again_and_again(count, pieces)

    async def _crowd(self, sent: bytes) -> None:
        """Several hundred a second, of which the last 300 are held."""
        held: collections.deque[asyncio.StreamWriter] = collections.deque()
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(sent)
                held.append(writer)
            if len(held) > 150:
                self.begun()
            if len(held) > 300:
                held.popleft().transport.abort()
            await asyncio.sleep(0.001)

    async def _bodies(self, body: bytes, coding: str = "identity", *, connections: int = CONNECTIONS) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield head(self.token, f"Content-Length: {len(body)}", f"Content-Encoding: {coding}") + body
            await asyncio.sleep(0.5)

        await self.again_and_again(connections, pieces)


async def main(name: str, port: str, token: str = "") -> None:
    await getattr(Attacker(int(port), token), name)()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
