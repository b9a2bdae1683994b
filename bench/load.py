"""The load generator: `python -m bench.load '{"port": …, "kind": …, "connections": …, "requests": …, …}'`.

Warms up, prints `ready`, waits for a line, runs, and prints what it measured as JSON. With kind `hold` it opens its
streams, prints `ready` and holds them until the line comes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, cast

import uvloop

from bench import traffic

TIMEOUT = 120.0


class Failed(Exception):
    """A request did not end as it should."""


class Client(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._done: asyncio.Future[None] | None = None
        self._buffer = b""
        self._left = -1
        self._started = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(Failed(f"the connection was lost ({error})"))

    def send(self, request: bytes, *, hold: bool = False) -> asyncio.Future[None]:
        """Send; the future is done with the answer's last byte (with `hold`: with its first event)."""
        self._done = asyncio.get_running_loop().create_future()
        self._buffer, self._left, self._started, self._hold = b"", -1, False, hold
        self._transport.write(request)
        return self._done

    def close(self) -> None:
        self._done = None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._started:
            self._buffer += data
            head, end, data = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._end(Failed(f"answered {self._buffer[:400]!r}"))
                return
            self._started = True
            self._buffer = b""
            self._last = b"message_stop" if b"text/event-stream" in head else b""
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    self._left = int(line[15:])
        if self._left >= 0:
            self._left -= len(data)
            if self._left == 0:
                self._end()
            return
        tail = self._buffer = (self._buffer + data)[-200:]
        if tail.endswith(b"\r\n0\r\n\r\n"):
            self._end(None if self._last in tail else Failed(f"a stream ended early: {tail!r}"))
        elif self._hold and tail:
            self._end()

    def _end(self, error: Failed | None = None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)


async def connect(port: int, count: int) -> list[Client]:
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(count):
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        clients.append(client)
    return clients


async def drive(clients: list[Client], requests: list[bytes], count: int, *, stagger: float) -> list[float]:
    """`count` requests, each connection one after another. Seconds that each took."""
    seconds: list[float] = []
    left = count

    async def one(number: int) -> None:
        nonlocal left
        await asyncio.sleep(stagger * number / len(clients))
        while left > 0:
            left -= 1
            before = time.perf_counter()
            await clients[number].send(requests[number])
            seconds.append(time.perf_counter() - before)

    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*[one(number) for number in range(len(clients))])
    return seconds


async def hold(clients: list[Client], requests: list[bytes]) -> None:
    """Open a stream on every connection, in groups of a hundred."""
    async with asyncio.timeout(TIMEOUT):
        for first in range(0, len(clients), 100):
            group = range(first, min(first + 100, len(clients)))
            await asyncio.gather(*[clients[number].send(requests[number], hold=True) for number in group])


async def main(order: dict[str, Any]) -> None:
    kind, connections = order["kind"], order["connections"]
    prefix, token = order["prefix"], order["token"]
    requests = [traffic.request(kind, prefix, number, token=token) for number in range(connections)]
    clients = await connect(order["port"], connections)
    loop = asyncio.get_running_loop()
    if kind == "hold":
        await hold(clients, requests)
    else:
        first = "small" if kind == "small" else "short"
        warm = [traffic.request(first, prefix, number, token=token) for number in range(connections)]
        await drive(clients, warm, max(connections * 2, order["warm_up"]), stagger=0)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    result: dict[str, Any] = {}
    if kind != "hold":
        stagger = {"turn": traffic.EVENTS, "short": traffic.FEW_EVENTS}.get(kind, 0) * traffic.TICK
        before = time.perf_counter()
        seconds = sorted(await drive(clients, requests, order["requests"], stagger=stagger))
        result = {
            "requests": len(seconds),
            "elapsed": time.perf_counter() - before,
            "p50": seconds[len(seconds) // 2],
            "p99": seconds[len(seconds) * 99 // 100],
        }
    for client in clients:
        client.close()
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    try:
        uvloop.run(main(json.loads(sys.argv[1])))
    except (Failed, OSError, TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
