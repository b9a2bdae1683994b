"""TLS towards clients: one certificate, from files or self-signed, renewed without a restart."""

from aimux.certificates.pair import Pair, TLSError
from aimux.certificates.server import ServerTLS, TLSFiles

__all__ = ["Pair", "ServerTLS", "TLSError", "TLSFiles"]
