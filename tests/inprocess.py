"""aimux in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aimux.app import App
from aimux.config import Config
from aimux.logs import Logs
from aimux.plugin.loader import Plugins


@asynccontextmanager
async def serving(load: Callable[[], Config], plugins: Plugins, log: Path) -> AsyncIterator[App]:
    """Started with the configuration that `load` gives. Its log goes to that file."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    logs = Logs(fd)
    try:
        app = App(load, plugins, logs, {})
        await app.start()
        try:
            yield app
        finally:
            await app.stop()
    finally:
        logs.close()
        os.close(fd)
