"""HTTP/1.1 heads, sans-IO: a strict parser for an upstream's answer.

The rules: names are tokens, values hold no control character but the tab, each line ends in CRLF, there is no folding
and no space before a colon. `content-length` is digits, all its repetitions agree, and it never stands beside
`transfer-encoding`, whose only accepted value is `chunked`. What breaks a rule is refused whole: an answer that two
parsers could read in two ways must not reach a client.
"""

from __future__ import annotations

import re

from multidict import CIMultiDict

from aimux.relay.errors import ProtocolError

MAX_HEAD = 64 * 1024
MAX_INTERIM = 16
"""Interim (1xx) answers before the real one; a server that sends more is broken or hostile."""

# Possessive quantifiers: the head is read once, whatever is in it.
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n")
_FIELD = re.compile(r"^([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n", re.MULTILINE)
_DIGITS = re.compile(r"[0-9]{1,18}")

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class ResponseHead:
    """An answer's head, as text in latin-1. `fields` are in their order and spelling; `headers` find by any spelling.

    `length` is None where the framing is not a length. `connection` holds the lower-case options of the `Connection`
    header: names of headers that end here.
    """

    __slots__ = ("chunked", "connection", "fields", "headers", "keep_alive", "length", "reason", "status")

    def __init__(self, status: int, reason: str, fields: list[tuple[str, str]], *, minor: int) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.headers = headers = CIMultiDict(fields)
        self.chunked = False
        self.length: int | None = None
        self.connection: frozenset[str] = frozenset()
        if "transfer-encoding" in headers:
            codings = headers.getall("transfer-encoding")
            if len(codings) > 1 or codings[0].lower() != "chunked" or not minor:
                raise ProtocolError("the answer has a transfer-encoding other than one 'chunked'")
            if "content-length" in headers:
                raise ProtocolError("the answer has both content-length and transfer-encoding")
            self.chunked = True
        elif "content-length" in headers:
            self.length = _length(headers.getall("content-length"))
        if "connection" in headers:
            options = ",".join(headers.getall("connection")).lower().split(",")
            self.connection = frozenset(option.strip() for option in options)
        self.keep_alive = "close" not in self.connection if minor else "keep-alive" in self.connection

    def get(self, name: str) -> str:
        """One header's value, or ""."""
        return self.headers.get(name, "")


def _length(values: list[str]) -> int:
    lengths = {part.strip(" \t") for value in values for part in value.split(",")}
    length = lengths.pop()
    if lengths or not _DIGITS.fullmatch(length):
        raise ProtocolError("the answer has no clear content-length")
    return int(length)


def parse_response_head(block: bytes) -> ResponseHead:
    """`block` runs to the empty line, which it includes. Raises ProtocolError."""
    text = block.decode("latin-1")
    line = _STATUS_LINE.match(text)
    if line is None:
        raise ProtocolError("the answer does not begin with an HTTP/1.x status line")
    fields = _FIELD.findall(text, line.end())
    # Every line ends in CRLF, and each but the first and the empty last one is a whole field. (5 µs for 15 fields;
    # checking each field's place costs as much again.)
    lines = text.count("\r\n")
    if len(fields) != lines - 2 or text.count("\n") != lines or text.count("\r") != lines:
        raise ProtocolError("the answer has a malformed header line")
    if " \r\n" in text or "\t\r\n" in text:
        fields = [(name, value.rstrip(" \t")) for name, value in fields]
    return ResponseHead(int(line[2]), line[3] or "", fields, minor=int(line[1]))


class HeadReader:
    """Finds the head of the real answer in what an upstream sends. Interim answers end here."""

    __slots__ = ("_buffer", "_interim", "began")

    def __init__(self) -> None:
        self.began = False
        """The upstream has sent something."""
        self._buffer = b""
        self._interim = 0

    def feed(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """The head and what followed it, or None as long as it isn't whole. Raises ProtocolError."""
        self.began = True
        if self._buffer:
            data = self._buffer + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = parse_response_head(data[: end + 4])
            data = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                return head, data
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise ProtocolError(f"the upstream sent more than {MAX_INTERIM} interim answers")
        if len(data) > MAX_HEAD:
            raise ProtocolError(f"the answer's head is larger than {MAX_HEAD} bytes")
        self._buffer = data
        return None


def clean(value: str) -> bytes:
    """A header value for the wire. Raises ValueError for what would break out of its line."""
    raw = value.encode("latin-1") if value.isascii() else value.encode("utf-8")
    if b"\r" in raw or b"\n" in raw or b"\0" in raw:
        raise ValueError("a header value holds CR, LF or NUL")
    return raw
