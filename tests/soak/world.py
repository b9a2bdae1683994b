"""aimux and the simulator in this process, and what either of them still holds."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aimux.app import App
from aimux.config import load_config
from aimux.logs import Logs
from aimux.plugin.loader import load_plugins
from aimux.simulator import Account, Simulator
from tests.e2e.process import config_of, put_account, write_config


@asynccontextmanager
async def gateway(
    folder: Path, sim: Simulator, accounts: Iterable[tuple[Account, str]], **settings: Any
) -> AsyncIterator[App]:
    """A running aimux with the simulator as upstream. `accounts`: each with its name in aimux. Logs to `folder/log`."""
    for account, name in accounts:
        put_account(folder / "state", account, name)
    file = write_config(folder, config_of(sim, folder, **settings))
    plugins = load_plugins()
    with (folder / "log").open("ab", 0) as log:
        logs = Logs(log.fileno())
        app = App(lambda: load_config(file, environ={}, providers=plugins.providers), plugins, logs, {})
        await app.start()
        try:
            yield app
        finally:
            await app.stop()
            logs.close()


async def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Until `condition()` holds, which nothing announces; `what()` says what there is instead, if it never does."""
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"still there: {what()}") from None


def others() -> set[asyncio.Task[Any]]:
    """Tasks, without the present one."""
    return asyncio.all_tasks() - {asyncio.current_task()}


def descriptors() -> list[str]:
    """What this process has open."""
    gc.collect()
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()).partition(":")[0])
        except OSError:
            continue  # the listing's own
    return sorted(found)
