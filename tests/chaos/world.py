"""What the clients meet: aimux as a process on a socket that outlives it, the simulator, and a disk of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from aimux.simulator import Account, Simulator
from aimux.simulator.accounts import Vendor
from aimux.simulator.demo import provider_settings
from tests.e2e.process import Aimux, put_account, write_config
from tests.tls.certificates import Issued

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


class Disk:
    """The state folder's own disk, which can be full or read-only: a small tmpfs where that may be mounted.

    Elsewhere a limit on the size of the process's files stands for a full disk, and folders that may not be written for
    a read-only one. The latter stops nobody who is root.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(folder)]
        root = os.geteuid() == 0
        self.mounted = (
            root
            and shutil.which("mount") is not None
            and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )
        self.lockable = self.mounted or not root
        self._filler = folder / "filler"

    def __str__(self) -> str:
        if self.mounted:
            return "a tmpfs"
        if self.lockable:
            return "the common disk (no tmpfs may be mounted): RLIMIT_FSIZE makes it full, modes make it read-only"
        return "the common disk (no tmpfs may be mounted): RLIMIT_FSIZE makes it full; root may write to any"

    def fill(self, pid: int) -> None:
        if self.mounted:
            with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        else:
            self._limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, self._limits[1]))

    def empty(self, pid: int) -> None:
        if self.mounted:
            self._filler.unlink(missing_ok=True)
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, self._limits)

    def lock(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)
        else:
            self._modes(0o500)

    def unlock(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,rw", str(self.folder)], check=True)
        else:
            self._modes(0o700)

    def _modes(self, mode: int) -> None:
        for folder, _, _ in os.walk(self.folder):
            Path(folder).chmod(mode)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


class Clock:
    """The process's time of day, which can be moved: what is behind `time.time`, and that alone.

    The machine's own clock is not a test's to set.
    """

    MOVED = """
import mmap, runpy, struct, sys, time
with open(sys.argv[1], "rb") as file:
    by = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
seconds, nanoseconds = time.time, time.time_ns
time.time = lambda: seconds() + struct.unpack("d", by)[0]
time.time_ns = lambda: nanoseconds() + int(struct.unpack("d", by)[0] * 1e9)
sys.argv = ["aimux", *sys.argv[2:]]
runpy.run_module("aimux.cli.main", run_name="__main__", alter_sys=True)
"""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_bytes(struct.pack("d", 0.0))
        self.command = (sys.executable, "-c", self.MOVED, str(file))

    def move(self, by: float) -> None:
        """So many seconds from what it really is."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("d", by))


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

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata="".join(issued.pem.decode() for issued in self.certificates))

    @property
    def pid(self) -> int:
        return self.aimux.process.pid

    # --- its files ------------------------------------------------------------------------------------------------

    def put(self, account: Account) -> None:
        """The account's newest login, as another program writes it."""
        put_account(self.disk.folder, account, account.name)

    def saved(self, account: Account) -> str | None:
        """The refresh token on the disk."""
        provider, file = ("claude", ".credentials.json") if account.vendor == "anthropic" else ("chatgpt", "auth.json")
        login = json.loads((self.disk.folder / provider / account.name / file).read_bytes())
        holder = login["claudeAiOauth"] if provider == "claude" else login["tokens"]
        return str(holder["refreshToken" if provider == "claude" else "refresh_token"])

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
            command=self.clock.command,
            environ=environ,
            listener=self.listener,
        )
        self.outputs.append(aimux)
        await aimux.said("listens on ")
        self.aimux = aimux
        return aimux

    async def stop(self, aimux: Aimux) -> None:
        code = await aimux.stop(signal.SIGTERM)
        assert code == 0, aimux.output[-3000:]

    def secrets(self) -> set[str]:
        """Everything that may be in no output: users' tokens, credentials that ever were, keys."""
        found = set(self.users.values())
        for store in self.sim.tokens.values():
            found |= store._access.keys() | store._refresh.keys()
        found |= {account.api_key for account in self.sim.accounts.values() if account.api_key}
        for issued in self.certificates:
            found.add(issued.key_pem().decode().splitlines()[1])
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

    # --- what it costs --------------------------------------------------------------------------------------------

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def upstreams(self) -> list[tuple[asyncio.Transport, bool]]:
        """The simulator's connections from aimux, and whether there is a request on them."""
        assert self.sim._runner is not None
        assert self.sim._runner.server is not None
        connections = self.sim._runner.server.connections
        return [(one.transport, one._request_in_progress) for one in connections if one.transport is not None]

    async def presented(self) -> bytes:
        """The certificate that a new connection gets, in DER; none from a process that is just killed."""
        address = self.listener.getsockname()
        try:
            _, writer = await asyncio.open_connection(*address, ssl=self.context, server_hostname="localhost")
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
