"""A plugin that fails where it is to word an error: the request ends, the client hears of it, and its room is free."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from aimux.http.framing import chunk
from aimux.people import users
from aimux.plugin import ErrorAnswer, GatewayError, RequestHead

from .answers import EVENT, SSE, once, payload_of, status_of
from .conftest import Plain, Start, Upstream, request
from .people import ADMIN, add
from .websockets.conftest import Begin, Far, begin, far, socket

__all__ = ["begin", "far"]

ONE_AT_ONCE = {"default": {"concurrent_requests": 1}}


def faulty(_provider: Plain, _error: GatewayError, request: RequestHead | None = None) -> ErrorAnswer:
    raise KeyError("no word for it")


async def test_a_stream_that_breaks_off_ends_all_the_same(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plain, "stream_error", faulty)
    once(upstream, SSE + chunk(EVENT))
    aimux = await start(limits=ONE_AT_ONCE)
    for _ in range(2):
        answer = await aimux.send(request(close=False))
        assert (status_of(answer), payload_of(answer)) == (200, EVENT)
        assert not answer.endswith(b"0\r\n\r\n")
    assert aimux.log.count("a provider can't word an error for a stream") == 2
    assert len(aimux.app.limits.limits) == 0


async def test_an_error_is_told_in_aimuxs_own_words(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    monkeypatch.setattr(Plain, "error", faulty)
    upstream.script = gone
    aimux = await start(limits=ONE_AT_ONCE)
    for _ in range(2):
        answer = await aimux.send(request())
        assert status_of(answer) == 502
        assert b"application/problem+json" in answer
    assert "plain can't word an error" in aimux.log
    assert len(aimux.app.limits.limits) == 0


async def test_who_may_no_more_is_cut_off_all_the_same(begin: Begin, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(server: Any) -> None:
        await server.send("hello")
        await server.wait_closed()

    monkeypatch.setattr(Plain, "websocket_error", faulty)
    far.serve = serve
    aimux = await begin()
    ann = await add(aimux, "ann2")
    async with socket(aimux, token=ann) as one, socket(aimux, token=ann) as other, asyncio.timeout(10):
        assert (await one.recv(), await other.recv()) == ("hello", "hello")
        await users.change_user(aimux.app.people, ADMIN, "ann2", {"enabled": False})
        for client in (one, other):
            with pytest.raises(ConnectionClosed):
                await client.recv()
    assert aimux.log.count("plain can't word an error") == 2
