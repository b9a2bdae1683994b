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

import pytest

from tests.e2e import process
from tests.e2e.process import TOKEN, Aimux, serving
from tests.tools import ROOT
from tests.waiting import until

SECONDS = float(os.environ.get("AIMUX_ATTACK", "1.5"))
"""How long an attack goes on."""
SLOWEST = 0.25
MEMORY = 200e6
BACK = 50e6
"""Of memory, what may be left a moment after an attack: buffers that the allocator keeps."""
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
    async with program("tests.attacks.upstream") as upstream:
        assert upstream.stdout is not None
        port = int(await asyncio.wait_for(upstream.stdout.readline(), 30))
        for name, file, key in (
            ("claude", ".credentials.json", '{"api_key": "sk-ant-api03-of-a-test"}'),
            ("chatgpt", "auth.json", '{"OPENAI_API_KEY": "sk-proj-of-a-test-0123456789"}'),
        ):
            folder = tmp_path / "state" / name
            folder.mkdir(parents=True, mode=0o700)
            (folder / file).write_text(key)
            (folder / file).chmod(0o600)
        url = f"http://127.0.0.1:{port}"
        config = {
            "listen": "127.0.0.1:0",
            "state_dir": str(tmp_path / "state"),
            "providers": {"claude": {"base_url": url}, "chatgpt": {"base_url": url, "api_base_url": url}},
            "users": [{"name": "ann", "token": TOKEN}],
            "models": {"alias": {"provider": "claude"}},
        }
        async with serving(tmp_path, config, command=process.COMMAND) as aimux:
            yield Victim(aimux)


@asynccontextmanager
async def program(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
        assert process.returncode is None, f"{module} gave up"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def withstands(victim: Victim, attack: str, *, token: str = "") -> Honest:
    """The honest client is served beside the attack as if there were none, and memory is back after it."""
    honest = Honest(victim)
    before = await settled(victim, honest)
    honest.slowest = 0.0
    victim.forget_peak()
    async with program("tests.attacks.attackers", attack, str(victim.port), token) as attacker:
        assert attacker.stdout is not None
        assert await asyncio.wait_for(attacker.stdout.readline(), 30) == b"begun\n"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(honest.run(), SECONDS)
    assert honest.statuses == {200}
    assert honest.slowest < SLOWEST, f"of {honest.asked} requests"
    assert victim.memory("VmHWM") - before < MEMORY
    await until(lambda: victim.memory() - before <= BACK)
    return honest


async def settled(victim: Victim, honest: Honest) -> float:
    """The memory of a process that has loaded what it loads behind its first requests."""
    before = 0.0
    async with asyncio.timeout(60):
        while (now := victim.memory()) > before + 1e6:
            before = now
            for _ in range(20):
                await honest.once()
            await asyncio.sleep(0.5)
    return now
