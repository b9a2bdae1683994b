"""What systemd and a service tell each other: sd_notify(3), the watchdog, and sockets that were opened beforehand.

Both protocols are a few lines each; outside systemd every call does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, MutableMapping

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds that a manager is asked for at a time."""
FIRST_FD = 3
"""SD_LISTEN_FDS_START."""


class Notifier:
    """Tells the service manager what state the service is in. A manager that doesn't listen is no error."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_interval = _watchdog(environ)
        """Seconds between two signs of life (half of what the manager allows), None without a watchdog."""

    def ready(self, status: str = "") -> None:
        """The service answers requests; after `reloading`, it does so again."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """A reload began; `ready` ends it. The time stamp is what `Type=notify-reload` asks for."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> None:
        """The service drains and will exit."""
        self._send("STOPPING=1", *_status(status))

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(status))

    def extend(self, seconds: float) -> None:
        """Starting, reloading or stopping may take this much longer from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    @contextlib.asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """What is done meanwhile may take its time, as long as the loop is alive."""

        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def extend() -> None:
            nonlocal timer
            self.extend(PATIENCE)
            timer = loop.call_later(PATIENCE / 2, extend)

        extend()
        try:
            yield
        finally:
            timer.cancel()

    async def watch(self) -> None:
        """Give signs of life until cancelled. Runs on the loop: a loop that hangs gives none, and that is the point."""
        while self.watchdog_interval is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_interval)

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)  # a manager that is busy must not stall requests
                sock.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            log.warning("can't notify the service manager at %s: %s", self._address, error.strerror or error)


def listen_sockets(environ: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The sockets that the service manager opened for us, each with its name ("" without one); [] outside of one.

    Takes the variables out of `environ`, so that no child process believes they are its own. Raises OSError where
    a descriptor is no listening stream socket.
    """
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if not count.isdigit() or pid != str(os.getpid()):
        return []
    labels = names.split(":") if names else []
    sockets = []
    for position in range(int(count)):
        fd = FIRST_FD + position
        name = labels[position] if position < len(labels) else ""
        os.set_inheritable(fd, False)
        what = f"socket activation: descriptor {fd} ({name or 'unnamed'})"
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise OSError(f"{what} is not a socket") from error
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(f"{what} is not a listening stream socket")
        sock.setblocking(False)
        sockets.append((name, sock))
    return sockets


def _status(status: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(status.split())}",) if status else ()


def _watchdog(environ: Mapping[str, str]) -> float | None:
    usec = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000
