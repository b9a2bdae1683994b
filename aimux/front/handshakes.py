"""Failed TLS handshakes: what the log says about them, and what a client that speaks no TLS is told."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from aimux.front.answer import plain_answer

if TYPE_CHECKING:
    import asyncio
    import ssl

log = logging.getLogger("aimux.gateway")

EVERY_SECONDS = 60.0
"""Seconds between two log lines for the same reason: scanners come by the hundred."""
_PLAIN_HTTP = "HTTP_REQUEST"
_HUNG_UP = "HUNG_UP"
_DISTRUST = ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_UNKNOWN", "ALERT_CERTIFICATE_EXPIRED")


class Handshakes:
    """The failed handshakes of one listener."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int]] = {}
        """By reason: when it was last logged, and how often it has occurred since."""

    def refused(self, error: ssl.SSLError, transport: asyncio.Transport) -> bytes:
        """Log it, and return what to send in the clear."""
        peer = transport.get_extra_info("peername")
        where = str(peer[0]) if isinstance(peer, tuple) else "a local socket"
        reason = getattr(error, "reason", None) or _HUNG_UP  # only those of OpenSSL have one
        if reason == _PLAIN_HTTP:
            log.info("a request from %s is refused: it speaks plain HTTP, and this port HTTPS", where)
            return plain_answer(400, "This port speaks HTTPS: begin the address with https://.")
        last, more = self._told.get(reason, (float("-inf"), 0))
        now = time.monotonic()
        if now - last < EVERY_SECONDS:
            self._told[reason] = (last, more + 1)
            return b""
        self._told[reason] = (now, 0)
        since = f" ({more} more since the last such line)" if more else ""
        log.info("the TLS handshake with %s failed: %s%s", where, _in_words(reason), since)
        return b""


def _in_words(reason: str) -> str:
    """OpenSSL's word for it, of which there are a few hundred, with what the common ones mean."""
    if reason == _HUNG_UP:
        return "it hung up in the middle, like some clients that don't trust a certificate"
    word = reason.lower().replace("_", " ")
    if reason.endswith(_DISTRUST):
        return f"it does not trust the certificate ({word})"
    if reason in {"NO_SHARED_CIPHER", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_VERSION_NUMBER"}:
        return f"it speaks no TLS that is accepted here ({word})"
    return word
