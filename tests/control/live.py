"""A running aimux with its simulator in a thread of its own, for tests that are not asynchronous."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from aimux.app import App
from aimux.config import load_config
from aimux.simulator import Simulator, demo_files
from tests.control.conftest import PLUGINS, put
from tests.inprocess import serving


class Live:
    """What runs. `config` is the file that it was started with, or would be."""

    def __init__(self, folder: Path, app: App | None, sim: Simulator) -> None:
        self._app = app
        self.loop = asyncio.get_running_loop()
        self.sim = sim
        self.folder = folder
        self.config = folder / "config.json"
        self.state_dir = folder / "state"

    def release(self) -> None:
        """Have what the simulator holds back go on."""
        self.loop.call_soon_threadsafe(self.sim.release)

    @property
    def app(self) -> App:
        assert self._app is not None
        return self._app

    @property
    def key(self) -> str:
        return (self.state_dir / "admin.key").read_text().strip()


def write_config(folder: Path, sim: Simulator, **settings: Any) -> Path:
    """A configuration for the simulator's providers; a unix socket in `folder` is where it listens."""
    config = {
        "listen": f"unix:{folder / 'socket'}",
        "state_dir": str(folder / "state"),
        "providers": {name: dict(values) for name, values in demo_files(sim).settings.items()},
        **settings,
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    file.chmod(0o600)
    return file


@contextmanager
def running(folder: Path, *, serve: bool = True, **settings: Any) -> Iterator[Live]:
    """Until the end of the block, with the account `default` of each provider. `settings` are the configuration's.

    With `serve=False` there is only the simulator, and no account.
    """
    started: list[Live] = []
    failed: list[BaseException] = []
    ready, stopping = threading.Event(), asyncio.Event()
    # As `aimux serve` has it. asyncio's own leaves a connection open that it accepts in the moment of a stop.
    loop = uvloop.new_event_loop()

    async def run() -> None:
        async with Simulator() as sim:
            sim.oauth_openai.device_interval = 1
            file = write_config(folder, sim, **settings)
            if not serve:
                await until_stopped(Live(folder, None, sim))
                return
            for provider, raw in demo_files(sim).credentials.items():
                put(folder / "state", provider, raw)
            load = partial(load_config, file, environ={}, providers=PLUGINS.providers)
            async with serving(load, PLUGINS, folder / "log") as app:
                await until_stopped(Live(folder, app, sim))

    async def until_stopped(live: Live) -> None:
        started.append(live)
        ready.set()
        await stopping.wait()

    def work() -> None:
        try:
            loop.run_until_complete(run())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    try:
        if failed:
            raise failed[0]
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
    if failed:
        raise failed[0]
