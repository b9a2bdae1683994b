"""`aimux reload`."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.asking import ask, print_json
from aimux.cli.options import config_option, json_option, read_config
from aimux.cli.words import say, sentence, warn

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.cli.calls import Backend


@click.command("reload", short_help="Have the running server take its configuration again.")
@click.option(
    "--pid", type=click.IntRange(2), help="The server's process: it is signalled where its key can't be read."
)
@config_option
@json_option
def reload_command(pid: int | None, config: Path | None, as_json: bool) -> None:
    """Have the running server take its configuration again.

    Exits with 0 if it did, and with 1 and every problem if not: then the old one stays. Open requests go on in any
    case.
    """
    from aimux.cli.calls import ApiRefused

    async def reload(backend: Backend) -> dict[str, Any]:
        if not backend.live:
            raise click.ClickException(
                "there is no running server to reload; one whose `listen` was changed is restarted"
            )
        return await backend.call("POST", "/reload")

    try:
        result = ask(config, reload)
    except ApiRefused as refused:
        if refused.word != "configuration":
            raise
        for fault in refused.problem.errors or []:
            say(sentence(fault.message), err=True)
        raise click.ClickException(refused.problem.detail) from None
    except click.ClickException as error:
        if pid is None:
            raise
        say(sentence(error.message), err=True)
        read_config(config)  # a bad one ends the command here, with its problems
        os.kill(pid, signal.SIGHUP)
        click.echo(f"Process {pid} was told to reload its configuration.")
        return
    if as_json:
        print_json(result)
        return
    for warning in result["warnings"]:
        warn(warning)
    for name in result["after_restart"]:
        warn(f"`{name}` changed: that needs a restart")
    click.echo("The configuration was reloaded.")
