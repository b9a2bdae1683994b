"""Sockets through a whole aimux, between the `websockets` library's own client and server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.front.conftest import pytest_asyncio_loop_factories
from tests.gateway.conftest import TOKEN, Aimux, Start
from tests.waiting import until

__all__ = [
    "DONE",
    "HANDSHAKE",
    "Begin",
    "Far",
    "access",
    "ended",
    "pytest_asyncio_loop_factories",
    "socket",
    "turns",
]

DONE = json.dumps({"done": 1, "tokens": 7})
HANDSHAKE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + (
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Far:
    """The upstream: a WebSocket server that echoes, unless a test has it do something else."""

    def __init__(self) -> None:
        self.serve: Callable[[ServerConnection], Awaitable[None]] = self.echo
        self.refuse: list[tuple[int, bytes]] = []
        self.headers: list[tuple[str, str]] = []
        self.requests: list[Request] = []
        self.ended: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.server: Server

    async def echo(self, socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async def handle(self, socket: ServerConnection) -> None:
        try:
            await self.serve(socket)
            await socket.wait_closed()
        except ConnectionClosed:
            pass
        finally:
            self.ended.put_nowait(socket)

    def answer(self, socket: ServerConnection, asked: Request) -> Response | None:
        self.requests.append(asked)
        if not self.refuse:
            return None
        status, body = self.refuse.pop(0)
        response = socket.respond(status, body.decode())
        response.headers["retry-after"] = "60"
        return response

    def decorate(self, socket: ServerConnection, asked: Request, response: Response) -> None:
        for name, value in self.headers:
            response.headers[name] = value

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def next_end(self) -> ServerConnection:
        async with asyncio.timeout(10):
            return await self.ended.get()


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    fake = Far()
    fake.server = await serve(
        fake.handle,
        "127.0.0.1",
        0,
        process_request=fake.answer,
        process_response=fake.decorate,
        subprotocols=["responses.v1"],  # type: ignore[list-item]
        select_subprotocol=lambda _, offered: next((one for one in offered if one == "responses.v1"), None),
        ping_interval=None,
        max_size=None,
        close_timeout=1,
    )
    yield fake
    fake.server.close()
    await fake.server.wait_closed()


Begin = Callable[..., Awaitable[Aimux]]


@pytest.fixture
async def begin(start: Start, far: Far) -> Begin:
    async def run(**settings: Any) -> Aimux:
        return await start(providers={"plain": {"base_url": far.url}}, **settings)

    return run


def socket(aimux: Aimux, path: str = "/plain/v1/socket", *, token: str = TOKEN, **options: Any) -> connect:
    headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
    return connect(
        f"ws://127.0.0.1:{aimux.port}{path}",
        additional_headers=headers,
        ping_interval=None,
        max_size=None,
        close_timeout=1,
        proxy=None,
        **options,
    )


async def ended(aimux: Aimux) -> None:
    """Until no socket is open."""
    await until(lambda: not aimux.app.gateway.sockets)


def access(aimux: Aimux) -> list[dict[str, str]]:
    lines = [line.split() for line in aimux.log.splitlines() if " ACCESS " in line]
    return [dict(field.partition("=")[::2] for field in line[2:]) for line in lines]


async def turns(server: ServerConnection) -> None:
    """Every question is answered with an event and the one that ends the turn; "long" ends with the next message."""
    async for message in server:
        if message == "go on":
            continue
        await server.send('{"delta": "…"}')
        if message == "long":
            await server.recv()
        await server.send(message if str(message).startswith("{") else DONE)
