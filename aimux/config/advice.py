"""What a configuration says that is legal and probably not meant."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aimux.config.instances import provider_instances
from aimux.plugin.errors import CredentialError
from aimux.redaction import masking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aimux.config.models import Config
    from aimux.config.problems import Where
    from aimux.plugin import Provider

Advice = tuple["Where", str, str]

_UNADDRESSED = re.compile(r"[/\\%]|\A\.")
"""In a name: what no path of the API can have in it."""


def advice(config: Config, plugins: Mapping[str, type[Provider]]) -> Iterator[Advice]:
    """Place, message and remedy of each."""
    yield from _who_may_call(config)
    yield from _weak_tokens(config)
    yield from _names(config)
    yield from _no_providers(config)
    yield from _api_keys(config, plugins)
    yield from _loops(config)
    yield from _encryption(config)
    yield from _groups(config)
    yield from _limits(config)
    yield from _database(config)
    yield from _apprise(config)
    yield from _formats(config, plugins)


def _who_may_call(config: Config) -> Iterator[Advice]:
    if config.users:
        if config.allow_anonymous:
            yield ("allow_anonymous",), "has no effect, because there are users", "remove it, or the users"
    elif config.allow_anonymous:
        if not config.listen.local:
            message = f"everyone who can reach {config.listen} can use your accounts"
            yield ("allow_anonymous",), message, "add users"
    elif not config.listen.local:
        message = "there are no users here: unless `aimux users` has added some, everyone but this machine gets 403"
        yield ("listen",), message, "add users, or listen on 127.0.0.1 only"


def _names(config: Config) -> Iterator[Advice]:
    places: list[tuple[Where, str]] = [(("users", index, "name"), user.name) for index, user in enumerate(config.users)]
    places += [(("groups", name), name) for name in config.groups]
    for place, name in places:
        if _UNADDRESSED.search(name):
            message = f"{name!r} has no page, and no command finds it: it holds /, \\ or %, or begins with a dot"
            yield place, message, "choose another name"


def _weak_tokens(config: Config) -> Iterator[Advice]:
    for index, user in enumerate(config.users):
        if user.weak:
            message = f"the token of {user.name!r} is short enough to be guessed"
            yield ("users", index, "weak"), message, "give its owner a new one: openssl rand -hex 32"


def _no_providers(config: Config) -> Iterator[Advice]:
    if config.providers is not None and not config.providers:
        yield ("providers",), "is empty, so that nothing is served", "name the providers, or remove it to serve all"


def _api_keys(config: Config, plugins: Mapping[str, type[Provider]]) -> Iterator[Advice]:
    """A key that its provider can't use parks its account at once."""
    for name, entry in (config.providers or {}).items():
        if entry.settings.api_key is None:
            continue
        key = entry.settings.api_key.get_secret_value()
        place, remedy = ("providers", name, "api_key"), "set it to a key of this provider, or remove it"
        if not key.strip():
            yield place, "is empty", remedy
            continue
        try:
            with masking(key):
                provider = plugins[entry.plugin](entry.settings, instance=name)
                provider.parse_credential(provider.api_key_file(key))
        except CredentialError as error:
            yield place, str(error), remedy
        except Exception as error:  # a plugin's code: a start says so where it serves nobody
            yield place, f"can't be read: its provider fails ({type(error).__name__})", "that is a fault of the plugin"


def _loops(config: Config) -> Iterator[Advice]:
    """What goes upstream comes back with the account's credential, and without users that is nobody's stranger."""
    for name, entry in (config.providers or {}).items():
        url = urlsplit(entry.settings.base_url)
        if url.port and url.port == config.listen.port and url.hostname in {"localhost", "127.0.0.1", "::1"}:
            message = "is where aimux itself listens: each request would come back to it, again and again"
            yield ("providers", name, "base_url"), message, "set it to the vendor's address, or remove it"


def _encryption(config: Config) -> Iterator[Advice]:
    tls = config.tls
    if not tls.enabled:
        if tls.cert_path or tls.self_signed:
            yield ("tls",), "is set up and not enabled", "set tls.enabled: true"
        elif config.users and not config.listen.local and not config.trusted_proxies:
            message = "tokens cross the network unencrypted"
            yield ("listen",), message, "set up tls, or a TLS proxy in front and its address in trusted_proxies"


def _groups(config: Config) -> Iterator[Advice]:
    """A user is bound to accounts of the groups; the accounts name theirs under `providers`.

    One that has an entry of its own, or limits, may be there for what its members share.
    """
    grouped = {
        group
        for entry in (config.providers or {}).values()
        for account in entry.settings.accounts.values()
        for group in account.groups
    }
    for index, user in enumerate(config.users):
        for group in user.groups:
            if group not in grouped and group not in config.groups and group not in config.limits.groups:
                remedy = "name it in providers.NAME.accounts.ACCOUNT.groups"
                yield ("users", index, "groups"), f"no account is in the group {group!r}", remedy
    for name, settings in config.groups.items():
        if settings.reserved and name not in grouped:
            remedy = "name it in providers.NAME.accounts.ACCOUNT.groups"
            yield ("groups", name, "reserved"), f"no account is in the group {name!r}", remedy


def _limits(config: Config) -> Iterator[Advice]:
    """What limits somebody who is probably misspelt. Others may be the database's: a start knows."""
    if config.auth.jwt is not None:
        return
    users = {user.name for user in config.users}
    groups = {group for user in config.users for group in user.groups} | config.groups.keys()
    for kind, named, there in (("user", config.limits.users, users), ("group", config.limits.groups, groups)):
        for name in named:
            if name not in there and (near := get_close_matches(name, sorted(there - named.keys()), n=1, cutoff=0.75)):
                message = f"there is no {kind} {name!r} in the configuration"
                yield (
                    ("limits", f"{kind}s", name),
                    message,
                    f"did you mean {near[0]}? As it is, `aimux {kind}s` has to have added {name}",
                )


def _database(config: Config) -> Iterator[Advice]:
    if config.database.keys and config.database.url is None:
        message = "has no effect: without database.url, credentials are files that only aimux can read"
        yield ("database", "encryption_key"), message, "remove it, or set database.url"


def _apprise(config: Config) -> Iterator[Advice]:
    if config.notices.apprise and find_spec("apprise") is None:
        yield ("notices", "apprise"), "reaches nobody: apprise is not installed here", "pip install apprise"


def _formats(config: Config, plugins: Mapping[str, type[Provider]]) -> Iterator[Advice]:
    """A target is passed over where a client speaks another format than its provider: as a fallback it is none."""
    if not config.models:
        return
    formats = {name: provider.wire_format for name, provider in provider_instances(config, plugins).items()}
    mounted = set(formats) if config.mounts is None else set(config.mounts.values())
    for pattern, targets in config.models.items():
        first = formats.get(targets[0].instance, "")
        for index, target in enumerate(targets):
            own = formats.get(target.instance, "")
            place = ("models", pattern, index)
            if own != first:
                message = f"{target.instance} speaks another wire format ({own}) than {targets[0].instance} ({first})"
                yield place, message, "aimux translates none: each serves the clients of its own format only"
            elif target.instance not in mounted and own not in {formats.get(name) for name in mounted}:
                message = f"{target.instance} speaks a wire format ({own}) that no mount has, so that nobody reaches it"
                yield place, message, f"add a mount: /{target.instance}: {target.instance}"
