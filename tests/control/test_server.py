"""What aiohttp serves on connections that the front has accepted: over each kind of socket, with the front's bounds."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import aiohttp
import pytest
import uvloop
from aiohttp import web

from aimux.control.application import SERVER
from aimux.control.middlewares.bodies import continue_, not_yet
from aimux.front import bounds
from aimux.http.framing import LAST_CHUNK, chunk
from tests.blocking import _nothing_blocks_the_loop  # noqa: F401 - a fixture

from .serving import WAYS, Served, behind_the_front

BIG = 20 * 1024 * 1024
Serve = Callable[..., Awaitable[Served]]


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


class App:
    """Handlers, and what became of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ended = False
        self.cancelled = asyncio.Event()
        self.more = asyncio.Event()
        self.began = asyncio.Event()
        self.app = web.Application(middlewares=[self._note], handler_args=SERVER)
        self.app.add_routes([web.get("/hello", self.hello), web.get("/events", self.events)])
        self.app.add_routes([web.get("/socket", self.socket), web.get("/big", self.big), web.get("/held", self.held)])
        self.app.router.add_post("/upload", self.upload, expect_handler=not_yet)
        self.app.router.add_post("/refused", self.refused, expect_handler=not_yet)
        self.app.on_shutdown.append(self._end)

    @web.middleware
    async def _note(
        self, request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.asked.append(request.path)
        try:
            return await handler(request)
        except (asyncio.CancelledError, ConnectionError):  # the second where it was reading the body
            self.cancelled.set()
            raise

    async def _end(self, _app: web.Application) -> None:
        assert not self.ended, "once is enough"
        self.ended = True
        self.more.set()

    async def hello(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"host": request.host, "secure": request.secure})

    async def refused(self, _request: web.Request) -> web.StreamResponse:
        raise web.HTTPForbidden

    async def upload(self, request: web.Request) -> web.StreamResponse:
        digest = hashlib.sha256()
        await continue_(request)
        async for piece in request.content.iter_any():
            digest.update(piece)
        return web.Response(text=digest.hexdigest())

    async def events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await self.more.wait()
        await response.write(b"data: 2\n\n")
        return response

    async def socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"you said {message.data}")
        return socket

    async def big(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(BIG // 65_536):
            await response.write(bytes(65_536))
        return response

    async def held(self, _request: web.Request) -> web.StreamResponse:
        self.began.set()
        await self.more.wait()
        return web.Response(text="at last")


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def serve(app: App, tmp_path: Path) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def run(way: str = "tcp") -> Served:
            return await stack.enter_async_context(behind_the_front(app.app, way, tmp_path))

        yield run


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: control.example", *fields, "", ""]).encode()


def parts(answer: bytes) -> tuple[bytes, bytes, bytes]:
    """Status line, the other header lines in lower case, body."""
    top, _, body = answer.partition(b"\r\n\r\n")
    status, _, fields = top.partition(b"\r\n")
    return status, fields.lower(), body


@pytest.mark.parametrize("way", WAYS)
async def test_one_request_is_answered_and_its_connection_ends(serve: Serve, way: str) -> None:
    served = await serve(way)
    status, fields, body = parts(await served.send(head("GET /hello")))
    assert status == b"HTTP/1.1 200 OK"
    assert b"connection: close" in fields
    assert json.loads(body) == {"host": "control.example", "secure": way == "tls"}
    old = await served.send(b"GET /hello HTTP/1.0\r\n\r\n")
    assert old.startswith(b"HTTP/1.0 200 OK\r\n")


@pytest.mark.parametrize("way", WAYS)
async def test_head_other_methods_and_other_paths(serve: Serve, way: str) -> None:
    served = await serve(way)
    status, fields, body = parts(await served.send(head("HEAD /hello")))
    assert (status, body) == (b"HTTP/1.1 200 OK", b"")
    assert b"content-type: application/json" in fields
    status, fields, _ = parts(await served.send(head("POST /hello", "Content-Length: 2") + b"{}"))
    assert status == b"HTTP/1.1 405 Method Not Allowed"
    assert b"allow: get,head" in fields
    assert (await served.send(head("GET /nothing"))).startswith(b"HTTP/1.1 404 ")


async def test_a_method_that_nobody_knows_is_refused_and_not_logged(
    serve: Serve, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve("tcp")
    answer = await served.send(head("NONESUCH /secret-in-the-path"))
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert app.asked == []
    assert caplog.records == []


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_large_upload_arrives_whole(serve: Serve, way: str, framing: str) -> None:
    served = await serve(way)
    data = hashlib.shake_256(b"upload").digest(BIG)
    pieces = [data[at : at + 100_000] for at in range(0, BIG, 100_000)]
    if framing == "length":
        sent = [head("POST /upload", f"Content-Length: {BIG}"), *pieces]
    else:
        sent = [head("POST /upload", "Transfer-Encoding: chunked"), *map(chunk, pieces), LAST_CHUNK]
    status, _, body = parts(await served.send(*sent))
    assert (status, body.decode()) == (b"HTTP/1.1 200 OK", hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("way", WAYS)
async def test_each_event_arrives_when_it_is_sent(serve: Serve, app: App, way: str) -> None:
    served = await serve(way)
    reader, writer = await served.connect()
    writer.write(head("GET /events"))
    async with asyncio.timeout(10):
        assert b"data: 1\n\n" in await reader.readuntil(b"data: 1\n\n\r\n")
        app.more.set()
        assert (await reader.read()).endswith(b"data: 2\n\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("way", WAYS)
async def test_a_websocket_talks(serve: Serve, way: str) -> None:
    served = await serve(way)
    connector: aiohttp.BaseConnector
    if isinstance(served.address, str):
        connector, url = aiohttp.UnixConnector(served.address), "http://localhost/socket"
    else:
        scheme = "https" if served.trusting else "http"
        connector = aiohttp.TCPConnector(ssl=served.trusting or True)
        url = f"{scheme}://localhost:{served.address[1]}/socket"
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(url) as socket,
    ):
        for text in ("one", "two" * 50_000):
            await socket.send_str(text)
            assert (await socket.receive_str()) == f"you said {text}"
        await socket.close()
        assert socket.close_code == 1000
        await asyncio.sleep(0.05)  # asyncio's own end of TLS


async def test_a_frame_right_behind_the_handshake_is_not_lost(serve: Serve) -> None:
    served = await serve()
    reader, writer = await served.connect()
    handshake = head(
        "GET /socket", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )  # fmt: skip
    writer.write(handshake + b"\x81\x82\0\0\0\0hi")
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(2 + len("you said hi")) == b"\x81\x0byou said hi"


@pytest.mark.parametrize("way", WAYS)
async def test_a_body_is_asked_for_by_who_wants_it(serve: Serve, way: str) -> None:
    served = await serve(way)
    fields = ("Content-Length: 4", "Expect: 100-continue")
    reader, writer = await served.connect()
    writer.write(head("POST /upload", *fields))
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        reader, writer = await served.connect()
        writer.write(head("POST /refused", *fields))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 403 ")


async def test_what_is_behind_the_request_reaches_nobody(serve: Serve, app: App) -> None:
    served = await serve()
    for one in (head("GET /hello"), head("POST /upload", "Content-Length: 2") + b"{}"):
        answer = await served.send(one + head("GET /events") * 3)
        assert answer.count(b"HTTP/1.1 ") == 1
    refused = head("GET /hello", "Upgrade: h2c", "Connection: Upgrade") + head("GET /events")
    assert (await served.send(refused)).count(b"HTTP/1.1 ") == 1
    assert app.asked == ["/hello", "/upload", "/hello"]


@pytest.mark.parametrize("upgrade", [(), ("Upgrade: websocket", "Connection: Upgrade")])
async def test_a_flood_behind_a_request_is_not_read(serve: Serve, app: App, upgrade: tuple[str, ...]) -> None:
    served = await serve()
    reader, writer = await served.connect()
    writer.write(head("GET /held", *upgrade))
    await app.began.wait()
    flood = head("GET /hello") * 2000
    taken = 0
    with pytest.raises(TimeoutError):
        while taken < 100 * len(flood):
            writer.write(flood)
            await asyncio.wait_for(writer.drain(), 0.5)
            taken += len(flood)
    app.more.set()
    assert b"at last" in await asyncio.wait_for(reader.readuntil(b"at last"), 10)
    assert app.asked == ["/held"]


async def test_a_body_that_breaks_the_rules_is_a_400(serve: Serve, app: App) -> None:
    served = await serve()
    broken = head("POST /upload", "Transfer-Encoding: chunked")
    assert (await served.send(broken + b"xyz\r\n")).startswith(b"HTTP/1.1 400 ")
    assert app.asked == []
    reader, writer = await served.connect()
    writer.write(broken + chunk(b"good"))
    async with asyncio.timeout(10):
        while not app.asked:
            await asyncio.sleep(0.01)
        writer.write(b"5 \r\n")
        status, _, body = parts(await reader.read())
        assert status == b"HTTP/1.1 400 Bad Request"
        assert b"The request's body is broken" in body
        await app.cancelled.wait()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BODY_SECONDS", "BODY_GRACE", "SEND_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(bounds, name, 0.3)
    monkeypatch.setattr(bounds, "SWEEP_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_does_not_come_is_a_408(serve: Serve, app: App) -> None:
    served = await serve()
    reader, writer = await served.connect()
    writer.write(head("POST /upload", "Content-Length: 100") + b"some")
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        await app.cancelled.wait()


@pytest.mark.usefixtures("impatient")
async def test_who_takes_nothing_of_an_answer_is_let_go(serve: Serve, app: App) -> None:
    served = await serve()
    _, writer = await served.connect()
    cast("asyncio.Transport", writer.transport).pause_reading()
    writer.write(head("GET /big"))
    async with asyncio.timeout(10):
        await app.cancelled.wait()


@pytest.mark.usefixtures("impatient")
async def test_a_refused_body_is_not_waited_for_forever(serve: Serve) -> None:
    served = await serve()
    reader, writer = await served.connect()
    writer.write(head("POST /refused", "Content-Length: 1000000"))
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
        while served.front.connections:
            await asyncio.sleep(0.01)


async def test_a_refusal_is_read_although_the_body_still_comes(serve: Serve) -> None:
    served = await serve()
    sent = [head("POST /refused", f"Content-Length: {BIG}"), *[bytes(100_000)] * 100]
    reader, writer = await served.connect()
    async with asyncio.timeout(20):
        for piece in sent:
            writer.write(piece)
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"403: Forbidden")).startswith(b"HTTP/1.1 403 ")


async def test_a_client_that_leaves_ends_its_handler(serve: Serve, app: App) -> None:
    served = await serve()
    _, writer = await served.connect()
    writer.write(head("GET /held"))
    await app.began.wait()
    writer.transport.abort()
    await asyncio.wait_for(app.cancelled.wait(), 10)


async def test_they_count_as_connections_and_keep_their_room(serve: Serve, app: App) -> None:
    served = await serve()
    served.front.limit = 1
    reader, writer = await served.connect()
    writer.write(head("GET /held"))
    await app.began.wait()
    assert (await served.send(head("GET /hello"))).startswith(b"HTTP/1.1 503 ")
    app.more.set()
    assert b"at last" in await asyncio.wait_for(reader.read(), 10)
    assert (await served.send(head("GET /hello"))).startswith(b"HTTP/1.1 200 ")


async def test_a_shutdown_tells_who_stays_open(serve: Serve) -> None:
    served = await serve()
    reader, writer = await served.connect()
    writer.write(head("GET /events"))
    async with asyncio.timeout(10):
        await reader.readuntil(b"data: 1\n\n\r\n")
        await served.server.shutdown()
        assert (await reader.read()).endswith(b"data: 2\n\n\r\n0\r\n\r\n")
