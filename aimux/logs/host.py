"""Logging when aimux is a part of another program, whose logging stays as it is."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

from aimux.logs.access import AccessLog
from aimux.logs.setup import clean_texts

if TYPE_CHECKING:
    from aimux.logs.setup import LogFormat

_OURS = logging.getLogger("aimux")
_ACCESS = logging.getLogger("aimux.access")


class HostLogs:
    """Passes what the loggers below `aimux` say on to the program's own handlers, without any secret, until `close`.

    A request's line is a record of `aimux.access` at level info.
    """

    def __init__(self) -> None:
        self.access = AccessLog(_write)
        self._handler = _Redacting()
        self._before = _OURS.propagate
        _OURS.addHandler(self._handler)
        _OURS.propagate = False

    def configure(self, level: str, log_format: LogFormat) -> None:
        """Levels are the program's; `log_format` is for the lines of requests."""
        self.access.json = log_format == "json"

    def close(self) -> None:
        """Give the loggers back."""
        self.access.flush()
        _OURS.removeHandler(self._handler)
        _OURS.propagate = self._before


class _Redacting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        clean = copy.copy(record)
        clean.msg, trace = clean_texts(record)
        clean.args = None
        if trace:
            clean.exc_text, clean.exc_info = trace, None
        logging.getLogger().handle(clean)


def _write(lines: bytes) -> None:
    for line in lines.decode().splitlines():
        _ACCESS.info("%s", line)
