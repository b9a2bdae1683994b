"""What was received is there to the byte, and whoever left is counted."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import aiohttp
import pytest

from aimux.simulator import Simulator

from .conftest import MESSAGE, Socket, claude, head_of, request


async def test_requests_are_kept_to_the_byte(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    body = b'{"model":"claude-sonnet-5", "max_tokens" : 5,"messages":[]}'
    key = sim.accounts["claude-key"].api_key
    writer.write(
        f"POST /anthropic/v1/messages?beta=true&x=%2F HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nx-Twice: 1\r\n"
        f"anthropic-version: 2023-06-01\r\nX-TWICE: 2\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await head_of(reader)
    (received,) = sim.requests
    assert (received.method, received.target) == ("POST", "/anthropic/v1/messages?beta=true&x=%2F")
    assert received.body == body
    assert received.headers[2] == (b"x-Twice", b"1")
    assert received.values("X-Twice") == ["1", "2"]
    assert received.header("host") == "a"
    assert received.header("nothing") is None
    assert (received.base, received.account, received.status) == ("anthropic", "claude-key", 200)
    assert key and key not in repr(received)


async def test_a_chunked_and_compressed_body_stays_as_it_came(sim: Simulator, http: aiohttp.ClientSession) -> None:
    import zstandard

    packed = zstandard.compress(json.dumps(MESSAGE).encode())
    headers = claude(sim) | {"content-type": "application/json", "content-encoding": "zstd"}

    async with http.post(f"{sim.url}/anthropic/v1/messages", data=packed, headers=headers) as answer:
        assert "Grüß Gott" in (await answer.json())["content"][0]["text"]
    assert sim.requests[0].body == packed


async def test_waiting_for_requests_of_one_part(sim: Simulator, http: aiohttp.ClientSession) -> None:
    waiting = asyncio.create_task(sim.wait_for(2, "anthropic"))
    for _ in range(2):
        assert not waiting.done()
        await (await http.get(f"{sim.url}/openai/v1/models")).read()
        await (await http.get(f"{sim.url}/anthropic/v1/models", headers=claude(sim))).read()
    await waiting
    assert (sim.count(), sim.count("anthropic"), sim.count("chatgpt")) == (4, 2, 0)


@pytest.mark.parametrize("scenario", ["hang", "hold", "hold:3", "slow-start:3600", "gap:3600"])
async def test_a_client_that_leaves_is_counted(sim: Simulator, connect: Socket, scenario: str) -> None:
    _, writer = await connect()
    writer.write(request(sim, scenario))
    await sim.wait_for(1)
    writer.close()
    await sim.wait_for_aborted()
    await sim.wait_idle()
    assert sim.requests[0].aborted
    assert sim.aborted == 1


async def test_a_client_that_leaves_in_its_own_request_is_counted(sim: Simulator, connect: Socket) -> None:
    _, writer = await connect()
    writer.write(request(sim)[:-10])
    await writer.drain()
    while sim.open == 0:
        await asyncio.sleep(0)
    writer.close()
    await sim.wait_for_aborted()
    assert sim.requests[0].status is None


async def test_a_client_that_does_not_read_holds_the_answer_back(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    transport = cast("asyncio.Transport", writer.transport)
    transport.pause_reading()
    writer.write(request(sim, "events:50,size:20000000"))
    await sim.wait_for(1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert sim.open == 1
    transport.resume_reading()
    while not (await reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
        pass
    await sim.wait_idle()


async def test_a_long_run_keeps_counts_alone(http: aiohttp.ClientSession) -> None:
    async with Simulator(keep=0) as sim:
        for _ in range(3):
            await (await http.get(f"{sim.url}/anthropic/v1/models", headers=claude(sim))).read()
        assert (len(sim.requests), sim.count("anthropic")) == (0, 3)


async def test_what_is_outside_of_every_part(sim: Simulator, http: aiohttp.ClientSession) -> None:
    async with http.get(sim.url + "/") as answer:
        assert answer.status == 200
        assert f"{sim.url}/anthropic" in await answer.text()
    for path in ("/nothing", "/anthropicx/v1/models", "//anthropic/v1/models"):
        async with http.get(sim.url + path) as answer:
            assert answer.status == 404


async def test_a_taken_port_is_an_error(sim: Simulator) -> None:
    with pytest.raises(OSError, match="in use"):
        await Simulator(port=sim.port).start()
