"""Whether anybody is at the other end of a silent connection: a network can disappear without notice."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""A machine that is gone is noticed within two minutes; an answer may be silent for longer, and a socket for hours."""
_UNHEARD = 5
"""Packets in a row that nobody acknowledged, 6 to 15 s. A peer that is only busy acknowledges that it takes no more."""


def notice_when_gone(transport: asyncio.Transport) -> None:
    """Make the connection end if its peer is completely silent while it has nothing to acknowledge."""
    sock = _tcp(transport)
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_unheard(transport: asyncio.Transport) -> bool:
    """Whether what was sent reaches nobody, if the system can tell (Linux can). It would try for 15 minutes."""
    if sys.platform == "linux" and (sock := _tcp(transport)) is not None:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)
        return info[2] + info[3] >= _UNHEARD  # `tcpi_retransmits` and `tcpi_probes` of linux/tcp.h
    return False


def _tcp(transport: asyncio.Transport) -> socket.socket | None:
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or transport.is_closing() or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    return sock
