"""`aimux check-config`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.options import ConfigRefused, config_option, config_path, json_option
from aimux.cli.words import warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aimux.config import Config, Problem
    from aimux.plugin.loader import Plugins


@click.command("check-config", short_help="Check the configuration.")
@config_option
@click.option("--print", "show", is_flag=True, help="Print the effective configuration, with its secrets masked.")
@click.option(
    "--without-secrets",
    is_flag=True,
    help="Read no token file and no ${…} reference: for a machine that has none of them, such as a build's sandbox.",
)
@json_option
@click.pass_context
def check_config_command(
    context: click.Context, config: Path | None, show: bool, without_secrets: bool, as_json: bool
) -> None:
    """Check the configuration, environment variables included.

    Exits with 0, or with 1 and every problem: where it is, what is wrong, and what to do.
    """
    from aimux.cli.problems import foreign_hint, show_problems
    from aimux.config import ConfigError, check_form, load_config, masked
    from aimux.plugin.loader import load_plugins

    if show and without_secrets:
        raise click.UsageError("--print needs the secrets that --without-secrets leaves out.")
    path = config_path(config)
    plugins = load_plugins()
    for plugin in plugins.failed:
        warn(f"the plugin {plugin.name} ({plugin.distribution}) is left out: {plugin.error}")
    effective: Config | None = None
    try:
        if without_secrets:
            check_form(path, environ=os.environ, providers=plugins.providers)
        else:
            effective = load_config(path, environ=os.environ, providers=plugins.providers)
    except ConfigError as error:
        if not as_json:
            raise ConfigRefused(error) from None
        _print({"ok": False, "problems": _told(error.problems), "hint": foreign_hint(error.problems) or None})
        context.exit(1)
    warnings = [*effective.warnings, *_unknown_gateways(effective, plugins)] if effective is not None else []
    if as_json:
        told: dict[str, Any] = {"ok": True, "problems": [], "warnings": _told(warnings)}
        if effective is not None:
            told["accounts"] = [_reached(one) for one in _who_reaches_what(effective)]
            if show:
                told["config"] = masked(effective)
        _print(told)
        return
    show_problems(warnings, "warning")
    if show and effective is not None:
        import yaml

        click.echo(yaml.safe_dump(masked(effective), sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(f"{path or 'the configuration (there is no file)'}: ok")
        if effective is not None:
            for one in _who_reaches_what(effective):
                click.echo(f"  {one.provider}: {one.account} serves {one.serves}: {one.some()}")


def _unknown_gateways(config: Config, plugins: Plugins) -> Iterator[Problem]:
    """Names in `compatibility` that no plugin knows: nothing is served for them, as a start says, too."""
    from aimux.config import Problem

    known, origin = plugins.gateways, config.origin
    variable = origin.variables.get(("compatibility",), "")
    for index, name in enumerate(config.compatibility):
        if name not in known:
            where = f"compatibility[{index}]"
            line = None if variable else origin.lines.get(("compatibility", index))
            message, remedy = f"no plugin knows {name!r}", f"known are {', '.join(known)}"
            yield Problem(where, line, message, remedy, variable or str(origin.file or ""))


def _print(told: dict[str, Any]) -> None:
    from aimux.cli.asking import print_json  # brings asyncio, which the rest of this command does without

    print_json(told)


def _told(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """`path`: the setting's place in the configuration. `file`: the file or environment variable that it is in."""
    return [
        {
            "path": problem.where,
            "file": problem.source or None,
            "line": problem.line,
            "message": problem.message,
            "remedy": problem.remedy or None,
        }
        for problem in problems
    ]


@dataclass(frozen=True, slots=True)
class _Reached:
    """An account, or all of a provider's that the file does not name, and the users whom it serves."""

    provider: str
    name: str | None
    account: str
    serves: str
    users: list[str]

    def some(self) -> str:
        """The first ten of the users."""
        more = f" and {len(self.users) - 10} more" if len(self.users) > 10 else ""
        return ", ".join(self.users[:10]) + more or "nobody of this file"


def _reached(one: _Reached) -> dict[str, Any]:
    """`name` is null for every account that the file does not name."""
    return {"provider": one.provider, "name": one.name, "serves": one.serves, "users": one.users}


def _who_reaches_what(config: Config) -> Iterator[_Reached]:
    """If groups or scopes make a difference: the accounts that the configuration names, and the users in it."""
    bound = any(user.groups or user.scopes for user in config.users) or any(g.scopes for g in config.groups.values())
    different = {
        provider: entry.settings.accounts
        for provider, entry in (config.providers or {}).items()
        if bound or any(settings.groups for settings in entry.settings.accounts.values())
    }
    if not different:
        return  # and nothing has to be imported, as for most configurations
    from aimux.people import Directory, from_config
    from aimux.people.reach import serves, users_of
    from aimux.plugin import AccountSettings

    directory = Directory(from_config(config))
    for provider, named in different.items():
        rest = "every other account" if named else "every account"
        for account, settings in [*named.items(), (None, AccountSettings())]:
            names = users_of(directory, provider, settings)
            yield _Reached(provider, account, account or rest, serves(directory, settings), list(names))
