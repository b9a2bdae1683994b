"""What a configuration comes to for the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.config.instances import mounts_of
from aimux.gateway import Authentication, ModelRoutes, MountTable, Route, Setup
from aimux.gateway.cors import Cors
from aimux.gateway.headers import Dropped
from aimux.gateway.whence import Whence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.accounts import AccountPool
    from aimux.config import Config
    from aimux.gateway.guesses import Guesses
    from aimux.people import Directory
    from aimux.people.signed import Signed
    from aimux.plugin import Provider


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
        whence=Whence(config.trusted_proxies),
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
