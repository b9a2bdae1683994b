"""Sockets through a whole aimux, between the `websockets` library's own client and server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from tests.gateway.conftest import SECRET, TOKEN, Aimux, Start, Upstream, request

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


Open = Callable[..., Awaitable[tuple[Aimux, ClientConnection]]]


@pytest.fixture
async def begin(start: Start, far: Far) -> AsyncIterator[Callable[..., Awaitable[Aimux]]]:
    async def run(**settings: Any) -> Aimux:
        return await start(providers={"plain": {"base_url": far.url}}, **settings)

    yield run


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


Begin = Callable[..., Awaitable[Aimux]]


async def ended(aimux: Aimux) -> None:
    """Until no socket is open."""
    async with asyncio.timeout(10):
        while aimux.app.gateway.sockets:
            await asyncio.sleep(0.001)


def access(aimux: Aimux) -> list[dict[str, str]]:
    lines = [line.split() for line in aimux.log.splitlines() if " ACCESS " in line]
    return [dict(field.partition("=")[::2] for field in line[2:]) for line in lines]


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_cross_both_ways(begin: Begin, far: Far, compression: str | None) -> None:
    async with socket(await begin(), compression=compression) as client:
        assert bool(client.protocol.extensions) is (compression is not None)
        for message in ["", "κόσμε", "x" * 917_000, b"\x00\xff" * 500]:
            await client.send(message)
            assert await client.recv() == message
    assert bool((await far.next_end()).protocol.extensions) is (compression is not None)


async def test_a_message_of_16_mib_crosses(begin: Begin) -> None:
    message = "0123456789abcdef" * (1 << 20)
    async with socket(await begin()) as client:
        await client.send(message)
        assert await client.recv() == message


async def test_fragments_and_pings_cross(begin: Begin, far: Far) -> None:
    seen: list[tuple[int, bool]] = []

    async def watch(server: ServerConnection) -> None:
        await server.recv()
        pong = await server.ping(b"from afar")
        await pong
        async for fragment in server.recv_streaming():
            await server.send(fragment)

    far.serve = watch
    async with socket(await begin(), compression=None) as client:
        receive = client.protocol.recv_frame

        def recv_frame(frame: Frame) -> None:
            seen.append((int(frame.opcode), frame.fin))
            receive(frame)

        client.protocol.recv_frame = recv_frame  # type: ignore[method-assign]
        await client.send("ready")
        pong = await client.ping(b"anyone?")
        await pong
        await client.send(["one ", "two ", "three"])
        assert [await client.recv() for _ in range(3)] == ["one ", "two ", "three"]
    assert (Opcode.PING, True) in seen
    assert (Opcode.PONG, True) in seen


async def test_what_the_client_sends_right_behind_its_handshake_is_not_lost(begin: Begin, far: Far) -> None:
    aimux = await begin()
    got: asyncio.Queue[Any] = asyncio.Queue()

    async def collect(server: ServerConnection) -> None:
        async for message in server:
            got.put_nowait(message)

    far.serve = collect
    for size in (5, 100_000, 1_000_000):
        _, writer = await aimux.connect()
        frame = Frame(Opcode.TEXT, b"x" * size).serialize(mask=True)
        writer.write(request("/plain/v1/socket", method="GET", body=b"", headers=HANDSHAKE, close=False) + frame)
        async with asyncio.timeout(10):
            assert await got.get() == "x" * size
        writer.transport.abort()


# --- handshakes ------------------------------------------------------------------------------------------------------


async def test_headers_cross_as_they_do_for_http(begin: Begin, far: Far) -> None:
    far.headers = [
        ("x-codex-primary-used-percent", "12"),
        ("x-reasoning-included", "true"),
        ("openai-model", "m"),
        ("x-models-etag", '"e"'),
        ("x-request-id", "theirs"),
        ("set-cookie", "a=b"),
        ("x-account", "hidden"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ]
    aimux = await begin()
    sent = {
        "openai-beta": "responses_websockets=2026-02-06",
        "x-codex-turn-metadata": "{}",
        "x-forwarded-for": "203.0.113.7",
        "cookie": "a=b",
        "x-token-copy": f"is {TOKEN}",
    }
    async with socket(aimux, "/plain/v1/socket?q=1", headers=sent) as client:
        response, key = client.response, client.request.headers["Sec-WebSocket-Key"] if client.request else ""
    assert response is not None
    told = {name.lower(): value for name, value in response.headers.raw_items()}
    assert told["x-codex-primary-used-percent"] == "12"
    assert (told["x-reasoning-included"], told["openai-model"], told["x-models-etag"]) == ("true", "m", '"e"')
    assert told["x-upstream-request-id"] == "theirs"
    assert told["x-request-id"].startswith("req_")
    assert not {"set-cookie", "x-account", "x-hop"} & set(told)
    asked = far.requests[0]
    assert asked.path == "/v1/socket?q=1"
    assert asked.headers["Authorization"] == f"Bearer {SECRET}"
    assert asked.headers["openai-beta"] == "responses_websockets=2026-02-06"
    assert asked.headers["x-codex-turn-metadata"] == "{}"
    assert asked.headers["Host"] == far.url[7:]
    assert asked.headers.get_all("Sec-WebSocket-Key") != [key]
    assert not {"cookie", "x-forwarded-for", "x-token-copy"} & {name.lower() for name in asked.headers}
    assert TOKEN not in str(asked.headers)


@pytest.mark.parametrize(("offered", "chosen"), [(["a", "responses.v1"], "responses.v1"), (["a"], None)])
async def test_the_upstream_chooses_the_subprotocol(
    begin: Begin, far: Far, offered: list[str], chosen: str | None
) -> None:
    async with socket(await begin(), subprotocols=offered) as client:
        assert client.subprotocol == chosen
    assert far.requests[0].headers["Sec-WebSocket-Protocol"] == ", ".join(offered)


@pytest.mark.parametrize("status", [400, 401, 404, 426, 429, 500, 503])
async def test_a_refused_handshake_comes_back_as_it_is(begin: Begin, far: Far, status: int) -> None:
    far.refuse = [(status, b"the upstream's own words")] * 3
    aimux = await begin()
    with pytest.raises(InvalidStatus) as refused:
        async with socket(aimux):
            pass
    response = refused.value.response
    assert response.status_code == status
    assert response.body == b"the upstream's own words"
    assert response.headers["x-request-id"].startswith("req_")
    await ended(aimux)
    assert access(aimux)[0]["status"] == str(status)


async def test_another_account_is_asked_while_the_client_has_no_byte(begin: Begin, far: Far) -> None:
    far.refuse = [(429, b"limited"), (503, b"overloaded")]
    aimux = await begin(accounts=("a", "b", "c"))
    async with socket(aimux) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
    await ended(aimux)
    assert access(aimux)[0]["attempts"] == "3"
    assert len({asked.headers["Authorization"] for asked in far.requests}) == 3
    assert len({asked.headers["Sec-WebSocket-Key"] for asked in far.requests}) == 3


@pytest.mark.parametrize("path", ["/plain/v1/chat", "/plain/v1/socket/more"])
async def test_where_there_is_no_websocket_the_answer_is_426(begin: Begin, far: Far, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(await begin(), path):
            pass
    assert refused.value.response.status_code == 426
    assert json.loads(refused.value.response.body or b"")["plain"]
    assert not far.requests


async def test_after_a_426_the_connection_goes_on(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    upgrade = request("/plain/v1/chat", method="GET", body=b"", headers=HANDSHAKE, close=False)
    answer = await aimux.send(upgrade + request())
    assert (answer.count(b"HTTP/1.1 426"), answer.count(b"HTTP/1.1 200")) == (1, 1)


@pytest.mark.parametrize(
    ("method", "headers", "body", "status"),
    [
        ("GET", HANDSHAKE.replace("13", "8"), b"", 400),
        ("GET", HANDSHAKE.replace("dGhl", ""), b"", 400),
        ("GET", HANDSHAKE, b"body", 400),
        ("POST", HANDSHAKE, b"{}", 426),
        ("GET", HANDSHAKE.replace("websocket", "tcp"), b"", 400),
    ],
    ids=["version", "key", "body", "POST", "tcp"],
)
async def test_a_handshake_against_the_rules_goes_nowhere(
    start: Start, upstream: Upstream, method: str, headers: str, body: bytes, status: int
) -> None:
    aimux = await start()
    asked = request("/plain/v1/socket", method=method, body=body, headers=headers, close=False)
    reader, writer = await aimux.connect()
    writer.write(asked)
    async with asyncio.timeout(10):
        line = await reader.readline()
    assert int(line.split()[1]) == status
    assert not upstream.requests


async def test_another_protocol_may_be_asked_for_and_is_ignored(start: Start, upstream: Upstream) -> None:
    headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    aimux = await start()
    answer = await aimux.send(request(headers=headers))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"pgrade" not in upstream.requests[0]
    assert b"HTTP2" not in upstream.requests[0]


async def test_a_socket_needs_a_token_too(begin: Begin, far: Far) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(await begin(), token="wrong-token-0123456789"):
            pass
    assert refused.value.response.status_code == 401
    assert not far.requests


@pytest.mark.parametrize(
    ("origin", "served"),
    [
        ("https://evil.example", False),
        ("http://203.0.113.5", False),
        ("null", False),
        ("http://localhost:3000", True),
        ("http://[::1]:3000", True),
        (None, True),
    ],
)
async def test_a_page_from_elsewhere_gets_no_anonymous_socket(begin: Begin, origin: str | None, served: bool) -> None:
    aimux = await begin(users=[])
    try:
        async with socket(aimux, origin=origin):
            assert served
    except InvalidStatus as refused:
        assert not served
        assert refused.response.status_code == 403


SWITCH = b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
BROKEN = {
    "wrong accept": SWITCH + b"sec-websocket-accept: eA==\r\n\r\n",
    "no accept": SWITCH + b"\r\n",
    "another protocol": b"HTTP/1.1 101 X\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "not HTTP": b"hello\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_handshake_that_the_upstream_gets_wrong_is_a_502(
    start: Start, upstream: Upstream, answer: bytes
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(answer)
        if answer:
            await reader.read()

    upstream.script = script
    aimux = await start()
    with pytest.raises(InvalidStatus) as refused:
        async with socket(aimux):
            pass
    assert refused.value.response.status_code == 502
    assert aimux.app.gateway.pool.open_connections == 0


async def test_an_answer_without_a_switch_is_relayed(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    with pytest.raises(InvalidStatus) as refused:
        async with socket(aimux):
            pass
    assert refused.value.response.status_code == 200
    assert refused.value.response.body == b"{}"


async def test_a_client_that_leaves_during_the_handshake_ends_it(start: Start, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        assert await reader.read() == b""

    upstream.script = script
    aimux = await start()
    _, writer = await aimux.connect()
    writer.write(request("/plain/v1/socket", method="GET", body=b"", headers=HANDSHAKE, close=False))
    await upstream.until(lambda: len(upstream.requests) == 1)
    writer.transport.abort()
    await upstream.until(lambda: upstream.open == 0)


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
async def test_close_codes_cross_both_ways(begin: Begin, far: Far, code: int) -> None:
    aimux = await begin()
    async with socket(aimux) as client:
        await client.close(code, "the client's reason")
    server = await far.next_end()
    assert (server.close_code, server.close_reason) == (code, "the client's reason")

    async def leave(server: ServerConnection) -> None:
        await server.close(code, "the upstream's reason")

    far.serve = leave
    async with socket(aimux) as client:
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (code, "the upstream's reason")
    await ended(aimux)
    assert [line["status"] for line in access(aimux)] == ["101", "101"]
    assert [line["error"] for line in access(aimux)] == ["-", "-"]


async def test_an_upstream_that_vanishes_is_told_without_a_close_frame(begin: Begin, far: Far) -> None:
    async def vanish(server: ServerConnection) -> None:
        await server.send(await server.recv())
        server.transport.abort()

    far.serve = vanish
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("last words")
        assert await client.recv() == "last words"
        with pytest.raises(ConnectionClosedError):
            await client.recv()
        assert client.close_code == 1006
    await ended(aimux)
    assert access(aimux)[0]["error"] == "upstream_lost"
    assert "connection broke off" in aimux.log


async def test_a_client_that_vanishes_in_a_turn_takes_the_upstream_along(begin: Begin, far: Far) -> None:
    async def hold(server: ServerConnection) -> None:
        await server.recv()
        client.transport.abort()

    far.serve = hold
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("a question")
        server = await far.next_end()
    assert server.close_code == 1006
    await ended(aimux)
    assert access(aimux)[0]["error"] == "client_gone"


async def test_a_slow_client_slows_the_upstream_down(begin: Begin, far: Far) -> None:
    sent = 0
    stalled = asyncio.Event()

    async def pour(server: ServerConnection) -> None:
        nonlocal sent
        while True:
            try:
                async with asyncio.timeout(0.5):
                    await server.send(b"x" * 900_000)
            except TimeoutError:
                stalled.set()
                await server.wait_closed()
                return
            sent += 900_000

    far.serve = pour
    aimux = await begin()
    reader, writer = await aimux.connect()
    writer.write(request("/plain/v1/socket", method="GET", body=b"", headers=HANDSHAKE, close=False))
    async with asyncio.timeout(30):
        await stalled.wait()
    assert 0 < sent < 40_000_000, "the kernel's buffers hold some megabytes, aimux a frame"
    assert await reader.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
    writer.transport.abort()
    await ended(aimux)


# --- what is known of a socket ---------------------------------------------------------------------------------------


async def turns(server: ServerConnection) -> None:
    """Every question is answered with an event and the one that ends the turn; "long" ends with the next message."""
    async for message in server:
        if message == "go on":
            continue
        await server.send('{"delta": "…"}')
        if message == "long":
            await server.recv()
        await server.send(message if str(message).startswith("{") else DONE)


async def test_a_socket_is_one_request_with_the_usage_of_all_its_turns(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        assert aimux.app.metrics.providers["plain"].open == 1
        assert next(aimux.app.accounts()).in_flight == 1
        for _ in range(3):
            await client.send("question")
            assert (await client.recv(), await client.recv()) == ('{"delta": "…"}', DONE)
    await ended(aimux)
    (line,) = access(aimux)
    assert line["tokens"] == "0+0+0/21"
    assert (line["status"], line["method"], line["user"], line["attempts"]) == ("101", "GET", "ann", "1")
    assert int(line["in"]) > 3 * len("question")
    assert int(line["out"]) > 3 * len(DONE)
    assert aimux.app.metrics.providers["plain"].open == 0
    assert next(aimux.app.accounts()).in_flight == 0


async def test_limits_that_a_message_tells_are_the_accounts_at_once(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        for message in ('{"used": 0.5, "done": 1}', '{"limited": 60, "done": 1}'):
            await client.send(message)
            assert [await client.recv(), await client.recv()][1] == message
        account = next(aimux.app.accounts())
        assert account.limits["5h"].used == 0.5
        assert account.in_flight == 1
        assert account.state(time.time()).status == "cooling"


LIMITED = '{"limited": 60, "done": 1}'


async def limited_first(server: ServerConnection) -> None:
    """The first account's answers are refusals, behind what the question asks for."""
    first = server.request is not None and server.request.headers["Authorization"] == f"Bearer {SECRET}"
    async for message in server:
        for event in str(message).split("|"):
            await server.send(event)
        await server.send(LIMITED if first else DONE)


async def test_a_turn_that_meets_a_limit_is_taken_to_another_account(begin: Begin, far: Far) -> None:
    far.serve = limited_first
    aimux = await begin(accounts=("default", "other"))
    aimux.app.pools["plain"].accounts["other"].in_flight += 1
    async with socket(aimux) as client:
        await client.send('{"used": 0.9}')
        assert await client.recv() == '{"used": 0.9}'
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012
    async with socket(aimux) as client:
        await client.send("again")
        assert [await client.recv(), await client.recv()] == ["again", DONE]
    await ended(aimux)
    assert [(line["account"], line["error"]) for line in access(aimux)] == [("default", "-"), ("other", "-")]


async def test_a_limit_is_told_to_the_client_where_no_other_account_can_serve(begin: Begin, far: Far) -> None:
    far.serve = limited_first
    async with socket(await begin()) as client:
        await client.send('{"used": 0.9}')
        assert [await client.recv(), await client.recv()] == ['{"used": 0.9}', LIMITED]
        await client.send("and again")
        assert [await client.recv(), await client.recv()] == ["and again", LIMITED]


async def test_a_limit_in_the_middle_of_an_answer_is_told_to_the_client(begin: Begin, far: Far) -> None:
    far.serve = limited_first
    aimux = await begin(accounts=("default", "other"))
    aimux.app.pools["plain"].accounts["other"].in_flight += 1
    async with socket(aimux) as client:
        await client.send('{"delta": 1}')
        assert [await client.recv(), await client.recv()] == ['{"delta": 1}', LIMITED]


async def test_a_meter_that_fails_does_not_disturb_the_socket(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        for message in ("question", '{"broken": 1}', "question"):
            await client.send(message)
            await client.recv()
            await client.recv()
    await ended(aimux)
    assert access(aimux)[0]["tokens"] == "0+0+0/7"
    assert "RuntimeError" in aimux.log


# --- the end of the process ------------------------------------------------------------------------------------------


async def test_sockets_at_rest_are_closed_at_once_when_aimux_stops(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("question")
        await client.recv()
        await client.recv()
        await drain(aimux, 30)
        await client.wait_closed()
        assert client.close_code == 1001
    assert (await far.next_end()).close_code == 1001


async def drain(aimux: Aimux, seconds: float) -> None:
    aimux.app.gateway.draining = True
    await aimux.app.gateway.drained(seconds)


async def test_a_turn_is_finished_before_aimux_stops(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("long")
        await client.recv()
        stopping = asyncio.create_task(drain(aimux, 30))
        with pytest.raises(InvalidStatus) as refused:
            async with socket(aimux):
                pass
        assert refused.value.response.status_code == 503
        await client.send("go on")
        assert await client.recv() == DONE
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1001
        await stopping


async def test_a_turn_that_takes_too_long_is_cut_off(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(drain_timeout="100ms")
    async with socket(aimux) as client:
        await client.send("long")
        await client.recv()
        await drain(aimux, 0.05)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012


async def test_a_socket_without_a_meter_is_cut_off_only_in_the_end(begin: Begin, far: Far) -> None:
    aimux = await begin()
    async with socket(aimux, headers={"x-unmetered": "1"}) as client:
        await client.send("x")
        await client.recv()
        stopping = asyncio.create_task(drain(aimux, 0.1))
        await client.send("still here")
        assert await client.recv() == "still here"
        await stopping
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012
    await ended(aimux)
    assert access(aimux)[0]["tokens"] == "-"


async def test_stopping_closes_what_is_left(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(drain_timeout="50ms")
    async with socket(aimux) as client:
        await client.send("long")
        await client.recv()
        await aimux.app.stop()
        await client.wait_closed()
        assert client.close_code == 1012
    assert (await far.next_end()).close_code == 1001
