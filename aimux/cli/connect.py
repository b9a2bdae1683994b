"""`aimux connect`: the settings with which a client uses this gateway."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aimux.cli import suggest
from aimux.cli.options import config_option
from aimux.cli.reach import Reach, reach, refuse_vendor_token, token_of_a_person
from aimux.cli.words import say
from aimux.control.client_files import MergeError, dump, write
from aimux.control.clients import CLIENTS, TOKEN_VARIABLE, Client, Gateway, NotServed

if TYPE_CHECKING:
    from aimux.config import Config, User

PROVIDERS = {"anthropic": "Claude", "openai": "ChatGPT or OpenAI"}


@click.command("connect", short_help="Show or write a client's settings for this gateway.")
@click.argument("client", type=click.Choice(list(CLIENTS)))
@config_option
@click.option(
    "--user", metavar="NAME", shell_complete=suggest.users, help="Whose token it is: checked against the configuration."
)
@click.option("--url", help="The gateway's address as the client reaches it, such as https://aimux.example.")
@click.option("--mount", metavar="PREFIX", help="Which mount, where several speak the client's format: the first.")
@click.option("--write", "to_file", is_flag=True, help="Merge the settings into the client's own file, after a backup.")
def connect_command(
    client: str, config: Path | None, user: str | None, url: str | None, mount: str | None, to_file: bool
) -> None:
    """Show the settings with which CLIENT uses this gateway, or write them.

    Shown settings hold no token. To be written, the token is taken from the variable AIMUX_TOKEN, from a hidden prompt,
    or from standard input; never from an argument, which others could see.

    On another machine than the gateway's give --url; without a configuration the usual mounts are assumed.
    """
    about = CLIENTS[client]
    known = reach(config, url, need_config=user is not None)
    gateway = _gateway(known, mount)
    owner = _user(known.config, user)
    try:
        hints = "\n".join(about.hints(gateway))
        if about.settings is None or about.file is None:
            if to_file:
                raise click.UsageError(f"{about.title} can't be set up by a file:\n{hints}")
            say(hints)
            return
        path = about.file(os.environ, Path.home())
        if to_file:
            token = _token(known, owner)
            _write(about, path, about.settings(gateway, token))
        else:
            click.echo(f"For {path}:\n\n{dump(about.settings(gateway, None), about.file_format)}")
            say(hints)
    except NotServed as error:
        what = PROVIDERS[str(error)]
        raise click.ClickException(f"{about.title} needs a mount of {what}, and this gateway has none.") from None


def _gateway(known: Reach, mount: str | None) -> Gateway:
    if mount is not None and mount.rstrip("/") not in known.mounts:
        raise click.UsageError(f"--mount: there is no {mount!r}; there are {', '.join(known.mounts)}.")
    found: dict[str, str] = {}
    for prefix, provider in known.mounts.items():
        if mount is None or prefix == mount.rstrip("/"):
            found.setdefault(provider.wire_format, known.address + prefix)
    return Gateway(found, known.certificate)


def _user(config: Config, name: str | None) -> User | None:
    if name is None:
        return None
    for user in config.users:
        if user.name == name:
            return user
    names = ", ".join(user.name for user in config.users)
    raise click.UsageError(f"--user: there is no {name!r}; the configuration has {names or 'no users'}.")


def _token(known: Reach, owner: User | None) -> str:
    users = known.config.users
    if known.own and not users:
        return "no-token-is-needed"  # clients want one all the same
    token = token_of_a_person(f"Token of {owner.name}" if owner else "Your aimux token")
    if not token:
        raise click.UsageError(f"There is no token: set {TOKEN_VARIABLE}, or give it on standard input.")
    refuse_vendor_token(token, known)
    if known.own:
        digest = hashlib.sha256(token.encode()).digest()
        owners = [user.name for user in users if user.sha256 == digest]
        if not owners:
            raise click.ClickException("This token is none of the configuration's users'; nothing was written.")
        if owner is not None and owner.name not in owners:
            raise click.ClickException(f"This is not the token of {owner.name}; nothing was written.")
    return token


def _write(client: Client, path: Path, settings: dict[str, Any]) -> None:
    try:
        backup = write(path, settings, client.file_format)
    except MergeError as error:
        message = f"{path} {error}. Without --write the settings are shown, to be put in by hand."
        raise click.ClickException(message) from None
    click.echo(f"{client.title} uses this gateway from its next start on: {path}")
    if backup is not None:
        click.echo(f"What was there before is kept in {backup}")
