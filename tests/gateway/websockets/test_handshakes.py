"""A handshake's way: headers, refusals, attempts, and what gets no socket."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.exceptions import InvalidStatus

from tests.gateway.conftest import SECRET, TOKEN, Start, Upstream, request

from .conftest import HANDSHAKE, Begin, Far, access, ended, socket


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


async def test_a_subprotocol_that_holds_the_callers_token_is_not_offered(begin: Begin, far: Far) -> None:
    """OpenAI's clients in browsers write their key there, as they can set no header."""
    async with socket(await begin(), subprotocols=["responses.v1", f"openai-insecure-api-key.{TOKEN}"]) as client:
        assert client.subprotocol == "responses.v1"
    assert far.requests[0].headers["Sec-WebSocket-Protocol"] == "responses.v1"
    assert TOKEN not in str(far.requests[0].headers)


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
    assert access(aimux)[-1]["attempts"] == "3"
    assert len({asked.headers["Authorization"] for asked in far.requests}) == 3
    assert len({asked.headers["Sec-WebSocket-Key"] for asked in far.requests}) == 3


@pytest.mark.parametrize("path", ["/plain/v1/chat", "/plain/v1/socket/more"])
async def test_where_there_is_no_websocket_the_answer_is_426(begin: Begin, far: Far, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(await begin(), path):
            pass
    assert refused.value.response.status_code == 426
    assert refused.value.response.headers["Upgrade"] == "HTTP/1.1"
    assert refused.value.response.headers["Connection"] == "upgrade"
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
        ("GET", HANDSHAKE.replace("websocket", "websoc\u212aet"), b"", 400),
        ("GET", HANDSHAKE.replace("dGhl", "\u212aGhl"), b"", 400),
        ("GET", HANDSHAKE + "Sec-WebSocket-Protocol: \u65e5\u672c\r\n", b"", 400),
        ("GET", HANDSHAKE + "Sec-WebSocket-Extensions: \u65e5\u672c\r\n", b"", 400),
        ("GET", HANDSHAKE + "Sec-WebSocket-Version: 13\r\n", b"", 400),
        ("GET", HANDSHAKE + "Upgrade: h2c\r\n", b"", 400),
        ("HEAD", HANDSHAKE, b"", 426),
    ],
    ids=[
        *["version", "key", "body", "POST", "tcp", "the Kelvin sign", "a key in other letters"],
        *["a protocol in other letters", "an extension in other letters", "two versions", "two protocols", "HEAD"],
    ],
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
    assert "Traceback" not in aimux.log


@pytest.mark.parametrize(
    "came",
    [
        HANDSHAKE.replace("Connection: Upgrade\r\nUpgrade: websocket\r\n", ""),
        HANDSHAKE.replace("Connection: Upgrade\r\n", ""),
        HANDSHAKE.replace("Upgrade: websocket\r\n", ""),
        HANDSHAKE,
    ],
    ids=["neither", "no Connection", "no Upgrade", "HTTP/1.0"],
)
async def test_a_handshake_whose_upgrade_a_proxy_has_dropped_is_told_so(
    start: Start, upstream: Upstream, came: str
) -> None:
    """Codex goes on over HTTP at once after a 426, and after any other answer in seven seconds."""
    asked = request("/plain/v1/socket", method="GET", body=b"", headers=came)
    if came is HANDSHAKE:
        asked = asked.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    answer = await (await start()).send(asked)
    assert int(answer.split()[1]) == 426
    assert b"have the proxy in front of aimux" in answer
    assert not upstream.requests


async def test_a_header_in_any_language_crosses(start: Start, upstream: Upstream) -> None:
    """Codex says where somebody works."""
    where = 'X-Codex-Turn-Metadata: {"cwd": "/home/日本"}\r\n'
    reader, writer = await (await start()).connect()
    writer.write(request("/plain/v1/socket", method="GET", body=b"", headers=HANDSHAKE + where, close=False))
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert where.encode() in upstream.requests[0]


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


@pytest.mark.parametrize(
    ("models", "served"),
    [
        ({"m": {"provider": "plain"}, "default": {"provider": "plain"}}, True),
        ({"fast": {"provider": "plain", "model": "m"}}, False),
        ({"m-*": {"account": "plain/default"}}, False),
        ({"m": {"provider": "second"}}, False),
    ],
)
async def test_where_the_model_decides_there_is_no_socket(
    start: Start, far: Far, models: dict[str, dict[str, str]], served: bool
) -> None:
    """Its messages name models when its account is chosen already."""
    second = {"type": "plain", "base_url": far.url}
    aimux = await start(providers={"plain": {"base_url": far.url}, "second": second}, models=models)
    if served:
        async with socket(aimux) as client:
            await client.send("hi")
            assert await client.recv() == "hi"
        return
    with pytest.raises(InvalidStatus) as refused:
        async with socket(aimux):
            pass
    assert (refused.value.response.status_code, far.requests) == (426, [])
