"""aimux in this process."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from aimux.app import App
from aimux.config import Config
from aimux.embedding import APP, application
from aimux.logs import Logs
from aimux.logs.writer import LineWriter
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


class _ToFile(logging.Handler):
    """As its program would log, but without making the loop wait."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._writer = LineWriter(self._fd, lost=lambda count: b"%d lines are lost" % count)

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.write(self.format(record).encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)
        super().close()


@asynccontextmanager
async def embedded(config: Path, plugins: Plugins, log: Path) -> AsyncIterator[tuple[App, int]]:
    """The same as an aiohttp application on a server of aiohttp's; the app, and the port of 127.0.0.1."""
    runner = web.AppRunner(application(config, plugins=plugins), access_log=None, shutdown_timeout=2)
    root, handler = logging.getLogger(), _ToFile(log)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.app[APP], runner.addresses[0][1]
    finally:
        await runner.cleanup()
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()
