"""`aimux connect`: the settings with which a client uses this gateway."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aimux.cli import suggest
from aimux.cli.asking import print_json
from aimux.cli.options import config_option, json_option
from aimux.cli.reach import Reach, known_people, reach, refuse_vendor_token, takes_anybody, token_of_a_person
from aimux.cli.words import say
from aimux.control.client_files import Format, MergeError, dump, write
from aimux.control.clients import CLIENTS, TOKEN_VARIABLE, Gateway, NotServed

if TYPE_CHECKING:
    from aimux.people.directory import Directory
    from aimux.people.models import User

PROVIDERS = {"anthropic": "Claude", "openai": "ChatGPT or OpenAI"}


@click.command("connect", short_help="Show or write a client's settings for this gateway.")
@click.argument("client", type=click.Choice(list(CLIENTS)))
@config_option
@click.option(
    "--user", metavar="NAME", shell_complete=suggest.users, help="Whose token it is: checked against the configuration."
)
@click.option("--url", help="The gateway's address as the client reaches it, such as https://aimux.example.")
@click.option("--mount", metavar="PREFIX", help="Which mount, where several speak the client's format: the first.")
@click.option(
    "--certificate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True),
    help="The gateway's certificate, where nobody has signed it: /certificate.pem below its address, fetched before.",
)
@click.option("--write", "to_file", is_flag=True, help="Merge the settings into the client's own file, after a backup.")
@json_option
def connect_command(
    client: str,
    config: Path | None,
    user: str | None,
    url: str | None,
    mount: str | None,
    certificate: Path | None,
    to_file: bool,
    as_json: bool,
) -> None:
    """Show the settings that CLIENT needs to use this gateway, or write them.

    Shown settings hold no token. For --write, the token is taken from the variable AIMUX_TOKEN, from a hidden prompt,
    or from standard input, never from an argument, which others could see.

    On another machine than the gateway's, give --url; without a configuration the usual mounts are assumed.
    """
    about = CLIENTS[client]
    known = reach(config, url, need_config=user is not None)
    gateway = _gateway(known, mount, certificate)
    people = known_people(known)
    owner = _user(people, user)
    try:
        needs = list(about.needs(gateway))
        hints = "\n".join([*about.hints(gateway), *needs])
        if about.settings is None or about.file is None:
            if to_file:
                raise click.UsageError(f"{about.title} can't be set up by a file:\n{hints}")
            if as_json:
                print_json(_as_json(client, known, None, hints))
            else:
                say(hints)
            return
        path, shown = about.file(os.environ, Path.home()), about.settings(gateway, None)
        if to_file:
            backup = _write(path, about.settings(gateway, _token(known, people, owner)), about.file_format)
        if as_json:
            about_file = {"path": str(path), "settings": shown, "written": to_file}
            if to_file:
                about_file["backup"] = str(backup) if backup else None
            print_json(_as_json(client, known, about_file, "\n".join(needs) if to_file else hints))
        elif to_file:
            click.echo(f"{about.title} uses {known.address} from its next start on: {path}")
            if backup is not None:
                click.echo(f"What was there before is kept in {backup}")
            say("\n".join(needs))
        else:
            click.echo(f"For {path}:\n\n{dump(shown, about.file_format)}")
            say(hints)
    except NotServed as error:
        what = PROVIDERS[str(error)]
        raise click.ClickException(f"{about.title} needs a mount of {what}, and this gateway has none.") from None


def _as_json(client: str, known: Reach, file: dict[str, Any] | None, hints: str) -> dict[str, Any]:
    """The result as JSON; no token is in it, whatever was written."""
    return {"client": client, "address": known.address, "file": file, "hints": hints.splitlines()}


def _gateway(known: Reach, mount: str | None, certificate: Path | None) -> Gateway:
    if mount is not None and mount.rstrip("/") not in known.mounts:
        raise click.UsageError(f"--mount: there is no {mount!r}; there are {', '.join(known.mounts)}.")
    found: dict[str, str] = {}
    for prefix, provider in known.mounts.items():
        if mount is None or prefix == mount.rstrip("/"):
            found.setdefault(provider.wire_format, known.address + prefix)
    own = known.certificate
    if own is not None and not os.access(own, os.R_OK):
        say(f"{own} can't be read here: aimux makes it at its first start.", err=True)
    return Gateway(found, certificate or own, f"{known.address}/certificate.pem" if own is not None else None)


def _user(people: Directory | None, name: str | None) -> User | None:
    if name is None or people is None:
        return None
    if (user := people.users.get(name)) is not None:
        return user
    raise click.UsageError(f"--user: there is no {name!r}; there are {', '.join(sorted(people.users)) or 'no users'}.")


def _token(known: Reach, people: Directory | None, owner: User | None) -> str:
    if takes_anybody(known, people):
        return "no-token-is-needed"  # clients want one all the same
    token = token_of_a_person(f"Token of {owner.name}" if owner else "Your aimux token")
    if not token:
        raise click.UsageError(f"There is no token: set {TOKEN_VARIABLE}, or give it on standard input.")
    refuse_vendor_token(token, known)
    if people is not None and not (known.config.auth.jwt is not None and token.count(".") == 2):
        from aimux.people.directory import Denied

        access = people.find(hashlib.sha256(token.encode()).digest(), int(time.time() * 1000))
        if isinstance(access, Denied):
            what = "is nobody's here" if access is Denied.UNKNOWN else f"is {access.name.lower()}"
            raise click.ClickException(f"This token {what}; nothing was written.")
        if owner is not None and access.user.name != owner.name:
            raise click.ClickException(f"This is not the token of {owner.name}; nothing was written.")
    return token


def _write(path: Path, settings: dict[str, Any], file_format: Format) -> Path | None:
    """Where the backup is, if a file was there before."""
    try:
        return write(path, settings, file_format)
    except MergeError as error:
        message = f"{path} {error}. Without --write the settings are shown, to be put in by hand."
        raise click.ClickException(message) from None
