"""Whose certificates are believed, of all that aimux asks."""

from __future__ import annotations

import ssl


def trusting() -> ssl.SSLContext:
    """The system's authorities, and those of SSL_CERT_FILE.

    From 3.13 on Python refuses certificates that lack what RFC 5280 asks for and does not need, such as an authority's
    key identifier. Those of companies' proxies that open TLS often do, and browsers, curl and Node take them.
    """
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context
