"""What can go wrong with bytes on a wire. None of these carries a header or a body."""

from __future__ import annotations

from typing import ClassVar


class WireError(Exception):
    """Base: the other side gave nothing usable. `phase` goes to logs and metrics."""

    phase: ClassVar[str] = "wire"


class ProtocolError(WireError):
    """The other side sent something that is not HTTP/1.1."""

    phase: ClassVar[str] = "protocol"
