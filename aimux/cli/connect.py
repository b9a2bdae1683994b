"""`aimux connect`: the settings with which a client uses this gateway."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aimux.cli.client_files import MergeError, dump, write
from aimux.cli.clients import CLIENTS, PLACEHOLDER, VARIABLE, Client, Gateway, NotServed
from aimux.cli.options import config_option, read_config

if TYPE_CHECKING:
    from aimux.config import Config, User
    from aimux.plugin import Provider

PROVIDERS = {"anthropic": "Claude", "openai": "ChatGPT or OpenAI"}


@click.command("connect", short_help="Show or write a client's settings for this gateway.")
@click.argument("client", type=click.Choice(list(CLIENTS)))
@config_option
@click.option("--user", metavar="NAME", help="Whose token it is: checked against the configuration.")
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
    from aimux.config import parse_config, provider_instances
    from aimux.plugin.loader import load_plugins

    about = CLIENTS[client]
    plugins = load_plugins()
    if url is not None and config is None and user is None:
        known = parse_config({}, environ={}, providers=plugins.providers)
    else:
        known = read_config(config, plugins)
    providers = provider_instances(known, plugins.providers)
    gateway = _gateway(known, providers, url, mount)
    owner = _user(known, user)
    try:
        hints = "\n".join(about.hints(gateway))
        if about.settings is None or about.file is None:
            if to_file:
                raise click.UsageError(f"{about.title} can't be set up by a file:\n{hints}")
            click.echo(hints)
            return
        path = about.file(os.environ, Path.home())
        if to_file:
            token = _token(known, providers, owner, checked=url is None or user is not None)
            _write(about, path, about.settings(gateway, token))
        else:
            click.echo(f"For {path}:\n\n{dump(about.settings(gateway, None), about.file_format)}\n{hints}")
    except NotServed as error:
        what = PROVIDERS[str(error)]
        raise click.ClickException(f"{about.title} needs a mount of {what}, and this gateway has none.") from None


def _gateway(config: Config, providers: dict[str, Provider], url: str | None, mount: str | None) -> Gateway:
    if url is None:
        address = _local_address(config)
    elif url.startswith(("http://", "https://")):
        address = url.rstrip("/")
    else:
        raise click.UsageError(f"--url: {url!r} does not begin with http:// or https://.")
    mounts = config.mounts if config.mounts is not None else {f"/{name}": name for name in providers}
    if mount is not None:
        if mount.rstrip("/") not in {prefix.rstrip("/") for prefix in mounts}:
            raise click.UsageError(f"--mount: there is no {mount!r}; there are {', '.join(mounts)}.")
        mounts = {prefix: name for prefix, name in mounts.items() if prefix.rstrip("/") == mount.rstrip("/")}
    found: dict[str, str] = {}
    for prefix, name in mounts.items():
        found.setdefault(providers[name].wire_format, address + prefix.rstrip("/"))
    certificate = config.state_dir / "tls" / "cert.pem" if config.tls.enabled and config.tls.self_signed else None
    return Gateway(found, certificate)


def _local_address(config: Config) -> str:
    listen = config.listen
    if listen.unix_path is not None or not listen.port:
        raise click.UsageError(f"Clients can't be told {listen}: give the address that they reach with --url.")
    host = listen.host
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not listened on
        click.echo(
            "aimux listens on every address: these settings are for this machine; for others add --url.", err=True
        )
        host = "localhost"
    scheme = "https" if config.tls.enabled else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listen.port}"


def _user(config: Config, name: str | None) -> User | None:
    if name is None:
        return None
    for user in config.users:
        if user.name == name:
            return user
    names = ", ".join(user.name for user in config.users)
    raise click.UsageError(f"--user: there is no {name!r}; the configuration has {names or 'no users'}.")


def _token(config: Config, providers: dict[str, Provider], owner: User | None, *, checked: bool) -> str:
    """`checked`: the configuration at hand is that of the gateway which the token is for."""
    if checked and not config.users:
        return "no-token-is-needed"  # clients want one all the same
    token = os.environ.get(VARIABLE, "")
    if not token and sys.stdin.isatty():
        token = click.prompt(f"Token of {owner.name}" if owner else "Your aimux token", hide_input=True, err=True)
    token = (token or sys.stdin.readline()).strip()
    if not token or token == PLACEHOLDER:
        raise click.UsageError(f"There is no token: set {VARIABLE}, or give it on standard input.")
    for provider in providers.values():
        if provider.vendor_token_advice(token):
            raise click.ClickException(
                f"This is a credential of {provider.name}'s vendor, not an aimux token: ask whoever runs aimux for one."
            )
    if checked:
        digest = hashlib.sha256(token.encode()).digest()
        owners = [user.name for user in config.users if user.sha256 == digest]
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
