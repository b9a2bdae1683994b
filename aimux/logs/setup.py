"""The process's logging: format, level and colour on the root logger, all changeable while it runs."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Literal

from aimux.logs.access import AccessLog
from aimux.logs.writer import LineWriter
from aimux.redaction import mask, redact

LogFormat = Literal["text", "json"]

FLUSH_SECONDS = 1.0
_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    # Ends of lines, and what turns a line's direction around.
    **{code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))},
}


def clean_texts(record: logging.LogRecord) -> tuple[str, str]:
    """Message and traceback ("": none) without secrets."""
    try:
        message = record.getMessage()
    except Exception as error:  # a wrong format string must not end a request; logging's own report shows the args
        message = record.msg = f"unreadable message {record.msg!r} ({type(error).__name__})"
        record.args = None
    trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    # What a plugin or a library raised may hold a secret of any shape. Looking for each costs too much for routine
    # lines, but not for those that say what is wrong.
    if trace or record.levelno >= logging.WARNING:
        message, trace = mask(message), mask(trace)
    return redact(message), redact(trace)


class _Formatter(logging.Formatter):
    """One line a record; a traceback follows indented, so that nothing in it can pass for a line of its own."""

    def __init__(self, log_format: LogFormat, *, colour: bool) -> None:
        super().__init__()
        self._json = log_format == "json"
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        when = f"{clock}.{int(record.msecs):03d}Z"
        message, trace = clean_texts(record)
        if self._json:
            fields = {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": message}
            return json.dumps(fields | {"traceback": trace} if trace else fields)
        line = f"{when} {record.levelname:<7} {record.name}: {message.translate(_CONTROLS)}"
        if self._colour and (colour := _COLOURS.get(record.levelname)):
            line = f"{colour}{line}\x1b[0m"
        for part in trace.splitlines():
            line += "\n    " + part.translate(_CONTROLS)
        return line


class _Handler(logging.Handler):
    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")


class Logs:
    """Owns the root logger from here to `close`. `configure` may be called again at any time (SIGHUP)."""

    def __init__(self, fd: int = 2) -> None:
        """Write to the descriptor `fd`: text at level info until `configure` says otherwise."""
        self._fd = fd
        self._writer = LineWriter(fd, lost=self._lost)
        self._handler = _Handler(self._writer)
        self.access = AccessLog(self._writer.write)
        self._root = logging.getLogger()
        self._before = (self._root.handlers[:], self._root.level)
        self._root.handlers[:] = [self._handler]
        self.configure("info", "text")

    def configure(self, level: str, log_format: LogFormat) -> None:
        """`level`: debug, info, warning or error. Access lines are written at info and debug."""
        number = logging.getLevelNamesMapping()[level.upper()]
        colour = os.isatty(self._fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._handler.setFormatter(_Formatter(log_format, colour=colour))
        self._root.setLevel(number)
        # These libraries log each of their steps, and each statement with its values.
        for name in ("alembic", "sqlalchemy"):
            logging.getLogger(name).setLevel(max(number, logging.WARNING))
        self.access.enabled = number <= logging.INFO
        self.access.json = log_format == "json"

    def close(self) -> None:
        """Write what is waiting (for at most a second) and give the root logger back."""
        self.access.flush()
        self._writer.flush(FLUSH_SECONDS)
        self._root.handlers[:], level = self._before
        self._root.setLevel(level)

    def _lost(self, count: int) -> bytes:
        record = logging.LogRecord(
            __name__, logging.WARNING, "", 0, "%d log lines were lost: nobody read them", (count,), None
        )
        return self._handler.format(record).encode() + b"\n"
