"""What commands need: the configuration, and something that carries out the admin API's operations."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import click

from aimux.cli.options import ConfigRefused, config_path
from aimux.config import ConfigError, load_leniently, provider_instances
from aimux.plugin.loader import load_plugins

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from aimux.config import Config
    from aimux.control.api.problems import Problem
    from aimux.plugin import Provider
    from aimux.plugin.loader import Plugins


class ApiRefused(click.ClickException):
    """The API refused: ends the command with its words, unless the command knows better."""

    def __init__(self, problem: Problem) -> None:
        detail = problem.detail.removeprefix("body.")  # whoever types a command has sent none
        super().__init__(f"{detail.removesuffix('.')} → {problem.remedy}" if problem.remedy else detail)
        self.problem = problem
        self.word = problem.type.removeprefix("urn:aimux:")


class Backend(Protocol):
    """Carries out operations of the admin API. `live`: a running server does."""

    live: bool
    address: str
    """The server's; "" for files."""

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
    """The configuration, as much of it as a command needs, and the plugins that it is checked with.

    Outside the service its secrets may be out of reach (`${cred:…}`), and a command for the running server needs none
    of the users' secrets. A wrong configuration ends the command.
    """

    def __init__(self, config: Path | None) -> None:
        self.path = config_path(config)
        self.plugins: Plugins = load_plugins()

    @cached_property
    def reach(self) -> Config:
        """Where the server is: `listen`, `state_dir`, `tls` and `admin`. Nothing else is read."""
        return self._load({"listen", "state_dir", "tls", "admin"})

    @cached_property
    def providers(self) -> dict[str, Provider]:
        """By the names that the configuration gives them."""
        return provider_instances(self._load({"providers"}), self.plugins.providers)

    def provider(self, name: str) -> Provider:
        """The one that a person named. Ends the command if there is none."""
        if (found := self.providers.get(name)) is None:
            there = ", ".join(self.providers) or "none"
            raise click.UsageError(f"There is no provider {name!r}; there are: {there}.")
        return found

    @cached_property
    def whole(self) -> Config:
        """The whole configuration, for work without a server."""
        return self._load(None)

    def _load(self, fields: Collection[str] | None) -> Config:
        try:
            return load_leniently(self.path, environ=os.environ, providers=self.plugins.providers, fields=fields)
        except ConfigError as error:
            raise ConfigRefused(error) from None
