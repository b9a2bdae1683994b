"""`aimux dashboard`."""

from __future__ import annotations

import asyncio
import webbrowser
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.asking import print_json
from aimux.cli.options import config_option, json_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("dashboard", short_help="Print a link that signs you in to the dashboard.")
@config_option
@click.option("--user", metavar="NAME", help="Whom the link signs in; without it, an administrator.")
@click.option("--open", "open_it", is_flag=True, help="Open it in a browser.")
@json_option
def dashboard_command(config: Path | None, user: str | None, open_it: bool, as_json: bool) -> None:
    """Print a link that signs a browser in to the running server's dashboard.

    It works once, and for five minutes.
    """
    from aimux.cli.backend import backend
    from aimux.cli.calls import Setting

    async def link() -> dict[str, Any]:
        async with backend(setting) as opened:
            if not opened.live:
                raise click.ClickException("The dashboard is a part of the running server, and no server is running.")
            made = await opened.call("POST", "/sign-in-links", {"user": user} if user else {})
            return {**made, "address": opened.address}

    setting = Setting(config)
    made = asyncio.run(link())
    address = made.pop("address")
    url = None if address.startswith("unix:") else address.rstrip("/") + made["path"]
    if as_json:
        print_json({"url": url, **made})
    elif url is None:
        click.echo(f"The server listens on {address}: behind the address of what stands in front of it, open")
        click.echo(made["path"])
    else:
        click.echo(url)
    if open_it and url is not None:
        webbrowser.open(url)
