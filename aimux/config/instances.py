"""The provider instances that a configuration means, and where they are mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aimux.config.models import Config
    from aimux.plugin import Provider


def provider_instances(config: Config, providers: Mapping[str, type[Provider]]) -> dict[str, Provider]:
    """By name: the providers that the configuration names, else every installed one that needs no settings."""
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


def mounts_of(config: Config, instances: Iterable[str]) -> Mapping[str, str]:
    """The provider's name by prefix: unless the configuration says otherwise, each is mounted under its name."""
    return config.mounts if config.mounts is not None else {f"/{name}": name for name in instances}
