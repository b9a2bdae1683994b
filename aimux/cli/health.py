"""`aimux health`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from aimux.cli.asking import tell
from aimux.cli.options import config_option, json_option
from aimux.cli.words import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command("health", short_help="Ask the running server whether it answers.")
@config_option
@json_option
def health_command(config: Path | None, as_json: bool) -> None:
    """Ask the running server whether it answers: 0 if it does, 1 if not.

    The configuration says where it is, also with TLS or on a unix socket, and no key is needed: for a container's
    health check, or a script that waits. Where nothing is configured, a running demo is found as well. /ready tells
    whether accounts can serve.
    """
    from aimux.cli.backend import demo_of
    from aimux.cli.calls import Setting
    from aimux.cli.remote import is_aimux, listening

    async def answers() -> bool:
        if await is_aimux(setting.reach):
            return True
        demo = demo_of(setting, await listening(setting.reach))
        if demo is None or not await is_aimux(demo.reach):
            return False
        say(f"This is the demo at http://{demo.reach.listen}.", err=True)
        return True

    setting = Setting(config)
    if not asyncio.run(answers()):
        remedy = "start it (aimux serve), or name the configuration of the one that runs (--config)"
        raise click.ClickException(f"no aimux answers at {setting.reach.listen} → {remedy}")
    tell({"status": "ok"}, as_json, "ok")
