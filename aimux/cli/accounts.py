"""`aimux accounts` and what can be done with one account."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from aimux.cli import suggest
from aimux.cli.asking import ask, confirm, every, given, print_json, tell
from aimux.cli.options import AccountName, config_option, json_option, refuse_json
from aimux.cli.words import say, warn

if TYPE_CHECKING:
    from pathlib import Path

    from aimux.cli.calls import Backend

_name_argument = click.argument("name", metavar="[PROVIDER/]NAME", shell_complete=suggest.accounts)


@click.group("accounts", invoke_without_command=True, short_help="Show the accounts, and change them.")
@config_option
@json_option
@click.pass_context
def accounts_command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Show the accounts: state and why, limits used, when they reset.

    A running server is asked, and obeys at once. Without one, the files in its state folder are read and changed.
    """
    if as_json:
        refuse_json(context, accounts_command)
    if context.invoked_subcommand is None:
        accounts = ask(config, _all, changes=False)
        if as_json:
            print_json(accounts)
        elif accounts:
            from aimux.cli.show import accounts_table

            accounts_table(accounts)
        else:
            say("There is no account yet: aimux login PROVIDER, or aimux import.")


@accounts_command.command("show")
@_name_argument
@config_option
@json_option
def show_command(name: str, config: Path | None, as_json: bool) -> None:
    """Show all that is known of an account."""
    from aimux.cli.show import account_lines

    async def read(backend: Backend) -> tuple[dict[str, Any], list[str]]:
        account = await find(backend, name)
        return account, (await backend.call("GET", f"{_path(account)}/users"))["items"]

    account, users = ask(config, read, changes=False)
    if as_json:
        print_json(account)
    else:
        account_lines(account, users)


@accounts_command.command("enable", short_help="Let an account serve again.")
@_name_argument
@config_option
@json_option
def enable_command(name: str, config: Path | None, as_json: bool) -> None:
    """Let an account serve again, whatever took it out of service: a person, a refusal, or a cooldown."""
    _tell(ask(config, lambda backend: _act(backend, name, "enable")), as_json)


@accounts_command.command("disable")
@_name_argument
@config_option
@json_option
def disable_command(name: str, config: Path | None, as_json: bool) -> None:
    """Take an account out of service. Its login is kept fresh; open requests end as usual."""
    _tell(ask(config, lambda backend: _act(backend, name, "disable")), as_json)


@accounts_command.command("set", short_help="Change an account's weight, priority and groups.")
@_name_argument
@click.option("--weight", type=float, help="Share of the load against the others: 2 takes twice as much.")
@click.option("--priority", type=int, help="Lower is tried first, whatever the strategy.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Whom it serves, in place of all; repeated.")
@click.option("--no-groups", is_flag=True, help="It serves everybody.")
@config_option
@json_option
def set_command(
    name: str,
    weight: float | None,
    priority: int | None,
    groups: tuple[str, ...],
    no_groups: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Change an account's weight, priority and groups; whatever is not named stays.

    Accounts that the configuration has settings for are changed there.
    """
    if groups and no_groups:
        raise click.UsageError("--group excludes --no-groups.")
    body = given(weight=weight, priority=priority, groups=list(groups) if groups or no_groups else None)
    if not body:
        raise click.UsageError("There is nothing to change: see aimux accounts set --help.")

    async def change(backend: Backend) -> dict[str, Any]:
        return await backend.call("PATCH", _path(await find(backend, name)), body)

    account = ask(config, change)
    if as_json:
        print_json(account)
    else:
        about = f"weight {account['weight']:g}, priority {account['priority']}, serves {account['serves']}"
        say(f"{_full(account)}: {about}.")


@accounts_command.command("rename")
@_name_argument
@click.argument("new", type=AccountName(full=True))
@config_option
@json_option
def rename_command(name: str, new: str, config: Path | None, as_json: bool) -> None:
    """Give an account another name. Its state and conversations stay."""
    _tell(ask(config, lambda backend: _act(backend, name, "rename", {"name": new})), as_json)


@accounts_command.command("remove")
@_name_argument
@click.option("--yes", is_flag=True, help="Don't ask.")
@config_option
@json_option
def remove_command(name: str, yes: bool, config: Path | None, as_json: bool) -> None:
    """Delete an account's credential. A login that is shared with the vendor's CLI stays that CLI's."""

    async def remove(backend: Backend) -> str:
        account = await find(backend, name)
        full = _full(account)
        confirm(f"Remove {full}, and its credential with it?", yes=yes, what=f"{full} would be removed")
        await backend.call("DELETE", _path(account))
        return full

    full = ask(config, remove)
    tell({"account": full, "removed": True}, as_json, f"{full} is removed.")


@accounts_command.command("refresh")
@_name_argument
@config_option
@json_option
def refresh_command(name: str, config: Path | None, as_json: bool) -> None:
    """Renew an account's login now, however long it still lasts."""
    _tell(ask(config, lambda backend: _act(backend, name, "refresh")), as_json)


@accounts_command.command("test")
@_name_argument
@config_option
@json_option
@click.pass_context
def test_command(context: click.Context, name: str, config: Path | None, as_json: bool) -> None:
    """Make the cheapest real call with an account. Exits with 1 where it does not work."""
    tested = ask(config, lambda backend: _act(backend, name, "test"))
    full, state = _full(tested["account"]), tested["account"]["status"]
    if as_json:
        print_json(tested)
    elif tested["ok"]:
        out = "" if state == "healthy" else f" It is {state}: aimux accounts show {full}"
        say(f"{full} works: {tested['status']} after {tested['seconds']:.2f} s.{out}")
    else:
        answered = f" ({tested['status']})" if tested["status"] else ""
        remedy = f" → {tested['remedy']}" if tested["remedy"] else ""
        say(f"{full} does not work{answered}: {tested['reason']}{remedy}", err=True)
    if not tested["ok"]:
        context.exit(1)


# --- what they share -------------------------------------------------------------------------------------------------


async def _all(backend: Backend) -> list[dict[str, Any]]:
    return await every(backend, "/accounts")


async def find(backend: Backend, name: str) -> dict[str, Any]:
    """The account that `NAME` or `PROVIDER/NAME` means. Ends the command if there is none, or more than one."""
    accounts = await _all(backend)
    found = [account for account in accounts if name in {account["name"], _full(account)}]
    if len(found) == 1:
        return found[0]
    if found:
        raise click.UsageError(f"Which one? {', '.join(map(_full, found))}")
    near = get_close_matches(name, [text for account in accounts for text in (account["name"], _full(account))], n=1)
    if near:
        hint = f"Did you mean {near[0]!r}?"
    elif accounts:
        hint = f"There are: {', '.join(map(_full, accounts))}."
    else:
        hint = "There is none yet: aimux login PROVIDER, or aimux import."
    raise click.UsageError(f"There is no account {name!r}. {hint}")


async def _act(backend: Backend, name: str, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    account = await find(backend, name)
    return await backend.call("POST", f"{_path(account)}/{verb}", body)


def _full(account: dict[str, Any]) -> str:
    return f"{account['provider']}/{account['name']}"


def _path(account: dict[str, Any]) -> str:
    return f"/accounts/{_full(account)}"


def _tell(account: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(account)
    else:
        report(account)


def report(account: dict[str, Any]) -> None:
    """Print one line: whose it is and its state. On stderr, what is odd about it."""
    from aimux.cli.show import expires_or_expired, same_login, state

    now = datetime.now(UTC)
    expires = f"; {expires_or_expired(account, now)}" if account["expires_at"] else ""
    say(f"{_full(account)}: {state(account, now)}{expires}")
    if account["same_as"]:
        warn(f"{_full(account)} {same_login(account)}")
