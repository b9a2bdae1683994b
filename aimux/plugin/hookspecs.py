"""The hooks of the `aimux` entry-point group. They run once at start; nothing here is called per request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import pluggy

from aimux.plugin.parts import Command, Routes
from aimux.plugin.provider import Provider

if TYPE_CHECKING:
    from aimux.plugin.parts import RecordSink

hookspec = pluggy.HookspecMarker("aimux")
hookimpl = pluggy.HookimplMarker("aimux")

Register = Callable[[type[Provider]], None]
RegisterCommand = Callable[[Command], None]
RegisterRoutes = Callable[[Routes], None]
RegisterSink = Callable[["RecordSink"], None]


class Hooks(Protocol):
    """What a plugin module may implement, with `@hookimpl`: at least one of them."""

    @hookspec
    def aimux_register_providers(self, register: Register) -> None:
        """Call `register(MyProvider)` for each provider class the plugin brings."""

    @hookspec
    def aimux_register_commands(self, register: RegisterCommand) -> None:
        """Call `register(Command(…))` for each command of `aimux` that the plugin brings."""

    @hookspec
    def aimux_register_routes(self, register: RegisterRoutes) -> None:
        """Call `register(Routes(…))` for each prefix that the plugin serves."""

    @hookspec
    def aimux_register_sinks(self, register: RegisterSink) -> None:
        """Call `register(sink)` for each function that should get every request's record."""
