"""Batches and answers in the background, as the vendors' SDKs ask for them: what they took is counted, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, Aimux, Process, config_of, put_account, serving

MODELS = ("claude-sonnet-5", "claude-haiku-4-5")
Usage = dict[str, dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path, sim: Simulator) -> Path:
    """With accounts that batches can be made with: keys."""
    for name in ("claude-key", "openai-key"):
        put_account(tmp_path / "state", sim.accounts[name])
    return tmp_path


@asynccontextmanager
async def clients(
    sim: Simulator, folder: Path, **settings: Any
) -> AsyncIterator[tuple[Aimux, anthropic.AsyncAnthropic, openai.AsyncOpenAI]]:
    async with AsyncExitStack() as stack:
        aimux = await stack.enter_async_context(serving(folder, config_of(sim, folder, **settings)))
        claude = anthropic.AsyncAnthropic(base_url=aimux.claude, auth_token=TOKEN, max_retries=0)
        gpt = openai.AsyncOpenAI(base_url=aimux.chatgpt, api_key=TOKEN, max_retries=0)
        yield aimux, await stack.enter_async_context(claude), await stack.enter_async_context(gpt)


async def usage(folder: Path, aimux: Aimux) -> Usage:
    """What the API tells of ann, by model; of requests that took nothing it knows none."""
    key = (folder / "state" / "admin.key").read_text().strip()
    where = f"{aimux.address}/api/v1/usage?by=model&user=ann&since=1d"
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as session, session.get(where, headers=headers) as answer:
        found = await answer.json()
    return {item["model"]: item for item in found["items"] if item["model"]}


async def said(folder: Path, *arguments: str) -> str:
    """What a command prints."""
    process = await Process.start(folder, *arguments, "--config", str(folder / "config.json"))
    assert await process.end() == 0, process.output
    return "\n".join(process.stdout)


async def until(folder: Path, aimux: Aimux, found: Callable[[Usage], bool]) -> Usage:
    """… once it is found there, and has its price: that is looked up beside, and takes seconds on a busy machine."""
    async with asyncio.timeout(20):
        while not found(told := await usage(folder, aimux)) or any(one["unpriced_requests"] for one in told.values()):
            await asyncio.sleep(0.05)
    return told


def tokens(item: dict[str, Any]) -> int:
    kinds = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    return sum(int(item[kind]) for kind in kinds)


def question(at: int, model: str) -> Any:
    message = {"role": "user", "content": "Grüß Gott" * 500}
    return {"custom_id": f"q{at}", "params": {"model": model, "max_tokens": 99, "messages": [message]}}


async def test_a_message_batch_counts_at_half_the_price_when_its_results_are_read(sim: Simulator, folder: Path) -> None:
    async with clients(sim, folder) as (aimux, claude, _):
        requests = [question(at, model) for at, model in enumerate((*MODELS, MODELS[0], "claude", "gpt"))]
        made = await claude.messages.batches.create(requests=requests)
        plain = await claude.messages.create(**question(0, MODELS[1])["params"])
        read = [one async for one in await claude.messages.batches.results(made.id)]
        messages = [one.result.message for one in read if one.result.type == "succeeded"]
        assert [one.result.type for one in read] == ["succeeded"] * 3 + ["errored"] * 2
        told = await until(folder, aimux, lambda told: MODELS[0] in told)
        one, several = told[MODELS[1]], told[MODELS[0]]
        counted = plain.usage.input_tokens + plain.usage.output_tokens
        counted += plain.usage.cache_read_input_tokens + plain.usage.cache_creation_input_tokens
        assert tokens(one) == 2 * counted, "the same once more, in the batch"
        assert several["output_tokens"] == sum(m.usage.output_tokens for m in messages if m.model == MODELS[0])
        assert several["requests"] == 1, "all of a model's"
        again = [one async for one in await claude.messages.batches.results(made.id)]
        assert len(again) == len(read)
    async with clients(sim, folder) as (aimux, claude, _):
        assert len([one async for one in await claude.messages.batches.results(made.id)]) == len(read)
        why = await said(folder, "why", made.id)
        assert "LATER /claude/v1/messages/batches/" in why
        assert "for ann" in why
        printed = json.loads(await said(folder, "usage", "--by", "model", "--user", "ann", "--json"))
        assert {item["model"]: item for item in printed["items"] if item["model"]} == told
        await claude.messages.create(**question(0, MODELS[1])["params"])
        more = await until(folder, aimux, lambda told: told[MODELS[1]]["requests"] == 3)
    alone = more[MODELS[1]]["cost_usd"] - one["cost_usd"]
    assert one["cost_usd"] == pytest.approx(1.5 * alone, rel=1e-6)


async def test_an_openai_batch_counts_when_it_is_seen_to_be_over(sim: Simulator, folder: Path) -> None:
    async with clients(sim, folder) as (aimux, _, gpt):
        body = {"model": "gpt-5.5", "input": "Grüß Gott" * 500}
        lines = [
            json.dumps({"custom_id": f"q{at}", "method": "POST", "url": "/v1/responses", "body": body})
            for at in range(3)
        ]
        file = await gpt.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
        made = await gpt.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
        assert not [one async for one in await gpt.files.list() if one.id != file.id]
        found = [one async for one in await gpt.batches.list()]
        assert [one.id for one in found] == [made.id]
        told = await until(folder, aimux, lambda told: "gpt-5.5" in told)
        batch = await gpt.batches.retrieve(made.id)
        assert batch.status == "completed"
        assert batch.usage is not None
        assert tokens(told["gpt-5.5"]) == batch.usage.total_tokens
        assert batch.output_file_id is not None
        content = (await gpt.files.content(batch.output_file_id)).content
        assert len(content.splitlines()) == 3
        assert await usage(folder, aimux) == told


async def test_an_answer_in_the_background_counts_when_it_is_looked_at(sim: Simulator, folder: Path) -> None:
    async with clients(sim, folder) as (aimux, _, gpt):
        made = await gpt.responses.create(model="gpt-5.5", input="Grüß Gott", background=True)
        assert made.status == "queued"
        assert made.usage is None
        whole = await gpt.responses.retrieve(made.id)
        assert whole.usage is not None
        told = await until(folder, aimux, lambda told: "gpt-5.5" in told)
        assert tokens(told["gpt-5.5"]) == whole.usage.total_tokens
        await gpt.responses.retrieve(made.id)
        async for _ in await gpt.responses.retrieve(made.id, stream=True):
            pass
        assert await usage(folder, aimux) == told


async def test_a_stream_that_its_client_left_counts_when_it_is_taken_up_again(sim: Simulator, folder: Path) -> None:
    async with clients(sim, folder) as (aimux, _, gpt):
        held = {"x-simulator": "hold:2"}
        stream = await gpt.responses.create(
            model="gpt-5.5", input="Grüß Gott", background=True, stream=True, extra_headers=held
        )
        first = await anext(aiter(stream))
        assert first.type == "response.created"
        await stream.close()
        await aimux.logged(1)
        sim.release()
        assert "gpt-5.5" not in await usage(folder, aimux)
        events = [one async for one in await gpt.responses.retrieve(first.response.id, stream=True, starting_after=3)]
        assert events[0].sequence_number == 4
        last = events[-1]
        assert last.type == "response.completed"
        assert last.response.usage is not None
        told = await until(folder, aimux, lambda told: "gpt-5.5" in told)
        assert tokens(told["gpt-5.5"]) == last.response.usage.total_tokens
        await gpt.responses.retrieve(first.response.id)
        assert await usage(folder, aimux) == told


async def test_what_a_batch_took_uses_up_a_budget(sim: Simulator, folder: Path) -> None:
    limits = {"users": {"ann": {"tokens_per_day": 20_000}}}
    async with clients(sim, folder, limits=limits) as (aimux, claude, _):
        made = await claude.messages.batches.create(requests=[question(at, MODELS[0]) for at in range(20)])
        await claude.messages.create(**question(0, MODELS[1])["params"])
        async for _ in await claude.messages.batches.results(made.id):
            pass
        await until(folder, aimux, lambda told: MODELS[0] in told)
        with pytest.raises(anthropic.RateLimitError, match=r"You have used \d\d,\d\d\d of 20,000 tokens today"):
            await claude.messages.create(**question(0, MODELS[1])["params"])
    async with clients(sim, folder, limits=limits) as (aimux, claude, _):
        with pytest.raises(anthropic.RateLimitError, match=r"of 20,000 tokens today"):
            await claude.messages.create(**question(0, MODELS[1])["params"])
