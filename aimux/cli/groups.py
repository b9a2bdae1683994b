"""`aimux groups`: what users share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from aimux.cli.asking import ask, confirm, every, given, print_json, print_lines, print_table, tell
from aimux.cli.options import config_option, json_option, refuse_json
from aimux.cli.words import say

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.cli.calls import Backend

_name = click.argument("name", metavar="NAME")


@click.group("groups", invoke_without_command=True, short_help="Show and change what users share.")
@config_option
@json_option
@click.pass_context
def groups_command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Show the groups. Accounts are put into them by `aimux accounts set`, or by `providers.NAME.accounts` of the
    configuration."""
    if as_json:
        refuse_json(context, groups_command)
    if context.invoked_subcommand is None:
        _list(config, as_json)


@groups_command.command("list")
@config_option
@json_option
def list_command(config: Path | None, as_json: bool) -> None:
    """Show the groups."""
    _list(config, as_json)


@groups_command.command("add")
@_name
@click.option("--reserved", is_flag=True, help="Its accounts serve its members alone.")
@click.option("--own-login", is_flag=True, help="Its members may send a login or key of the vendor's along.")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="What may be used: a provider, model:PATTERN; repeated."
)
@config_option
@json_option
def add_command(
    name: str, reserved: bool, own_login: bool, scopes: tuple[str, ...], config: Path | None, as_json: bool
) -> None:
    """Add a group."""
    body = {"name": name, "reserved": reserved, "own_login": own_login, "scopes": list(scopes)}
    group = ask(config, lambda backend: backend.call("POST", "/groups", body))
    tell(group, as_json, f"{name} is added.")


@groups_command.command("show")
@_name
@config_option
@json_option
def show_command(name: str, config: Path | None, as_json: bool) -> None:
    """Show a group, and who is in it."""

    async def read(backend: Backend) -> dict[str, Any]:
        group = await backend.call("GET", _path(name))
        return group | {"users": [user["name"] for user in await every(backend, "/users", group=name)]}

    group = ask(config, read, changes=False)
    if as_json:
        print_json(group)
        return
    lines = {
        "members": ", ".join(group["users"]) or "nobody",
        "accounts": ", ".join(group["accounts"]) or "none",
        "reserved": "its accounts serve nobody else" if group["reserved"] else "",
        "may use": ", ".join(group["scopes"]),
        "own login": "may be sent along" if group["own_login"] else "",
        "added": group["created_at"] or "",
        "set in": "the configuration" if group["configured"] else "",
    }
    print_lines(name, lines)


@groups_command.command("set")
@_name
@click.option("--reserved/--not-reserved", default=None, help="Whether its accounts serve its members alone.")
@click.option("--own-login/--no-own-login", default=None, help="Its members may send a login of the vendor's along.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="What may be used, in place of all; repeated.")
@click.option("--no-scopes", is_flag=True, help="It says nothing about what may be used.")
@config_option
@json_option
def set_command(
    name: str,
    reserved: bool | None,
    own_login: bool | None,
    scopes: tuple[str, ...],
    no_scopes: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Change a group; what is not named stays."""
    if scopes and no_scopes:
        raise click.UsageError("--scope excludes --no-scopes.")
    body = given(reserved=reserved, own_login=own_login, scopes=list(scopes) if scopes or no_scopes else None)
    if not body:
        raise click.UsageError("There is nothing to change: see aimux groups set --help.")
    group = ask(config, lambda backend: backend.call("PATCH", _path(name), body))
    tell(group, as_json, f"{name} is changed.")


@groups_command.command("remove")
@_name
@click.option("--yes", is_flag=True, help="Don't ask.")
@config_option
@json_option
def remove_command(name: str, yes: bool, config: Path | None, as_json: bool) -> None:
    """Remove a group that has no members. The accounts that it reserves serve everybody afterwards."""
    confirm(f"Remove the group {name}?", yes=yes, what=f"the group {name} would be removed")
    ask(config, lambda backend: backend.call("DELETE", _path(name)))
    tell({"name": name, "removed": True}, as_json, f"{name} is removed.")


def _path(name: str) -> str:
    return f"/groups/{quote(name, safe='')}"


def _list(config: Path | None, as_json: bool) -> None:
    groups = ask(config, lambda backend: every(backend, "/groups"), changes=False)
    if as_json:
        print_json({"items": groups})
    elif not groups:
        say("There is no group yet: aimux groups add NAME.")
    else:
        rows = [
            (
                group["name"],
                str(group["members"]),
                ", ".join(group["accounts"]) or "-",
                "yes" if group["reserved"] else "no",
                ", ".join(group["scopes"]) or "everything",
                "the configuration" if group["configured"] else "-",
            )
            for group in groups
        ]
        print_table(("NAME", "MEMBERS", "ACCOUNTS", "RESERVED", "MAY USE", "SET IN"), rows, numbers={"MEMBERS"})
