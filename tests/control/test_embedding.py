"""aimux in another program's aiohttp, and without its lane: slower, with the same result."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

import aimux as package
from aimux.front import bounds
from aimux.simulator import Simulator, demo_files

from .conftest import MESSAGE, Start, put

PROMPT = {
    "type": "response.create",
    "model": "gpt-5.5",
    "instructions": "You are Codex.",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "say hi"}]}],
    "store": False,
    "stream": True,
}
BETA = {"openai-beta": "responses_websockets=2026-02-06"}
VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture
def config(tmp_path: Path, sim: Simulator) -> dict[str, Any]:
    state_dir = tmp_path / "state"
    demo = demo_files(sim)
    for provider, raw in demo.credentials.items():
        put(state_dir, provider, raw)
    return {"state_dir": str(state_dir), "providers": {name: dict(values) for name, values in demo.settings.items()}}


@pytest.fixture
async def outer(config: dict[str, Any]) -> AsyncIterator[str]:
    """Below `/ai` of an application that does other things as well; its address."""
    app = web.Application()
    app.router.add_get("/", _another)
    app.add_subapp("/ai", package.application(config))
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _another(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="another program")


async def turn(socket: aiohttp.ClientWebSocketResponse) -> None:
    """One of Codex's, to its end."""
    await socket.send_json(PROMPT)
    async for message in socket:
        event = json.loads(message.data)
        assert event["type"] != "error", event
        if event["type"] == "response.completed":
            return
    raise AssertionError("the socket ended before the turn")


async def test_below_a_prefix_of_another_application(outer: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with aiohttp.ClientSession(outer, headers=VERSION) as session:
        async with session.get("/") as answer:
            assert await answer.text() == "another program"
            assert "content-security-policy" not in answer.headers
        async with session.get("/ai/health") as answer:
            assert await answer.json() == {"status": "ok"}
        async with session.post("/ai/claude/v1/messages", json=MESSAGE) as answer:
            assert answer.status == 200
            assert (await answer.json())["type"] == "message"
            assert "content-security-policy" not in answer.headers
        async with session.get("/ai/nothing") as answer:
            assert answer.status == 404
            assert "base URL of a client has a mount in it. Mounts: /claude, /chatgpt" in await answer.text()
        async with session.get(URL(f"{outer}/ai/claude/%2e%2e/health", encoded=True)) as answer:
            assert answer.status == 400
            assert "target is not acceptable" in await answer.text()
        async with session.get("/claude/v1/models") as answer:
            assert answer.status == 404
    lines = [record.message for record in caplog.records if record.name == "aimux.access"]
    assert [line for line in lines if "provider=claude" in line and "path=/claude/v1/messages status=200" in line]


async def test_the_pages_know_the_prefix(outer: str, config: dict[str, Any]) -> None:
    key = Path(config["state_dir"], "admin.key").read_text().strip()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(f"{outer}/ai/") as answer:
            assert str(answer.url) == f"{outer}/ai/dashboard/sign-in"
        async with session.post(f"{outer}/ai/dashboard/sign-in", data={"token": key}) as answer:
            assert str(answer.url) == f"{outer}/ai/dashboard/"
        async with session.get(f"{outer}/ai/dashboard/me") as answer:
            assert f"{outer}/ai/claude" in await answer.text()


async def test_a_body_that_its_server_has_unpacked_is_refused_in_words(outer: str) -> None:
    raw = gzip.compress(json.dumps(MESSAGE).encode())
    headers = VERSION | {"content-encoding": "gzip", "content-type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{outer}/ai/claude/v1/messages", data=raw, headers=headers) as answer,
    ):
        assert answer.status == 400
        assert "auto_decompress=False" in await answer.text()


async def test_a_websocket_goes_through_aiohttp(outer: str) -> None:
    async with (
        aiohttp.ClientSession(headers=BETA) as session,
        session.ws_connect(f"{outer}/ai/chatgpt/v1/responses") as socket,
    ):
        await turn(socket)
        await turn(socket)
        await socket.close()
        assert socket.close_code == 1000


async def test_as_the_outermost_application_it_unpacks_nothing(
    config: dict[str, Any], tmp_path: Path, sim: Simulator
) -> None:
    """And a file's path is a configuration, too."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    file.chmod(0o600)
    runner = web.AppRunner(package.application(file), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        raw = gzip.compress(json.dumps(MESSAGE).encode())
        headers = VERSION | {"content-encoding": "gzip", "content-type": "application/json"}
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/claude/v1/messages"
        async with aiohttp.ClientSession() as session, session.post(url, data=raw, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        assert (b"content-encoding", b"gzip") in [(name.lower(), value) for name, value in sim.requests[-1].headers]
    finally:
        await runner.cleanup()


async def test_without_its_lane_it_serves_the_same(start: Start, sim: Simulator) -> None:
    aimux = await start(lane=False, users=[{"name": "ann", "token": "a-users-own-token-123"}])
    status, headers = await aimux.message(authorization="Bearer a-users-own-token-123")
    assert status == 200
    told = await aimux.get(f"/requests/{headers['x-request-id']}")
    assert (told["user"], told["provider"], told["account"]) == ("ann", "claude", "default")
    status, headers = await aimux.message(authorization="Bearer wrong")
    assert status == 401
    assert headers["content-type"] == "application/json"
    async with (
        aiohttp.ClientSession(headers=BETA | {"authorization": "Bearer a-users-own-token-123"}) as session,
        session.ws_connect(f"{aimux.url}/chatgpt/v1/responses") as socket,
    ):
        await turn(socket)
        await socket.close()


async def test_a_body_has_its_deadline_there_too(outer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BODY_SECONDS", "BODY_GRACE"):
        monkeypatch.setattr(bounds, name, 0.2)
    monkeypatch.setattr(bounds, "SWEEP_SECONDS", 0.05)
    port = int(outer.rpartition(":")[2])
    for path in ("/ai/claude/v1/messages", "/ai/nothing"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome".encode())
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 " if "claude" in path else b"HTTP/1.1 404 ")
        writer.close()
        await writer.wait_closed()
