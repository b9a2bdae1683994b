"""`aimux import`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aimux.cli import suggest
from aimux.cli.asking import print_json
from aimux.cli.options import AccountName, config_option, json_option, whole_path
from aimux.cli.words import prose_on_stderr, say, sentence

if TYPE_CHECKING:
    from aimux.cli.calls import Backend, Setting
    from aimux.cli.found_logins import FoundLogin


@click.command("import", short_help="Take over logins of the vendors' own CLIs.")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path), callback=whole_path)
@click.option(
    "--provider",
    metavar="NAME",
    shell_complete=suggest.providers,
    help="Whose login it is, where the file does not tell.",
)
@click.option(
    "--account",
    type=AccountName(),
    metavar="NAME",
    help="The account's name; without it: default, or one after the person.",
)
@click.option("--link", is_flag=True, help="Share the login with the vendor's CLI instead of copying it.")
@click.option("--force", is_flag=True, help="Replace an account of that name without asking.")
@config_option
@json_option
def import_command(
    path: Path | None,
    provider: str | None,
    account: str | None,
    link: bool,
    force: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Take over logins that the vendors' own CLIs have on this machine, or those in PATH (a file or folder).

    PATH may also be a file that another program keeps logins in, each of which becomes an account: opencode's
    auth.json, an export of sub2api, CLIProxyAPI's files.

    Copy a login that gets renewed only if the program that it comes from is no longer used: of two programs that renew
    the same login, one loses it. With --link both use, and renew, the same file.
    """
    from aimux.cli.calls import Setting
    from aimux.cli.found_logins import find

    setting = Setting(config)
    found = find(path, setting.providers if provider is None else {provider: setting.provider(provider)})
    if not found:
        places = f"in {path}" if path else "on this machine, where the vendors' CLIs keep theirs"
        raise click.ClickException(f"there is no login {places}: give a PATH, or use aimux login")
    if account is not None and len(found) > 1:
        where = ", ".join(f"{login.where} ({login.provider.instance})" for login in found)
        raise click.UsageError(f"There are {len(found)} logins, and one name: {where}. Give one PATH, or --provider.")
    with prose_on_stderr(as_json):
        taken = asyncio.run(_import(setting, found, account, link=link, force=force))
    if as_json:
        print_json({"items": taken})
    if left := len(found) - len(taken):
        raise click.ClickException(f"{left} of {len(found)} logins were left where they are")


async def _import(
    setting: Setting, found: list[FoundLogin], account: str | None, *, link: bool, force: bool
) -> list[dict[str, Any]]:
    """The accounts made from them. A login that can't be taken ends the command if it is the only one."""
    from aimux.cli.backend import backend

    for login in found:
        if link and login.part is not None:
            raise click.ClickException(
                f"{login.path} has logins in a form of its own, which can't be shared: import copies (without --link),"
                f" and stop using them there; or log in anew: aimux login {login.provider.instance}"
            )
    taken = []
    async with backend(setting) as opened:
        for login in found:
            try:
                if link:
                    taken.append(await _link(opened, setting, login, account, force=force))
                else:
                    taken.append(await _copy(opened, login, account, force=force))
            except click.Abort as abort:
                if len(found) == 1 or isinstance(abort.__context__, KeyboardInterrupt | EOFError):
                    raise
            except click.ClickException as error:
                if len(found) == 1:
                    raise
                say(f"Not taken: {sentence(error.message)}", err=True)
    if renewed := sorted(
        {login.provider.instance for login in found if login.part is not None and login.credential.renewable}
    ):
        anew = " and ".join(f"aimux login {instance}" for instance in renewed)
        say(
            "Only one program can keep renewing a login, and the other one gets logged out: stop using these in the"
            f" program that they come from, or log in anew for aimux: {anew}"
        )
    return taken


async def _copy(backend: Backend, login: FoundLogin, account: str | None, *, force: bool) -> dict[str, Any]:
    from aimux.cli.login import save
    from aimux.plugin import credential_text

    text = credential_text(login.raw)
    if login.raw.strip() == text.encode():
        text = login.raw.decode()  # unchanged if it is plain UTF-8
    body = {"provider": login.provider.instance, "file": text, "name": account, "replace": force}
    click.echo(f"{login.where}:")
    saved = await save(backend, body)
    if login.credential.renewable and login.part is None:
        say(
            "Only one program can keep renewing this login, and the other one gets logged out: stop using it there,"
            " or have both use the same file: aimux import --link"
        )
    return saved


async def _link(
    backend: Backend, setting: Setting, login: FoundLogin, account: str | None, *, force: bool
) -> dict[str, Any]:
    """Always made on the files: a running server sees it at its next look, which the last call triggers."""
    from aimux.accounts import FileVault
    from aimux.cli.accounts import report
    from aimux.cli.files import local_parts
    from aimux.cli.login import ask_to_replace
    from aimux.control.api.saving import choose_name

    instance, file_name = login.provider.instance, login.provider.credential_file
    async with local_parts(setting) as parts:
        accounts = parts.pool(instance).accounts
        name = account or choose_name(login.credential, accounts)
        vault = parts.vault
        if not isinstance(vault, FileVault):
            raise click.ClickException(
                "a login can be shared with another program only as a file, and with database.url credentials are rows:"
                " import a copy (without --link), and stop using the login there"
            )
        there = name in accounts
        if there:
            if (await vault.links(instance, file_name)).get(name) == os.path.realpath(login.path):  # noqa: ASYNC240
                say(f"{instance}/{name} is linked to {login.path} already.")
                return await backend.call("GET", f"/accounts/{instance}/{name}")
            if not force:
                ask_to_replace(f"{instance}/{name}")
        await vault.link(instance, name, file_name, login.path, replace=there)
    click.echo(f"{login.path} is shared:")
    linked: dict[str, Any] = await backend.call("GET", f"/accounts/{instance}/{name}")
    report(linked)
    return linked
