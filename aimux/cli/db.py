"""`aimux db`: the database, and moving it to the other engine."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aimux.cli.asking import print_json
from aimux.cli.options import config_option, json_option, read_config, whole_path
from aimux.cli.words import say

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aimux.accounts import Stores
    from aimux.config import Config
    from aimux.plugin.loader import Plugins
    from aimux.storage import Database
    from aimux.storage.archive import Writer
    from aimux.storage.status import Status

T = TypeVar("T")
CREDENTIAL, STATE = "credential", "account_state"
ELSEWHERE = frozenset({"credentials", "account_states"})
"""Tables that go into the archive as files, because with SQLite they are files."""

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), callback=whole_path)


@click.group("db", short_help="Look after the database, or move it to the other engine.")
def db_command() -> None:
    """The database: its state, copying it, and moving it between SQLite and PostgreSQL.

    docs/database.md says more.
    """


@db_command.command("status", short_help="Show where it is, and in what state.")
@config_option
@json_option
@click.pass_context
def status_command(context: click.Context, config: Path | None, as_json: bool) -> None:
    """Show where it is, its version, whether it is whole, and what is in it. Change nothing.

    Exits with 1 if it can't be used as it is.
    """
    from aimux.storage import migrations
    from aimux.storage.status import status

    settings = read_config(config)
    found = _run(status(settings.database.address, settings.state_dir))
    if as_json:
        print_json(found.as_json())
    else:
        click.echo("\n".join(_lines(found, settings)))
    if found.damage or (found.schema is not None and found.schema > migrations.HEAD):
        context.exit(1)


@db_command.command("migrate", short_help="Migrate the tables to this version of aimux.")
@config_option
@json_option
def migrate_command(config: Path | None, as_json: bool) -> None:
    """Migrate the tables to this version of aimux, as a start does, or make them."""
    from aimux.storage.status import status

    settings = read_config(config)
    address, folder = settings.database.address, settings.state_dir

    async def migrate() -> tuple[Status, Status]:
        from aimux.storage import Database

        before = await status(address, folder)
        database = await Database.open(address, folder)
        async with database.read():  # which makes it where there is none
            pass
        await database.close()
        return before, await status(address, folder)

    before, after = _run(migrate())
    if as_json:
        print_json({"where": after.where, "from": before.schema, "to": after.schema})
    elif before.schema == after.schema:
        say(f"{after.where} has schema {after.schema} already.")
    else:
        click.echo(f"{after.where}: schema {before.schema or 'none'} → {after.schema}")


@db_command.command("backup")
@config_option
@_file
@json_option
def backup_command(config: Path | None, file: Path, as_json: bool) -> None:
    """Copy SQLite's file to FILE, whole, while aimux runs. (PostgreSQL's own tool is pg_dump.)"""
    from aimux.storage import sqlite_file
    from aimux.storage.database import FILE

    settings = read_config(config)
    if settings.database.url is not None:
        raise click.ClickException("the database is PostgreSQL's: use pg_dump, or aimux db export")
    if file.exists():
        raise click.ClickException(f"{file} already exists; choose another name")
    source = settings.state_dir / FILE
    if not source.exists():
        raise click.ClickException(f"there is no database yet: {source}")
    _run(asyncio.to_thread(sqlite_file.copy, source, file))
    if as_json:
        print_json({"file": str(file), "from": str(source), "size": file.stat().st_size})
        return
    say(f"{file} is a copy of {source}. Credentials are not in it: they are files in {settings.state_dir}.")


@db_command.command("export", short_help="Write everything into an archive.")
@config_option
@_file
@json_option
def export_command(config: Path | None, file: Path, as_json: bool) -> None:
    """Write everything into the archive FILE: users, tokens (as hashes), the ledger, and the accounts' credentials.

    The credentials in it are not encrypted, so it is as secret as they are (0600).
    """
    from aimux.plugin.loader import load_plugins

    plugins = load_plugins()
    settings = read_config(config, plugins)
    counts = _run(_export(settings, plugins, file))
    if as_json:
        print_json({"file": str(file), "counts": counts})
    else:
        click.echo(f"{file}: {_summary(counts)}")
        if counts.get(CREDENTIAL):
            say("It holds the accounts' credentials unencrypted: keep it as safe, and delete it after the move.")
    if missing := _run(_missing(settings)):
        say(missing, err=True)


@db_command.command("import", short_help="Import an archive of `aimux db export`.")
@config_option
@_file
@json_option
def import_command(config: Path | None, file: Path, as_json: bool) -> None:
    """Import an archive of `aimux db export` into the configured database, which has to be empty. All of it or
    nothing."""
    counts = _run(_import(read_config(config), file))
    if as_json:
        print_json({"file": str(file), "counts": counts})
    else:
        click.echo(f"{file}: {_summary(counts)}")


def _run(work: Coroutine[Any, Any, T]) -> T:
    from aimux.accounts import VaultError
    from aimux.storage import StorageError

    try:
        return asyncio.run(work)
    except (StorageError, VaultError) as error:
        raise click.ClickException(str(error)) from None


# --- export and import -----------------------------------------------------------------------------------------------


async def _export(config: Config, plugins: Plugins, file: Path) -> dict[str, int]:
    from aimux.accounts import stores_in
    from aimux.storage import Database, archive

    database = await Database.open(config.database.address, config.state_dir)
    try:
        with archive.writing(file, database.name) as writer:
            async for table, row in archive.rows(database, ELSEWHERE):
                writer.add(table, row)
            await _export_accounts(await stores_in(config, database), config, plugins, writer)
        return dict(writer.counts)
    finally:
        await database.close()


async def _missing(config: Config) -> str:
    """What a move would lose, in words."""
    from aimux.cli.remote import is_aimux
    from aimux.metering import spill
    from aimux.storage.status import status

    if await is_aimux(config) or (await status(config.database.address, config.state_dir)).nodes:
        return "aimux runs: what it does from now on is not in the export. To move, stop it and export again."
    folder = config.state_dir / spill.FOLDER
    waiting = sum(path.read_bytes().count(b"\n") for path in folder.glob(f"*{spill.SUFFIX}"))
    if not waiting:
        return ""
    return (
        f"{waiting} request{'s' * (waiting != 1)} in {folder} never reached the database, and the export lacks them:"
        " start aimux as it was, stop it, and export again."
    )


async def _export_accounts(stores: Stores, config: Config, plugins: Plugins, writer: Writer) -> None:
    from aimux.accounts.moving import credentials

    # Configured providers, and others that are installed: one may be out of the configuration for a while.
    files = {name: provider.credential_file for name, provider in plugins.providers.items()}
    for instance, entry in (config.providers or {}).items():
        files[instance] = plugins.providers[entry.plugin].credential_file
    async for found in credentials(stores.vault, files):
        instance, account, file_name, raw = found
        row = {"instance": instance, "account": account, "file": file_name, "content": base64.b64encode(raw).decode()}
        writer.add(CREDENTIAL, row)
    for (instance, account), entry in stores.state.entries().items():
        writer.add(STATE, {"instance": instance, "account": account, "entry": entry})


async def _import(config: Config, file: Path) -> dict[str, int]:
    from aimux.accounts import stores_in
    from aimux.accounts.moving import CredentialFile, put_credentials
    from aimux.storage import Database, StorageError, archive

    files: list[CredentialFile] = []
    states: dict[tuple[str, str], Any] = {}
    topics: list[str] = []
    known = {table.name for table in archive.tables(ELSEWHERE)}
    for kind, row in archive.read(file):  # the whole of it, before anything is written
        if kind == CREDENTIAL:
            raw = base64.b64decode(row["content"])
            files.append(CredentialFile(row["instance"], row["account"], row["file"], raw))
        elif kind == STATE:
            states[row["instance"], row["account"]] = row["entry"]
        elif kind == archive.TOPIC:
            topics.append(row["name"])
        elif kind not in known:
            raise StorageError(f"{file} holds {kind!r}, which this version of aimux does not know")
    database = await Database.open(config.database.address, config.state_dir)
    try:
        await _refuse_occupied(database)
        stores = await stores_in(config, database)
        # First the files, which may be there already if they are identical: so a failed import can be repeated.
        await put_credentials(stores.vault, files)
        await stores.state.put(states)
        lines = ((kind, row) for kind, row in archive.read(file) if kind in known)
        counts = await archive.put_rows(database, lines, topics)
        return {**counts, CREDENTIAL: len(files), STATE: len(states)}
    finally:
        await database.close()


async def _refuse_occupied(database: Database) -> None:
    from aimux.storage import StorageError, archive

    there = {name: count for name, count in (await archive.occupied(database)).items() if name not in ELSEWHERE}
    if there:
        raise StorageError(
            f"{database.name} is not empty ({_summary(there)})",
            remedy="import into a new database: nothing is written over",
        )


# --- words -----------------------------------------------------------------------------------------------------------


def _lines(found: Status, config: Config) -> list[str]:
    from aimux.accounts.sealing import key_id

    lines = [f"{found.where} ({'SQLite' if found.engine == 'sqlite' else 'PostgreSQL'} {found.server})"]
    if found.schema is None:
        return [*lines, "There are no tables yet: they are made at the first write, or by aimux db migrate."]
    if found.schema > found.wanted:
        lines.append(f"schema   {found.schema}: newer than this aimux, which knows {found.wanted} at most")
    elif found.schema < found.wanted:
        lines.append(f"schema   {found.schema}: aimux migrates it to {found.wanted} when it starts")
    else:
        lines.append(f"schema   {found.schema}")
    lines.append(f"size     {found.size / 1024 / 1024:.1f} MiB")
    if found.engine == "sqlite":
        lines.append(f"damage   {found.damage or 'none'}")
    if found.engine == "postgresql":
        lines.append(f"nodes    {', '.join(found.nodes) or 'none at present'}")
    current, *old = map(key_id, config.database.keys) if config.database.keys else [""]
    for key, count in found.keys.items():
        note = "" if key == current else " (an old one)" if key in old else " (which is not configured!)"
        lines.append(f"key      {key}{note} encrypts {count} credential file{'s' * (count != 1)}")
    width = max(map(len, found.tables), default=0)
    return lines + [f"{name:{width}}  {count}" for name, count in found.tables.items()]


def _summary(counts: dict[str, int]) -> str:
    told = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count and name != "topic"]
    return ", ".join(told) or "nothing"
