"""Requests against a running gateway: what its upstream gets are whole requests, each with its own answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimux.app import App
from aimux.config import load_config
from aimux.logs import Logs
from aimux.plugin.loader import Plugin, Plugins
from tests.front.conftest import SECRET, TOKEN, StrictUpstream
from tests.gateway.conftest import Plain

from .harness import CORPUS, mutated, search, seeds

TAG = re.compile(rb"\r\nx-tag: (\S+)", re.IGNORECASE)
WORDS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b": ",
    b"\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: x\r\n",
    b"Connection: close\r\n",
    b"Connection: content-length\r\n",
    b"X-Tag: other\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"GET /plain/v1/x HTTP/1.1\r\nHost: gateway\r\n",
    b"/../",
    b"%2e%2e",
    b"http://evil.example",
)


class World:
    """A gateway with its upstream, in a loop that runs only while a request is tried."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.folder = folder
        self.log = folder / "log"
        self.app, self.upstream = self.runner.run(self._start())
        self.port = int(self.app.addresses[0].rpartition(":")[2])

    async def _start(self) -> tuple[App, StrictUpstream]:
        upstream = await self.stack.enter_async_context(StrictUpstream().running())
        state = self.folder / "state" / "plain"
        state.mkdir(parents=True, mode=0o700)
        (state / Plain.credential_file).write_text(json.dumps({"api_key": SECRET}))
        config = {
            "listen": "127.0.0.1:0",
            "state_dir": str(self.folder / "state"),
            "providers": {"plain": {"base_url": f"http://127.0.0.1:{upstream.port}"}},
            "users": [{"name": "ann", "token": TOKEN}],
        }
        file = self.folder / "config.json"
        file.write_text(json.dumps(config))
        plugins = Plugins([Plugin("plain", "tests", "1", ["plain"])], {"plain": Plain})
        self.fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.logs = Logs(self.fd)
        app = App(lambda: load_config(file, environ={}, providers=plugins.providers), plugins, self.logs, {})
        await app.start()
        return app, upstream

    def close(self) -> None:
        self.runner.run(self.app.stop())
        self.runner.run(self.stack.aclose())
        self.logs.close()
        os.close(self.fd)
        self.runner.close()

    def ask(self, data: bytes) -> bytes:
        """Send it, and take what comes back until nothing moves any more."""
        return self.runner.run(self._ask(data))

    async def _ask(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        half = len(data) // 2
        writer.write(data[:half])
        await asyncio.sleep(0)
        writer.write(data[half:])
        answer, still = b"", 0
        # All is in this loop and in the kernel's loopback: what can still come needs but a few rounds.
        while still < 150:
            before = len(answer), len(self.upstream.raw), self.app.gateway.server.open
            answer += bytes(reader._buffer)  # type: ignore[attr-defined]
            reader._buffer.clear()  # type: ignore[attr-defined]
            await asyncio.sleep(0)
            still = still + 1 if before == (len(answer), len(self.upstream.raw), self.app.gateway.server.open) else 0
        writer.transport.abort()
        while self.app.gateway.server.open:
            await asyncio.sleep(0)
        return answer

    def check(self, data: bytes) -> None:
        upstream = self.upstream
        upstream.raw, upstream.requests[:], upstream.faults[:] = b"", [], []
        answer = self.ask(data)
        assert upstream.faults == []
        sent = [match[1] if (match := TAG.search(request)) else b"untagged" for request in upstream.requests]
        got = [
            part.partition(b"\r\n\r\n")[2][: int(re.findall(rb"content-length: (\d+)", part.lower())[0])]
            for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
        ]
        assert got == sent[: len(got)], "each answer belongs to its request"
        assert len(sent) - len(got) <= 1, "but for one that the client's end cut off"
        assert TOKEN.encode() not in upstream.raw
        for request in upstream.requests:
            assert request.count(SECRET.encode()) == 1
            assert re.match(rb"[A-Z]+ /", request)
        assert SECRET.encode() not in answer
        written = self.log.read_bytes()
        self.log.write_bytes(b"")
        assert TOKEN.encode() not in written
        assert SECRET.encode() not in written
        assert b"Traceback" not in written, written


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    # The first request waits for what a thread loads, which is no matter of rounds.
    while not made.ask((CORPUS / "requests" / "get").read_bytes()):
        pass
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "count"), {"get": 2, "length": 2, "chunked": 2, "nested": 2, "upgrade": 1, "hop": 1}.items()
)
def test_good_ones_are_answered(world: World, name: str, count: int) -> None:
    """Or the rest proves nothing."""
    world.check((CORPUS / "requests" / name).read_bytes())
    assert len(world.upstream.requests) == count


def test_mutated_ones(world: World) -> None:
    search("requests", world.check, mutated(seeds("requests"), WORDS))


def test_nothing_is_left_over(world: World) -> None:
    """After all of them."""
    assert world.app.gateway.server.open == 0
    assert world.app.gateway.pool.active_exchanges == 0
    assert all(account.in_flight == 0 for account in world.app.accounts())
