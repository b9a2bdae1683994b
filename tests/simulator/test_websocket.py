"""The Responses API over a WebSocket: what Codex does on one, and how it can fail."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from aimux.simulator import Simulator

from .conftest import CODEX, codex, openai

CREATE: dict[str, Any] = {name: value for name, value in CODEX.items() if name != "stream"} | {
    "type": "response.create"
}
URL = "/chatgpt/backend-api/codex/responses"


async def turn(socket: aiohttp.ClientWebSocketResponse, **change: Any) -> list[dict[str, Any]]:
    """Ask, and read events up to the last one of a turn."""
    await socket.send_json(CREATE | change)
    events = []
    while True:
        events.append(await socket.receive_json())
        if events[-1]["type"] in {"response.completed", "response.failed", "error"}:
            return events


async def test_two_turns_on_one_socket(sim: Simulator, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(sim.url + URL, headers=codex(sim)) as socket:
        warm = await turn(socket, generate=False)
        assert [event["type"] for event in warm] == ["response.created", "codex.rate_limits", "response.completed"]
        assert warm[-1]["response"]["output"] == []
        first = await turn(socket, previous_response_id=warm[-1]["response"]["id"])
        text = "".join(event["delta"] for event in first if event["type"] == "response.output_text.delta")
        assert "Grüß Gott" in text
        assert first[1]["rate_limits"]["primary"]["window_minutes"] == 300
        second = await turn(socket, previous_response_id=first[-1]["response"]["id"])
        for event in second:
            if event["type"] != "codex.rate_limits":
                TypeAdapter[Any](ResponseStreamEvent).validate_python(event)
    await sim.wait_idle()
    handshake, *turns = sim.requests
    assert (handshake.method, handshake.status, handshake.aborted) == ("GET", 101, False)
    assert [(one.method, one.account, one.connection) for one in turns] == [("WS", "chatgpt", handshake.connection)] * 3
    assert turns[1].usage == first[-1]["response"]["usage"]
    assert turns[0].json()["generate"] is False


async def test_the_handshake_tells_what_codex_reads(sim: Simulator, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(sim.url + URL, headers=codex(sim, **{"x-codex-turn-state": "echo"})) as socket:
        headers = socket._response.headers
    assert headers["x-codex-turn-state"] == "echo"
    assert {"openai-model", "x-reasoning-included", "x-models-etag", "x-codex-primary-used-percent"} <= {
        name.lower() for name in headers
    }


async def test_the_api_has_sockets_too(sim: Simulator, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(f"{sim.url}/openai/v1/responses", headers=openai(sim)) as socket:
        events = await turn(socket)
    assert events[-1]["type"] == "response.completed"
    assert "codex.rate_limits" not in {event["type"] for event in events}


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"authorization": ""}, 401), ({"x-simulator": "426"}, 426), ({"x-simulator": "429:60"}, 429)],
)
async def test_a_refused_handshake_is_an_answer(
    sim: Simulator, http: aiohttp.ClientSession, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(sim.url + URL, headers=codex(sim) | headers)
    assert refused.value.status == status


async def test_claude_has_none(sim: Simulator, http: aiohttp.ClientSession) -> None:
    from .conftest import claude

    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(f"{sim.url}/anthropic/v1/messages", headers=claude(sim))
    assert refused.value.status == 405


@pytest.mark.parametrize(("scenario", "last"), [("overload", "response.failed"), ("overload-error", "error")])
async def test_a_warm_up_may_fail(sim: Simulator, http: aiohttp.ClientSession, scenario: str, last: str) -> None:
    async with http.ws_connect(sim.url + URL, headers=codex(sim, **{"x-simulator": scenario})) as socket:
        assert (await turn(socket, generate=False))[-1]["type"] == last


async def test_each_turn_takes_the_scripts_next(sim: Simulator, http: aiohttp.ClientSession) -> None:
    account = sim.accounts["chatgpt"]
    account.script("ok", "429:60", "overload", "401")
    async with http.ws_connect(sim.url + URL, headers=codex(sim)) as socket:
        assert (await turn(socket))[-1]["type"] == "response.completed"
        (limited,) = await turn(socket)
        assert (limited["status"], limited["error"]["type"]) == (429, "usage_limit_reached")
        assert limited["headers"]["x-codex-primary-used-percent"] == "100.0"
        assert (await turn(socket))[-1]["response"]["error"]["code"] == "server_is_overloaded"
        (refused,) = await turn(socket)
        assert (refused["status"], refused["error"]["code"]) == (401, "token_expired")
        assert (await turn(socket))[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ({"type": "session.update"}, 400, None),
        (CREATE | {"model": "claude-opus-5"}, 404, "model_not_found"),
        (CREATE | {"previous_response_id": "resp_of_another_socket"}, 400, "previous_response_not_found"),
    ],
)
async def test_messages_that_are_the_clients_fault(
    sim: Simulator, http: aiohttp.ClientSession, message: dict[str, Any], status: int, code: str | None
) -> None:
    async with http.ws_connect(sim.url + URL, headers=codex(sim)) as socket:
        await socket.send_json(message)
        event = await socket.receive_json()
    assert (event["type"], event["status"], event["error"].get("code")) == ("error", status, code)


@pytest.mark.parametrize("scenario", ["tiny:7", "split", "encode", "gap:0.001", "slow-start:0.001", "events:50"])
async def test_however_the_frames_come(sim: Simulator, http: aiohttp.ClientSession, scenario: str) -> None:
    headers = codex(sim, **{"x-simulator": scenario})
    async with http.ws_connect(sim.url + URL, headers=headers, compress=15 if scenario == "encode" else 0) as socket:
        assert bool(socket.compress) == (scenario == "encode")
        for _ in range(2):
            events = await turn(socket)
            assert "Grüß Gott" in events[-1]["response"]["output"][0]["content"][0]["text"]
    if scenario == "events:50":
        assert len(events) == 51, "and the limits"


async def test_pings_go_both_ways(sim: Simulator, http: aiohttp.ClientSession) -> None:
    headers = codex(sim, **{"x-simulator": "interim:2,hold:1"})
    async with http.ws_connect(sim.url + URL, headers=headers, autoping=False) as socket:
        await socket.send_json(CREATE)
        for number in (b"0", b"1"):
            ping = await socket.receive()
            assert (ping.type, ping.data) == (WSMsgType.PING, number)
            await socket.pong(ping.data)
        assert (await socket.receive_json())["type"] == "response.created"
        # A ping is answered while the turn is held.
        await socket.ping(b"there?")
        pong = await socket.receive()
        assert (pong.type, pong.data) == (WSMsgType.PONG, b"there?")
        sim.release()
        while (await socket.receive_json())["type"] != "response.completed":
            pass
    assert sim.requests[0].pongs == [b"0", b"1"]


@pytest.mark.parametrize(
    ("scenario", "code", "events"), [("end:2", 1000, 2), ("cut:2", 1006, 2), ("reset:2", 1006, 2), ("stale", 1006, 17)]
)
async def test_how_a_socket_dies(
    sim: Simulator, http: aiohttp.ClientSession, scenario: str, code: int, events: int
) -> None:
    headers = codex(sim, **{"x-simulator": f"{scenario},events:16"})
    async with http.ws_connect(sim.url + URL, headers=headers) as socket:
        await socket.send_json(CREATE)
        seen = 0
        while (message := await socket.receive()).type == WSMsgType.TEXT:
            seen += 1
        assert message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR}
        assert (socket.close_code, seen) == (code, events)
    await sim.wait_idle()
    assert sim.aborted == 0


async def test_a_client_may_leave_between_turns_but_not_in_one(sim: Simulator, http: aiohttp.ClientSession) -> None:
    for scenario, aborted in (("ok", 0), ("hold:2", 1)):
        socket = await http.ws_connect(sim.url + URL, headers=codex(sim, **{"x-simulator": scenario}))
        await socket.send_json(CREATE)
        if aborted:
            await sim.wait_for_held()
        else:
            while (await socket.receive_json())["type"] != "response.completed":
                pass
        connection = socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()
        await sim.wait_idle()
        assert sim.aborted == aborted
        await socket.close()


async def test_a_socket_that_is_open_ends_with_the_simulator(http: aiohttp.ClientSession) -> None:
    async with Simulator() as sim:
        socket = await http.ws_connect(sim.url + URL, headers=codex(sim, **{"x-simulator": "stall:1"}))
        await socket.send_json(CREATE)
        await socket.receive_json()
    assert (await socket.receive()).type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR}


async def test_messages_wait_for_their_turn(sim: Simulator, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(sim.url + URL, headers=codex(sim)) as socket:
        for number in range(3):
            await socket.send_json(CREATE | {"input": f"number {number}"})
        seen: list[str] = []
        while len(seen) < 3:
            event = json.loads((await asyncio.wait_for(socket.receive(), 5)).data)
            if event["type"] == "response.completed":
                seen.append(event["response"]["output"][0]["content"][0]["text"])
    assert [f"number {number}" in text for number, text in enumerate(seen)] == [True] * 3


async def test_only_text(sim: Simulator, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(sim.url + URL, headers=codex(sim)) as socket:
        await socket.send_bytes(b"x")
        assert (await socket.receive()).type == WSMsgType.CLOSE
        assert socket.close_code == 1003
