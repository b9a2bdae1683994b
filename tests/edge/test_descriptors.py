"""File descriptors run out, in a real process: it survives, says so once, and serves whoever it can."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.e2e import process
from tests.e2e.process import TOKEN, Aimux, config_of, put_account, serving

HEADERS = {"x-api-key": TOKEN, "anthropic-version": "2023-06-01"}
PROMPT = {"model": "claude-sonnet-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello!"}]}


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Aimux]:
    async with Simulator() as sim:
        put_account(folder / "state", sim.accounts["claude-key"])
        async with serving(folder, config_of(sim, folder)) as aimux:
            yield aimux


async def ask(aimux: Aimux) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{aimux.claude}/v1/messages", json=PROMPT, headers=HEADERS) as answer,
    ):
        await answer.read()
        return answer.status


async def crowd(aimux: Aimux, size: int) -> list[asyncio.StreamWriter]:
    """Connections with half a request on each; some of them are refused."""
    port = int(aimux.address.rpartition(":")[2])
    writers = []
    for _ in range(size):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /claude/v1/messages HTTP/1.1\r\nHost: x\r\n")
        writers.append(writer)
    return writers


async def test_a_low_limit_is_a_low_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", ("sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *process.COMMAND))
    async with gateway(tmp_path) as aimux:
        writers = []
        for _ in range(5):
            writers += await crowd(aimux, 60)
            assert await ask(aimux) == 200
        for writer in writers:
            writer.transport.abort()
        assert aimux.output.count("client connections are open") == 1
        assert "Too many open files" not in aimux.output


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit(2) is Linux's")
async def test_none_left_at_all(tmp_path: Path) -> None:
    """Somebody else took them, or the limit was lowered under the running process."""
    async with gateway(tmp_path) as aimux:
        assert await ask(aimux) == 200
        pid = aimux.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        opened = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened + 2, before[1]))
        writers = await crowd(aimux, 100)
        for writer in writers:
            writer.transport.abort()
        lines = len(aimux.stderr)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        async with asyncio.timeout(20):
            while await ask(aimux) != 200:
                await asyncio.sleep(0.05)
        assert lines < 20, "a hundred refusals are not a hundred lines"
        assert "Traceback" not in aimux.output
