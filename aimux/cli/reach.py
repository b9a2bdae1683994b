"""A gateway as its clients reach it: by its own configuration, or by an address that a person gives."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click

from aimux.certificates import own_pair
from aimux.cli.asking import typed
from aimux.cli.options import read_config
from aimux.cli.words import say
from aimux.control.clients import TOKEN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aimux.config import Config
    from aimux.people.directory import Directory
    from aimux.plugin import Provider


class Reach(NamedTuple):
    """`mounts`: prefix without a slash at its end → provider; the URL is `address` and the prefix. `certificate`: one
    that clients have to be told of.

    `config` is only assumed where `own` is False: a person gave an address, and nothing more is known of what is there.
    """

    config: Config
    own: bool
    address: str
    mounts: Mapping[str, Provider]
    certificate: Path | None


def reach(path: Path | None, url: str | None, *, need_config: bool = False) -> Reach:
    """With a URL and without `--config`, the usual mounts are assumed. A failure ends the command."""
    from aimux.config import parse_config, provider_instances
    from aimux.config.instances import mounts_of
    from aimux.plugin.loader import load_plugins

    plugins = load_plugins()
    own = url is None or path is not None or need_config
    # Nothing else is known or needed with an address alone, not even a home that a state folder could be in.
    config = (
        read_config(path, plugins) if own else parse_config({"state_dir": "."}, environ={}, providers=plugins.providers)
    )
    if url is None:
        address = _address(config)
    elif url.startswith(("http://", "https://")):
        address = url.rstrip("/")
    else:
        raise click.UsageError(f"--url: {url!r} does not begin with http:// or https://.")
    providers = provider_instances(config, plugins.providers)
    mounts = {prefix.rstrip("/"): providers[name] for prefix, name in mounts_of(config, providers).items()}
    below = urlsplit(address).path.removesuffix("/v1")
    for prefix in mounts:
        if prefix and below.endswith(prefix):
            raise click.UsageError(f"--url: leave {prefix} out, and what comes behind it: it is the gateway's address.")
    certificate = own_pair(config.state_dir)[0] if config.tls.enabled and config.tls.self_signed else None
    return Reach(config, own, address, mounts, certificate)


def _address(config: Config) -> str:
    listen = config.listen
    if listen.unix_path is not None or not listen.port:
        raise click.UsageError(f"No client can be told {listen}: give the address that they reach with --url.")
    host = listen.host
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not listened on
        say("aimux listens on every address: this is for this machine; for others add --url.", err=True)
        host = "localhost"
    scheme = "https" if config.tls.enabled else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listen.port}"


async def people_of(config: Config) -> Directory:
    """Who may call, by the configuration and by the database. Raises StorageError."""
    from aimux.people import People, from_config
    from aimux.people.people import TOPIC
    from aimux.storage import Database

    people = People(await Database.open(config.database.address, config.state_dir), from_config(config))
    try:
        if people.database.touched(TOPIC):
            await people.refresh()
        return people.directory
    finally:
        await people.database.close()


def known_people(known: Reach) -> Directory | None:
    """None: they are unknown here, because the gateway is elsewhere or its database belongs to another user."""
    from aimux.storage import StorageError

    if not known.own:
        return None
    try:
        return asyncio.run(people_of(known.config))
    except StorageError:
        return None


def takes_anybody(known: Reach, people: Directory | None) -> bool:
    """Whether it is known that the gateway asks for no token."""
    return people is not None and people.empty and known.config.auth.jwt is None


def refuse_vendor_token(token: str, known: Reach) -> None:
    """End the command if this is a vendor's credential: it is not an aimux token, and must be neither kept nor sent."""
    for provider in known.mounts.values():
        if provider.vendor_token_advice(token):
            raise click.ClickException(
                f"This is a credential of {provider.name}'s vendor, not an aimux token: ask whoever runs aimux for one."
            )


def token_of_a_person(prompt: str) -> str:
    """From the variable AIMUX_TOKEN, a hidden prompt, or standard input; "" if there is none."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token and sys.stdin.isatty():
        token = typed(prompt, hide_input=True, default="", show_default=False)
    elif not token:
        token = sys.stdin.readline()
    return token.strip()
