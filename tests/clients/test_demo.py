"""The demo's lines for Claude Code and Codex, as they are printed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.clients.world import Trap, client
from tests.e2e.process import Process
from tests.e2e.test_demo import commands, run


@pytest.mark.parametrize(("name", "program"), [("claude-code", "claude"), ("codex", "codex")])
async def test_its_line(name: str, program: str, tmp_path: Path) -> None:
    folder = client(name, "node_modules", ".bin")
    demo = await Process.start(tmp_path, "demo", "--listen", "127.0.0.1:0")
    try:
        await demo.said("Ctrl-C ends it")
        (command,) = [line for line in commands(demo) if f" {program} " in line]
        async with Trap().listening() as trap, asyncio.timeout(60):
            assert "You said: “Hello!”" in await run(command, tmp_path, str(folder), **trap.environ)
    finally:
        assert await demo.stop() == 0
