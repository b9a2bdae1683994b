"""A certificate chain with its key, ready to serve, and the error that says why there is none."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

WARN_BEFORE = timedelta(days=14)
RENEW_BEFORE = timedelta(days=30)
"""When aimux makes a new self-signed one."""


def own_pair(state_dir: Path) -> tuple[Path, Path]:
    """Where aimux's own certificate and key lie."""
    return state_dir / "tls" / "cert.pem", state_dir / "tls" / "key.pem"


class TLSError(Exception):
    """A certificate or key that can't be used: what is wrong, where, and what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}: {remedy}")
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Pair:
    """A checked certificate chain with its key, ready to serve."""

    context: ssl.SSLContext
    not_before: float
    not_after: float
    """Unix seconds."""
    pem: bytes
    """The server's certificate, without its chain."""
    fingerprint: str
    """SHA-256 of the server's certificate, `AB:CD:…`."""
    names: frozenset[str]
    """What the certificate is for: DNS names and addresses."""
    key_open_to_others: bool

    def ends_soon(self, now: float) -> bool:
        """Whether it should have been renewed by now: one that lives for days is, long before it has 14 left."""
        return self.not_after - now < min(WARN_BEFORE.total_seconds(), (self.not_after - self.not_before) / 4)

    def warnings(self, now: float) -> list[str]:
        """What works now and should be looked after."""
        found = []
        if self.ends_soon(now):
            found.append(
                f"the TLS certificate expires at {_date(self.not_after)}: renew it, aimux takes the new one by itself"
            )
        if self.key_open_to_others:
            found.append(
                "every user of this machine can read the TLS key: chmod o-rwx the file that tls.key_path names"
            )
        return found


def server_context() -> ssl.SSLContext:
    """A context without a certificate: TLS 1.2 and later, HTTP/1.1, Python's choice of ciphers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
