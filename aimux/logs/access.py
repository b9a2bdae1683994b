"""The access log: one line a request, formatted by hand (`json.dumps` alone would cost as much as the whole line)."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

from aimux.plugin.types import Usage
from aimux.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.metering.record import RequestRecord

_PRINTABLE = bytes(range(0x21, 0x7F))
_TEXT_REST, _TEXT_HARMLESS = b" " * 17, _PRINTABLE.replace(b'"', b"")
_JSON_REST, _JSON_HARMLESS = b'"' * 64, _PRINTABLE.translate(None, b'"\\')
"""What is left of a line without its harmless bytes, as long as no value holds anything else."""
_NO_USAGE = Usage()
_PLAIN = re.compile(r"[!#-~]+").fullmatch


class AccessLog:
    """Writes `time ACCESS key=value …`, or one JSON object. A value can forge neither a line nor a field.

    A line is built as if every value were harmless, then looked at once as a whole: all printable, as many separators
    as there should be, nothing like a secret. That takes 0.5 µs; a line that fails is built again, value by value.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.enabled = True
        self.json = False
        self.soon: Callable[[Callable[[], None]], object] | None = None
        """The event loop's `call_soon`. With it, the lines of one round of the loop are one write: under load a third
        as many, at 3 µs each."""
        self._write = write
        self._lines: list[bytes] = []
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
        when = f"{self._clock}.{int((record.time - second) * 1000):03d}Z"
        usage = record.usage
        path, request_id = record.path, record.request_id
        model = usage.model or record.model if usage else record.model
        values = (record.user, record.provider, record.account, record.method, path, model, request_id, record.error)
        foreign = path + model + request_id
        suspect = "sk-" in foreign or "eyJ" in foreign
        if self.json:
            line = _json_line(when, record, *values).encode("utf-8", "replace")
            if suspect or line.translate(None, _JSON_HARMLESS) != _JSON_REST:
                line = _json_line(when, record, *[json.dumps(redact(value))[1:-1] for value in values]).encode()
        else:
            line = _text_line(when, record, *values).encode("utf-8", "replace")
            if suspect or line.translate(None, _TEXT_HARMLESS) != _TEXT_REST:
                line = _text_line(when, record, *[_quoted(redact(value)) for value in values]).encode()
        self._lines.append(line + b"\n")
        if self.soon is None:
            self.flush()
        elif len(self._lines) == 1:
            self.soon(self.flush)

    def flush(self) -> None:
        """Write what there is."""
        lines = b"".join(self._lines)
        self._lines.clear()
        if lines:
            self._write(lines)


def _quoted(value: str) -> str:
    return value if not value or _PLAIN(value) else json.dumps(value)


def _text_line(
    when: str,
    r: RequestRecord,
    user: str,
    provider: str,
    account: str,
    method: str,
    path: str,
    model: str,
    request_id: str,
    error: str,
) -> str:
    ttfb = "-" if r.ttfb is None else f"{r.ttfb:.3f}"
    tokens = "-"
    if usage := r.usage:
        tokens = f"{usage.input_tokens}+{usage.cache_read_tokens}+{usage.cache_write_tokens}/{usage.output_tokens}"
    return (
        f"{when} ACCESS  user={user or '-'} provider={provider or '-'} account={account or '-'} method={method} "
        f"path={path} status={r.status} in={r.bytes_in} out={r.bytes_out} ttfb={ttfb} duration={r.duration:.3f} "
        f"model={model or '-'} tokens={tokens} attempts={r.attempts} id={request_id} error={error or '-'}"
    )


def _json_line(
    when: str,
    r: RequestRecord,
    user: str,
    provider: str,
    account: str,
    method: str,
    path: str,
    model: str,
    request_id: str,
    error: str,
) -> str:
    ttfb = "null" if r.ttfb is None else f"{r.ttfb:.6f}"
    usage = r.usage or _NO_USAGE
    return (
        f'{{"time":"{when}","level":"info","logger":"access","user":"{user}","provider":"{provider}",'
        f'"account":"{account}","method":"{method}","path":"{path}","status":{r.status},"bytes_in":{r.bytes_in},'
        f'"bytes_out":{r.bytes_out},"ttfb":{ttfb},"duration":{r.duration:.6f},"model":"{model}",'
        f'"input_tokens":{usage.input_tokens},"cache_read_tokens":{usage.cache_read_tokens},'
        f'"cache_write_tokens":{usage.cache_write_tokens},"output_tokens":{usage.output_tokens},'
        f'"attempts":{r.attempts},"request_id":"{request_id}","error":"{error}"}}'
    )
