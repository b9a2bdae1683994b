"""The upstream: asyncio protocols. Of what they send only heads are made anew.

`python -m bench.upstream PORT [TLS_PORT PEM]`.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
import sys
import time
from typing import cast

import uvloop

from bench import traffic

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
KIND = re.compile(rb"bench=(\w+)")

STREAMS = {
    "turn": traffic.stream_chunks(traffic.EVENTS),
    "short": traffic.stream_chunks(traffic.FEW_EVENTS),
    "hold": traffic.stream_chunks(traffic.FEW_EVENTS)[:4],  # some content, and then silence
}


class Upstream(asyncio.Protocol):
    """Answers one request after another; streams advance with the ticks."""

    streaming: dict[Upstream, int] = {}  # noqa: RUF012 - the one table of the process
    numbers = itertools.count(1)

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0
        self._chunks: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.streaming.pop(self, None)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            length = LENGTH.search(head)
            self._missing = (int(length[1]) if length else 0) - len(body)
            kind = KIND.search(head.split(b"\r\n", 1)[0])
            self._kind = kind[1].decode() if kind else "small"
            self._head = b""
            self._whose = traffic.credential_line(head) if self._kind == "check" else b""
        if self._missing <= 0:
            self._missing = 0
            self._answer()

    def _answer(self) -> None:
        number, now = next(self.numbers), int(time.time())
        if self._kind == "small":
            self.transport.write(traffic.small_answer(number, now))
        elif self._kind == "check":
            self.transport.write(traffic.small_answer(number, now).replace(b"\r\n", b"\r\n" + self._whose, 1))
        else:
            self.transport.write(traffic.answer_head(self._kind, number, now))
            self._chunks = STREAMS[self._kind]
            self.streaming[self] = 0

    def tick(self, position: int) -> None:
        """Send the event at `position`, in a write of its own."""
        self.transport.write(self._chunks[position])
        if position + 1 < len(self._chunks):
            self.streaming[self] = position + 1
        else:
            del self.streaming[self]


async def main(port: int, tls_port: int | None = None, certificate: str = "") -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(Upstream, "127.0.0.1", port, backlog=4096)
    if tls_port is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        await loop.create_server(Upstream, "127.0.0.1", tls_port, backlog=4096, ssl=context)
    due = loop.time()
    while True:
        due = max(due + traffic.TICK, loop.time())
        await asyncio.sleep(due - loop.time())
        for stream, position in list(Upstream.streaming.items()):
            stream.tick(position)


if __name__ == "__main__":
    port, *secure = sys.argv[1:]
    uvloop.run(main(int(port), int(secure[0]), secure[1]) if secure else main(int(port)))
