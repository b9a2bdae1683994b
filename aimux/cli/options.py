"""What commands share: the `--config` option, and reading what it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aimux.cli.words import say

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aimux.config import Config, ConfigError
    from aimux.plugin.loader import Plugins

    F = TypeVar("F", bound=Callable[..., Any])
    _TextType = click.ParamType[str]
else:
    _TextType = click.ParamType  # no generic class in click 8.1


def _or_the_groups(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """`aimux --config FILE check-config` means the same as `aimux check-config --config FILE`."""
    outer = context.parent
    while not value and outer is not None:
        value, outer = outer.params.get(parameter.name or "") or value, outer.parent
    return value


def config_option(command: F) -> F:
    """Add `--config FILE`, passed on as `config: Path | None`."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        callback=_or_the_groups,
        help="The configuration file (YAML or JSON).",
    )(command)


def whole_path(_: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """A file named by a bare word, by its whole path: a message that begins with it would be given a capital."""
    bare = value is not None and str(value) == value.name and "." not in value.name
    return value.absolute() if value is not None and bare else value


def json_option(command: F) -> F:
    """Add `--json`, passed on as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, callback=_or_the_groups, help="Print JSON.")(command)


def refuse_json(context: click.Context, group: click.Group, otherwise: str = "") -> None:
    """For a group that was given `--json`: its subcommand has to print JSON. `otherwise`: what runs without one."""
    name = context.invoked_subcommand or otherwise
    command = group.get_command(context, name) if name else None
    if isinstance(command, click.Group):
        return  # a subcommand of it decides
    if command is not None and not any(parameter.name == "as_json" for parameter in command.params):
        raise click.UsageError(f"{name} prints no JSON: leave out --json.", context)


class AccountName(_TextType):
    """An account's name within its provider, checked before anything is asked or done. `full`: the provider may precede
    it, and is left out."""

    name = "name"

    def __init__(self, *, full: bool = False) -> None:
        self._full = full

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from aimux.accounts.vault import ACCOUNT_NAME

        chosen = str(value).rpartition("/")[2] if self._full else str(value)
        if not ACCOUNT_NAME.fullmatch(chosen):
            told = f"{chosen!r} can't be an account's name"
            self.fail(f"{told}: use letters, digits and . _ @ + -, at most 64, a letter or digit first.", param, ctx)
        return chosen


class ConfigRefused(click.ClickException):
    """End the command with every problem of the configuration on stderr, and exit code 1."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.problems = error.problems

    def show(self, file: Any = None) -> None:
        from aimux.cli.problems import foreign_hint, show_problems

        show_problems(self.problems)
        if hint := foreign_hint(self.problems):
            say(hint, err=True)


def config_path(explicit: Path | None) -> Path | None:
    """The configuration file that a command works with."""
    from aimux.config import find_config
    from aimux.config.files import working_folder

    return find_config(explicit, os.environ, working_folder(os.environ))


def read_config(
    explicit: Path | None, plugins: Plugins | None = None, *, fields: Collection[str] | None = None
) -> Config:
    """The effective configuration for a command. A wrong one ends the command.

    `fields`: only these, for a command that does not have all of the service's secrets and works without them.
    """
    from aimux.config import ConfigError, load_config, load_leniently
    from aimux.plugin.loader import load_plugins

    path, providers = config_path(explicit), (plugins or load_plugins()).providers
    try:
        if fields is not None:
            return load_leniently(path, environ=os.environ, providers=providers, fields=fields)
        return load_config(path, environ=os.environ, providers=providers)
    except ConfigError as error:
        raise ConfigRefused(error) from None
