"""Log lines: the program's own through `logging`, one a request through AccessLog, both to one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from aimux.metering.record import RequestRecord

LogFormat = Literal["text", "json"]


class Logs:
    """The process's logging. `configure` may be called again at any time (SIGHUP); open streams are not touched."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream` (default: stderr). Takes over the root logger."""
        raise NotImplementedError

    access: AccessLog

    def configure(self, level: str, log_format: LogFormat) -> None:
        """`level`: debug, info, warning or error. Access lines are written at info and below."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is waiting (for at most a second) and give the root logger back."""
        raise NotImplementedError


class AccessLog:
    """One line a request."""

    def record(self, record: RequestRecord) -> None:
        """Write the line."""
        raise NotImplementedError
