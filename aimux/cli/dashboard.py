"""`aimux dashboard`."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.asking import ask, print_json
from aimux.cli.options import config_option, json_option

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.cli.calls import Backend


@click.command("dashboard", short_help="Print a link that signs you in to the dashboard.")
@config_option
@click.option("--user", metavar="NAME", help="Whom the link signs in; without it, an administrator.")
@click.option("--open", "open_it", is_flag=True, help="Open it in a browser.")
@json_option
def dashboard_command(config: Path | None, user: str | None, open_it: bool, as_json: bool) -> None:
    """Print a link that signs a browser in to the running server's dashboard.

    It works once, and for five minutes.
    """

    async def link(backend: Backend) -> tuple[dict[str, Any], str]:
        if not backend.live:
            raise click.ClickException("The dashboard is a part of the running server, and no server is running.")
        return await backend.call("POST", "/sign-in-links", {"user": user} if user else {}), backend.address

    made, address = ask(config, link)
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
