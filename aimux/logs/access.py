"""The access log: one line a request, formatted by hand (`json.dumps` alone would cost as much as the whole line)."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

from aimux.plugin.usage import Usage
from aimux.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.metering.record import RequestRecord

    Alike = tuple[bool, str, str, str, str, str, int, str, str]

MOST_KNOWN = 1000
_TEXT = "%s.%03dZ ACCESS  %s in=%d out=%d ttfb=%s duration=%.3f model=%s tokens=%s attempts=%d id=%s error=%s\n"
_TEXT_ALIKE = "user=%s provider=%s account=%s method=%s path=%s status=%d"
_JSON = (
    '{"time":"%s.%03dZ","level":"info","logger":"access",%s,"bytes_in":%d,"bytes_out":%d,"ttfb":%s,"duration":%.6f,'
    '"model":"%s","input_tokens":%d,"cache_read_tokens":%d,"cache_write_tokens":%d,"output_tokens":%d,'
    '"attempts":%d,"request_id":"%s","error":"%s"}\n'
)
_JSON_ALIKE = '"user":"%s","provider":"%s","account":"%s","method":"%s","path":"%s","status":%d'
_NO_USAGE = Usage()
_PLAIN = re.compile(r"[!#-~]+").fullmatch


class AccessLog:
    """Writes `time ACCESS key=value …`, or one JSON object. A value can forge neither a line nor a field.

    What is the same for many requests (who, where, and how it ended) is checked and formatted once. That leaves
    numbers, and the id if it is the client's.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.enabled = True
        self.json = False
        self.soon: Callable[[Callable[[], None]], object] | None = None
        """The event loop's `call_soon`. With it, the lines of one round of the loop are one write: under load a third
        as many writes, at 3 µs each."""
        self._write = write
        self._lines: list[str] = []
        self._known: dict[Alike, tuple[str, str, str]] = {}
        self._second = -1
        self._clock = ""

    def record(self, record: RequestRecord) -> None:
        """Write the line of a request that is over."""
        if not self.enabled:
            return
        second = int(record.time)
        if second != self._second:
            self._second = second
            self._clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        clock, milliseconds = self._clock, int((record.time - second) * 1000)
        usage = record.usage or _NO_USAGE
        as_json = self.json
        alike = (
            as_json,
            record.user,
            record.provider,
            record.account,
            record.method,
            record.path,
            record.status,
            usage.model or record.model,
            record.error,
        )
        told, model, error = self._known.get(alike) or self._learn(alike)
        own, ttfb = record.request_id, record.ttfb
        if own != record.id:
            own = _said(own, as_json=as_json)
        # `%` writes numbers into the line directly; an f-string would make a text of each.
        if as_json:
            line = _JSON % (
                clock,
                milliseconds,
                told,
                record.bytes_in,
                record.bytes_out,
                "null" if ttfb is None else f"{ttfb:.6f}",
                record.duration,
                model,
                usage.input_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
                usage.output_tokens,
                record.attempts,
                own,
                error,
            )
        else:
            tokens = "-"
            if record.usage is not None:
                read, written = usage.cache_read_tokens, usage.cache_write_tokens
                tokens = f"{usage.input_tokens}+{read}+{written}/{usage.output_tokens}"
            line = _TEXT % (
                clock,
                milliseconds,
                told,
                record.bytes_in,
                record.bytes_out,
                "-" if ttfb is None else f"{ttfb:.3f}",
                record.duration,
                model,
                tokens,
                record.attempts,
                own,
                error,
            )
        self._lines.append(line)
        if self.soon is None:
            self.flush()
        elif len(self._lines) == 1:
            self.soon(self.flush)

    def flush(self) -> None:
        """Write what there is."""
        lines = "".join(self._lines)
        self._lines.clear()
        if lines:
            self._write(lines.encode())

    def _learn(self, alike: Alike) -> tuple[str, str, str]:
        """The line's text for it, and for model and error."""
        as_json, user, provider, account, method, path, status, model, error = alike
        nothing = "" if as_json else "-"
        user, provider, account, model, error = (
            _said(value, as_json=as_json) or nothing for value in (user, provider, account, model, error)
        )
        method, path = _said(method, as_json=as_json), _said(path, as_json=as_json)
        told = (_JSON_ALIKE if as_json else _TEXT_ALIKE) % (user, provider, account, method, path, status)
        if len(self._known) >= MOST_KNOWN:  # clients choose paths
            self._known.clear()
        self._known[alike] = found = (told, model, error)
        return found


def _said(value: str, *, as_json: bool) -> str:
    """In ASCII, without what ends a field, and masked where it looks like a secret."""
    if not _PLAIN(value) or "sk-" in value or "eyJ" in value:
        value = redact(value)
    if as_json:
        return json.dumps(value)[1:-1]
    return value if not value or _PLAIN(value) else json.dumps(value)
