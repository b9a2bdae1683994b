"""aimux: one door to a team's AI accounts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from aiohttp import web

    __version__: str

DISTRIBUTION = "aimux-gateway"
"""Under which name it is installed: `aimux` is another program in the registry."""
if not TYPE_CHECKING:

    def __getattr__(name: str) -> str:
        """`__version__`, where it is asked for: looking it up is more than half of what starting a command imports."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(DISTRIBUTION)
        except PackageNotFoundError:  # in its source tree, while it is built
            return "unknown"


def application(config: Mapping[str, Any] | str | os.PathLike[str]) -> web.Application:
    """aimux as an aiohttp application, for a server of your own: see `aimux.embedding`."""
    # No import statement: every part imports this package for its version, and would stand in a circle with all others.
    made: web.Application = import_module("aimux.embedding").application(config)
    return made
