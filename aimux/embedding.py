"""aimux as an aiohttp application, for another server or application."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from aimux.app import App
from aimux.config import load_config, parse_config
from aimux.control.application import control_application
from aimux.control.state import CONTROL
from aimux.logs import HostLogs
from aimux.plugin.loader import Plugins, load_plugins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aimux.config import Config

APP = web.AppKey("aimux", App)


def application(
    config: Mapping[str, Any] | str | os.PathLike[str], *, plugins: Plugins | None = None
) -> web.Application:
    """Mounts, API and all, to be run by aiohttp: `web.run_app(application("config.yaml"))`, or below a prefix of
    another application by `add_subapp`. Then there is no fast lane, and `listen` and `tls` have no effect.

    `config` is what a configuration file holds, or its path. It is read when the application starts, which raises
    what `App.start` does. `plugins`: instead of those that are installed.
    """
    found = plugins or load_plugins()
    app = control_application(routes=found.routes.values())

    async def running(app: web.Application) -> AsyncIterator[None]:
        logs = HostLogs()
        load: Callable[..., Config] = (
            partial(load_config, Path(config))
            if isinstance(config, str | os.PathLike)
            else partial(parse_config, config)
        )
        aimux = App(partial(load, environ=os.environ, providers=found.providers), found, logs, {})
        await aimux.start(listen=False)
        app[APP] = aimux
        app[CONTROL] = aimux.control
        try:
            yield
        finally:
            await aimux.stop()
            logs.close()

    app.cleanup_ctx.append(running)
    app.on_shutdown.append(_drain)
    return app


async def _drain(app: web.Application) -> None:
    gateway = app[APP].gateway
    gateway.open.draining = True
    gateway.sockets.drain()
