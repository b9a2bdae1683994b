"""Upstreams that tests serve by themselves, and a pool to ask them with."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from aimux.http.turn import Turn, in_turn
from aimux.relay.pool import Origin, Pool

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]


@contextlib.asynccontextmanager
async def listening(
    handler: Handler, context: ssl.SSLContext | None = None, *, at: tuple[str, int] = ("127.0.0.1", 0)
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(connected, *at, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(ANSWER)


async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)


@contextlib.asynccontextmanager
async def pool(**options: Any) -> AsyncIterator[Pool]:
    made = Pool(**options)
    try:
        yield made
    finally:
        await made.close()


async def fetch(pool: Pool, where: str | Origin) -> int:
    origin = Origin.parse(where) if isinstance(where, str) else where

    async def work(turn: Turn[None]) -> int:
        exchange, head = await pool.request(turn, origin, "GET", GET, 5)
        assert await exchange.peek(lambda payload: len(payload) == 2, 5) == b"ok"
        return head.status

    return await in_turn(work)
