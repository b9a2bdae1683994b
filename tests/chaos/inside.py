"""aimux and the simulator in this process, for what has to be looked at from within."""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from aimux.app import App
from aimux.config import load_config
from aimux.logs import Logs
from aimux.plugin.loader import load_plugins
from aimux.simulator import Simulator
from aimux.simulator.accounts import Vendor
from aimux.simulator.demo import provider_settings
from tests.e2e.process import put_account

from .clients import Door
from .ledger import Ledger

TOKEN = "inside-token-0123456789abcdef"


@asynccontextmanager
async def inside(
    folder: Path, accounts: Iterable[tuple[str, Vendor, str]], *, scenario: str | None = None
) -> AsyncIterator[tuple[App, Simulator, Door]]:
    """A gateway with these accounts of the simulator, and the door that leads to it."""
    state = folder / "state"
    async with Simulator(scenario=scenario, capacity=math.inf, keep=0) as sim:
        for name, vendor, kind in accounts:
            put_account(state, sim.add_account(name, vendor, kind), name)  # type: ignore[arg-type]
        file = folder / "config.json"
        config = {
            "listen": "127.0.0.1:0",
            "state_dir": str(state),
            "providers": provider_settings(sim.url),
            "users": [{"name": "ann", "token": TOKEN}],
            "log_level": "warning",
        }
        file.write_text(json.dumps(config))
        file.chmod(0o600)
        fd = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        logs = Logs(fd)
        plugins = load_plugins()
        app = App(lambda: load_config(file, environ={}, providers=plugins.providers), plugins, logs, {})
        try:
            await app.start()
            try:
                port = int(app.addresses[0].rpartition(":")[2])
                yield app, sim, Door(("127.0.0.1", port), None, [TOKEN], Ledger(folder / "spool"))
            finally:
                await app.stop()
        finally:
            logs.close()
            os.close(fd)
