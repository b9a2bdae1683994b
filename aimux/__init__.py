"""aimux: one door to a team's AI accounts."""

from __future__ import annotations

from importlib import import_module

from aimux.installed import DISTRIBUTION, version

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing for it would cost half a start of Python
    import os
    from collections.abc import Mapping
    from typing import Any

    from aiohttp import web

__all__ = ["DISTRIBUTION", "__version__", "application"]
__version__ = version()


def application(config: Mapping[str, Any] | str | os.PathLike[str]) -> web.Application:
    """aimux as an aiohttp application, for a server of your own: see `aimux.embedding`."""
    # No import statement: every part imports this package for its version, so an import here would be circular.
    made: web.Application = import_module("aimux.embedding").application(config)
    return made
