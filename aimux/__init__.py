"""aimux: one door to a team's AI accounts."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from aiohttp import web

DISTRIBUTION = "aimux-gateway"
"""Under which name it is installed: `aimux` is another program in the registry."""
try:
    __version__ = version(DISTRIBUTION)
except PackageNotFoundError:  # in its source tree, while it is built
    __version__ = "unknown"


def application(config: Mapping[str, Any] | str | os.PathLike[str]) -> web.Application:
    """aimux as an aiohttp application, for a server of your own: see `aimux.embedding`."""
    # No import statement: every part imports this package for its version, and would stand in a circle with all others.
    made: web.Application = import_module("aimux.embedding").application(config)
    return made
