"""`aimux demo`: what it prints works as it is printed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.process import Process
from tests.tools import child_environ, program

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def printed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[str]]:
    """The commands of a running demo."""
    folder = tmp_path_factory.mktemp("demo")
    process = await Process.start(folder, "demo", "--listen", "127.0.0.1:0")
    await process.said("Ctrl-C ends it")
    yield commands(process)
    assert await process.stop() == 0
    assert "Traceback" not in process.output


def commands(demo: Process) -> list[str]:
    """What it offers to copy; a command that goes on in the next line is one."""
    said = "\n".join(demo.stdout).replace("\\\n", "")
    return [line for line in said.splitlines() if line.startswith(("curl", "python3", "ANTHROPIC_", "AIMUX_"))]


async def run(command: str, folder: Path, *more_path: str, **environ: str) -> str:
    """A shell's output, with this virtual environment's python3 and a home of its own."""
    path = os.pathsep.join([*more_path, str(Path(sys.executable).parent), os.environ["PATH"]])
    process = await asyncio.create_subprocess_shell(
        command,
        cwd=folder,
        env=child_environ(folder, PATH=path, **environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_there_is_a_command_for_every_client(printed: list[str]) -> None:
    programs = [command.split()[0] for command in printed]
    assert programs.count("curl") == 3
    assert programs.count("python3") == 2
    assert len([command for command in printed if " claude " in command or " codex " in command]) == 2


async def test_curl(printed: list[str], tmp_path: Path) -> None:
    program("curl", "curl")
    commands = [command for command in printed if command.startswith("curl")]
    whole, streamed, responses = await asyncio.gather(*(run(command, tmp_path) for command in commands))
    assert '"type":"message"' in whole.replace(": ", ":")
    assert "event: message_stop" in streamed
    assert "event: response.completed" in responses


async def test_the_readmes_own(printed: list[str], tmp_path: Path) -> None:
    program("curl", "curl")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    token, command = re.findall(r"^\$ ((?:TOKEN=|curl )(?:.*\\\n)*.*)", readme, re.MULTILINE)
    address = next(match[0] for one in printed if (match := re.search(r"http://127\.0\.0\.1:\d+", one)))
    said = await run(f"{token}; {command.replace('http://127.0.0.1:8080', address)}", tmp_path)
    assert "event: message_stop" in said


async def test_the_sdks(printed: list[str], tmp_path: Path) -> None:
    commands = [command for command in printed if command.startswith("python3")]
    for said in await asyncio.gather(*(run(command, tmp_path) for command in commands)):
        assert "You said: “Hello!”" in said


async def test_the_commands_in_another_terminal_find_it(tmp_path: Path) -> None:
    demo = await Process.start(tmp_path, "demo", "--listen", "127.0.0.1:0")
    await demo.said("Ctrl-C ends it")
    aimux = f"{sys.executable} -m aimux"
    accounts = json.loads(await run(f"{aimux} accounts --json", tmp_path))
    assert {account["provider"] for account in accounts} == {"chatgpt", "claude"}
    one = next(command for command in commands(demo) if command.startswith("curl"))
    said = await run(f"{one} -s -D head", tmp_path)
    assert '"type":"message"' in said.replace(": ", ":")
    head = (tmp_path / "head").read_text()
    for name in ("x-request-id", "request-id"):
        request_id = re.search(rf"^{name}: (\S+)", head, re.MULTILINE | re.IGNORECASE)
        assert request_id is not None
        assert ": 200, relay" in await run(f"{aimux} why {request_id[1]}", tmp_path)
    assert await demo.stop() == 0
    assert json.loads(await run(f"{aimux} accounts --json", tmp_path)) == []
    assert not list((tmp_path / ".cache" / "aimux").iterdir())
