"""What clients may take of aimux before they are let go. A test holds the table in docs/security.md equal to this."""

from __future__ import annotations

import resource

from aimux.http.request import RequestError

KEEP_ALIVE_SECONDS = 75.0
"""A connection without a whole request on it: idle, or with a head that comes slowly."""
HANDSHAKE_SECONDS = 10.0
"""The time for a TLS handshake."""
BODY_SECONDS = 30.0
"""Between two packets of a request's body."""
BODY_RATE = 4096
"""Bytes of a body that have to arrive per second, on average …"""
BODY_GRACE = 30.0
"""… once this many seconds have passed: 32 MB may take two hours."""
SEND_SECONDS = 60.0
"""For a client that takes nothing of its answer while its connection is full."""
LINGER_SECONDS = 10.0
"""The same once its connection is being closed; also how long a client may go on sending a refused request."""
UNWANTED_SECONDS = 0.05
"""Between two large packets of such a request: about 5 MB a second."""
SWEEP_SECONDS = 5.0
"""How often the sweep runs: each deadline for bodies and answers may be late by this much."""

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
"""Client connections, if there are enough file descriptors for them."""
KEPT_DESCRIPTORS = 64
"""Files, listening sockets, name look-ups, renewals: what serving requests may not use up."""


def raise_descriptor_limit() -> None:
    """Allow as many file descriptors as MAX_CONNECTIONS needs, or as the hard limit permits. Called when the process
    starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS + KEPT_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            pass  # some systems have a lower ceiling than they report; then the soft limit stays


def connection_limit() -> int:
    """Client connections that there are file descriptors for: each may need a second one, to an upstream."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, (soft - KEPT_DESCRIPTORS) // 2))


def check_part(data: bytes, seen: int) -> None:
    """Check the beginning of a head, of which `seen` bytes were checked before. Raises RequestError as soon as it can't
    become a head."""
    if len(data) > MAX_HEAD:
        raise RequestError(HEAD_TOO_LARGE, 431)
    # No line feed may stand alone; and a request begins with its method (a TLS handshake does not).
    alone = data.count(b"\n", seen) != data.count(b"\r\n", max(0, seen - 1))
    if alone or not (b"A" <= data[:1] <= b"Z" or data in {b"", b"\r"}):
        raise RequestError("it does not begin like an HTTP request")


def check_head(block: bytes) -> None:
    """Check a whole head. Raises RequestError (431)."""
    if (
        len(block) > MAX_HEAD
        or block.count(b"\r\n") > MAX_FIELDS
        or (len(block) > MAX_FIELD and max(map(len, block.split(b"\r\n"))) > MAX_FIELD)
    ):
        raise RequestError(HEAD_TOO_LARGE, 431)
