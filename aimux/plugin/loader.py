"""Loads plugins from the `aimux` entry-point group, each in isolation: one that fails is named and the others go on."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pluggy

from aimux.plugin.hookspecs import Hooks
from aimux.plugin.provider import Provider

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUP = "aimux"


@dataclass(slots=True)
class Plugin:
    """One entry point: where it came from, what it registered, or why it failed."""

    name: str
    distribution: str
    version: str
    providers: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass(slots=True)
class Plugins:
    """All that was found. `providers` maps a provider's name to its class."""

    plugins: list[Plugin]
    providers: dict[str, type[Provider]]

    @property
    def failed(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins if plugin.error]


def _check(provider: type[Provider], known: dict[str, type[Provider]]) -> None:
    name = getattr(provider, "name", None)
    if not isinstance(provider, type) or not issubclass(provider, Provider):
        raise TypeError(f"registered {provider!r}, which is no subclass of aimux.plugin.Provider")
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
        raise TypeError(f"provider {provider.__qualname__} has no usable `name`")
    if name in known:
        raise ValueError(f"a provider named {name!r} is there already ({known[name].__module__})")


def load_plugins(entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> Plugins:
    """Import every plugin and let it register. Never raises for a plugin's fault: `Plugin.error` says what it was."""
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=GROUP)
    found = Plugins([], {})
    for entry in sorted(entry_points, key=lambda e: e.name):
        dist = entry.dist
        plugin = Plugin(entry.name, dist.name if dist else "?", dist.version if dist else "?")
        found.plugins.append(plugin)
        fresh: dict[str, type[Provider]] = {}

        def register(
            provider: type[Provider], fresh: dict[str, type[Provider]] = fresh, plugin: Plugin = plugin
        ) -> None:
            _check(provider, found.providers | fresh)
            fresh[provider.name] = provider
            plugin.providers.append(provider.name)

        # A manager of its own for each: pluggy's own loader stops at the first plugin that can't be imported.
        manager = pluggy.PluginManager("aimux")
        manager.add_hookspecs(Hooks)
        try:
            manager.register(entry.load(), name=entry.name)
            manager.check_pending()
            manager.hook.aimux_register_providers(register=register)
            if not fresh:
                raise LookupError("registered no provider (is the hook marked with @hookimpl?)")
        except Exception as error:  # a stranger's code: anything may come out of it
            plugin.error = f"{type(error).__name__}: {error}"
            plugin.providers.clear()
        else:
            found.providers.update(fresh)
    return found
