"""What the account commands work on: the running server that the configuration names, or else its files."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.demo import running_demo
from aimux.cli.files import Files, local_parts
from aimux.cli.server import admin_key, listening, server
from aimux.config import Listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aimux.cli.calls import Backend, Setting


@asynccontextmanager
async def backend(setting: Setting) -> AsyncIterator[Backend]:
    """The server if one listens there, else the files. Says on stderr which it is."""
    config = setting.config
    address = await listening(config)
    if (demo := _demo(setting, address)) is not None:
        setting, config = demo, demo.config
        address = await listening(config)
    key = admin_key(setting) if address is not None else None
    if address is not None and key is not None:
        click.echo(f"Using the {'demo' if demo else 'server'} at {address}.", err=True)
        async with server(setting, address, key) as opened:
            yield opened
        return
    none = "No server" if address is None else "Another program, or an aimux with another state folder,"
    click.echo(f"{none} listens on {config.listen}: using {config.database.shown or config.state_dir}.", err=True)
    async with local_parts(setting) as parts:
        files = Files(parts)
        try:
            yield files
        finally:
            await files.close()


def _demo(setting: Setting, address: str | None) -> Setting | None:
    """The setting of a demo that runs, where nobody has configured anything and nothing else listens there."""
    if setting.path is not None or any(name in os.environ for name in ("AIMUX_LISTEN", "AIMUX_STATE_DIR")):
        return None
    demo = running_demo()
    if demo is None or (address is not None and str(setting.config.listen) != demo.listen):
        return None
    found = copy(setting)
    found.config = setting.config.model_copy(update={"listen": Listen.parse(demo.listen), "state_dir": demo.state_dir})
    return found


async def every_account(backend: Backend) -> list[dict[str, Any]]:
    """All accounts, by provider and name."""
    found: list[dict[str, Any]] = []
    query: dict[str, str | int] = {"limit": 1000}
    while True:
        page = await backend.call("GET", "/accounts", query=query)
        found += page["items"]
        if page["next"] is None:
            return found
        query["after"] = page["next"]
