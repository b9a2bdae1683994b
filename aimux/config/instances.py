"""The provider instances that a configuration means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.config.models import Config
    from aimux.plugin import Provider


def provider_instances(config: Config, providers: Mapping[str, type[Provider]]) -> dict[str, Provider]:
    """By name: those that the configuration names, else every installed one that needs no settings."""
    if config.providers is not None:
        entries = config.providers.items()
        return {name: providers[entry.plugin](entry.settings, instance=name) for name, entry in entries}
    made: dict[str, Provider] = {}
    for name, provider in providers.items():
        try:
            made[name] = provider(provider.Settings())
        except ValidationError:
            continue  # it can't run on defaults alone: only a configuration that names it can mean it
    return made
