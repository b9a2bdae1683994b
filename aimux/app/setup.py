"""What a configuration comes to for the gateway."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aimux.config import ConfigError, Problem
from aimux.config.instances import mounts_of
from aimux.gateway import Authentication, ModelRoutes, MountTable, Route, Setup
from aimux.gateway.client_address import TrustedProxies
from aimux.gateway.cors import Cors
from aimux.gateway.headers import Dropped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.accounts import AccountPool
    from aimux.config import Config
    from aimux.gateway.guesses import Guesses
    from aimux.people import Directory
    from aimux.people.signed import Signed
    from aimux.plugin import Provider
    from aimux.plugin.loader import Plugins


log = logging.getLogger("aimux")

AFTER_RESTART = ("listen", "state_dir", "database", "refresh_check_interval", "refresh_before_expiry")
"""Settings that a reload leaves as they were."""


def setup_of(
    config: Config,
    providers: Mapping[str, Provider],
    pools: Mapping[str, AccountPool],
    directory: Directory,
    signed: Signed | None,
    guesses: Guesses,
) -> Setup:
    """`pools` has accounts for each of the providers."""
    cors = Cors(config.cors.allowed_origins)
    authentication = Authentication(
        directory,
        allow_anonymous=config.allow_anonymous,
        proxies=TrustedProxies(config.trusted_proxies),
        cors=cors,
        guesses=guesses,
        signed=signed,
    )
    slashed = [name for name, provider in providers.items() if provider.encoded_slashes]
    named = config.providers is not None
    dropped = Dropped.parse(config.drop_headers)
    routes = {name: Route(provider, pools[name], named, dropped) for name, provider in providers.items()}
    return Setup(
        authentication,
        MountTable(mounts_of(config, providers), slashed),
        routes,
        ModelRoutes(config.models, routes),
        cors,
        config.max_body_size,
        config.max_websocket_message,
        config.request_timeout,
        config.stream_start_timeout,
        config.shared_storage,
    )


def compatibility(config: Config, plugins: Plugins) -> frozenset[str]:
    """The other gateways whose paths are served. Warns of those that no plugin knows."""
    known = plugins.gateways
    for name in config.compatibility:
        if name not in known:
            log.warning("compatibility: no plugin knows %r; known are %s", name, ", ".join(known))
    return frozenset(config.compatibility)


def health_text(config: Config, plugins: Plugins) -> str:
    """What `/health` says for the scripts of a gateway that `compatibility` names; "" if it is aimux's own JSON."""
    found = (one.health for one in plugins.routes.values() if one.health and one.compatibility in config.compatibility)
    return next(found, "")


def refuse_lost_file(config: Config, before: Config) -> None:
    """Refuse what a reload finds while its file is being replaced. Raises ConfigError.

    Without the file's settings there are no users, and this machine would be served without a token.
    """
    file, now = before.origin.file, config.origin
    if file is None or not before.origin.lines:
        return
    if now.file != file and not file.exists():
        instead = f", and {now.file} would be read in its place" if now.file else ""
        what = f"is gone{instead}", "put it back, or restart aimux to serve without it"
    elif now.file == file and not now.lines:
        what = "holds no setting any more", "write it again, or restart aimux to serve with the defaults"
    else:
        return
    raise ConfigError([Problem("", None, *what, source=str(file))])


def with_what_stays(config: Config, before: Config) -> tuple[Config, list[str]]:
    """A new configuration, without the changes that need a restart; and which settings those are."""
    kept = {name: getattr(before, name) for name in AFTER_RESTART}
    changed = [name for name, value in kept.items() if getattr(config, name) != value]
    return config.model_copy(update=kept), changed
