"""TLS towards clients: one certificate, from files or self-signed, renewed without a restart."""

from aimux.certificates.pair import Pair, TLSError, own_pair
from aimux.certificates.server import ServerTLS, TLSFiles

__all__ = ["Pair", "ServerTLS", "TLSError", "TLSFiles", "own_pair"]
