"""A real aimux, an upstream that answers at once, and an honest client that notes how long it waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.process import TOKEN, Aimux, serving
from tests.tools import ROOT

SECONDS = float(os.environ.get("AIMUX_ATTACK", "1.5"))
"""How long an attack goes on."""
SLOWEST = 0.25
MEMORY = 200e6
BACK = 50e6
"""Of memory, what may be left a moment after an attack: buffers that the allocator keeps."""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
ANSWER = b'{"type":"message","content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":1,"output_tokens":1}}'
PROMPT = b'{"model":"claude-sonnet-5","max_tokens":5,"messages":[{"role":"user","content":"?"}]}'


class Victim:
    """The process under attack."""

    def __init__(self, aimux: Aimux) -> None:
        self.aimux = aimux
        self.port = int(aimux.address.rpartition(":")[2])

    @property
    def _status(self) -> Path:
        return Path(f"/proc/{self.aimux.process.pid}/status")

    def memory(self, what: str = "VmRSS") -> float:
        """Bytes: `VmRSS`, or the most since `forget_peak` with `VmHWM`."""
        return float(self._status.read_text().partition(f"{what}:")[2].split()[0]) * 1024

    def waited(self) -> float:
        """Seconds that it, or this process, was ready to run and the machine did something else."""
        process = self.aimux.process.pid
        delays = (Path(f"/proc/{pid}/schedstat").read_text().split()[1] for pid in (process, os.getpid()))
        return sum(map(int, delays)) / 1e9

    def forget_peak(self) -> None:
        self._status.with_name("clear_refs").write_text("5")


class Honest:
    """Asks one question after the other, some on a connection that it keeps and some on a new one."""

    def __init__(self, victim: Victim) -> None:
        self._port = victim.port
        self._waited = victim.waited
        self.asked = 0
        self.slowest = 0.0
        self.statuses: set[int] = set()

    async def run(self) -> None:
        async with self._connected() as kept:
            while True:
                await self.ask(*kept)
                await self.once()

    async def once(self) -> None:
        async with self._connected() as connection:
            await self.ask(*connection)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = time.perf_counter() - self._waited()
        writer.write(
            b"POST /claude/v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (TOKEN.encode(), len(PROMPT), PROMPT)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        self.slowest = max(self.slowest, time.perf_counter() - self._waited() - began)
        self.statuses.add(int(head[9:12]))
        self.asked += 1
        await asyncio.sleep(0.005)


@pytest.fixture
async def victim(tmp_path: Path) -> AsyncIterator[Victim]:
    if sys.platform != "linux":
        pytest.skip("reads /proc")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                left = int(head.lower().partition(b"content-length:")[2].split()[0])
                while left:
                    left -= len(await reader.readexactly(min(left, 1 << 16)))
                writer.write(HEAD % len(ANSWER) + ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    upstream = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with upstream, victim_of(tmp_path, upstream.sockets[0].getsockname()[1]) as served:
        yield served


@asynccontextmanager
async def victim_of(folder: Path, upstream: int, **settings: Any) -> AsyncIterator[Victim]:
    state = folder / "state" / "claude"
    state.mkdir(parents=True, mode=0o700)
    file = state / ".credentials.json"
    file.write_text('{"api_key": "sk-ant-api03-of-a-test"}')
    file.chmod(0o600)
    config = {
        "listen": "127.0.0.1:0",
        "state_dir": str(folder / "state"),
        "providers": {"claude": {"base_url": f"http://127.0.0.1:{upstream}"}},
        "users": [{"name": "ann", "token": TOKEN}],
        "models": {"alias": {"provider": "claude"}},
        **settings,
    }
    async with serving(folder, config) as aimux:
        yield Victim(aimux)


async def withstands(victim: Victim, attack: str, *, token: str = "", seconds: float = SECONDS) -> Honest:
    """The honest client is served beside the attack as if there were none, and memory is back after it."""
    honest = Honest(victim)
    for _ in range(2):
        await asyncio.wait_for(honest.once(), 10)
    honest.slowest = 0.0
    before = victim.memory()
    victim.forget_peak()
    attacker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.attacks.attackers", attack, str(victim.port), token),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert attacker.stdout is not None
        assert await asyncio.wait_for(attacker.stdout.readline(), 30) == b"begun\n"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(honest.run(), seconds)
        assert attacker.returncode is None, "the attacker gave up"
    finally:
        attacker.kill()
        await attacker.wait()
    assert honest.statuses == {200}
    assert honest.slowest < SLOWEST, f"of {honest.asked} requests"
    assert victim.memory("VmHWM") - before < MEMORY
    async with asyncio.timeout(10):
        while victim.memory() - before > BACK:
            await asyncio.sleep(0.05)
    return honest
