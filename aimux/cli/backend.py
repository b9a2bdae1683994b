"""What commands work on: the running server that the configuration names, or else its files."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING

import click

from aimux.cli.demo import running_demo
from aimux.cli.files import Files, local_parts
from aimux.cli.remote import STATE_VARIABLE, admin_key, command_there, listening, remote, stranger
from aimux.cli.words import say
from aimux.config import Listen
from aimux.config.environment import KEY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aimux.cli.calls import Backend, Setting


@asynccontextmanager
async def backend(setting: Setting, *, changes: bool = True) -> AsyncIterator[Backend]:
    """The server if one listens there, otherwise the files. Says on stderr which of them.

    Nothing is changed if *another* aimux listens there: it would never see the change, although its user would believe
    that it did.
    """
    address = await listening(setting.reach)
    if (demo := demo_of(setting, address)) is not None:
        setting = demo
        address = await listening(setting.reach)
    reach = setting.reach
    key = admin_key(setting) if address is not None else None
    if address is not None and key is not None:
        say(f"Using the {'demo' if demo else 'server'} at {address}.", err=True)
        async with remote(setting, address, key) as opened:
            yield opened
        return
    other = await stranger(reach) if address is not None else None
    if other is not None and changes:
        where = f" keeps its state in {os.path.dirname(other.key_file)}" if other.key_file else " has another key"  # noqa: PTH120
        remedy = (
            command_there(other.key_file) or f"\n  set {KEY_VARIABLE} to its admin key, or to the token of an admin"
        )
        raise click.ClickException(
            f"the aimux that listens on {reach.listen}{where}, not in {reach.state_dir}: nothing was changed. To reach"
            f" it:{remedy}"
        )
    who = "Another aimux, with another state folder," if other is not None else "Another program"
    used = setting.whole.database.shown or reach.state_dir
    say(f"{'No server' if address is None else who} listens on {reach.listen}: using {used}.", err=True)
    async with local_parts(setting) as parts:
        files = Files(parts)
        try:
            yield files
        finally:
            await files.close()


def demo_of(setting: Setting, address: str | None) -> Setting | None:
    """The setting of a running demo, if nothing is configured and nothing else listens there."""
    if setting.path is not None or any(name in os.environ for name in ("AIMUX_LISTEN", STATE_VARIABLE)):
        return None
    demo = running_demo()
    if demo is None or (address is not None and str(setting.reach.listen) != demo.listen):
        return None
    found, theirs = copy(setting), {"listen": Listen.parse(demo.listen), "state_dir": demo.state_dir}
    found.reach, found.whole = (known.model_copy(update=theirs) for known in (setting.reach, setting.whole))
    return found
