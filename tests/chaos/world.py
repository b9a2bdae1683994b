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
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aimux.simulator import Account, Simulator
from aimux.simulator.accounts import Vendor
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


class Disk:
    """The state folder's own disk, which can be full or read-only: a small tmpfs where that may be mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(folder)]
        self.mounted = (
            os.geteuid() == 0
            and shutil.which("mount") is not None
            and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )
        self._filler = folder / "filler"

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
        """Read-only. Where nothing can be mounted, and for somebody who isn't root, folders that can't be written."""
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)
        else:
            for folder, _, _ in os.walk(self.folder):
                Path(folder).chmod(0o500)

    def unlock(self) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,rw", str(self.folder)], check=True)
        else:
            for folder, _, _ in os.walk(self.folder):
                Path(folder).chmod(0o700)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


@dataclass
class World:
    sim: Simulator
    folder: Path
    disk: Disk
    listener: socket.socket
    certificates: list[Issued]
    users: dict[str, str]
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

    def certify(self, issued: Issued) -> None:
        for name, content in {"key.pem": issued.key_pem(), "cert.pem": issued.pem}.items():
            new = self.folder / f"{name}.new"
            new.write_bytes(content)
            new.chmod(0o600)
            new.replace(self.folder / name)

    def configure(self, **settings: Any) -> Path:
        return write_config(self.folder, self.config() | settings)

    def config(self) -> dict[str, Any]:
        from aimux.simulator.demo import provider_settings

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
            "request_timeout": "20s",
            "metrics_public": True,
        }

    # --- the process ----------------------------------------------------------------------------------------------

    async def start(self) -> Aimux:
        """Another process on the same socket."""
        file = str(self.configure())
        aimux = await Aimux.start(self.folder, "serve", "--config", file, listener=self.listener)
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
        for key in self.disk.folder.glob("admin.key"):
            found.add(key.read_text().strip())
        return found

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
        """The certificate that a new connection gets, in DER."""
        address = self.listener.getsockname()
        _, writer = await asyncio.open_connection(*address, ssl=self.context, server_hostname="localhost")
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
