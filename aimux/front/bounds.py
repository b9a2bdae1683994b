"""What clients may take of aimux before they are let go. A test holds the table in docs/security.md equal to this."""

from __future__ import annotations

import resource

from aimux.http.request import RequestError

KEEP_ALIVE_SECONDS = 75.0
"""A connection without a whole request on it: idle, or with a head that comes slowly."""
HANDSHAKE_SECONDS = 10.0
"""A TLS handshake."""
BODY_SECONDS = 30.0
"""Between two packets of a request's body."""
BODY_RATE = 4096
"""Bytes of a body a second, on average, …"""
BODY_GRACE = 30.0
"""… after so many seconds: 32 MB may take two hours."""
SEND_SECONDS = 60.0
"""A client that takes nothing of its answer, while it is full."""
LINGER_SECONDS = 10.0
"""The same, once its connection is to be closed; and how long a client may go on with a request that was refused."""
UNWANTED_SECONDS = 0.05
"""Between two packets of that, where they are large: about 5 MB a second."""
SWEEP_SECONDS = 5.0
"""How often somebody looks: each deadline for bodies and answers may be that much later."""

MAX_HEAD = 64 * 1024
"""Bytes of a request's head."""
MAX_FIELD = 32 * 1024
"""Bytes of its first line, of one header's name and of its value. Codex sends about 1 kB of metadata in one."""
MAX_FIELDS = 128
"""Headers of a request."""
HEAD_TOO_LARGE = (
    f"The request's head is too large: at most {MAX_HEAD} bytes, {MAX_FIELDS} headers, and {MAX_FIELD} bytes for any "
    "of them or for the first line."
)
MAX_CONNECTIONS = 16_384
"""Client connections, where file descriptors last for so many."""
KEPT_DESCRIPTORS = 64
"""Files, listening sockets, name look-ups, renewals: what serving requests may not use up."""


def raise_descriptor_limit() -> None:
    """As many file descriptors as MAX_CONNECTIONS needs, or as the hard limit allows. For the process's start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS + KEPT_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            pass  # some systems have a lower ceiling than they say; the soft limit is then what there is


def connection_limit() -> int:
    """Client connections that the file descriptors last for: each may need a second one, to an upstream."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, (soft - KEPT_DESCRIPTORS) // 2))


def check_part(data: bytes, seen: int) -> None:
    """Half a head, of which so many bytes were looked at before: what can't become one any more is told so at once.
    Raises RequestError.
    """
    if len(data) > MAX_HEAD:
        raise RequestError(HEAD_TOO_LARGE, 431)
    # No line feed may stand alone; and a request begins with its method (a TLS handshake does not).
    alone = data.count(b"\n", seen) != data.count(b"\r\n", max(0, seen - 1))
    if alone or not (b"A" <= data[:1] <= b"Z" or data in {b"", b"\r"}):
        raise RequestError("it does not begin like an HTTP request")


def check_head(block: bytes) -> None:
    """A whole one. Raises RequestError (431)."""
    if (
        len(block) > MAX_HEAD
        or block.count(b"\r\n") > MAX_FIELDS
        or (len(block) > MAX_FIELD and max(map(len, block.split(b"\r\n"))) > MAX_FIELD)
    ):
        raise RequestError(HEAD_TOO_LARGE, 431)
