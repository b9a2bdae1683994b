"""What people run against a gateway, through each of its endpoints: the vendors' SDKs, HTTP libraries, bare sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import anthropic
import httpx
import openai
import pytest

from tests.e2e.conftest import Endpoint
from tests.e2e.process import TOKEN
from tests.tools import program

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: list[Any] = [{"role": "user", "content": "Grüß Gott"}]
MESSAGE: dict[str, Any] = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": HELLO}
RESPONSE: dict[str, Any] = {"model": "gpt-5.5", "input": "Grüß Gott"}
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
BEARER = {"authorization": f"Bearer {TOKEN}"}
VERSION = {"anthropic-version": "2023-06-01"}


# --- the vendors' SDKs -----------------------------------------------------------------------------------------------


async def test_anthropic_answers_and_calls_a_tool(endpoint: Endpoint) -> None:
    tools: list[Any] = [{"name": "Bash", "input_schema": SCHEMA}]
    async with endpoint.anthropic() as client:
        message = await client.messages.create(**MESSAGE)
        assert message.content[0].type == "text"
        assert "Grüß Gott" in message.content[0].text
        asked = await client.messages.create(**MESSAGE, tools=tools, extra_headers={"x-simulator": "tool:Bash"})
        called = asked.content[0]
        assert called.type == "tool_use"
        result = {"type": "tool_result", "tool_use_id": called.id, "content": "simulator"}
        turns = [*HELLO, {"role": "assistant", "content": [called]}, {"role": "user", "content": [result]}]
        change: dict[str, Any] = MESSAGE | {"messages": turns}
        answer = await client.messages.create(**change, tools=tools, extra_headers={"x-simulator": "tool:Bash"})
        assert answer.content[0].type == "text"
    seen = endpoint.sim.requests[-1]
    assert seen.account == "claude"
    assert not any(TOKEN.encode() in value for _, value in seen.headers)


async def test_anthropic_streams(endpoint: Endpoint) -> None:
    async with endpoint.anthropic() as client, client.messages.stream(**MESSAGE) as stream:
        text = "".join([part async for part in stream.text_stream])
        final = await stream.get_final_message()
    assert "Grüß Gott" in text
    assert final.content[0].type == "text"
    assert final.content[0].text == text
    assert final.usage.output_tokens > 0


async def test_anthropic_counts_and_lists(endpoint: Endpoint) -> None:
    async with endpoint.anthropic() as client:
        counts = await asyncio.gather(
            *(client.messages.count_tokens(model=MESSAGE["model"], messages=HELLO) for _ in range(26))
        )
        assert {count.input_tokens for count in counts} == {counts[0].input_tokens}
        assert "claude-sonnet-5" in [model.id async for model in client.models.list()]


async def test_anthropic_is_told_what_is_wrong(endpoint: Endpoint) -> None:
    """Retries stay on: what aimux refuses is refused once."""
    asked = endpoint.sim.count()
    async with endpoint.anthropic(auth_token="wrong-wrong-wrong-wrong", max_retries=2) as client:
        with pytest.raises(anthropic.AuthenticationError, match="not known to aimux") as refused:
            await client.messages.create(**MESSAGE)
        assert refused.value.response.headers["x-should-retry"] == "false"
    assert endpoint.sim.count() == asked, "the vendor hears nothing of it"
    async with endpoint.anthropic() as client:
        with pytest.raises(anthropic.NotFoundError, match="model: gpt"):
            await client.messages.create(**MESSAGE | {"model": "gpt"})
        async with client.messages.stream(**MESSAGE, extra_headers={"x-simulator": "overload:2"}) as stream:
            with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
                await stream.get_final_message()


async def test_openai_answers_and_calls_a_tool(endpoint: Endpoint) -> None:
    tools: list[Any] = [{"type": "function", "name": "shell", "parameters": SCHEMA, "strict": False}]
    async with endpoint.openai() as client:
        answer = await client.responses.create(**RESPONSE)
        assert "Grüß Gott" in answer.output_text
        assert answer.usage
        asked = await client.responses.create(**RESPONSE, tools=tools, extra_headers={"x-simulator": "tool:shell"})
        called = asked.output[0]
        assert called.type == "function_call"
        result = {"type": "function_call_output", "call_id": called.call_id, "output": "simulator"}
        turns: list[Any] = [*HELLO, called.to_dict(), result]
        change: dict[str, Any] = RESPONSE | {"input": turns}
        answer = await client.responses.create(**change, tools=tools, extra_headers={"x-simulator": "tool:shell"})
        assert answer.output_text
        chat = await client.chat.completions.create(model="gpt-5.5", messages=HELLO)
        assert "Grüß Gott" in (chat.choices[0].message.content or "")
        assert "gpt-5.5" in [model.id async for model in client.models.list()]
    assert endpoint.sim.requests[-1].account == "openai-key"


async def test_openai_streams(endpoint: Endpoint) -> None:
    async with endpoint.openai() as client:
        events = [event async for event in await client.responses.create(**RESPONSE, stream=True)]
        assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
        chunks = [
            chunk async for chunk in await client.chat.completions.create(model="gpt-5.5", messages=HELLO, stream=True)
        ]
    assert "Grüß Gott" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_openai_is_told_what_is_wrong(endpoint: Endpoint) -> None:
    asked = endpoint.sim.count()
    async with endpoint.openai(api_key="wrong-wrong-wrong-wrong", max_retries=2) as client:
        with pytest.raises(openai.AuthenticationError, match="not known to aimux"):
            await client.responses.create(**RESPONSE)
    assert endpoint.sim.count() == asked
    async with endpoint.openai() as client:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.responses.create(**RESPONSE | {"model": "claude"})
        with pytest.raises(openai.APIError, match="overloaded"):
            stream = await client.responses.create(
                **RESPONSE, stream=True, extra_headers={"x-simulator": "overload-error:2"}
            )
            async for _ in stream:
                pass


# --- HTTP libraries --------------------------------------------------------------------------------------------------


async def test_httpx(endpoint: Endpoint) -> None:
    transport = endpoint.transport(httpx)
    async with httpx.AsyncClient(transport=transport, base_url=endpoint.url, headers=BEARER | VERSION) as client:
        for coding in ("gzip", "br", "zstd"):
            answer = await client.post(
                "/claude/v1/messages",
                json=MESSAGE,
                headers={"x-simulator": f"encode:{coding}", "accept-encoding": coding},
            )
            assert answer.headers["content-encoding"] == coding
            assert answer.json()["type"] == "message"
        async with client.stream("POST", "/claude/v1/messages", json=MESSAGE | {"stream": True}) as streamed:
            lines = [line async for line in streamed.aiter_lines()]
        assert lines.count("event: message_stop") == 1
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/nowhere")).status_code == 404


async def test_aiohttp_sees_each_event_as_it_is_sent(endpoint: Endpoint) -> None:
    """The upstream sends nothing more until the client has read what there is: nothing waits in between."""
    headers = BEARER | VERSION | {"x-simulator": "hold:4"}
    async with (
        aiohttp.ClientSession(connector=endpoint.connector(), headers=headers) as session,
        session.post(f"{endpoint.url}/claude/v1/messages", json=MESSAGE | {"stream": True}) as answer,
    ):
        seen = b""
        async with asyncio.timeout(10):
            while seen.count(b"\n\n") < 4:
                seen += await answer.content.readany()
            await endpoint.sim.wait_for_held()
            endpoint.sim.release()
            seen += await answer.read()
    assert seen.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


async def test_a_client_that_leaves_ends_the_work_upstream(endpoint: Endpoint) -> None:
    aborted = endpoint.sim.aborted
    headers = BEARER | VERSION | {"x-simulator": "stall:2"}
    async with aiohttp.ClientSession(connector=endpoint.connector(), headers=headers) as session:
        answer = await session.post(f"{endpoint.url}/claude/v1/messages", json=MESSAGE | {"stream": True})
        await answer.content.readany()
        answer.close()
        async with asyncio.timeout(10):
            await endpoint.sim.wait_for_aborted(aborted + 1)


async def curl(endpoint: Endpoint, *arguments: str) -> str:
    """Its output; one that fails ends the test."""
    way = (
        ["--unix-socket", endpoint.socket]
        if endpoint.socket
        else ["--cacert", endpoint.certificate]
        if endpoint.certificate
        else []
    )
    process = await asyncio.create_subprocess_exec(
        program("curl", "curl"), "-sS", *way, *arguments, stdout=asyncio.subprocess.PIPE, env={}
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_curl(endpoint: Endpoint) -> None:
    url, body = f"{endpoint.url}/claude/v1/messages", json.dumps(MESSAGE)
    usual = ["-H", "anthropic-version: 2023-06-01", "-H", "content-type: application/json"]
    for auth in (
        [f"authorization: Bearer {TOKEN}"],
        [f"x-api-key: {TOKEN}"],
        [f"x-api-key: {TOKEN}", f"authorization: Bearer {TOKEN}"],
    ):
        fields = [part for field in auth for part in ("-H", field)]
        assert "Grüß Gott" in json.loads(await curl(endpoint, url, *usual, *fields, "-d", body))["content"][0]["text"]
    key = ["-H", f"x-api-key: {TOKEN}"]
    streamed = await curl(endpoint, "-N", url, *usual, *key, "-d", json.dumps(MESSAGE | {"stream": True}))
    assert "event: message_stop" in streamed
    assert (await curl(endpoint, "-I", f"{endpoint.url}/claude/v1/models", *key)).startswith("HTTP/1.1 200")
    assert (await curl(endpoint, "-I", f"{endpoint.url}/claude")).startswith("HTTP/1.1 401")
    assert "aimux needs a token" in await curl(endpoint, url, *usual, "-d", body)


# --- sockets ---------------------------------------------------------------------------------------------------------


def head(method: str, target: str, *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "host: localhost", f"authorization: Bearer {TOKEN}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body, by its content-length."""
    raw = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = raw.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return int(raw.split()[1]), await reader.readexactly(int(length or 0))


async def test_sockets_reuse_and_pipeline(endpoint: Endpoint) -> None:
    body = json.dumps(MESSAGE).encode()
    fields = ("anthropic-version: 2023-06-01", "content-type: application/json")
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    reader, writer = await endpoint.connect()
    async with asyncio.timeout(20):
        writer.write(head("POST", "/claude/v1/messages", *fields, f"content-length: {len(body)}") + body)
        status, first = await read_answer(reader)
        assert (status, json.loads(first)["type"]) == (200, "message")
        writer.write(head("POST", "/claude/v1/messages", *fields, "transfer-encoding: chunked") + chunked)
        assert (await read_answer(reader))[0] == 200
        writer.write(
            head("POST", "/claude/v1/messages", *fields, f"content-length: {len(body)}", "expect: 100-continue")
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_answer(reader))[0] == 200
        writer.write(head("GET", "/claude/v1/models") + head("GET", "/claude") + head("GET", "/claude/v1/models"))
        assert [(await read_answer(reader))[0] for _ in range(3)] == [200, 404, 200]
        writer.write(head("HEAD", "/claude/v1/models") + head("HEAD", "/health") + head("GET", "/claude/v1/models"))
        heads = (await reader.read()).split(b"\r\n\r\n")
        assert [raw[:12] for raw in heads] == [b"HTTP/1.1 200", b"HTTP/1.1 200", b""]
        assert b"\r\nconnection: close" in heads[1], "what is outside the mounts ends its connection"
    writer.close()
    await writer.wait_closed()
