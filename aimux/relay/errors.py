"""What can go wrong between aimux and an upstream, named by phase. None of them carries a header or a body."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aimux.http.errors import WireError

if TYPE_CHECKING:
    from aimux.plugin.errors import GatewayError


class ConnectError(WireError):
    """No connection: DNS, refused, unreachable, TLS. Nothing was sent."""

    phase: ClassVar[str] = "connect"


class ConnectTimeout(ConnectError):
    """The connection was not established within `connect_timeout`."""

    phase: ClassVar[str] = "connect_timeout"


class ReadError(WireError):
    """The connection broke before the answer's head was there."""

    phase: ClassVar[str] = "read"


class StaleConnection(ReadError):
    """A reused connection broke before the first byte of an answer: the upstream had closed it while it was idle."""

    phase: ClassVar[str] = "stale"


class HeadTimeout(WireError):
    """The answer's head did not come within `request_timeout`."""

    phase: ClassVar[str] = "head_timeout"


class Stopped(WireError):
    """aimux itself broke the answer off; `told` is what the client hears."""

    phase: ClassVar[str] = "stopped"

    def __init__(self, told: GatewayError) -> None:
        super().__init__(told.message)
        self.told = told
