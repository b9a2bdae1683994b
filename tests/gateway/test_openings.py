"""Streams that begin with a 200: what their first events, or an end before any content, mean for the next attempt."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from aimux.gateway import verdicts
from aimux.http.framing import chunk
from aimux.plugin import Action, Verdict

from .answers import DONE, EVENT, OK, SSE, account_of, payload_of, script, state, status_of
from .conftest import Plain, Start, StreamMeter, Upstream, request


async def test_an_overload_inside_a_200_is_tried_elsewhere(start: Start, upstream: Upstream) -> None:
    overload = SSE + chunk(b"event: error\ndata: {}\n\n") + b"0\r\n\r\n"
    fine = SSE + chunk(b'data: {"done":1}\n\n') + b"0\r\n\r\n"
    asked = script(upstream, {"default": overload, "two": fine})
    aimux = await start(accounts=("default", "two"))
    for _ in range(4):
        answer = await aimux.send(request(body=b"{}"))
        assert b'"done"' in answer, (asked, aimux.log)
        assert b"event: error" not in answer
    assert "two" in asked
    assert state(aimux, "default") == "healthy"


async def test_a_limit_that_a_stream_tells_too_late_holds_for_the_next_request(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Limited(StreamMeter):
        def read(self, event: dict[str, Any]) -> None:
            super().read(event)
            self.verdict = Verdict(Action.COOL_DOWN, "limited", until=time.time() + 60)

    monkeypatch.setattr(Plain, "meter", lambda *_: Limited())
    stream = SSE + chunk(EVENT) + chunk(DONE) + b"0\r\n\r\n"
    asked = script(upstream, {"default": stream, "two": stream})
    aimux = await start(accounts=("default", "two"))
    for _ in range(2):
        assert EVENT in payload_of(await aimux.send(request(body=b"{}")))
    assert sorted(asked) == ["default", "two"]
    assert {state(aimux, name) for name in asked} == {"cooling"}


async def test_an_overload_everywhere_reaches_the_client_as_it_came(start: Start, upstream: Upstream) -> None:
    overload = SSE + chunk(b"event: error\ndata: {}\n\n") + b"0\r\n\r\n"
    script(upstream, {"default": overload})
    aimux = await start()
    answer = await aimux.send(request())
    assert chunk(b"event: error\ndata: {}\n\n") in answer


NOTHING = SSE + b"0\r\n\r\n"
BEGUN = b'data: {"type":"begun"}\n'


@pytest.mark.parametrize(
    "answer",
    [SSE, NOTHING, SSE + chunk(BEGUN), SSE + chunk(BEGUN) + b"0\r\n\r\n"],
    ids=["cut", "empty", "cut later", "short"],
)
async def test_a_stream_that_ends_before_its_content_is_left_for_the_next_account(
    start: Start, upstream: Upstream, answer: bytes
) -> None:
    """CLIProxyAPI#4296."""
    asked: list[str] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await upstream.read(reader):
            asked.append(account_of(sent))
            if asked[-1] == "two":
                writer.write(SSE + chunk(DONE) + b"0\r\n\r\n")
            else:
                writer.write(answer)
                return

    upstream.script = run
    aimux = await start(accounts=("default", "two"))
    aimux.account("two").load(1)
    got = await aimux.send(request(body=b"{}"))
    assert (status_of(got), payload_of(got)) == (200, DONE)
    assert asked == ["default", "two"]
    assert state(aimux, "default") == "healthy"
    assert aimux.app.gateway.pool.active_exchanges == 0


async def test_a_stream_that_is_listened_to_begins_at_once(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent's session that waits for its user: SDKs open the stream of its events before they send any."""
    monkeypatch.setattr(verdicts, "OPENING_SECONDS", 60.0)
    heard = asyncio.Event()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await upstream.read(reader):
            writer.write(SSE)
            await heard.wait()
            writer.write(chunk(DONE) + b"0\r\n\r\n")

    upstream.script = run
    aimux = await start()
    reader, writer = await aimux.connect()
    writer.write(request("/plain/v1/sessions/s/events", method="GET", body=b""))
    async with asyncio.timeout(10):
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 200
        heard.set()
        assert DONE in await reader.read()


async def test_unless_what_it_tells_of_goes_on(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer in the background would be made twice."""

    class Begun(StreamMeter):
        def feed(self, data: bytes) -> None:
            self.begun = "resp_1"

    monkeypatch.setattr(Plain, "meter", lambda *_: Begun())
    asked = script(upstream, {"default": SSE + chunk(BEGUN) + b"0\r\n\r\n", "two": OK})
    aimux = await start(accounts=("default", "two"))
    aimux.account("two").load(1)
    assert BEGUN in await aimux.send(request(body=b"{}"))
    assert asked == ["default"]


async def test_and_it_is_the_only_accounts_answer(start: Start, upstream: Upstream) -> None:
    asked = script(upstream, {"default": NOTHING})
    aimux = await start()
    answer = await aimux.send(request(body=b"{}"))
    assert status_of(answer) == 200
    assert b"event: error" in answer
    assert asked == ["default"]
