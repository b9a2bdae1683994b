"""What can go wrong between aimux and an upstream, named by phase. None of them carries a header or a body."""

from __future__ import annotations


class RelayError(Exception):
    """Base: the upstream gave no usable answer. `phase` goes to logs and metrics."""

    phase = "relay"


class ConnectError(RelayError):
    """No connection: DNS, refused, unreachable, TLS. Nothing was sent."""

    phase = "connect"


class ConnectTimeout(ConnectError):
    """The connection did not stand within `connect_timeout`."""

    phase = "connect_timeout"


class ReadError(RelayError):
    """The connection broke before the answer's head was there."""

    phase = "read"


class StaleConnection(ReadError):
    """A reused connection broke before the first byte of an answer: the upstream had closed it while it was idle."""

    phase = "stale"


class HeadTimeout(RelayError):
    """The answer's head did not come within `request_timeout`."""

    phase = "head_timeout"


class ProtocolError(RelayError):
    """The upstream sent what is not HTTP/1.1."""

    phase = "protocol"
