"""What a shell may complete: existing providers, accounts and users. No error is ever shown."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import click

    from aimux.config import Config
    from aimux.plugin import Provider

    Setting = tuple[Config, dict[str, Provider]]


def providers(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the configuration's providers."""
    return _those(context, incomplete, lambda setting: setting[1])


def accounts(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """`PROVIDER/NAME`, or the name alone if the text begins like it and only one account has it."""

    def names(setting: Setting) -> Iterator[str]:
        found = asyncio.run(_accounts(setting))
        short = [name for _, name in found]
        yield from (f"{provider}/{name}" for provider, name in found)
        yield from (name for name in short if incomplete and short.count(name) == 1)

    return _those(context, incomplete, names)


def users(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the users, of the configuration and of the database."""
    from aimux.cli.reach import people_of

    return _those(context, incomplete, lambda setting: asyncio.run(people_of(setting[0])).users)


def owners(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """`user:NAME`."""
    return [f"user:{name}" for name in users(context, _parameter, incomplete.removeprefix("user:"))]


def _those(context: click.Context, incomplete: str, names: Callable[[Setting], Iterable[str]]) -> list[str]:
    from aimux.cli.options import read_config
    from aimux.config import provider_instances
    from aimux.plugin.loader import load_plugins

    logging.disable()
    try:
        given = next((c.params["config"] for c in _chain(context) if c.params.get("config")), None)
        plugins = load_plugins()
        config = read_config(given, plugins)
        found = names((config, provider_instances(config, plugins.providers)))
        return sorted({name for name in found if name.startswith(incomplete)})
    except Exception:  # a shell's line is no place for errors
        return []


def _chain(context: click.Context | None) -> Iterator[click.Context]:
    while context is not None:
        yield context
        context = context.parent


async def _accounts(setting: Setting) -> list[tuple[str, str]]:
    from aimux.accounts import stores

    config, providers = setting
    async with stores(config) as (vault, _):
        return [
            (name, account)
            for name, provider in providers.items()
            for account in await vault.list(name, provider.credential_file)
        ]
