"""`aimux doctor`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import click

from aimux.cli.asking import print_json
from aimux.cli.options import config_option, config_path, json_option

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.cli.doctor.finding import Finding
    from aimux.plugin import Provider

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "bold yellow"), "error": ("✗", "bold red")}


@click.command("doctor", short_help="Look for whatever keeps aimux from working.")
@config_option
@json_option
@click.option("--offline", is_flag=True, help="Leave out upstreams and clock, which take the network.")
@click.option(
    "--live",
    metavar="[TOKEN]",
    is_flag=False,
    flag_value="-",
    help="Try the running gateway instead, as a client with this user's token. Others on this machine can see a token "
    "that is an argument: without it, it comes from AIMUX_TOKEN, a hidden prompt or standard input.",
)
@click.option("--url", help="With --live: the gateway's address as clients reach it, if that is another.")
@click.pass_context
def doctor_command(
    context: click.Context, config: Path | None, as_json: bool, offline: bool, live: str | None, url: str | None
) -> None:
    """Check configuration, permissions, address, certificate, database, accounts, upstreams and clock; say what to do.

    Run it as the user that aimux runs as. Exits with 1 if something is broken; with warnings only it exits with 0.

    With --live, check from outside what clients experience: tokens, errors, streams, limits, WebSocket. Each mount gets
    one small streamed request.
    """
    if live is not None:
        findings = _live(config, live, url)
    elif url is not None:
        raise click.UsageError("--url belongs to --live.")
    else:
        findings = asyncio.run(examine(config_path(config), offline=offline))
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    elif sys.stdout.isatty():
        _show_on_terminal(findings)
    else:
        for finding in findings:
            click.echo(finding)
    if any(finding.status == "error" for finding in findings):
        context.exit(1)


def _live(config: Path | None, token: str, url: str | None) -> list[Finding]:
    from aimux.cli.doctor.live import examine_live
    from aimux.cli.reach import known_people, reach, refuse_vendor_token, takes_anybody, token_of_a_person

    known = reach(config, url)
    if token == "-":  # noqa: S105 - the place where it is
        nobody = takes_anybody(known, known_people(known))
        token = "" if nobody else token_of_a_person("Your aimux token")
        if not token and not nobody:
            raise click.UsageError("There is no token: set AIMUX_TOKEN, or give it on standard input.")
    refuse_vendor_token(token, known)
    return asyncio.run(examine_live(known, token))


async def examine(path: Path | None, *, offline: bool) -> list[Finding]:
    """Everything that was found. It ends with a configuration that can't be read: the rest depends on it."""
    from aimux.accounts import ControlHttp
    from aimux.cli.doctor import accounts, database, machine, setup, upstreams
    from aimux.config import ConfigError, load_config, provider_instances
    from aimux.plugin.loader import load_plugins

    plugins = load_plugins()
    found = setup.of_plugins(plugins)
    try:
        config = load_config(path, environ=os.environ, providers=plugins.providers)
    except ConfigError as error:
        return found + setup.of_config_error(error)
    http = ControlHttp()
    try:
        found += setup.of_config(config, path)
        found += setup.of_notices(config)
        found += setup.of_signer(config)
        found += machine.of_state_dir(config.state_dir)
        found += await machine.of_address(config)
        found += machine.of_certificate(config)
        providers = provider_instances(config, plugins.providers)
        found_database, usable = await database.of_database(config)
        found += found_database
        used: list[Provider] = []
        if usable or config.database.url is None:  # otherwise the accounts can't be looked at
            found_accounts, used = await accounts.of_accounts(config, providers, http)
            found += found_accounts
        if not offline:
            found += await setup.of_signers_address(config, http)
            found += await upstreams.of_upstreams(used or list(providers.values()), http)
    finally:
        await http.close()
    return found


def _show_on_terminal(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=40, overflow="fold")
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.status]
        text = Text(finding.message)
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style="green")
        table.add_row(Text(mark, style), Text(finding.subject, "cyan"), text)
    console = Console(highlight=False)
    console.print(table)
    count = {status: sum(finding.status == status for finding in findings) for status in _MARKS}
    console.print(f"\n{count['error']} broken, {count['warning']} to look after, {count['ok']} fine", style="bold")
