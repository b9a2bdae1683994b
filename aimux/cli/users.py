"""`aimux users`: who may call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from aimux.cli import suggest
from aimux.cli.asking import ask, confirm, every, given, print_json, print_lines, print_table, tell
from aimux.cli.options import config_option, json_option, refuse_json
from aimux.cli.words import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_name = click.argument("name", metavar="NAME", shell_complete=suggest.users)
_roles = click.Choice(["member", "viewer", "admin"])


@click.group("users", invoke_without_command=True, short_help="Show and change who may call.")
@config_option
@json_option
@click.pass_context
def users_command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Show the users.

    A running server is asked, and obeys at once. Without one, the database in its state folder is read and changed.
    """
    if as_json:
        refuse_json(context, users_command)
    if context.invoked_subcommand is None:
        _list(config, None, as_json)


@users_command.command("list")
@click.option("--group", metavar="GROUP", help="Only its members.")
@config_option
@json_option
def list_command(group: str | None, config: Path | None, as_json: bool) -> None:
    """Show the users."""
    _list(config, group, as_json)


@users_command.command("add")
@click.argument("name", metavar="NAME")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group to be in; may be repeated.")
@click.option("--role", type=_roles, default="member", show_default=True, help="What the user may do to aimux itself.")
@click.option("--email", metavar="E-MAIL", help="An e-mail address.")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="What may be used: a provider, model:PATTERN; repeated."
)
@click.option("--pin-accounts", is_flag=True, help="May choose an account by x-aimux-account.")
@click.option("--own-login", is_flag=True, help="May send a login or key of the vendor's along.")
@config_option
@json_option
def add_command(
    name: str,
    groups: tuple[str, ...],
    role: str,
    email: str | None,
    scopes: tuple[str, ...],
    pin_accounts: bool,
    own_login: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Add a user. A token comes next: aimux tokens issue --user NAME."""
    body = {
        "name": name,
        "email": email,
        "role": role,
        "groups": list(groups),
        "scopes": list(scopes),
        "pin_accounts": pin_accounts,
        "own_login": own_login,
    }
    user = ask(config, lambda backend: backend.call("POST", "/users", body))
    tell(user, as_json, f"{user['name']} is added. Give them a token: aimux tokens issue --user {user['name']}")


@users_command.command("show")
@_name
@config_option
@json_option
def show_command(name: str, config: Path | None, as_json: bool) -> None:
    """Show a user."""
    user = ask(config, lambda backend: backend.call("GET", _path(name)), changes=False)
    if as_json:
        print_json(user)
        return
    lines = {
        "e-mail": user["email"] or "",
        "role": user["role"],
        "groups": ", ".join(user["groups"]),
        "may use": ", ".join(user["scopes"]) or "everything",
        "state": "enabled" if user["enabled"] else "disabled",
        "accounts": "may choose one by x-aimux-account" if user["pin_accounts"] else "",
        "own login": "may be sent along" if user["own_login"] else "",
        "added": user["created_at"] or "",
        "set in": "the configuration" if user["configured"] else "",
    }
    print_lines(user["name"], lines)


@users_command.command("set")
@_name
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group to be in, in place of all; repeated.")
@click.option("--no-groups", is_flag=True, help="Be in none.")
@click.option("--role", type=_roles, help="What the user may do to aimux itself.")
@click.option("--email", metavar="E-MAIL", help="An e-mail address; '' takes it away.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="What may be used, in place of all; repeated.")
@click.option("--no-scopes", is_flag=True, help="May use everything.")
@click.option("--pin-accounts/--no-pin-accounts", default=None, help="May choose an account by x-aimux-account.")
@click.option("--own-login/--no-own-login", default=None, help="May send a login or key of the vendor's along.")
@config_option
@json_option
def set_command(
    name: str,
    groups: tuple[str, ...],
    no_groups: bool,
    role: str | None,
    email: str | None,
    scopes: tuple[str, ...],
    no_scopes: bool,
    pin_accounts: bool | None,
    own_login: bool | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Change a user; what is not named stays."""
    if (groups and no_groups) or (scopes and no_scopes):
        raise click.UsageError("--group excludes --no-groups, and --scope excludes --no-scopes.")
    body = given(
        groups=list(groups) if groups or no_groups else None,
        role=role,
        scopes=list(scopes) if scopes or no_scopes else None,
        pin_accounts=pin_accounts,
        own_login=own_login,
    )
    if email is not None:
        body["email"] = email or None
    if not body:
        raise click.UsageError("There is nothing to change: see aimux users set --help.")
    _change(config, name, body, as_json, "is changed")


@users_command.command("disable")
@_name
@config_option
@json_option
def disable_command(name: str, config: Path | None, as_json: bool) -> None:
    """Refuse a user's tokens until further notice. Open requests end."""
    _change(config, name, {"enabled": False}, as_json, "is disabled")


@users_command.command("enable")
@_name
@config_option
@json_option
def enable_command(name: str, config: Path | None, as_json: bool) -> None:
    """Take a user's tokens again."""
    _change(config, name, {"enabled": True}, as_json, "is enabled")


@users_command.command("remove")
@_name
@click.option("--yes", is_flag=True, help="Don't ask.")
@config_option
@json_option
def remove_command(name: str, yes: bool, config: Path | None, as_json: bool) -> None:
    """Remove a user with all tokens, which can't be used again."""
    confirm(f"Remove {name}, with all tokens?", yes=yes, what=f"the user {name} would be removed, with all tokens")
    ask(config, lambda backend: backend.call("DELETE", _path(name)))
    tell({"name": name, "removed": True}, as_json, f"{name} is removed, and the tokens are revoked.")


def _path(name: str) -> str:
    return f"/users/{quote(name, safe='')}"


def _list(config: Path | None, group: str | None, as_json: bool) -> None:
    users = ask(config, lambda backend: every(backend, "/users", group=group), changes=False)
    if as_json:
        print_json({"items": users})
    elif not users:
        say("There is no user yet: aimux users add NAME." if group is None else f"Nobody is in {group}.")
    else:
        rows = [
            (
                user["name"],
                user["role"],
                ", ".join(user["groups"]) or "-",
                ", ".join(user["scopes"]) or "everything",
                user["email"] or "-",
                _state(user),
            )
            for user in users
        ]
        print_table(("NAME", "ROLE", "GROUPS", "MAY USE", "E-MAIL", "STATE"), rows)


def _state(user: Mapping[str, Any]) -> str:
    return ("enabled" if user["enabled"] else "disabled") + (", in the configuration" if user["configured"] else "")


def _change(config: Path | None, name: str, body: Mapping[str, Any], as_json: bool, done: str) -> None:
    user = ask(config, lambda backend: backend.call("PATCH", _path(name), body))
    tell(user, as_json, f"{name} {done}.")
