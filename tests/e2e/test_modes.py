"""Whatever the umask: what aimux writes is its owner's alone, but for the certificate that is for everybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.e2e.process import COMMAND, TOKEN, Aimux, Process, config_of, serving

PUBLIC = {"cert.pem"}


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


async def command(folder: Path, *arguments: str) -> None:
    process = await Process.start(folder, *arguments, "--config", str(folder / "config.json"), command=COMMAND)
    assert await process.end() == 0, process.output


async def ask(aimux: Aimux) -> int:
    message = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello!"}]}
    headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{aimux.claude}/v1/messages", json=message, headers=headers, ssl=False) as answer,
    ):
        await answer.read()
        return answer.status


def modes(folder: Path) -> dict[str, int]:
    """Of the files below it, by name. One that goes while it is looked at was for a moment."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                found[path.name] = path.stat().st_mode
    return found


@pytest.mark.usefixtures("open_umask")
async def test_what_is_written_is_its_owners_alone(sim: Simulator, folder: Path) -> None:
    (home := folder / "home").mkdir(mode=0o700)
    async with serving(
        folder, config_of(sim, folder, tls={"enabled": True, "self_signed": True}), command=COMMAND
    ) as aimux:
        assert await ask(aimux) == 200
        await command(folder, "users", "add", "eve")
        await command(folder, "db", "backup", str(home / "copy.db"))
        await command(folder, "db", "export", str(home / "archive"))
        found = modes(folder / "state") | modes(home)
    assert found.keys() >= {"aimux.db", "admin.key", "key.pem", "copy.db", "archive"}
    assert [name for name, mode in found.items() if name not in PUBLIC and mode & 0o077] == []
