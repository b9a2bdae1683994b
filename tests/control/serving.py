"""An aiohttp application behind the front, over each kind of listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from aimux.control.server import ControlServer
from aimux.front.answer import Answer, Sent
from aimux.front.listening import listen_on
from aimux.front.request import Request
from aimux.front.server import FrontServer
from aimux.gateway.answers import error_answer
from aimux.plugin.errors import GatewayError
from tests.certificates.certificates import Issued

WAYS = ("tcp", "tls", "unix", "inherited")


@dataclass(frozen=True)
class Place:
    host: str
    port: int
    unix_path: str | None


class Served:
    """What runs, and raw connections to it."""

    def __init__(self, front: FrontServer, server: ControlServer, address: str | tuple[str, int], trust: str) -> None:
        self.front = front
        self.server = server
        self.address = address
        self.trusting = ssl.create_default_context(cadata=trust) if trust else None
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.address, str):
            reader, writer = await asyncio.open_unix_connection(self.address)
        else:
            name = "localhost" if self.trusting else None
            reader, writer = await asyncio.open_connection(*self.address, ssl=self.trusting, server_hostname=name)
        self._writers.append(writer)
        return reader, writer

    async def send(self, *pieces: bytes) -> bytes:
        """On a connection of its own; all that comes back, to its end."""
        reader, writer = await self.connect()
        async with asyncio.timeout(20):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def behind_the_front(app: web.Application, way: str, folder: Path) -> AsyncIterator[Served]:
    server = ControlServer(app)
    await server.start()

    async def handle(request: Request) -> Answer | Sent:
        try:
            return await server.serve(request)
        except GatewayError as error:  # as the gateway does
            return error_answer(error, None, "", close=True)

    front = FrontServer(handle)
    issued, context = Issued(), None
    if way == "tls":
        (folder / "pem").write_bytes(issued.pem + issued.key_pem())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "pem")
    inherited = []
    if way == "inherited":
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        inherited.append(sock)
    path = str(folder / "socket") if way == "unix" else None
    (listening,) = await listen_on(front, Place("127.0.0.1", 0, path), context, inherited)
    address = path or listening.sockets[0].getsockname()[:2]
    served = Served(front, server, address, issued.pem.decode() if context else "")
    try:
        yield served
    finally:
        served.close()
        listening.close()
        await front.shutdown(1.0)
        await server.close()
        for one in inherited:
            with contextlib.suppress(OSError):
                one.close()
