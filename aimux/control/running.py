"""The process that serves, as operations on the installation see it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aimux.config import Config
    from aimux.metering.activity import Activity
    from aimux.plugin.loader import Plugin


class Reload(NamedTuple):
    """The result of a reload."""

    warnings: list[str]
    after_restart: list[str]


@dataclass(frozen=True, slots=True)
class Running:
    """`started`: unix seconds; `certificate_ends` gives the same, or None without TLS."""

    config: Callable[[], Config]
    plugins: Sequence[Plugin]
    addresses: Callable[[], Sequence[str]]
    certificate_ends: Callable[[], float | None]
    certificate: Callable[[], bytes | None]
    """The self-signed one, as PEM."""
    activity: Callable[[], Activity]
    """What is running now."""
    started: float = field(default_factory=time.time)
