"""Framing, chunks and the ways a connection dies, seen from a raw socket."""

from __future__ import annotations

import asyncio
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.plugin.codings import decode, decoder
from aimux.simulator import Scenario, Simulator
from aimux.simulator.answers import SimulatedAnswer
from aimux.simulator.scenarios import CODINGS, Chunk
from aimux.simulator.wire import cut, encoded

from .conftest import MESSAGE, Socket, chunks_of, head_of, request

texts = st.lists(st.text(min_size=1, max_size=30).map(str.encode), min_size=1, max_size=8)


@given(texts, st.sampled_from(get_args(Chunk)), st.integers(1, 7))
def test_other_chunks_are_the_same_bytes(chunks: list[bytes], how: Chunk, size: int) -> None:
    result = cut(chunks, Scenario(chunk=how, chunk_size=size))
    assert b"".join(result) == b"".join(chunks)
    assert all(result)


def test_split_cuts_characters_and_events() -> None:
    chunks = ["data: ä\n\n".encode(), "data: 🙂\n\n".encode()]
    result = cut(chunks, Scenario(chunk="split"))
    with pytest.raises(UnicodeDecodeError):
        result[1].decode()
    assert chunks[0] not in result
    ends = {sum(map(len, result[:n])) for n in range(len(result))}
    assert len(chunks[0]) not in ends


@pytest.mark.parametrize("coding", CODINGS)
def test_every_chunk_of_an_encoded_stream_can_be_read_at_once(coding: str) -> None:
    events = [f"data: {number}\n\n".encode() for number in range(5)]
    headers, chunks = encoded(SimulatedAnswer(200, [], events), coding, "")
    assert ("content-encoding", coding) in headers
    read = decoder(coding)
    for event, chunk in zip(events, chunks, strict=True):
        assert read.decode(chunk) == event
    assert decode(b"".join(chunks), coding) == b"".join(events)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [("", None), ("identity", None), ("gzip, deflate, br, zstd", "gzip"), ("br;q=1.0, gzip", "br"), ("ZSTD", "zstd")],
)
def test_encode_takes_what_the_client_accepts(accepted: str, chosen: str | None) -> None:
    headers, _ = encoded(SimulatedAnswer(200, [], [b"x"]), "accepted", accepted)
    assert dict(headers).get("content-encoding") == chosen


async def test_each_event_is_a_chunk(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "events:20"))
    first, headers = await head_of(reader)
    assert first == "HTTP/1.1 200 OK"
    assert ("transfer-encoding", "chunked") in headers
    chunks = await chunks_of(reader)
    assert len(chunks) == 20
    assert all(chunk.startswith(b"event: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    # The connection goes on.
    writer.write(request(sim, "tiny:5"))
    await head_of(reader)
    chunks = await chunks_of(reader)
    assert {len(chunk) for chunk in chunks[:-1]} == {5}
    writer.write(request(sim, "huge"))
    await head_of(reader)
    assert len(await chunks_of(reader)) == 1
    assert {received.connection for received in sim.requests} == {writer.get_extra_info("sockname")[1]}


async def test_a_clean_early_end_lacks_the_terminal_event(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "end:4"))
    await head_of(reader)
    chunks = await chunks_of(reader)
    assert len(chunks) == 4
    assert b"message_stop" not in b"".join(chunks)
    writer.write(request(sim, "end", body=MESSAGE))
    _, headers = await head_of(reader)
    body = await reader.readexactly(int(dict(headers)["content-length"]))
    with pytest.raises(ValueError, match="delimiter"):
        json.loads(body)


async def test_a_reset_comes_between_chunks(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "reset:2"))
    await head_of(reader)
    got = b""
    with pytest.raises(ConnectionResetError):
        while data := await reader.read(65536):
            got += data
    assert got.count(b"\nevent: ") + got.startswith(b"event: ") == 2
    assert sim.aborted == 0


@pytest.mark.parametrize("scenario", ["reset", "cut"])
async def test_an_answer_that_is_no_stream_breaks_in_its_middle(sim: Simulator, connect: Socket, scenario: str) -> None:
    reader, writer = await connect()
    writer.write(request(sim, scenario, body=MESSAGE))
    _, headers = await head_of(reader)
    length = int(dict(headers)["content-length"])
    got = b""
    try:
        while data := await reader.read(65536):
            got += data
    except ConnectionResetError:
        assert scenario == "reset"
    else:
        assert scenario == "cut"
    assert len(got) == length // 2


async def test_a_fin_inside_a_chunk(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "cut:1"))
    await head_of(reader)
    rest = await reader.read()
    size, _, after = rest.partition(b"\r\n")
    whole = after[: int(size, 16)]
    assert whole.startswith(b"event: message_start")
    announced, _, half = after[int(size, 16) + 2 :].partition(b"\r\n")
    assert 0 < len(half) < int(announced, 16)


@pytest.mark.parametrize(("scenario", "version"), [("close", "1.1"), ("http10", "1.0")])
async def test_the_end_of_the_connection_is_the_end_of_the_body(
    sim: Simulator, connect: Socket, scenario: str, version: str
) -> None:
    reader, writer = await connect()
    writer.write(request(sim, scenario))
    first, headers = await head_of(reader)
    assert first == f"HTTP/{version} 200 OK"
    names = dict(headers)
    assert "transfer-encoding" not in names
    assert "content-length" not in names
    assert names.get("connection") == ("close" if scenario == "close" else None)
    body = await reader.read()
    assert body.startswith(b"event: message_start")
    assert body.endswith(b'{"type":"message_stop"}\n\n')


async def test_a_stream_may_have_a_length_and_a_body_may_be_chunked(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "length"))
    _, headers = await head_of(reader)
    assert (await reader.readexactly(int(dict(headers)["content-length"]))).endswith(b"\n\n")
    writer.write(request(sim, "chunked", body=MESSAGE))
    await head_of(reader)
    assert json.loads(b"".join(await chunks_of(reader)))["type"] == "message"


async def test_a_stale_connection_did_not_say_so(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "stale"))
    _, headers = await head_of(reader)
    assert "connection" not in dict(headers)
    await chunks_of(reader)
    assert await reader.read() == b""


async def test_a_client_that_wants_to_close_is_heard(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim).replace(b"host:", b"connection: close\r\nhost:"))
    _, headers = await head_of(reader)
    assert ("connection", "close") in headers
    await chunks_of(reader)
    assert await reader.read() == b""


async def test_extensions_trailers_and_informational_heads(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "extensions,trailers,interim:2,events:8"))
    for _ in range(2):
        assert (await head_of(reader))[0] == "HTTP/1.1 103 Early Hints"
    _, headers = await head_of(reader)
    assert ("trailer", "x-simulator-trailer") in headers
    size, _, extension = (await reader.readuntil(b"\r\n")).partition(b";")
    assert extension == b'simulator="a;b"\r\n'
    await reader.readexactly(int(size, 16) + 2)
    assert (await reader.readuntil(b"\r\n0\r\n")).count(b";simulator=") == 7
    assert await reader.readuntil(b"\r\n\r\n") == b"x-simulator-trailer: 1\r\n\r\n"


@pytest.mark.parametrize("scenario", ["204", "304"])
async def test_an_answer_without_a_body(sim: Simulator, connect: Socket, scenario: str) -> None:
    reader, writer = await connect()
    writer.write(request(sim, scenario) + request(sim, "404"))
    first, headers = await head_of(reader)
    assert first.split()[1] == scenario
    assert not {"content-length", "transfer-encoding"} & dict(headers).keys()
    assert (await head_of(reader))[0] == "HTTP/1.1 404 Not Found"


async def test_head_tells_a_length_and_sends_nothing(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, method="HEAD") + request(sim, method="GET"))
    _, headers = await head_of(reader)
    first, again = await head_of(reader)
    assert first == "HTTP/1.1 200 OK"
    assert dict(headers)["content-length"] == dict(again)["content-length"]


async def test_a_redirect_leads_nowhere(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "307"))
    first, headers = await head_of(reader)
    assert first == "HTTP/1.1 307 Temporary Redirect"
    assert dict(headers)["location"] == f"{sim.url}/elsewhere"


async def test_headers_that_must_not_pass(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "leaky,events:8"))
    _, headers = await head_of(reader)
    names = [name for name, _ in headers]
    assert names.count("set-cookie") == 2
    assert {"connection", "x-hop", "keep-alive", "proxy-authenticate", "alt-svc"} <= set(names)
    await chunks_of(reader)


async def test_an_early_answer_does_not_read_the_request(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    whole = request(sim, "413,early", body=MESSAGE)
    writer.write(whole[:-20])
    assert (await head_of(reader))[0].startswith("HTTP/1.1 413 ")
    assert sim.requests[0].body == b""


async def test_a_connection_that_ends_without_an_answer(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "drop"))
    assert await reader.read() == b""
    reader, writer = await connect()
    writer.write(request(sim, "drop:rst"))
    with pytest.raises(ConnectionResetError):
        await reader.read()
    await sim.wait_idle()
    assert sim.aborted == 0
    assert sim.accounts["claude-key"].windows == {}


async def test_an_answer_is_held_until_it_is_released(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "hold:2"))
    await sim.wait_for_held()
    await head_of(reader)
    assert (await reader.readuntil(b"\n\n")).endswith(b"\n\n")
    assert sim.open == 1
    assert not sim.requests[0].done
    sim.release()
    await reader.readuntil(b'message_stop"}\n\n\r\n0\r\n\r\n')
    await sim.wait_idle()
    assert sim.requests[0].done


@pytest.mark.parametrize(("scenario", "events"), [("hang", 0), ("stall:3", 3), ("hold:3", 3), ("gap:3600", 1)])
async def test_what_does_not_go_on_ends_with_the_simulator(connect: Socket, scenario: str, events: int) -> None:
    async with Simulator() as sim:
        reader, writer = await asyncio.open_connection(sim.host, sim.port)
        writer.write(request(sim, scenario))
        await sim.wait_for(1)
        if events:
            for _ in range(events):
                await reader.readuntil(b"\n\n")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readuntil(b"message_stop")
    assert sim.aborted == 0
    writer.close()


async def test_a_late_head_and_a_gap_still_come_through(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "slow-start:0.001,gap:0.001,events:9"))
    await head_of(reader)
    assert len(await chunks_of(reader)) == 9


async def test_raw_bytes_of_a_hostile_upstream(sim: Simulator, connect: Socket) -> None:
    sim.accounts["claude-key"].script(
        Scenario(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy"), Scenario(raw=b"", stall=0)
    )
    reader, writer = await connect()
    writer.write(request(sim))
    assert (await reader.read()).endswith(b"\r\n\r\nxy")
    _, writer = await connect()
    writer.write(request(sim))
    await sim.wait_for(2)
    assert sim.open == 1


async def test_the_client_is_asked_for_a_body_it_holds_back(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    head, body = request(sim, body=MESSAGE).split(b"\r\n\r\n", 1)
    writer.write(head + b"\r\nexpect: 100-continue\r\n\r\n")
    assert (await head_of(reader))[0] == "HTTP/1.1 100 Continue"
    writer.write(body)
    assert (await head_of(reader))[0] == "HTTP/1.1 200 OK"
    assert sim.requests[0].body == body


async def test_an_unknown_scenario_says_what_there_is(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim, "explode"))
    first, headers = await head_of(reader)
    assert first == "HTTP/1.1 400 Bad Request"
    body = json.loads(await reader.readexactly(int(dict(headers)["content-length"])))
    assert "'explode' is no scenario; there are ok," in body["error"]["message"]


async def test_an_http_1_0_client_gets_no_chunks(sim: Simulator, connect: Socket) -> None:
    reader, writer = await connect()
    writer.write(request(sim).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    _, headers = await head_of(reader)
    assert "transfer-encoding" not in dict(headers)
    assert (await reader.read()).endswith(b'message_stop"}\n\n')
