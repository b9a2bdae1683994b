"""What the process tests run in processes of their own: `python -m tests.accounts.child COMMAND ...`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from aimux.accounts import AccountPool, ControlHttp, FileVault, PoolOptions
from aimux.plugin import Http, RefreshRejected
from tests.accounts.support import Demo, credential_file, provider, put


async def renew(state_dir: Path, url: str) -> None:
    """Renew once and print the access token."""
    demo = provider()
    demo.url = url
    http = ControlHttp()
    pool = AccountPool(demo, FileVault(state_dir), http)
    await pool.load()
    sys.stdout.write((await pool.accounts["default"].renew()).secret)
    await pool.close()
    await http.close()


class Ledger(Demo):
    """A token server in a file, which two processes never use at once: it accepts the newest refresh token and the one
    before it, since a client that died between its answer and its disk is otherwise lost with any design."""

    def __init__(self, path: Path) -> None:
        super().__init__(provider().settings)
        self.path = path

    async def refresh(self, raw: bytes, http: Http) -> bytes:
        data = json.loads(raw)
        number = int(self.path.read_text())
        used = int(data["refresh"])
        if used not in {number, number - 1}:
            raise RefreshRejected(f"{used} was used, {number} is valid")
        new = self.path.with_suffix(".new")
        new.write_text(str(used + 1))
        new.replace(self.path)
        await asyncio.sleep(random.random() / 1000)
        return json.dumps(data | {"access": f"access-{used + 1}", "refresh": str(used + 1)}).encode()


async def renew_for_ever(state_dir: Path, ledger: Path, began: int) -> None:
    pool = AccountPool(Ledger(ledger), FileVault(state_dir), ControlHttp(), options=PoolOptions())
    await pool.load()
    account = pool.accounts["default"]
    await account.renew(account.credential)
    os.write(began, b".")
    while True:
        await account.renew(account.credential)


def die(state_dir: Path, times: int) -> None:
    """Fork a process that renews without end, kill it at a random moment, and look at what is left."""
    ledger = state_dir / "ledger"
    path = put(state_dir, credential_file("access-0", "0", time.time() + 3600, note="kept", padding="x" * 6000))
    ledger.write_text("0")
    for _ in range(times):
        began, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(renew_for_ever(state_dir, ledger, tell))
            finally:
                os._exit(1)
        os.close(tell)
        assert os.read(began, 1), "it came to a renewal"
        time.sleep(random.uniform(0, 0.015))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(began)
        saved, rotated = json.loads(path.read_bytes()), int(ledger.read_text())
        assert (saved["note"], len(saved["padding"])) == ("kept", 6000), "whole"
        assert path.stat().st_mode & 0o777 == 0o600
        assert int(saved["refresh"]) in {rotated, rotated - 1}, f"{saved['refresh']} on disk, {rotated} is valid"
        assert saved["access"] == f"access-{saved['refresh']}"
        assert len(list(path.parent.glob(".aimux-*.tmp"))) <= 2, "what one leaves the next one sweeps"
    sys.stdout.write(ledger.read_text())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["renew", state_dir, url]:
            asyncio.run(renew(Path(state_dir), url))
        case ["die", state_dir, times]:
            die(Path(state_dir), int(times))
