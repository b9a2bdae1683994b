"""`aimux migrate`."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.asking import print_json
from aimux.cli.options import json_option, whole_path
from aimux.cli.words import say

NAMES = ("ai-mux", "claude-code-mux", "claude-proxy", "cli-proxy-api", "link-assistant-router", "maxmux", "sing-box")
"""Of `aimux.migrate`, which would be long to import for the help alone."""

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aimux.accounts import FileVault
    from aimux.config import Config
    from aimux.migrate import FoundAccount, Note, Plan
    from aimux.plugin import Provider
    from aimux.plugin.loader import Plugins

SECRET_FILE = "token-secret"  # noqa: S105 - its name
_HEADER = """\
# Made by `aimux migrate` from {source}. Users are let in by the SHA-256 of the tokens that they have already.
"""


@click.command("migrate", short_help="Take over another gateway's configuration and accounts.")
@click.argument("file", type=click.Path(exists=True, path_type=Path), callback=whole_path)
@click.option("--from", "source", type=click.Choice(NAMES), help="Which gateway it is, where FILE does not tell.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    callback=whole_path,
    default=Path("config.yaml"),
    show_default=True,
    metavar="FILE",
    help="The configuration to write.",
)
@click.option(
    "--state-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the accounts go (~/.aimux)."
)
@click.option("--copy", is_flag=True, help="Copy the logins of the vendors' own CLIs instead of sharing them.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
@click.pass_context
def migrate_command(
    context: click.Context,
    file: Path,
    source: str | None,
    output: Path,
    state_dir: Path | None,
    copy: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make an aimux configuration and accounts from another gateway's FILE or folder.

    Known are maxmux, ai-mux, claude-proxy, claude-code-mux, Link.Assistant.Router (a file with its environment),
    sing-box (its ccm and ocm services) and CLIProxyAPI (its config.yaml or auth folder).

    FILE and all that it names are only read. Nothing that exists is overwritten. What aimux has no counterpart for is
    listed, and if something essential stays behind, the exit code is 1. A login in the home of the vendor's own CLI is
    shared with it; with --copy it is copied, for a machine where that CLI is no longer used.
    """
    from aimux.migrate import MigrationError, read_source
    from aimux.plugin.loader import load_plugins

    plugins = load_plugins()
    try:
        plan = read_source(file, source)
        if state_dir is not None:
            plan.config["state_dir"] = str(state_dir.absolute())
        config = _validated(plan, output, plugins)
        credentials = _credentials(plan, config, plugins, copy=copy)
    except MigrationError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"a file that {file} names can't be looked at: {error.strerror}") from None
    if output.exists() and not dry_run:
        raise click.ClickException(f"{output} exists already, and nothing is overwritten: choose another --output")
    written = asyncio.run(_store(config, plugins, credentials, dry_run=dry_run))
    if not dry_run:
        asyncio.run(_revoke(config, plan.revoked))
        _keep_secret(plan, config)
        _write_config(plan, output)
    if as_json:
        print_json(_as_json(plan, output, written, dry_run=dry_run))
    else:
        _tell(plan, output, written, credentials, dry_run=dry_run)
    if any(note.essential for note in plan.notes):
        context.exit(1)


def _tell(plan: Plan, output: Path, written: list[str], credentials: list[_Credential], *, dry_run: bool) -> None:
    _report(plan, written)
    if dry_run:
        say(f"Nothing was written. Without --dry-run the configuration goes to {output}.")
    else:
        _next_steps(plan, output, credentials)


@dataclass(frozen=True, slots=True)
class _Credential:
    """An account's credential file, or with `target` the file elsewhere that it shares."""

    account: FoundAccount
    provider: Provider
    raw: bytes = field(repr=False)
    renewable: bool
    target: Path | None


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
    """A placeholder for each `${env:…}` of the plan: they need not be set on this machine, or now."""
    names = re.findall(r"\$\{env:([^}]+)\}", repr(plan.config))
    return dict.fromkeys(names, "stands-in-for-a-secret")


def _credentials(plan: Plan, config: Config, plugins: Plugins, *, copy: bool) -> list[_Credential]:
    """Every account's file, in the form of its provider. An account that its provider can't read becomes a note,
    and so does a second copy of a login."""
    from aimux.config import provider_instances
    from aimux.migrate import MigrationError
    from aimux.plugin import CredentialError, LoginError

    providers = provider_instances(config, plugins.providers)
    made = []
    owners: dict[tuple[str, str], FoundAccount] = {}
    """By provider and refresh token."""
    for account in list(plan.accounts):
        provider = providers[account.instance]
        try:
            raw = account.make(provider)
            refresh_token = provider.parse_credential(raw).refresh_token
        except (CredentialError, LoginError, MigrationError) as error:
            plan.drop(account, str(error))
            continue
        renewable = refresh_token is not None
        if refresh_token is not None:
            kept = owners.setdefault((account.instance, refresh_token), account)
            if kept is not account:
                plan.merge(account, kept)
                continue
        shared = renewable and not copy and (account.vendors or _of_vendors_cli(account.file, provider))
        made.append(_Credential(account, provider, raw, renewable, account.file if shared else None))
    if not made:
        plan.loss("accounts", "none came along: aimux login PROVIDER, or aimux import")
    return made


def _of_vendors_cli(file: Path | None, provider: Provider) -> bool:
    """Whether the vendor's own CLI keeps its login there, and goes on renewing it."""
    if file is None:
        return False
    home = Path.home()
    places = {(path.parent.name, path.name) for path in provider.vendor_logins({}, home)}
    return (file.parent.name, file.name) in places or file in provider.vendor_logins(os.environ, home)


async def _store(config: Config, plugins: Plugins, credentials: list[_Credential], *, dry_run: bool) -> list[str]:
    """Put every credential into the state folder, or none. An identical one that is there already is left."""
    from aimux.accounts.stores import file_vault
    from aimux.accounts.vault import VaultError

    vault = file_vault(config)
    lines, fresh = [], []
    try:
        for credential in credentials:
            account, target = credential.account, credential.target
            there = await _is_there(vault, credential, config.state_dir)
            if target is not None and target.stat().st_mode & 0o077:
                raise click.ClickException(
                    f"{target} can be read by others and is not shared like that: chmod 600 it, or say --copy"
                )
            how = f", shared with {target}" if target else ", disabled" if account.disabled else ""
            lines.append(account.full_name + (" (there already)" if there else how))
            if not there:
                fresh.append(credential)
        if not dry_run:
            fresh.sort(key=lambda credential: credential.target is None)  # what may be refused comes first
            for credential in fresh:
                account, file_name = credential.account, credential.provider.credential_file
                if credential.target is not None:
                    await vault.link(account.instance, account.name, file_name, credential.target)
                else:
                    await vault.write(account.instance, account.name, file_name, credential.raw, expect=None)
            await _switch_off(config, vault, [credential for credential in fresh if credential.account.disabled])
    except VaultError as error:
        raise click.ClickException(str(error)) from None
    return lines


async def _is_there(vault: FileVault, credential: _Credential, state_dir: Path) -> bool:
    from aimux.accounts.vault import Missing

    account, file_name = credential.account, credential.provider.credential_file
    try:
        there = await vault.read(account.instance, account.name, file_name)
    except Missing:
        return False
    if there != credential.raw:
        raise click.ClickException(
            f"{state_dir} has a different account {account.full_name} already, and nothing is"
            " overwritten: choose another --state-dir, or move that account away"
        )
    return True


async def _switch_off(config: Config, vault: FileVault, credentials: Iterable[_Credential]) -> None:
    """Accounts that are disabled there stay disabled here."""
    from aimux.accounts import AccountPool, ControlHttp, PoolOptions, StateFile

    by_provider: dict[Provider, list[str]] = {}
    for credential in credentials:
        by_provider.setdefault(credential.provider, []).append(credential.account.name)
    state, http = StateFile(config.state_dir / "accounts.json"), ControlHttp()
    try:
        for provider, names in by_provider.items():
            pool = AccountPool(provider, vault, http, options=PoolOptions(state=state))
            await pool.load()
            for name in names:
                pool.accounts[name].disable()
            await pool.close()
    finally:
        await http.close()


async def _revoke(config: Config, subjects: Mapping[str, str]) -> None:
    """What was revoked there stays revoked here."""
    from aimux.people import Actor, People, from_config
    from aimux.people.issuing import revoke_subject
    from aimux.storage import Database, StorageError

    if not subjects:
        return
    try:
        database = await Database.open(config.database.address, config.state_dir)
        try:
            for subject, label in subjects.items():
                people = People(database, from_config(config))
                await revoke_subject(people, Actor("aimux migrate", ""), subject, issuer="", reason=label)
        finally:
            await database.close()
    except StorageError as error:
        raise click.ClickException(str(error)) from None


def _keep_secret(plan: Plan, config: Config) -> None:
    """The secret that signs tokens goes into a file of its own, and the file's path into the configuration."""
    jwt = plan.config.get("auth", {}).get("jwt")
    if jwt is None:
        return
    path = config.state_dir / SECRET_FILE
    _write_new(path, jwt["secret"], folders=True)
    jwt["secret"] = f"${{file:{path}}}"


def _write_config(plan: Plan, output: Path) -> None:
    import yaml

    text = _HEADER.format(source=plan.source) + yaml.safe_dump(plan.config, sort_keys=False, allow_unicode=True)
    _write_new(output, text)


def _write_new(path: Path, text: str, *, folders: bool = False) -> None:
    """The whole file or none: half a configuration would be in the way of the next try, or be used."""
    from aimux import atomic

    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "it exists already, and nothing is overwritten")
        if folders:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write(path, text.encode())
    except OSError as error:
        raise click.ClickException(f"can't write {path}: {error.strerror}") from None


# --- what is said ----------------------------------------------------------------------------------------------------


def _as_json(plan: Plan, output: Path, written: list[str], *, dry_run: bool) -> dict[str, Any]:
    """`tokens`: new ones by user, which are shown only now. `accounts` are in the same words as for people."""
    return {
        "source": plan.source,
        "output": None if dry_run else str(output),
        "accounts": written,
        "users": [user["name"] for user in plan.config.get("users", [])],
        "tokens": {} if dry_run else dict(plan.issued),
        "mounts": plan.config.get("mounts", {}),
        "warnings": [_note(note) for note in plan.warnings],
        "stayed_behind": [_note(note) for note in plan.notes],
    }


def _note(note: Note) -> dict[str, Any]:
    return {"what": note.what, "why": note.why, "essential": note.essential}


def _report(plan: Plan, written: list[str]) -> None:
    users = [user["name"] for user in plan.config.get("users", [])]
    click.echo(f"From {plan.source}:")
    for line in written or ["none"]:
        say(f"  account   {line}", hang=12)
    if "auth" in plan.config:
        users.append("whoever has a token that was signed there")
    say(f"  users     {', '.join(users) or 'none'}", hang=12)
    if "admin" in plan.config:
        click.echo("  admin     whoever has the admin key of that gateway")
    for prefix, provider in plan.config.get("mounts", {}).items():
        click.echo(f"  mount     {prefix} → {provider}")
    _list("Warnings:", plan.warnings)
    _list("Stayed behind (! what somebody has to see to):", plan.notes)


def _list(title: str, notes: list[Note]) -> None:
    if notes:
        click.echo(title)
    for note in sorted(notes, key=lambda note: not note.essential):
        say(f"{'!' if note.essential else ' ':>3} {note.what}: {note.why}", hang=4)


def _next_steps(plan: Plan, output: Path, credentials: list[_Credential]) -> None:
    if plan.issued:
        say("New tokens, which are shown only now. Give each to its owner:")
        for name, token in plan.issued.items():
            click.echo(f"  {name}  {token}")
    say(f"The configuration is in {output}. Next:")
    if any(credential.renewable and credential.target is None for credential in credentials):
        say("  Stop the old gateway for good: of two that renew the same login, one loses it.", hang=2)
    click.echo(f"  aimux serve --config {output}")
