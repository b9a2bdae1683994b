"""One aimux for all the programs. Each run has a seat: a user with accounts that no one else uses, upstream included.

So runs can go on at once, each with its own trouble upstream, and what a client did can be counted afterwards. The
programs get nothing of this machine's environment, a fresh home, and a proxy that writes down whoever wants to leave
the machine and lets nobody.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from aimux.simulator import Account, Received, Simulator
from tests.clients.install import NPM, PYTHON, installed
from tests.e2e.process import Aimux
from tests.tools import ROOT, lacking

CACHE = ROOT / ".cache" / "clients"
SEATS = [f"seat{number}" for number in range(200)]
KEY_SEATS = [f"key-seat{number}" for number in range(20)]
"""Those whose OpenAI account is an API key, which serves more than Codex."""


def client(name: str, *path: str) -> Path:
    """A file of a client that `make clients` has installed."""
    if not installed(CACHE, name):
        lacking(f"{' and '.join((NPM | PYTHON)[name])} is not installed (make clients)")
    return CACHE.joinpath(name, *path)


@dataclass
class Ran:
    """What a program did: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its output, where that is a JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


async def run(
    command: Sequence[str | Path],
    home: Path,
    *,
    stdin: bytes = b"",
    interrupt: Callable[[], Awaitable[None]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Ran:
    """Run a program to its end, in `home`. When `interrupt()` is over, Ctrl-C is pressed."""
    path = {"/usr/bin", "/bin", str(Path(shutil.which("node") or "/usr/bin/node").parent)}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=home,
        env={"PATH": os.pathsep.join(sorted(path)), "HOME": str(home), "TERM": "dumb", **(environ or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(90):
            ended = asyncio.ensure_future(process.communicate(stdin))
            if interrupt is not None:
                await interrupt()
                os.killpg(process.pid, signal.SIGINT)
            out, err = await ended
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # Codex's launcher alone would leave it behind, with our pipes open
        await process.wait()
        raise
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


@dataclass
class Trap:
    """A proxy for everything that is not on this machine. `caught`: the request lines; none is answered."""

    caught: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def environ(self) -> dict[str, str]:
        here = f"http://127.0.0.1:{self.port}"
        return {"HTTPS_PROXY": here, "HTTP_PROXY": here, **self.environ_with_probe}

    @property
    def environ_with_probe(self) -> dict[str, str]:
        """Claude Code leaves its probe of the gateway out where it sees the other two variables."""
        return {"ALL_PROXY": f"http://127.0.0.1:{self.port}", "NO_PROXY": "127.0.0.1,localhost"}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Trap]:
        async def caught(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                self.caught.append((await reader.readline()).decode().strip())
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(caught, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


class Wire:
    """A plain forwarder in front of aimux: how many connections a client makes, and what it writes on them."""

    def __init__(self, aimux: Aimux) -> None:
        self.connections = 0
        self.written = bytearray()
        self.url = ""
        self._target = int(aimux.address.rpartition(":")[2])
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await asyncio.gather(*self._running)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        self.connections += 1
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._copy(reader, onward, self.written), self._copy(onward_reader, writer))

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray | None = None
    ) -> None:
        try:
            while data := await reader.read(65536):
                if seen is not None:
                    seen += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


def token_of(user: str) -> str:
    return f"{user}-token-0123456789abcdef"


@dataclass
class Seat:
    """A user of `world`'s aimux. `anthropic` and `openai` are the upstream accounts that serve this user alone.

    `claude`: which of the installed versions of Claude Code this user has.
    """

    world: World
    name: str
    home: Path
    claude: str = "claude-code"

    @property
    def token(self) -> str:
        return token_of(self.name)

    @property
    def anthropic(self) -> Account:
        return self.world.sim.accounts[f"{self.name}-anthropic"]

    @property
    def openai(self) -> Account:
        return self.world.sim.accounts[f"{self.name}-openai"]

    def statuses(self, before: int) -> list[str]:
        """What requests got since aimux had served so many, probes left out."""
        return [line["status"] for line in self.world.aimux.requests[before:] if line["method"] == "POST"]

    @property
    def sent(self) -> list[Received]:
        """What arrived upstream of this user's requests, renewals of tokens left out."""
        accounts = {self.anthropic.name, self.openai.name}
        return [r for r in self.world.sim.requests if r.account in accounts and not r.base.startswith("oauth")]

    @property
    def served(self) -> list[dict[str, str]]:
        """The access log's lines of this user, but for a WebSocket's turns, which have lines of their own."""
        lines = self.world.aimux.requests
        return [line for line in lines if line["user"] == self.name and line["method"] != "TURN"]

    @property
    def turns(self) -> list[dict[str, str]]:
        """Of its WebSockets."""
        return [line for line in self.world.aimux.requests if line["user"] == self.name and line["method"] == "TURN"]

    @property
    def elapsed(self) -> float:
        """Seconds from the start of this user's first request to the start of the last one, by the access log."""
        starts = []
        for line in self.world.aimux.stderr:
            when, _, rest = line.partition(" ACCESS ")
            if f" user={self.name} " in rest:
                took = float(rest.partition(" duration=")[2].partition(" ")[0])
                starts.append(datetime.fromisoformat(when).timestamp() - took)
        return max(starts) - min(starts)


@dataclass
class World:
    """The simulator, the aimux in front of it, and the trap."""

    sim: Simulator
    aimux: Aimux
    trap: Trap
    folder: Path
    _free: Iterator[str] = field(default_factory=lambda: iter(SEATS))
    _free_with_key: Iterator[str] = field(default_factory=lambda: iter(KEY_SEATS))

    def seat(self, *, key: bool = False) -> Seat:
        """One that nobody has had yet. `key`: of KEY_SEATS."""
        name = next(self._free_with_key if key else self._free)
        home = self.folder / name
        home.mkdir()
        return Seat(self, name, home)
