"""`aimux serve`."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import click

from aimux.cli.options import ConfigRefused, config_option, config_path, read_config

if TYPE_CHECKING:
    from pathlib import Path


@click.command("serve", short_help="Run the gateway. Plain `aimux` does the same.")
@click.option("--or-demo", is_flag=True, help="While there is no account and no configuration yet, run the demo.")
@config_option
def serve_command(config: Path | None, or_demo: bool = False) -> None:
    """Run the gateway until SIGTERM or Ctrl-C. SIGHUP makes it read its configuration again.

    The address, the accounts and what is missing go to stdout, logs to stderr.
    """
    gc.set_threshold(50_000)  # what a start makes stays: looking for cycles in it took 4 to 9 % of the time
    from aimux.accounts import VaultError
    from aimux.app import run
    from aimux.certificates import TLSError
    from aimux.cli.banner import print_banner
    from aimux.config import ConfigError, load_config
    from aimux.front.listening import ListenError
    from aimux.storage import StorageError

    try:
        if or_demo and _nothing_yet(config):
            from aimux.cli.demo import run_demo

            run_demo(os.environ.get("AIMUX_LISTEN", "127.0.0.1:8080"))
            return
        run(
            # The file is searched for at each reload: it may exist by then.
            lambda plugins: load_config(config_path(config), environ=os.environ, providers=plugins.providers),
            print_banner,
        )
    except ConfigError as error:
        raise ConfigRefused(error) from None
    except (ListenError, OSError, StorageError, TLSError, VaultError) as error:
        raise click.ClickException(str(error)) from None


def _nothing_yet(config: Path | None) -> bool:
    """A first start: nobody has configured anything, and the state folder holds no account."""
    import asyncio

    from aimux.accounts.stores import file_vault
    from aimux.plugin.loader import load_plugins

    if config_path(config) is not None:
        return False
    plugins = load_plugins()
    settings = read_config(None, plugins)  # by the environment
    if settings.users or settings.providers is not None or settings.database.url:
        return False
    vault = file_vault(settings)

    async def accounts() -> bool:
        return any([await vault.list(name, provider.credential_file) for name, provider in plugins.providers.items()])

    return not asyncio.run(accounts())
