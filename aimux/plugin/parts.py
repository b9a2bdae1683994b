"""What a plugin can bring besides providers: commands of `aimux`, and routes of the control plane."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from aimux.plugin.usage import Usage

    RecordSink = Callable[["Record"], None]
    """Called on the event loop with each record, after the client's answer. Has to be quick, and without I/O."""

HEALTH, READY, METRICS, CERTIFICATE = "/health", "/ready", "/metrics", "/certificate.pem"
API, DASHBOARD = "/api/v1", "/dashboard"
OWN_PATHS = (HEALTH, READY, METRICS, CERTIFICATE, API, DASHBOARD)
"""aimux's own paths: no mount and no plugin's route can be one of them or below one."""

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


class Record(Protocol):
    """What is known of one request, or of one turn of a WebSocket, when it is over. It does not change any more, so a
    sink may keep it. No field holds a secret; "" and None mean unknown."""

    @property
    def id(self) -> str:
        """Unique, and in the order of time."""

    @property
    def request_id(self) -> str:
        """The id that the client knows: `x-request-id`."""

    @property
    def time(self) -> float:
        """Unix seconds at which it began."""

    @property
    def duration(self) -> float:
        """Seconds until its end."""

    @property
    def method(self) -> str:
        """`TURN` for a turn of a WebSocket, `LATER` for what a batch or an answer in the background took."""

    @property
    def path(self) -> str:
        """As the client sent it, without the query."""

    @property
    def user(self) -> str: ...

    @property
    def provider(self) -> str:
        """The provider's name in the configuration; "" for a request outside the mounts."""

    @property
    def account(self) -> str: ...

    @property
    def model(self) -> str:
        """As the client asked for it; `usage.model` is what served."""

    @property
    def status(self) -> int:
        """What the client got; 0: it left before the answer's head."""

    @property
    def usage(self) -> Usage | None: ...

    @property
    def error(self) -> str:
        """What ended it early, in one word of a small set; "" if nothing did."""


class Api(Protocol):
    """The REST API for routes of plugins."""

    def __call__(self, method: str, path: str, body: Any = None) -> Awaitable[tuple[int, Any]]:
        """`path` is below `/api/v1`, with its query. Returns the status and the JSON of the answer, or of the problem.

        The call has an admin's rights: whoever makes it has to know who is asking.
        """


@dataclass(frozen=True, slots=True)
class Routes:
    """Pages or an API of the plugin's own: `application(api)` gives an aiohttp application that serves everything at
    `prefix` and below it. Unless `open`, only an admin's key or token gets that far. With `compatibility` it is served
    only if that setting of the configuration contains this name; then `/health` answers `health` as text to callers who
    do not ask for JSON."""

    prefix: str
    application: Callable[[Api], web.Application]
    open: bool = False
    compatibility: str = ""
    health: str = ""

    def check(self) -> None:
        """Raises ValueError."""
        if not _PREFIX.fullmatch(self.prefix) or {".", ".."} & set(self.prefix.split("/")):
            raise ValueError(f"{self.prefix!r} is not a usable path prefix")
        if is_own_path(self.prefix):
            raise ValueError(f"{self.prefix} belongs to aimux itself")
        if self.health and not self.compatibility:
            raise ValueError("`health` needs a `compatibility`: without one, /health is aimux's own")


def is_own_path(path: str) -> bool:
    """Whether `path` is one of aimux's own, or below one."""
    return any(path == own or path.startswith(own + "/") for own in OWN_PATHS)
