"""Bytes passed on by asyncio protocols on uvloop, none of them read: what any Python proxy begins with.

Each client's connection has one of its own to the upstream. `python -m bench.peers.uvloop_relay PORT UPSTREAM_PORT`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class Side(asyncio.Protocol):
    """One end. What comes before the other one is there waits for it."""

    def __init__(self, other: Side | None = None) -> None:
        self.other = other
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.writelines(self._early)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.write(data)

    def write(self, data: bytes) -> None:
        if self.transport is None:
            self._early.append(data)
        else:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def main(port: int, upstream: int) -> None:
    loop = asyncio.get_running_loop()
    connecting = set()

    def client() -> Side:
        ours = Side()
        ours.other = theirs = Side(ours)
        task = loop.create_task(loop.create_connection(lambda: theirs, "127.0.0.1", upstream))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return ours

    server = await loop.create_server(client, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
