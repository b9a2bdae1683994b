"""`aimux check-config`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from aimux.cli.options import ConfigRefused, config_option, config_path
from aimux.cli.words import warn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aimux.config import Config


@click.command("check-config", short_help="Check the configuration.")
@config_option
@click.option("--print", "show", is_flag=True, help="Print the effective configuration, with its secrets masked.")
@click.option(
    "--without-secrets",
    is_flag=True,
    help="Read no token file and no ${…} reference: for a machine that has none of them, such as a build's sandbox.",
)
def check_config_command(config: Path | None, show: bool, without_secrets: bool) -> None:
    """Check the configuration, environment variables included.

    Exits with 0, or with 1 and every problem: where it is, what is wrong, and what to do.
    """
    from aimux.cli.problems import show_problems
    from aimux.config import ConfigError, check_form, load_config, masked
    from aimux.plugin.loader import load_plugins

    if show and without_secrets:
        raise click.UsageError("--print needs the secrets that --without-secrets leaves out.")
    path = config_path(config)
    plugins = load_plugins()
    for plugin in plugins.failed:
        warn(f"the plugin {plugin.name} ({plugin.distribution}) is left out: {plugin.error}")
    try:
        if without_secrets:
            check_form(path, environ=os.environ, providers=plugins.providers)
        else:
            effective = load_config(path, environ=os.environ, providers=plugins.providers)
            show_problems(effective.warnings, "warning")
    except ConfigError as error:
        raise ConfigRefused(error) from None
    if show:
        import yaml

        click.echo(yaml.safe_dump(masked(effective), sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(f"{path or 'the configuration (there is no file)'}: ok")
        if not without_secrets:
            for line in _who_reaches_what(effective):
                click.echo(line)


def _who_reaches_what(config: Config) -> Iterator[str]:
    """Where groups or scopes make a difference: the accounts that the configuration names, and the users in it."""
    bound = any(user.groups or user.scopes for user in config.users) or any(g.scopes for g in config.groups.values())
    different = {
        provider: entry.settings.accounts
        for provider, entry in (config.providers or {}).items()
        if bound or any(settings.groups for settings in entry.settings.accounts.values())
    }
    if not different:
        return  # and nothing is imported for it: this is what most configurations need
    from aimux.people import Directory, from_config
    from aimux.people.reach import serves, users_of
    from aimux.plugin import AccountSettings

    directory = Directory(from_config(config))
    for provider, named in different.items():
        rest = "every other account" if named else "every account"
        for account, settings in [*named.items(), (rest, AccountSettings())]:
            names = users_of(directory, provider, settings)
            some = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
            yield f"  {provider}: {account} serves {serves(directory, settings)}: {some or 'nobody of this file'}"
