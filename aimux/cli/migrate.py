"""`aimux migrate`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aimux.migrate.sources import NAMES

if TYPE_CHECKING:
    from aimux.config import Config
    from aimux.migrate import Plan
    from aimux.plugin.loader import Plugins

_HEADER = """\
# Made by `aimux migrate` from {source}. Users are let in by the SHA-256 of the tokens that they have already.
"""


@click.command("migrate", short_help="Take over another gateway's configuration and accounts.")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--from", "source", type=click.Choice(NAMES), help="Which gateway it is, where FILE does not tell.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("config.yaml"),
    show_default=True,
    metavar="FILE",
    help="The configuration to write.",
)
@click.option(
    "--state-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the accounts go (~/.aimux)."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def migrate_command(file: Path, source: str | None, output: Path, state_dir: Path | None, dry_run: bool) -> None:
    """Make an aimux configuration and accounts from another gateway's FILE or folder.

    Known are maxmux, ai-mux, claude-proxy, claude-code-mux, Link.Assistant.Router (a file with its environment),
    sing-box (its ccm and ocm services) and CLIProxyAPI (its config.yaml or auth folder).

    FILE and all that it names are only read. Nothing that exists is overwritten. What aimux has no counterpart for is
    listed.
    """
    from aimux.migrate import MigrationError, read_source
    from aimux.plugin.loader import load_plugins

    plugins = load_plugins()
    try:
        plan = read_source(file, source)
        if state_dir is not None:
            plan.config["state_dir"] = str(state_dir.absolute())
        config = _validated(plan, output, plugins)
        credentials, renewable = _credentials(plan, config, plugins)
    except MigrationError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"a file that {file} names can't be looked at: {error.strerror}") from None
    if output.exists() and not dry_run:
        raise click.ClickException(f"{output} exists already, and nothing is overwritten: choose another --output")
    written = asyncio.run(_store(config, credentials, dry_run=dry_run))
    if not dry_run:
        _write_config(plan, output)
    _report(plan, written)
    if dry_run:
        click.echo(f"Nothing was written. Without --dry-run the configuration goes to {output}.")
        return
    click.echo(f"The configuration is in {output}. Next:")
    if renewable:
        click.echo("  Stop the old gateway for good: of two that renew the same login, one loses it.")
    click.echo(f"  aimux serve --config {output}")


Credentials = dict[tuple[str, str, str], bytes]
"""(instance, account, file name) → the file's content."""


def _validated(plan: Plan, output: Path, plugins: Plugins) -> Config:
    """The plan's configuration as aimux will read it. The environment's own AIMUX_… variables don't count here."""
    from aimux.config import ConfigError, parse_config
    from aimux.migrate import MigrationError

    environ = {"HOME": os.environ.get("HOME", "/")} | _referenced(plan)
    try:
        return parse_config(plan.config, environ=environ, providers=plugins.providers)
    except ConfigError as error:
        problems = "; ".join(f"{problem.where} {problem.message}" for problem in error.problems)
        raise MigrationError(f"what was read makes no valid configuration for {output}: {problems}") from None


def _referenced(plan: Plan) -> dict[str, str]:
    """A stand-in for each `${env:…}` of the plan: they need not be set on this machine, nor now."""
    import re

    names = re.findall(r"\$\{env:([^}]+)\}", repr(plan.config))
    return dict.fromkeys(names, "stands-in-for-a-secret")


def _credentials(plan: Plan, config: Config, plugins: Plugins) -> tuple[Credentials, bool]:
    """Every account's file, in the form of its provider, and whether any of them is of the kind that gets renewed.

    An account that its provider can't read becomes a note.
    """
    from aimux.plugin import CredentialError, LoginError

    made: Credentials = {}
    renewable = False
    for account in list(plan.accounts):
        entry = (config.providers or {})[account.instance]
        provider = plugins.providers[entry.plugin](entry.settings, instance=account.instance)
        try:
            raw = account.make(provider)
            renewable |= provider.parse_credential(raw).renewable
        except (CredentialError, LoginError) as error:
            plan.note(f"account {account.name!r} from {account.origin}", str(error))
            plan.accounts.remove(account)
            continue
        made[account.instance, account.name, provider.credential_file] = raw
    return made, renewable


async def _store(config: Config, credentials: Credentials, *, dry_run: bool) -> list[str]:
    """Put every credential into the state folder, or none. One that lies there already, byte for byte, is left."""
    from aimux.accounts import FileVault
    from aimux.accounts.vault import Missing, VaultError

    vault = FileVault(config.state_dir)
    lines, fresh = [], []
    try:
        for (instance, account, file_name), raw in credentials.items():
            try:
                there = await vault.read(instance, account, file_name)
            except Missing:
                fresh.append((instance, account, file_name, raw))
                lines.append(f"{instance}/{account}")
                continue
            if there != raw:
                raise click.ClickException(
                    f"{config.state_dir} has a different account {instance}/{account} already, and nothing is"
                    " overwritten: choose another --state-dir, or move that account away"
                )
            lines.append(f"{instance}/{account} (there already)")
        for instance, account, file_name, raw in [] if dry_run else fresh:
            await vault.write(instance, account, file_name, raw, expect=None)
    except VaultError as error:
        raise click.ClickException(str(error)) from None
    return lines


def _write_config(plan: Plan, output: Path) -> None:
    import yaml

    text = _HEADER.format(source=plan.source) + yaml.safe_dump(plan.config, sort_keys=False, allow_unicode=True)
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"can't write {output}: {error.strerror}") from None


def _report(plan: Plan, written: list[str]) -> None:
    users = [user["name"] for user in plan.config.get("users", [])]
    click.echo(f"From {plan.source}:")
    click.echo(f"  accounts  {', '.join(written) or 'none'}")
    click.echo(f"  users     {', '.join(users) or 'none'}")
    for prefix, provider in plan.config.get("mounts", {}).items():
        click.echo(f"  mount     {prefix} → {provider}")
    if plan.notes:
        click.echo("Not taken over:")
        for note in plan.notes:
            click.echo(f"  {note.what}: {note.why}")
