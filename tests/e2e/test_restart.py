"""A restart on a socket that outlives the process: nobody who asks meanwhile notices anything."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, config_of, serving

RATE = 500
"""Requests a second, whether or not those before them were answered."""
TICK = 0.01
WAITING = 900
"""At once: with fewer descriptors than 1,024. There are so many after 1.8 s without an answer."""
KEPT = 5
STREAMS = 10
EVENTS = 20


def request(*, simulator: str = "ok", stream: bool = False) -> bytes:
    message = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello!"}]}
    body = json.dumps(message | {"stream": stream}).encode()
    head = (
        f"POST /claude/v1/messages HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/json\r\nAnthropic-Version: 2023-06-01\r\nX-Simulator: {simulator}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """One client's. `send` is one step for the event loop: a client that connects sends its request at once."""

    def __init__(self, listener: socket.socket) -> None:
        self.socket = socket.socket(listener.family, socket.SOCK_STREAM)
        self.socket.connect(listener.getsockname())
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, data: bytes) -> None:
        if self._writer is None:
            self.socket.sendall(data)
            self._reader, self._writer = await asyncio.open_connection(sock=self.socket)
        else:
            self._writer.write(data)
            await self._writer.drain()

    async def answer(self) -> bool:
        """Read one whole answer: whether the connection can be used again. Raises ConnectionError, EOFError."""
        assert self._reader is not None
        async with asyncio.timeout(60):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"content-length: (\d+)", head)
            assert head.startswith("http/1.1 200"), head
            assert length, head
            body = await self._reader.readexactly(int(length[1]))
        assert json.loads(body)["stop_reason"] == "end_turn"
        return "connection: close" not in head

    async def opened(self) -> None:
        """Read a stream's head."""
        assert self._reader is not None
        async with asyncio.timeout(60):
            assert (await self._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

    async def events(self) -> bytes:
        """Read a stream to its end, which the framing must tell."""
        assert self._reader is not None
        async with asyncio.timeout(60):
            return await self._reader.readuntil(b"\r\n0\r\n\r\n")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self.socket.close()


class Load:
    """Clients that never stop asking, RATE of them a second. What is lost or refused raises out of `run`."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._over = False
        self._answered = asyncio.Condition()
        self.answers = 0

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = Connection(self._listener)
        try:
            yield connection
        finally:
            connection.close()

    async def _count(self) -> None:
        async with self._answered:
            self.answers += 1
            self._answered.notify_all()

    async def further(self, count: int) -> None:
        """Until so many more were answered."""
        goal = self.answers + count
        async with asyncio.timeout(60), self._answered:
            await self._answered.wait_for(lambda: self.answers >= goal)

    def end(self) -> None:
        self._over = True

    async def run(self) -> None:
        """Until `end`; everybody is answered then."""
        async with asyncio.TaskGroup() as group:
            for _ in range(KEPT):
                group.create_task(self._keep())
            room = asyncio.Semaphore(WAITING)
            loop = asyncio.get_running_loop()
            began, asked = loop.time(), 0
            while not self._over:
                while asked < (loop.time() - began) * RATE:
                    async with room:
                        pass
                    group.create_task(self._newcomer(room))
                    asked += 1
                await asyncio.sleep(TICK)

    async def _newcomer(self, room: asyncio.Semaphore) -> None:
        async with room:
            with self._connection() as connection:
                await connection.send(request())
                await connection.answer()
            await self._count()

    async def _keep(self) -> None:
        """One connection for as long as it lasts, then another one."""
        while not self._over:
            with self._connection() as connection:
                before = 0
                while not self._over:
                    try:
                        await connection.send(request())
                        keeps = await connection.answer()
                    except (ConnectionError, asyncio.IncompleteReadError) as error:
                        # A server may close between two requests, just when the next one is sent (RFC 9112, 9.3.1):
                        # clients send it again. The upstream's count tells whether it had been served after all.
                        assert before, "a first request was lost"
                        assert not getattr(error, "partial", b""), "an answer was cut"
                        break
                    before += 1
                    await self._count()
                    if not keeps:
                        break
                    await asyncio.sleep(KEPT * TICK)


@pytest.fixture
def listener(family: socket.AddressFamily, short: Path) -> Iterator[socket.socket]:
    """What a service manager opened, and keeps open."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(short / "aimux.sock"))
        sock.listen(4096)
        yield sock


@pytest.mark.parametrize(
    ("family", "order"),
    [
        (socket.AF_INET, "start, then stop"),
        (socket.AF_INET, "stop, then start"),
        (socket.AF_UNIX, "stop, then start"),
    ],
    ids=["tcp overlapping", "tcp", "unix"],
)
async def test_a_restart_under_load_loses_nothing(
    sim: Simulator, folder: Path, listener: socket.socket, order: str
) -> None:
    """`stop, then start` is what `systemctl restart` does: meanwhile clients wait in the socket's queue."""
    config = config_of(sim, folder, drain_timeout="60s")
    load = Load(listener)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:  # what the load raises ends the test
        old = await stack.enter_async_context(serving(folder, config, listener=listener))
        running = group.create_task(load.run())
        await load.further(RATE // 2)

        streams = [Connection(listener) for _ in range(STREAMS)]
        for stream in streams:
            stack.callback(stream.close)
            await stream.send(request(simulator=f"gap:0.05,events:{EVENTS}", stream=True))
        for stream in streams:
            await stream.opened()
        if order == "start, then stop":
            new = await stack.enter_async_context(serving(folder, config, listener=listener))
            assert await old.stop() == 0
        else:
            assert await old.stop() == 0
            new = await stack.enter_async_context(serving(folder, config, listener=listener))
        for stream in streams:
            whole = await stream.events()
            assert whole.count(b"event: ") == EVENTS
            assert b"event: message_stop" in whole

        await load.further(RATE)
        load.end()
        await running
        asked = load.answers + STREAMS
        assert sim.count("anthropic") == asked, "a request was served that its client had to give up, or twice"
        await new.until(lambda: len(old.requests) + len(new.requests) >= asked)
        for aimux in (old, new):
            assert len(aimux.requests) >= RATE // 2
            assert {(line["status"], line["error"]) for line in aimux.requests} == {("200", "-")}
            assert "Traceback" not in aimux.output
        assert len(old.requests) + len(new.requests) == asked


def queue(listener: socket.socket) -> int:
    """How many connections may wait to be accepted."""
    return int(struct.unpack_from("I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28)[0])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell")
@pytest.mark.parametrize("family", [socket.AF_INET], ids=["tcp"])
async def test_the_queue_in_which_they_wait_stays_as_long_as_it_was(
    sim: Simulator, folder: Path, listener: socket.socket
) -> None:
    before = queue(listener)
    async with serving(folder, config_of(sim, folder), listener=listener):
        assert queue(listener) == before
