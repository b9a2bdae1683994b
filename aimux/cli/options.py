"""What commands share: the `--config` option, and reading what it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.config import Config, ConfigError
    from aimux.plugin.loader import Plugins

    F = TypeVar("F", bound=Callable[..., Any])


def _or_the_groups(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """`aimux --config FILE check-config` means the same as `aimux check-config --config FILE`."""
    outer = context.parent
    while value is None and outer is not None:
        value, outer = outer.params.get("config"), outer.parent
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


class ConfigRefused(click.ClickException):
    """Ends the command with every problem of the configuration on stderr, and exit code 1."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.problems = error.problems

    def show(self, file: Any = None) -> None:
        from aimux.cli.problems import show_problems

        show_problems(self.problems)


def config_path(explicit: Path | None) -> Path | None:
    """The configuration file that a command works with."""
    from aimux.config import find_config

    return find_config(explicit, os.environ, Path.cwd())


def read_config(explicit: Path | None, plugins: Plugins | None = None) -> Config:
    """The effective configuration for a command. A wrong one ends the command."""
    from aimux.config import ConfigError, load_config
    from aimux.plugin.loader import load_plugins

    plugins = plugins or load_plugins()
    try:
        return load_config(config_path(explicit), environ=os.environ, providers=plugins.providers)
    except ConfigError as error:
        raise ConfigRefused(error) from None
