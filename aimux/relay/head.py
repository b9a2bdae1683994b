"""HTTP/1.1 heads, sans-IO: a strict parser for an upstream's answer and a builder for the request to it.

The rules: names are tokens, values hold no control character but the tab, each line ends in CRLF, there is no folding
and no space before a colon. `content-length` is digits, all its repetitions agree, and it never stands beside
`transfer-encoding`, whose only accepted value is `chunked`. What breaks a rule is refused whole: an answer that two
parsers could read in two ways must not reach a client.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from aimux.relay.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_HEAD = 64 * 1024

# Possessive quantifiers: the head is read once, whatever is in it.
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n")
_DIGITS = re.compile(rb"[0-9]{1,18}")

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class ResponseHead:
    """An answer's head. `fields` are as they came, in order; `length` is None where the framing is not a length."""

    __slots__ = ("_headers", "chunked", "connection", "fields", "keep_alive", "length", "reason", "status")

    def __init__(self, status: int, reason: bytes, fields: list[tuple[bytes, bytes]], *, minor: int) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.chunked = False
        self.length: int | None = None
        self.connection: frozenset[bytes] = frozenset()
        """Lower-case options of the `Connection` header: names of headers that end here."""
        self._headers: CIMultiDict[str] | None = None
        options: set[bytes] = set()
        for name, value in fields:
            # Three headers decide the framing; their lengths rule out nearly all others before lower() is paid for.
            size = len(name)
            if size == 14 and name.lower() == b"content-length":
                self._set_length(value)
            elif size == 17 and name.lower() == b"transfer-encoding":
                if self.chunked or value.strip().lower() != b"chunked" or not minor:
                    raise ProtocolError("the answer has a transfer-encoding other than one 'chunked'")
                self.chunked = True
            elif size == 10 and name.lower() == b"connection":
                options.update(option.strip().lower() for option in value.split(b","))
        if self.chunked and self.length is not None:
            raise ProtocolError("the answer has both content-length and transfer-encoding")
        if options:
            self.connection = frozenset(options)
        self.keep_alive = b"close" not in options if minor else b"keep-alive" in options

    def _set_length(self, value: bytes) -> None:
        for part in value.split(b","):
            part = part.strip(b" \t")
            if not _DIGITS.fullmatch(part) or self.length not in {None, int(part)}:
                raise ProtocolError("the answer has no clear content-length")
            self.length = int(part)

    @property
    def headers(self) -> CIMultiDict[str]:
        """The fields as a case-insensitive multi-dict, made when first asked for."""
        if self._headers is None:
            self._headers = CIMultiDict(
                [(name.decode("latin-1"), value.rstrip(b" \t").decode("latin-1")) for name, value in self.fields]
            )
        return self._headers

    def get(self, name: str) -> str:
        """One header's value, or ""."""
        return self.headers.get(name, "")


def parse_response_head(block: bytes) -> ResponseHead:
    """`block` runs to the empty line, which it includes. Raises ProtocolError."""
    line = _STATUS_LINE.match(block)
    if line is None:
        raise ProtocolError("the answer does not begin with an HTTP/1.x status line")
    fields = _FIELD.findall(block, line.end())
    # findall skips what doesn't match, so the lengths must add up: name, colon, blanks, value, CRLF.
    position = line.end()
    if sum(len(name) + len(value) for name, value in fields) + 3 * len(fields) + 2 != len(block) - position:
        for match in _FIELD.finditer(block, position):
            if match.start() != position:
                raise ProtocolError("the answer has a malformed header line")
            position = match.end()
        if block[position:] != b"\r\n":
            raise ProtocolError("the answer has a malformed header line")
    return ResponseHead(int(line[2]), line[3] or b"", fields, minor=int(line[1]))


def build_head(start_line: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head's bytes, of fields that a strict parser or `clean` has checked."""
    return b"".join([start_line, b"\r\n", *[b"%b: %b\r\n" % field for field in fields], b"\r\n"])


def clean(value: str) -> bytes:
    """A header value for the wire. Raises ValueError for what would break out of its line."""
    raw = value.encode("latin-1") if value.isascii() else value.encode("utf-8")
    if b"\r" in raw or b"\n" in raw or b"\0" in raw:
        raise ValueError("a header value holds CR, LF or NUL")
    return raw
