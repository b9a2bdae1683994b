"""Paths that clients and scripts of other gateways ask for besides the mounts, answered by aimux's own API.

Served only where `compatibility` of the configuration names that gateway, as `aimux migrate` writes it.
"""

from aimux.plugin import RegisterRoutes, hookimpl
from aimux_compat.paths import paths

__all__ = ["aimux_register_routes"]


@hookimpl
def aimux_register_routes(register: RegisterRoutes) -> None:
    for routes in paths():
        register(routes)
