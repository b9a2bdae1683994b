"""What is written to a client that aimux answers by itself."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.http.request import RequestError, RequestHead


_PHRASES = {status.value: status.phrase for status in HTTPStatus}
"""To look one up in the enumeration takes 1 µs."""


@lru_cache(maxsize=1)
def _date_line(second: int) -> str:
    return f"date: {formatdate(second, usegmt=True)}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of aimux's own. `headers` are all but the date, the length and the connection's."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    close: bool = False
    """Its connection ends with it."""

    def encode(self, request: RequestHead, *, keep_alive: bool) -> bytes:
        """For the wire."""
        lines = [f"HTTP/1.1 {self.status} {_PHRASES[self.status]}", _date_line(int(time.time()))]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status not in {204, 304}:
            lines.append(f"content-length: {len(self.body)}")
        if not keep_alive:
            lines.append("connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")
        return head if request.method == "HEAD" or self.status in {204, 304} else head + self.body


class Sent:
    """In an answer's place: it is on the wire already."""


SENT = Sent()


def not_accepted(error: RequestError) -> str:
    """What the client is told of a request that breaks the rules. No line is quoted: it may hold a token."""
    return f"This HTTP request can't be accepted: {str(error).removesuffix('.')}."


def plain_answer(status: int, detail: str, fields: bytes = b"") -> bytes:
    """An answer where no request could be read, the last one on its connection."""
    body = json.dumps({"error": {"type": "bad_request", "message": detail}}).encode()
    phrase = HTTPStatus(status).phrase.encode()
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
        % (
            status,
            phrase,
            len(body),
            fields,
            body,
        )
    )
