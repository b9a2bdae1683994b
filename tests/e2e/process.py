"""`aimux serve` as a process of its own, and what a test sees of it: address, banner, log and exit code."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from aimux.simulator import Account, Simulator, credential_file, demo_files
from tests.forks import Forked, fits
from tests.tools import child_environ

TOKEN = "ann-token-0123456789abcdef"
COMMAND = (sys.executable, "-m", "aimux.cli.main")
ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What a service manager does between fork and exec for a service that it hands a socket."""

LONGEST_LINE = 16 << 20
"""Bytes. aimux's own are far shorter; one that is not has to be seen."""


class Process:
    """One run. Everything it writes is read as it comes, so that it never waits for a reader."""

    def __init__(self, process: asyncio.subprocess.Process | Forked) -> None:
        self.process = process
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._changed = asyncio.Condition()
        self._ended = asyncio.create_task(self._read_all())

    @classmethod
    async def start(
        cls,
        folder: Path,
        *arguments: str,
        command: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        listener: socket.socket | None = None,
    ) -> Self:
        """Run `aimux` with these arguments, in `folder`, which is its home too, and with no other environment.

        `listener` is handed over by socket activation, and stays open here. A new interpreter runs `command`: without
        one, and where the environment is aimux's alone, the process is forked.
        """
        environ = child_environ(folder, **(environ or {}))
        if command is None and fits(environ):
            forked = await Forked.start(arguments, cwd=folder, environ=environ, listener=listener, limit=LONGEST_LINE)
            return cls(forked)
        fds = [listener.fileno()] if listener is not None else []
        process = await asyncio.create_subprocess_exec(
            *(part for fd in fds for part in (sys.executable, "-c", ACTIVATED, str(fd))),
            *(command or COMMAND),
            *arguments,
            pass_fds=fds,
            cwd=folder,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        return cls(process)

    async def _read_all(self) -> int:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        await asyncio.gather(self._read(self.process.stdout, self.stdout), self._read(self.process.stderr, self.stderr))
        code = await self.process.wait()
        async with self._changed:
            self._changed.notify_all()
        return code

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        async for line in stream:
            lines.append(line.decode().rstrip("\n"))
            async with self._changed:
                self._changed.notify_all()

    async def until(self, condition: Callable[[], Any], *, patience: float = 30.0) -> None:
        """Until `condition()` holds; asked again with every line."""
        async with asyncio.timeout(patience), self._changed:
            await self._changed.wait_for(lambda: condition() or self.process.returncode is not None)
        assert condition(), f"it ended with {self.process.returncode}:\n{self.output}"

    async def said(self, text: str) -> None:
        """Until it wrote `text`, to either stream."""
        await self.until(lambda: text in self.output)

    @property
    def output(self) -> str:
        """Both streams."""
        return "\n".join([*self.stdout, *self.stderr])

    async def end(self) -> int:
        """Wait for its end, as long as service managers do: the exit code."""
        async with asyncio.timeout(90):  # drain_timeout, a renewal that has begun (50 s), a database that hangs (6 s)
            return await asyncio.shield(self._ended)

    async def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        if self.process.returncode is None:
            self.process.send_signal(sig)
        return await self.end()


class Aimux(Process):
    """A gateway that listens."""

    address: str
    """`http://127.0.0.1:PORT`, `https://…` or `unix:/path`."""

    @property
    def claude(self) -> str:
        """The base URL of Anthropic's clients."""
        return f"{self.address}/claude"

    @property
    def chatgpt(self) -> str:
        """The base URL of OpenAI's clients."""
        return f"{self.address}/chatgpt/v1"

    @property
    def requests(self) -> list[dict[str, str]]:
        """The access log's lines, as fields by name."""
        return [dict(_fields(line)) for line in self.stderr if " ACCESS " in line]

    @property
    def memory(self) -> int:
        """Bytes that are resident. Reads /proc."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    async def logged(self, count: int) -> list[dict[str, str]]:
        """The access log, once it has `count` lines."""
        await self.until(lambda: len(self.requests) >= count)
        return self.requests


@functools.cache
def _fields(line: str) -> dict[str, str]:
    """Each is asked for again with whatever comes after it."""
    return dict(field.partition("=")[::2] for field in shlex.split(line.partition(" ACCESS ")[2]))


def config_of(sim: Simulator, folder: Path, **settings: Any) -> dict[str, Any]:
    """A configuration with the simulator as upstream, one user, and the state in `folder`."""
    return {
        "listen": "127.0.0.1:0",
        "state_dir": str(folder / "state"),
        "providers": {name: dict(values) for name, values in demo_files(sim).settings.items()},
        "users": [{"name": "ann", "token": TOKEN}],
        **settings,
    }


def write_config(folder: Path, config: Mapping[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


def put_account(state: Path, account: Account, name: str = "default") -> Path:
    """Its credential, where aimux looks for the account `name`. A key as well as a login."""
    provider, file = ("claude", ".credentials.json") if account.vendor == "anthropic" else ("chatgpt", "auth.json")
    folder = state / provider if name == "default" else state / provider / name
    for place in (state, state / provider, folder):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / file
    key = {"api_key": account.api_key} if provider == "claude" else {"OPENAI_API_KEY": account.api_key}
    path.write_bytes(credential_file(account) if account.api_key is None else json.dumps(key).encode())
    path.chmod(0o600)
    return path


@asynccontextmanager
async def serving(
    folder: Path,
    config: Mapping[str, Any],
    *,
    command: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    listener: socket.socket | None = None,
) -> AsyncIterator[Aimux]:
    """`aimux serve` with this configuration, until the block ends; it must then end with 0, if it is still there."""
    file = write_config(folder, config)
    arguments = ("serve", "--config", str(file))
    aimux = await Aimux.start(folder, *arguments, command=command, environ=environ, listener=listener)
    try:
        await aimux.said("listens on ")
        found = re.search(r"listens on (\S+)", aimux.output)
        assert found
        aimux.address = found[1].rstrip(",")
        yield aimux
    finally:
        ended_before = aimux.process.returncode is not None
        code = await aimux.stop()
    assert ended_before or code == 0, aimux.output
