"""The control client against real sockets: what it sends, what it refuses, and what its errors don't say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from aimux.accounts import ControlHttp
from aimux.plugin import HttpUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "sk-very-secret"


async def echo(request: web.Request) -> web.Response:
    body = (await request.read()).decode()
    return web.json_response({"method": request.method, "type": request.content_type, "body": body}, status=418)


async def redirect(request: web.Request) -> web.Response:
    raise web.HTTPTemporaryRedirect("/echo")


async def set_cookie(request: web.Request) -> web.Response:
    answer = web.json_response({"cookies": dict(request.cookies)})
    answer.set_cookie("session", "x")
    return answer


async def big(request: web.Request) -> web.Response:
    return web.Response(body=b"x" * (1024 * 1024 + 1))


async def silent(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@pytest.fixture
async def server() -> AsyncIterator[BaseTestServer]:
    app = web.Application()
    for handler in (echo, redirect, set_cookie, big, silent, cut):
        app.router.add_route("*", f"/{handler.__name__}", handler)
    async with TestServer(app) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[ControlHttp]:
    client = ControlHttp()
    yield client
    await client.close()
    await client.close()


async def test_json_form_and_any_status(http: ControlHttp, server: BaseTestServer) -> None:
    url = str(server.make_url("/echo"))
    answer = await http.request("POST", url, json={"a": 1})
    assert answer.status == 418
    assert answer.json() == {"method": "POST", "type": "application/json", "body": '{"a": 1}'}
    answer = await http.request("POST", url, form={"a": "1 2"})
    assert answer.json()["body"] == "a=1+2"
    assert answer.json()["type"] == "application/x-www-form-urlencoded"
    assert answer.headers["content-type"].startswith("application/json")
    assert "body" not in repr(answer)


async def test_no_redirect_is_followed(http: ControlHttp, server: BaseTestServer) -> None:
    answer = await http.request("POST", str(server.make_url("/redirect")), json={"refresh_token": SECRET})
    assert answer.status == 307


async def test_no_cookie_is_kept(http: ControlHttp, server: BaseTestServer) -> None:
    url = str(server.make_url("/set_cookie"))
    await http.request("GET", url)
    assert (await http.request("GET", url)).json() == {"cookies": {}}


async def test_a_body_is_bounded(http: ControlHttp, server: BaseTestServer) -> None:
    with pytest.raises(HttpUnavailable, match="more than 1048576 bytes"):
        await http.request("GET", str(server.make_url("/big")))


@pytest.mark.parametrize(
    ("path", "message"),
    [("/silent", "did not answer within 0.05 s"), ("/cut", "broke the connection off")],
)
async def test_failures_name_the_host_and_nothing_secret(
    http: ControlHttp, server: BaseTestServer, path: str, message: str
) -> None:
    url = str(server.make_url(path).with_query(key=SECRET))
    headers = {"authorization": f"Bearer {SECRET}"}
    with pytest.raises(HttpUnavailable) as caught:
        await http.request(
            "POST", url, json={"token": SECRET}, headers=headers, timeout=0.05 if "0.05" in message else 30
        )
    assert str(caught.value).startswith(f"127.0.0.1 {message}")
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("interim", [2, 17])
async def test_few_interim_answers_are_read(http: ControlHttp, interim: int) -> None:
    """A server that sent them for ever had the event loop for itself."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * interim)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        if interim == 2:
            for _ in range(2):  # on a connection that is used again, too
                assert (await http.request("GET", url)).body == b"{}"
        else:
            with pytest.raises(HttpUnavailable, match=r"^127\.0\.0\.1 gave an answer that is not valid HTTP$"):
                await http.request("GET", url)


async def test_nobody_listens(http: ControlHttp, unused_tcp_port: int) -> None:
    with pytest.raises(HttpUnavailable, match=r"^127.0.0.1 can't be reached \("):
        await http.request("GET", f"http://127.0.0.1:{unused_tcp_port}/{SECRET}")


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "ftp://host/", "http://a b/", "http://127.0.0.1:99999/"])
async def test_a_url_that_is_none(http: ControlHttp, url: str) -> None:
    with pytest.raises(HttpUnavailable):
        await http.request("GET", url)


class Proxy:
    """Answers everything itself."""

    def __init__(self, status: str = "200 OK") -> None:
        self.status = status
        self.asked: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        writer.write(f"HTTP/1.1 {self.status}\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        await writer.drain()
        writer.close()


@pytest.mark.parametrize(
    ("login", "plain"), [("", None), ("me:p%C5%BC@", "me:p\u017c"), ("me:p%2541@", "me:p%41"), ("me@", "me:")]
)
async def test_a_proxy_is_used_as_for_messages(
    http: ControlHttp, server: BaseTestServer, monkeypatch: pytest.MonkeyPatch, login: str, plain: str | None
) -> None:
    """The same spellings: without a scheme, a login in UTF-8, NO_PROXY with a port."""
    proxy = Proxy()
    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        monkeypatch.setenv("http_proxy", f"{login}127.0.0.1:{port}")
        url = server.make_url("/echo")
        assert (await http.request("GET", str(url))).status == 200
        assert proxy.asked[0].startswith(f"GET {url} HTTP/1.1\r\n")
        told = [line for line in proxy.asked[0].splitlines() if line.lower().startswith("proxy-authorization")]
        assert told == ([] if plain is None else [f"Proxy-Authorization: {encode(plain)}"])
        monkeypatch.setenv("no_proxy", f"127.0.0.1:{url.port}")
        assert (await http.request("GET", str(url))).status == 418


def encode(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


async def test_a_proxy_that_refuses_is_told_from_the_host(http: ControlHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy("407 No")
    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as listening:
        monkeypatch.setenv("https_proxy", f"http://me:pw@127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        with pytest.raises(HttpUnavailable, match=r"^host.example can't be reached: the proxy answered 407$"):
            await http.request("GET", "https://host.example/", headers={"authorization": SECRET})
    assert f"Proxy-Authorization: {encode('me:pw')}\r\n" in proxy.asked[0]
    assert SECRET not in proxy.asked[0]
