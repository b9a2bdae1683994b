"""Listening sockets: TCP, a unix socket, or those that the service manager has opened."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aimux.front import bounds
from aimux.front.handshakes import Handshakes
from aimux.http.tls import TLSTransport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from aimux.front.server import FrontServer

BACKLOG = 4096
"""The same as systemd's sockets and Linux's `somaxconn`: connections that arrive while aimux restarts wait there."""


class Listen(Protocol):
    """Where to listen: at a host's port, or at a unix socket's path."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def unix_path(self) -> str | None: ...


class ListenError(Exception):
    """The address can't be listened on; the message says why and what to do."""


async def listen_on(
    server: FrontServer, listen: Listen, context: ssl.SSLContext | None, inherited: Sequence[socket.socket]
) -> list[asyncio.Server]:
    """Accept connections. `inherited` sockets win over `listen`. Raises ListenError."""
    loop = asyncio.get_running_loop()
    if inherited:
        return [await _serve_socket(server, sock, context) for sock in inherited]
    try:
        if listen.unix_path is not None:
            return [await _serve_socket(server, _unix_socket(Path(listen.unix_path)), context)]
        return [await loop.create_server(_front(server, context), listen.host or None, listen.port, backlog=BACKLOG)]
    except OSError as error:
        raise ListenError(f"can't listen on {listen}: {_why(error)}") from error


async def _serve_socket(server: FrontServer, sock: socket.socket, context: ssl.SSLContext | None) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(_front(server, context), sock=sock, backlog=BACKLOG)
    return await loop.create_server(_front(server, context), sock=sock, backlog=BACKLOG)


def _front(server: FrontServer, context: ssl.SSLContext | None) -> Callable[[], asyncio.Protocol]:
    """What makes a protocol for each connection."""
    if context is None:
        return server
    refused = Handshakes().refused
    return lambda: TLSTransport(server(), context, handshake_seconds=bounds.HANDSHAKE_SECONDS, refused=refused)


def _unix_socket(path: Path) -> socket.socket:
    """A fresh socket at `path`, for its owner and group. One that nobody listens on any more is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink()
                else:
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        elif os.path.lexists(path):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
        sock.bind(str(path))
        path.chmod(0o660)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def address_of(sock: socket.socket, scheme: str) -> str:
    """Where clients reach this socket: a URL, or `unix:/path`."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[0], name[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _why(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                "another program (or another aimux) listens there; stop it, choose another `listen`, "
                "or begin the same command with AIMUX_LISTEN=127.0.0.1:8081"
            )
        case errno.EACCES | errno.EPERM:
            return "no permission; use a port above 1023, a folder you own, or give the service CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; `:PORT` means every one that it has"
        case errno.ENOTSOCK:
            return "something else lies there, which is no socket; remove it, or choose another `listen`"
        case errno.ENOENT:
            return "there is no such folder; make it, or choose another `listen`"
        case _:
            return error.strerror or str(error)
