"""`aimux health`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from aimux.cli.asking import tell
from aimux.cli.options import config_option, json_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("health", short_help="Ask the running server whether it answers.")
@config_option
@json_option
def health_command(config: Path | None, as_json: bool) -> None:
    """Ask the running server whether it answers: 0 if it does, 1 if not.

    The configuration says where it is, also with TLS or on a unix socket, and no key is needed: for a container's
    health check, or a script that waits. /ready tells whether accounts can serve.
    """
    from aimux.cli.calls import Setting
    from aimux.cli.remote import is_aimux

    reach = Setting(config).reach
    if not asyncio.run(is_aimux(reach)):
        raise click.ClickException(f"no aimux answers at {reach.listen}")
    tell({"status": "ok"}, as_json, "ok")
