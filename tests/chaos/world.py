"""What the clients meet: aimux as a process on a socket that outlives it, the simulator, and a disk of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from aimux.simulator import Account, Simulator
from aimux.simulator.accounts import Vendor
from aimux.simulator.demo import provider_settings
from tests.certificates.certificates import Issued
from tests.e2e.process import Aimux, put_account, write_config

from . import inside
from .machine import Clock, Disk

ACCOUNTS: tuple[tuple[str, Vendor, str], ...] = (
    ("claude-a", "anthropic", "oauth"),
    ("claude-b", "anthropic", "oauth"),
    ("claude-c", "anthropic", "api_key"),
    ("chatgpt-a", "openai", "oauth"),
    ("chatgpt-b", "openai", "oauth"),
)
ANCHORS = {"claude-c", "chatgpt-b"}
"""They are never refused: with the attempts that a request has, one of them is always left."""
PACE = "gap:0.05,events:14"
REQUEST_TIMEOUT, IDLE_TIMEOUT = 12, 6
"""Seconds: short, so that an upstream that hangs or stalls is one fault among others."""
PATIENCE = 60.0
"""Seconds for a credential to be renewed and saved: pauses between failures grow, and one that was accepted a moment
ago is taken for good for 30 s."""


@dataclass
class World:
    sim: Simulator
    folder: Path
    disk: Disk
    clock: Clock
    listener: socket.socket
    certificates: list[Issued]
    users: dict[str, str]
    seed: int
    accounts: dict[str, Account] = field(default_factory=dict)
    aimux: Aimux = None  # type: ignore[assignment]  # as soon as it is started
    outputs: list[Aimux] = field(default_factory=list)
    """Every process that there was."""
    logins: set[str] = field(default_factory=set)
    """Every secret that was seen on the disk."""

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata="".join(issued.pem.decode() for issued in self.certificates))

    @property
    def pid(self) -> int:
        return self.aimux.process.pid

    @property
    def census(self) -> Path:
        """Where the process writes what lives in it, when it is asked."""
        return self.folder / "census"

    # --- its files ------------------------------------------------------------------------------------------------

    def put(self, account: Account) -> None:
        """The account's newest login, as another program writes it."""
        put_account(self.disk.folder, account, account.name)

    def login(self, account: Account) -> Path:
        """The file with its credential."""
        place = ("claude", ".credentials.json") if account.vendor == "anthropic" else ("chatgpt", "auth.json")
        return self.disk.folder / place[0] / account.name / place[1]

    def saved(self, account: Account) -> str | None:
        """The refresh token on the disk."""
        login = json.loads(self.login(account).read_bytes())
        holder = login["claudeAiOauth"] if account.vendor == "anthropic" else login["tokens"]
        self.logins.update(value for name, value in holder.items() if name.lower().endswith("token"))
        return str(holder["refreshToken" if account.vendor == "anthropic" else "refresh_token"])

    def write(self, name: str, content: bytes) -> None:
        new = self.folder / f"{name}.new"
        new.write_bytes(content)
        new.chmod(0o600)
        new.replace(self.folder / name)

    def certify(self, issued: Issued) -> None:
        self.write("key.pem", issued.key_pem())
        self.write("cert.pem", issued.pem)

    def configure(self, **settings: Any) -> Path:
        return write_config(self.folder, self.config() | settings)

    def config(self) -> dict[str, Any]:
        return {
            "listen": "127.0.0.1:0",
            "state_dir": str(self.disk.folder),
            "providers": provider_settings(self.sim.url),
            "users": [{"name": name, "token": token} for name, token in self.users.items()],
            "tls": {
                "enabled": True,
                "cert_path": str(self.folder / "cert.pem"),
                "key_path": str(self.folder / "key.pem"),
            },
            "drain_timeout": "20s",
            "request_timeout": f"{REQUEST_TIMEOUT}s",
            "stream_idle_timeout": f"{IDLE_TIMEOUT}s",
            "metrics_public": True,
        }

    # --- the process ----------------------------------------------------------------------------------------------

    async def start(self) -> Aimux:
        """Another process on the same socket."""
        file = str(self.configure())
        environ = {
            "PYTHONHASHSEED": str(self.seed % (1 << 32)),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            # So that buffers which are free are no longer resident; by default glibc keeps them once there were many.
            "MALLOC_MMAP_THRESHOLD_": str(128 << 10),
        }
        aimux = await Aimux.start(
            self.folder,
            "serve",
            "--config",
            file,
            command=(sys.executable, "-P", str(Path(inside.__file__)), str(self.clock.file), str(self.census)),
            environ=environ,
            listener=self.listener,
        )
        self.outputs.append(aimux)
        await aimux.said("listens on ")
        self.aimux = aimux
        return aimux

    @asynccontextmanager
    async def hearing(self, words: str) -> AsyncIterator[None]:
        """Until the process has logged that, in the block or behind it: a fault that is none by name only."""
        log, seen = self.aimux.stderr, len(self.aimux.stderr)
        yield
        await self.aimux.until(lambda: any(words in line for line in log[seen:]), patience=PATIENCE)

    async def stop(self, aimux: Aimux) -> None:
        code = await aimux.stop(signal.SIGTERM)
        assert code == 0, aimux.output[-3000:]

    def secrets(self) -> set[str]:
        """Everything that may be in no output: users' tokens, credentials that ever were, keys."""
        found = set(self.users.values()) | self.logins
        for store in self.sim.tokens.values():
            found |= store.ever()
        found |= {account.api_key for account in self.sim.accounts.values() if account.api_key}
        for issued in self.certificates:
            found.update(issued.key_pem().decode().splitlines()[1:-1])
        found.add(self.admin_key)
        return found

    @property
    def admin_key(self) -> str:
        return (self.disk.folder / "admin.key").read_text().strip()

    async def get(self, path: str, token: str = "") -> bytes:
        """What it answers."""
        host, port = self.listener.getsockname()
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"https://{host}:{port}{path}", ssl=False) as answer,
        ):
            return await answer.read()

    # --- its connections ------------------------------------------------------------------------------------------

    def upstreams(self) -> list[tuple[asyncio.Transport, bool]]:
        """The simulator's connections from aimux, and whether there is a request on them."""
        connections = self.sim.connections
        return [(one.transport, one._request_in_progress) for one in connections if one.transport is not None]

    async def connect(self) -> asyncio.StreamWriter:
        """One more to aimux. Raises OSError."""
        address = self.listener.getsockname()
        return (await asyncio.open_connection(*address, ssl=self.context, server_hostname="localhost"))[1]

    async def presented(self) -> bytes:
        """The certificate that a new connection gets, in DER; none from a process that is just killed."""
        try:
            writer = await self.connect()
        except OSError:
            return b""
        try:
            return bytes(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        finally:
            writer.transport.abort()


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """What a service manager opened, and keeps open: those who come while nobody accepts wait in its queue."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1024)
        yield sock
