"""Loads plugins from the `aimux` entry-point group, each in isolation: one that fails is named and the others go on."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pluggy

from aimux import DISTRIBUTION
from aimux.plugin.hookspecs import Hooks
from aimux.plugin.parts import Command, Routes, is_own_path
from aimux.plugin.provider import Provider
from aimux.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.plugin.parts import RecordSink

GROUP = "aimux"


@dataclass(slots=True)
class Plugin:
    """One entry point: where it came from, what it registered, or why it failed."""

    name: str
    distribution: str
    version: str
    providers: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)
    """Prefixes."""
    error: str | None = None


@dataclass(slots=True)
class Parts:
    """What plugins bring. `providers` maps names to provider classes, `commands` names to commands, `routes` prefixes
    to what is served there; `sinks` get each request's record."""

    providers: dict[str, type[Provider]] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    routes: dict[str, Routes] = field(default_factory=dict)
    sinks: list[RecordSink] = field(default_factory=list)

    @property
    def gateways(self) -> list[str]:
        """The names that `compatibility` may hold: other gateways whose paths some plugin serves."""
        return sorted({routes.compatibility for routes in self.routes.values()} - {""})


class Plugins(Parts):
    """All that was found."""

    __slots__ = ("plugins",)

    def __init__(self, plugins: list[Plugin], providers: dict[str, type[Provider]] | None = None) -> None:
        super().__init__(providers or {})
        self.plugins = plugins

    @property
    def failed(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins if plugin.error]


class _Registration:
    """What one plugin registers, checked at once."""

    def __init__(self, known: Parts) -> None:
        self.known = known
        self.fresh = Parts()

    def provider(self, provider: type[Provider]) -> None:
        name = getattr(provider, "name", None)
        if not isinstance(provider, type) or not issubclass(provider, Provider):
            raise TypeError(f"registered {provider!r}, which is not a subclass of aimux.plugin.Provider")
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
            raise TypeError(f"provider {provider.__qualname__} has no usable `name`")
        if is_own_path(f"/{name}"):
            raise ValueError(f"a provider can't be named {name!r}: /{name} is a path of aimux's own")
        for there in (self.known.providers, self.fresh.providers):
            if name in there:
                raise ValueError(f"a provider named {name!r} already exists ({there[name].__module__})")
        self.fresh.providers[name] = provider

    def command(self, command: Command) -> None:
        command.check()
        if command.name in self.known.commands or command.name in self.fresh.commands:
            raise ValueError(f"a command named {command.name!r} already exists")
        self.fresh.commands[command.name] = command

    def route(self, routes: Routes) -> None:
        routes.check()
        for other in (*self.known.routes, *self.fresh.routes):
            if f"{routes.prefix}/".startswith(f"{other}/") or f"{other}/".startswith(f"{routes.prefix}/"):
                raise ValueError(f"{routes.prefix} collides with {other}, which already exists")
        self.fresh.routes[routes.prefix] = routes

    def sink(self, sink: RecordSink) -> None:
        if not callable(sink):
            raise TypeError(f"registered {sink!r} as a sink, which can't be called")
        self.fresh.sinks.append(sink)

    def keep(self) -> None:
        """Raises LookupError if nothing was registered."""
        fresh = self.fresh
        if not (fresh.providers or fresh.commands or fresh.routes or fresh.sinks):
            raise LookupError("registered nothing (are its hooks marked with @hookimpl?)")
        self.known.providers.update(fresh.providers)
        self.known.commands.update(fresh.commands)
        self.known.routes.update(fresh.routes)
        self.known.sinks.extend(fresh.sinks)


def load_plugins(entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> Plugins:
    """Import every plugin and let it register. Never raises for a plugin's fault: `Plugin.error` says what it was.

    aimux's own come first, so that no other plugin can take their names.
    """
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=GROUP)
    found = Plugins([])
    manager = pluggy.PluginManager("aimux")
    manager.add_hookspecs(Hooks)
    for entry in sorted(entry_points, key=lambda e: (not _built_in(e), e.name)):
        dist = entry.dist
        plugin = Plugin(entry.name, dist.name if dist else "?", dist.version if dist else "?")
        found.plugins.append(plugin)
        registration = _Registration(found)
        # pluggy's own loader stops at the first plugin that can't be imported.
        try:
            module = entry.load()
            manager.register(module, name=entry.name)
            manager.check_pending()
            others = [other for other in manager.get_plugins() if other is not module]
            for hook, register in (
                ("aimux_register_providers", registration.provider),
                ("aimux_register_commands", registration.command),
                ("aimux_register_routes", registration.route),
                ("aimux_register_sinks", registration.sink),
            ):
                manager.subset_hook_caller(hook, others)(register=register)
            registration.keep()
        except Exception as error:  # a stranger's code: it may raise anything
            plugin.error = redact(f"{type(error).__name__}: {error}")
            if manager.has_plugin(entry.name):
                manager.unregister(name=entry.name)
        else:
            fresh = registration.fresh
            plugin.providers, plugin.commands = list(fresh.providers), list(fresh.commands)
            plugin.routes = list(fresh.routes)
    return found


def _built_in(entry: importlib.metadata.EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == DISTRIBUTION
