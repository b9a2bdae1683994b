"""What aimux itself refuses: in the format of the mount's clients, which are told that trying again is pointless."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from yarl import URL

from aimux.gateway.guesses import FREE
from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, config_of, put_account, serving

BEARER = {"authorization": f"Bearer {TOKEN}"}
LIMITED = {"claude": ("rate_limit_error", None), "chatgpt": ("rate_limit_error", "rate_limit_exceeded")}
VENDORS = {"claude": "sk-ant-api03-a-key-of-the-vendor-0123456789", "chatgpt": "sk-proj-a-key-of-the-vendor-0123456789"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def refused(http: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, str]:
    """Status and message of what must be an error that asks for no second try."""
    async with http.post(URL(url, encoded=True), headers=headers, data=io.BytesIO(body)) as answer:
        assert answer.headers["x-should-retry"] == "false", url
        return answer.status, (await answer.json())["error"]["message"]


@pytest.mark.parametrize("mount", ["claude", "chatgpt"])
async def test_with_users(tmp_path: Path, http: aiohttp.ClientSession, mount: str) -> None:
    async with Simulator() as sim:
        put_account(tmp_path / "state", sim.accounts[mount])
        async with serving(tmp_path, config_of(sim, tmp_path, max_body_size="1MiB")) as aimux:
            url = f"{aimux.address}/{mount}/v1/x"
            told = [
                await refused(http, url, {}),
                await refused(http, url, {"x-api-key": "wrong-wrong-wrong-wrong"}),
                await refused(http, url, {"x-api-key": VENDORS[mount]}),
                await refused(http, url, BEARER, bytes(2 << 20)),
                await refused(http, f"{aimux.address}/{mount}/%2e%2e/x", BEARER),
            ]
        assert [status for status, _ in told] == [401, 401, 401, 413, 400]
        words = ("needs a token", "not known to aimux", "not an aimux token", "max_body_size", "is not acceptable")
        assert [word in message for word, (_, message) in zip(words, told, strict=True)] == [True] * 5
        assert not sim.requests


@pytest.mark.parametrize("mount", ["claude", "chatgpt"])
async def test_many_different_wrong_tokens(tmp_path: Path, http: aiohttp.ClientSession, mount: str) -> None:
    """The same one, again and again, stays a 401: that is a client that was set up wrongly."""
    async with Simulator() as sim:
        put_account(tmp_path / "state", sim.accounts[mount])
        async with serving(tmp_path, config_of(sim, tmp_path)) as aimux:
            url = f"{aimux.address}/{mount}/v1/x"
            for _ in range(FREE + 2):
                assert (await refused(http, url, {"authorization": f"Bearer {TOKEN}x"}))[0] == 401

            async def guess(number: int) -> int:
                async with http.post(url, headers={"authorization": f"Bearer {TOKEN}{number}"}) as answer:
                    error = (await answer.json())["error"]
                    if answer.status == 429:
                        assert (error["type"], error.get("code")) == LIMITED[mount]
                        looked = "not looked at" not in error["message"]
                        again = "false" if looked else "true"
                        assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == (again, "1")
                        assert "any wrong tokens came from your address" in error["message"]
                    return answer.status

            assert {*await asyncio.gather(*map(guess, range(6 * FREE)))} == {401, 429}
            async with http.get(f"{aimux.address}/{mount}/v1/models", headers=BEARER) as answer:
                assert answer.status == 200
        assert len(sim.requests) == 1


MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
RESPONSE = {"model": "gpt-5.4", "stream": True, "store": False, "instructions": "x", "input": []}


@pytest.mark.parametrize(
    ("mount", "path", "body", "kind"),
    [
        ("claude", "v1/messages", MESSAGE, "rate_limit_error"),
        ("chatgpt", "responses", RESPONSE, "usage_limit_reached"),
    ],
)
async def test_paid_extra_usage_that_is_forbidden(
    tmp_path: Path, http: aiohttp.ClientSession, mount: str, path: str, body: object, kind: str
) -> None:
    """The answer that tells of it is the last one until what is included begins anew."""
    headers = BEARER | {"anthropic-version": "2023-06-01"}
    async with Simulator() as sim:
        put_account(tmp_path / "state", sim.accounts[mount])
        limits = {"default": {"overage": "forbid"}}
        async with serving(tmp_path, config_of(sim, tmp_path, limits=limits)) as aimux:
            url = f"{aimux.address}/{mount}/{path}"
            for scenario in ("ok", "overage"):
                async with http.post(url, json=body, headers=headers | {"x-simulator": scenario}) as answer:
                    assert answer.status == 200
                    await answer.read()
            async with http.post(url, json=body, headers=headers) as answer:
                assert (answer.status, answer.headers["x-should-retry"]) == (429, "false")
                assert 17_000 < int(answer.headers["retry-after"]) <= 18_000
                error = (await answer.json())["error"]
                assert error["type"] == kind
                assert "you may not go on with paid extra usage; there is room again " in error["message"]
            await aimux.said("error=overage_forbidden")
        assert len(sim.requests) == 2


async def test_paid_extra_usage_of_one_family_of_models(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """`7d_oi` holds for models that no header names: for that of an answer that was paid although there is room."""
    headers = BEARER | {"anthropic-version": "2023-06-01"}
    async with Simulator() as sim:
        put_account(tmp_path / "state", sim.accounts["claude"])
        limits = {"default": {"overage": "forbid"}}
        async with serving(tmp_path, config_of(sim, tmp_path, limits=limits)) as aimux:

            async def ask(model: str, scenario: str = "ok") -> tuple[int, str]:
                sent = headers | {"x-simulator": scenario}
                async with http.post(
                    f"{aimux.claude}/v1/messages", json=MESSAGE | {"model": model}, headers=sent
                ) as got:
                    return got.status, await got.text()

            assert (await ask("claude-opus-4-5", "overage:7d_oi"))[0] == 200
            status, told = await ask("claude-opus-4-5")
            assert status == 429
            assert "What is included in the claude accounts for claude-opus-4-5 is used up, and you may not" in told
            assert (await ask("claude-haiku-4-5"))[0] == 200
        assert len(sim.requests) == 2


async def test_long_context_that_is_forbidden(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """In the form that each client looks for: the SDK in an error's code, Codex in an event alone."""
    long: dict[str, Any] = {"model": "gpt-5.5", "input": "many words of a long file " * 60_000, "store": False}
    async with Simulator() as sim:
        put_account(tmp_path / "state", sim.accounts["openai-key"])
        limits = {"default": {"long_context": "forbid"}}
        async with serving(tmp_path, config_of(sim, tmp_path, limits=limits)) as aimux:
            url = f"{aimux.address}/chatgpt/v1"
            sdk = openai.AsyncOpenAI(base_url=url, api_key=TOKEN, max_retries=0)
            with pytest.raises(openai.BadRequestError, match=r"too long: .* Compact the conversation") as told:
                await sdk.responses.create(**long, stream=True)
            assert told.value.code == "context_length_exceeded"
            headers = BEARER | {"accept": "text/event-stream", "content-type": "application/json"}
            body = io.BytesIO(json.dumps(long | {"stream": True}).encode())
            async with http.post(f"{url}/responses", data=body, headers=headers) as answer:
                assert (answer.status, answer.content_type) == (200, "text/event-stream")
                name, data = (await answer.text()).strip().split("\n")
            assert name == "event: response.failed"
            assert json.loads(data.removeprefix("data: "))["response"]["error"]["code"] == "context_length_exceeded"
            socket = await http.ws_connect(f"{url}/responses", headers=BEARER)
            await socket.send_json({"type": "response.create", **long})
            event = await socket.receive_json()
            assert event["type"] == "response.failed"
            assert event["response"]["error"]["code"] == "context_length_exceeded"
            await socket.send_json({"type": "response.create", **long, "input": "hi"})
            assert (await socket.receive_json())["type"] == "response.created"
            await socket.close()
            await sdk.close()


async def test_without_users(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Only this machine is served then; a page in a browser here is not it."""
    async with Simulator() as sim:
        put_account(tmp_path / "state", sim.accounts["claude"])
        async with serving(tmp_path, config_of(sim, tmp_path, users=[])) as aimux:
            told = await refused(http, f"{aimux.claude}/v1/messages", {"origin": "https://evil.example"})
        assert told[0] == 403
        assert not sim.requests
