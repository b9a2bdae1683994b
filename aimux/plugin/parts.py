"""What a plugin can bring besides providers: commands of `aimux`, and routes of the control plane."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

OWN_PATHS = ("/health", "/ready", "/metrics", "/api/v1", "/dashboard")
"""Paths of aimux's own: no mount and no plugin's route can be one of them or below one."""

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True, slots=True)
class Command:
    """A command `aimux NAME`. `target` is `module:attribute` of a click command, imported only when it runs; `help`
    is its line in `aimux --help`."""

    name: str
    target: str
    help: str

    def check(self) -> None:
        """Raises ValueError."""
        if not _NAME.fullmatch(self.name) or ":" not in self.target:
            raise ValueError(f"command {self.name!r} needs a name of a-z, 0-9 and -, and a target `module:attribute`")


class Api(Protocol):
    """The REST API, from within: what a route may do to aimux."""

    def __call__(self, method: str, path: str, body: Any = None) -> Awaitable[tuple[int, Any]]:
        """`path` is below `/api/v1`, with its query. Gives the status and the JSON of the answer, or of the problem.

        The call has an admin's rights: whoever makes it has to know who is asking.
        """


@dataclass(frozen=True, slots=True)
class Routes:
    """Pages or an API of the plugin's own: `application(api)` gives an aiohttp application that serves everything at
    `prefix` and below it. Unless `open`, only an admin's key or token gets that far."""

    prefix: str
    application: Callable[[Api], web.Application]
    open: bool = False

    def check(self) -> None:
        """Raises ValueError."""
        if not _PREFIX.fullmatch(self.prefix) or {".", ".."} & set(self.prefix.split("/")):
            raise ValueError(f"{self.prefix!r} is no usable path prefix")
        if is_own_path(self.prefix):
            raise ValueError(f"{self.prefix} belongs to aimux itself")


def is_own_path(path: str) -> bool:
    """`path` is one of aimux's own, or below one."""
    return any(path == own or path.startswith(own + "/") for own in OWN_PATHS)
