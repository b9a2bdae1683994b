"""The hooks of the `aimux` entry-point group. They run once at start; nothing here is called per request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pluggy

from aimux.plugin.provider import Provider

hookspec = pluggy.HookspecMarker("aimux")
hookimpl = pluggy.HookimplMarker("aimux")

Register = Callable[[type[Provider]], None]


class Hooks(Protocol):
    """What a plugin module may implement, with `@hookimpl`."""

    @hookspec
    def aimux_register_providers(self, register: Register) -> None:
        """Call `register(MyProvider)` for each provider class the plugin brings."""
