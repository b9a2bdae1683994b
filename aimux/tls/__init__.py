"""TLS towards clients: one certificate, from files or self-signed, renewed without a restart."""

from aimux.tls.pair import Pair, TLSError
from aimux.tls.server import ServerTLS, TLSFiles

__all__ = ["Pair", "ServerTLS", "TLSError", "TLSFiles"]
