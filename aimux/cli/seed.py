"""`aimux seed`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.asking import print_json
from aimux.cli.options import config_option, json_option, read_config
from aimux.cli.words import prose_on_stderr

if TYPE_CHECKING:
    from aimux.accounts import Vault
    from aimux.config import Config
    from aimux.plugin import Provider
    from aimux.plugin.loader import Plugins

STDIN = Path("-")


@click.command("seed", short_help="Put first credentials into the state folder.")
@config_option
@json_option
@click.argument("accounts", nargs=-1, required=True, metavar="PROVIDER[/ACCOUNT]=FILE|-...")
def seed_command(config: Path | None, accounts: tuple[str, ...], as_json: bool) -> None:
    """Copy credential files into the state folder, each only where there is none yet.

    For programs that set up a machine: a service's start, a container's init. aimux renews what is in the state folder,
    so a credential that is there is newer than FILE and stays. `-` is the standard input.
    """
    from aimux.plugin.loader import load_plugins

    wanted = [_parsed(written) for written in accounts]
    if sum(file == STDIN for *_, file in wanted) > 1:
        raise click.UsageError("The standard input can be one account's credential only.")
    plugins = load_plugins()
    settings = read_config(config, plugins, fields=("state_dir", "database", "providers"))
    with prose_on_stderr(as_json):
        seeded = asyncio.run(_seed(settings, plugins, wanted))
    if as_json:
        print_json({"items": seeded})


def _parsed(written: str) -> tuple[str, str, Path]:
    """Instance, account and file."""
    target, equals, file = written.partition("=")
    instance, slash, account = target.partition("/")
    if not (equals and file and instance) or (slash and not account):
        raise click.UsageError(f"{written!r} is not PROVIDER=FILE or PROVIDER/ACCOUNT=FILE.")
    return instance, account or "default", Path(file)


async def _seed(config: Config, plugins: Plugins, accounts: list[tuple[str, str, Path]]) -> list[dict[str, Any]]:
    """For each: its provider and name, and whether it was `added` or there before."""
    from aimux.accounts import VaultError, stores
    from aimux.storage import StorageError

    seeded = []
    try:
        async with stores(config) as (vault, _):
            for instance, account, file in accounts:
                added = await _put(vault, _provider(config, plugins, instance), account, file)
                seeded.append({"provider": instance, "name": account, "added": added})
    except (StorageError, VaultError) as error:
        raise click.ClickException(str(error)) from None
    return seeded


async def _put(vault: Vault, provider: Provider, account: str, file: Path) -> bool:
    """Put one file into the vault, unless the account is there. Returns whether it was put. Raises VaultError."""
    from aimux.accounts import Missing
    from aimux.accounts.credentials import parse_credential
    from aimux.plugin import CredentialError

    instance, file_name = provider.instance, provider.credential_file
    source = "the standard input" if file == STDIN else file
    try:
        await vault.read(instance, account, file_name)
    except Missing:
        pass
    else:
        click.echo(f"{instance}/{account} already exists.")
        return False
    try:
        # Blocking is fine here: a command has nothing else to do meanwhile.
        raw = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()  # noqa: ASYNC240
        parse_credential(provider, raw)
    except OSError as error:
        raise click.ClickException(f"can't read {file}: {error.strerror}") from None
    except CredentialError as error:
        raise click.ClickException(f"{source} {error}") from None
    await vault.write(instance, account, file_name, raw, expect=None)
    click.echo(f"{instance}/{account} comes from {source}.")
    return True


def _provider(config: Config, plugins: Plugins, instance: str) -> Provider:
    """The provider as it is configured; with no `providers` at all, every installed one counts."""
    from aimux.config import ConfigError, parse_config

    entries = config.providers
    if entries is None:
        try:
            content = {"state_dir": str(config.state_dir), "providers": [instance]}
            entries = parse_config(content, environ={}, providers=plugins.providers).providers
        except ConfigError as error:
            raise click.ClickException(f"{instance}: {error.problems[0].message}") from None
    if entries is None or instance not in entries:
        raise click.ClickException(f"the configuration has no provider {instance!r}; it has {', '.join(entries or ())}")
    entry = entries[instance]
    return plugins.providers[entry.plugin](entry.settings, instance=instance)
