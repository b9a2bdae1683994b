"""The vendors' own SDKs take what the simulator sends, whole and streamed, and their types find nothing missing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from aimux.simulator import Simulator

from .conftest import CODEX, MESSAGE, RESPONSE, claude, codex
from .conftest import openai as key_headers

BASH = {
    "type": "object",
    "properties": {"command": {"type": "string"}, "t": {"type": "integer"}},
    "required": ["command"],
}
CHAT: dict[str, Any] = {"model": "gpt-5.5", "messages": [{"role": "user", "content": "Grüß Gott"}]}


@pytest.fixture
async def claude_sdk(sim: Simulator) -> AsyncIterator[anthropic.AsyncAnthropic]:
    token = sim.accounts["claude"].access_token
    headers = {"anthropic-beta": "oauth-2025-04-20"}
    async with anthropic.AsyncAnthropic(
        base_url=f"{sim.url}/anthropic", auth_token=token, default_headers=headers, max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def openai_sdk(sim: Simulator) -> AsyncIterator[openai.AsyncOpenAI]:
    key = sim.accounts["openai-key"].api_key
    async with openai.AsyncOpenAI(base_url=f"{sim.url}/openai/v1", api_key=key, max_retries=0) as client:
        yield client


async def test_anthropic_with_a_key(sim: Simulator) -> None:
    key = sim.accounts["claude-key"].api_key
    async with anthropic.AsyncAnthropic(base_url=f"{sim.url}/anthropic", api_key=key, max_retries=0) as client:
        message = await client.messages.create(**MESSAGE)
    assert message.stop_reason == "end_turn"
    assert sim.requests[0].account == "claude-key"


async def test_anthropic_streamed(claude_sdk: anthropic.AsyncAnthropic, sim: Simulator) -> None:
    async with claude_sdk.messages.stream(**MESSAGE) as stream:
        streamed = "".join([text async for text in stream.text_stream])
        final = await stream.get_final_message()
    assert "Grüß Gott" in streamed
    assert final.content[0].type == "text"
    assert final.content[0].text == streamed
    assert final.usage.output_tokens == len(streamed.encode()) // 4


async def test_anthropic_calls_a_tool_and_takes_its_result(claude_sdk: anthropic.AsyncAnthropic) -> None:
    tools: list[Any] = [{"name": "Bash", "input_schema": BASH}]
    headers = {"x-simulator": "tool:Bash"}
    async with claude_sdk.messages.stream(**MESSAGE, tools=tools, extra_headers=headers) as stream:
        called = (await stream.get_final_message()).content[0]
    assert called.type == "tool_use"
    assert (called.name, called.input) == ("Bash", {"command": "echo simulator"})
    result = {"type": "tool_result", "tool_use_id": called.id, "content": "simulator"}
    turns: list[Any] = [
        *MESSAGE["messages"],
        {"role": "assistant", "content": [called]},
        {"role": "user", "content": [result]},
    ]
    change: dict[str, Any] = MESSAGE | {"messages": turns}
    answer = await claude_sdk.messages.create(**change, tools=tools, extra_headers=headers)
    assert answer.content[0].type == "text"


async def test_anthropic_models_and_counting(claude_sdk: anthropic.AsyncAnthropic) -> None:
    assert [model.id async for model in claude_sdk.models.list()]
    counted = await claude_sdk.messages.count_tokens(model="claude-opus-5", messages=[{"role": "user", "content": "x"}])
    assert counted.input_tokens > 0


@pytest.mark.parametrize(
    ("scenario", "error"),
    [
        ("401", anthropic.AuthenticationError),
        ("403:revoked", anthropic.PermissionDeniedError),
        ("429:60", anthropic.RateLimitError),
        ("529", anthropic.InternalServerError),
        ("502", anthropic.InternalServerError),
        ("drop", anthropic.APIConnectionError),
        ("cut", anthropic.APIConnectionError),
    ],
)
async def test_anthropic_errors(claude_sdk: anthropic.AsyncAnthropic, scenario: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await claude_sdk.messages.create(**MESSAGE, extra_headers={"x-simulator": scenario})


@pytest.mark.parametrize("scenario", ["overload", "overload:4"])
async def test_anthropic_overloaded_inside_a_200(claude_sdk: anthropic.AsyncAnthropic, scenario: str) -> None:
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        async with claude_sdk.messages.stream(**MESSAGE, extra_headers={"x-simulator": scenario}) as stream:
            await stream.get_final_message()


@pytest.mark.parametrize("scenario", ["tiny", "huge", "split", "encode", "encode:gzip", "encode:br", "length", "close"])
async def test_the_sdks_do_not_mind_how_the_bytes_come(
    claude_sdk: anthropic.AsyncAnthropic, openai_sdk: openai.AsyncOpenAI, scenario: str
) -> None:
    headers = {"x-simulator": scenario}
    async with claude_sdk.messages.stream(**MESSAGE, extra_headers=headers) as stream:
        assert "Grüß Gott" in await stream.get_final_text()
    async with openai_sdk.responses.stream(**RESPONSE, extra_headers=headers) as events:
        async for _ in events:
            pass
        assert "Grüß Gott" in (await events.get_final_response()).output_text


async def test_openai_whole(openai_sdk: openai.AsyncOpenAI) -> None:
    response = await openai_sdk.responses.create(**RESPONSE)
    assert "Grüß Gott" in response.output_text
    completion = await openai_sdk.chat.completions.create(**CHAT)
    assert "Grüß Gott" in completion.choices[0].message.content
    compacted = await openai_sdk.responses.compact(model="gpt-5.5", input="x" * 9000)
    assert compacted.usage.input_tokens_details.cached_tokens > 0
    assert [model.id async for model in openai_sdk.models.list()]


async def test_openai_calls_tools(openai_sdk: openai.AsyncOpenAI) -> None:
    headers = {"x-simulator": "tool"}
    tools: list[Any] = [{"type": "function", "name": "shell", "parameters": BASH, "strict": False}]
    async with openai_sdk.responses.stream(**RESPONSE, tools=tools, extra_headers=headers) as events:
        async for _ in events:
            pass
        item = (await events.get_final_response()).output[0]
    assert item.type == "function_call"
    assert json.loads(item.arguments) == {"command": "echo simulator"}
    nested: list[Any] = [{"type": "function", "function": {"name": "shell", "parameters": BASH}}]
    completion = await openai_sdk.chat.completions.create(**CHAT, tools=nested, extra_headers=headers)
    assert completion.choices[0].finish_reason == "tool_calls"
    async with openai_sdk.chat.completions.stream(**CHAT, tools=nested, extra_headers=headers) as chunks:
        async for _ in chunks:
            pass
        calls = (await chunks.get_final_completion()).choices[0].message.tool_calls
    assert calls
    assert calls[0].function.name == "shell"


async def test_openai_with_a_login(sim: Simulator) -> None:
    headers = codex(sim)
    del headers["authorization"]
    token = sim.accounts["chatgpt"].access_token
    base = f"{sim.url}/chatgpt/backend-api/codex"
    async with openai.AsyncOpenAI(base_url=base, api_key=token, default_headers=headers, max_retries=0) as client:
        seen = [event.type async for event in await client.responses.create(**CODEX)]
    assert (seen[0], seen[-1]) == ("response.created", "response.completed")


@pytest.mark.parametrize("scenario", ["", "events:40", "tool", "events:1", "size:0"])
@pytest.mark.parametrize(
    ("base", "path", "body", "whole", "event"),
    [
        ("anthropic", "/v1/messages", MESSAGE, Message, RawMessageStreamEvent),
        ("openai", "/v1/responses", RESPONSE, Response, ResponseStreamEvent),
        ("openai", "/v1/chat/completions", CHAT, ChatCompletion, ChatCompletionChunk),
    ],
)
async def test_the_sdks_types_find_nothing_missing(
    sim: Simulator,
    http: aiohttp.ClientSession,
    scenario: str,
    base: str,
    path: str,
    body: dict[str, Any],
    whole: Any,
    event: Any,
) -> None:
    """The SDKs build their objects without checking; here their types do check every field."""
    headers = (claude(sim) if base == "anthropic" else key_headers(sim)) | {"x-simulator": scenario}
    if scenario == "tool":
        tools: dict[str, dict[str, Any]] = {
            "/v1/messages": {"name": "b", "input_schema": BASH},
            "/v1/responses": {"type": "function", "name": "b", "parameters": BASH},
            "/v1/chat/completions": {"type": "function", "function": {"name": "b", "parameters": BASH}},
        }
        body = body | {"tools": [tools[path]]}
    async with http.post(sim.url + f"/{base}{path}", json=body, headers=headers) as answer:
        TypeAdapter(whole).validate_python(await answer.json())
    async with http.post(sim.url + f"/{base}{path}", json=body | {"stream": True}, headers=headers) as answer:
        blocks = (await answer.text()).removesuffix("\n\n").split("\n\n")
    datas = [block.rpartition("data: ")[2] for block in blocks]
    if scenario == "events:40":
        assert len(datas) == 40
    events = [json.loads(data) for data in datas if data != "[DONE]"]
    for one in events:
        if one.get("type") != "ping":
            TypeAdapter(event).validate_python(one)
