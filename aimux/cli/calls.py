"""What an account command needs: the configuration, and something that carries out the admin API's operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import click

from aimux.cli.options import config_path, read_config
from aimux.plugin.loader import load_plugins

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aimux.config import Config
    from aimux.control.api.problems import Problem
    from aimux.plugin.loader import Plugins


class ApiRefused(click.ClickException):
    """The API said no: ends the command with its words, unless the command knows better."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.detail.removesuffix('.')} → {problem.remedy}" if problem.remedy else problem.detail)
        self.problem = problem
        self.word = problem.type.removeprefix("urn:aimux:")


class Backend(Protocol):
    """Carries out operations of the admin API. `live`: a running server does."""

    live: bool

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> dict[str, Any]:
        """The answer; `path` is below `/api/v1`. Raises ApiRefused."""
        ...


class Setting:
    """The configuration, and the plugins that it was checked with."""

    def __init__(self, config: Path | None) -> None:
        self.path = config_path(config)
        self.plugins: Plugins = load_plugins()
        self.config: Config = read_config(config, self.plugins)
