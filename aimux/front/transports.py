"""Transports that stand before another one, and what a transport has left to send."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class TransportBefore(asyncio.Transport):
    """Passes every call on to `below`, unless a subclass overrides it."""

    def __init__(self, below: asyncio.Transport) -> None:
        super().__init__()
        self.below = below

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.below.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return self.below.can_write_eof()

    def write_eof(self) -> None:
        self.below.write_eof()

    def close(self) -> None:
        self.below.close()

    def abort(self) -> None:
        self.below.abort()

    def is_closing(self) -> bool:
        return self.below.is_closing()

    def pause_reading(self) -> None:
        self.below.pause_reading()

    def resume_reading(self) -> None:
        self.below.resume_reading()

    def is_reading(self) -> bool:
        return self.below.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self.below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.below.get_write_buffer_limits()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.below.get_protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.below.set_protocol(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.below.get_extra_info(name, default)


def left_to_send(transport: asyncio.Transport) -> int:
    """Bytes that a client has not taken: ours and the kernel's, which may hold megabytes and takes ours in large
    steps."""
    left = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if left and sock is not None:
        try:
            left += int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, ValueError):
            pass  # not every system reports them; then ours have to do
    return left
