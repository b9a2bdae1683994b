"""What a configuration comes to for the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.gateway import ModelRoutes, MountTable, Route, Setup
from aimux.gateway.headers import Dropped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.accounts import AccountPool
    from aimux.config import Config
    from aimux.gateway import Authentication
    from aimux.gateway.cors import Cors
    from aimux.plugin import Provider


def setup_of(
    config: Config,
    providers: Mapping[str, Provider],
    pools: Mapping[str, AccountPool],
    authentication: Authentication,
    cors: Cors,
) -> Setup:
    """`pools` has accounts for each of the providers."""
    mounts = config.mounts if config.mounts is not None else {f"/{name}": name for name in providers}
    named = config.providers is not None
    dropped = Dropped.parse(config.drop_headers)
    routes = {name: Route(provider, pools[name], named, dropped) for name, provider in providers.items()}
    return Setup(
        authentication,
        MountTable(mounts, [name for name, provider in providers.items() if provider.encoded_slashes]),
        routes,
        ModelRoutes(config.models, routes),
        cors,
        config.max_body_size,
        config.max_websocket_message,
        config.request_timeout,
        config.stream_start_timeout,
    )
