"""What upstreams say, through a whole aimux with the built-in providers: what the client hears and who serves next."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.app import App
from aimux.simulator import Simulator
from tests.e2e.process import TOKEN
from tests.soak.world import gateway

MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
ODD = {"origin": "app://notes"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {TOKEN}"}) as session:
        yield session


def status_of(app: App, provider: str, account: str) -> str:
    return app.pools[provider].accounts[account].state(time.time()).status


def asked(sim: Simulator) -> list[str]:
    return [request.target.partition("?")[0] for request in sim.requests]


def renewals(sim: Simulator) -> int:
    return sum("/oauth/token" in request.target for request in sim.requests)


async def message(http: aiohttp.ClientSession, app: App, **headers: str) -> tuple[int, dict[str, Any]]:
    url = f"{app.addresses[0]}/claude/v1/messages"
    async with http.post(url, json=MESSAGE, headers={"anthropic-version": "2023-06-01", **headers}) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("account", ["claude", "claude-key"])
async def test_a_web_page_that_may_not_ask_parks_nobody_and_renews_nothing(
    tmp_path: Path, http: aiohttp.ClientSession, account: str
) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts[account], "default")]) as app:
        status, answer = await message(http, app, **ODD)
        assert status == 401
        assert "CORS requests must set" in answer["error"]["message"]
        assert status_of(app, "claude", "default") == "healthy"
        assert (await message(http, app))[0] == 200
        assert asked(sim) == ["/anthropic/v1/messages"] * 2


async def test_a_login_that_is_refused_once_is_proved_and_not_renewed(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")]) as app:
        assert (await message(http, app, **{"x-simulator": "401"}))[0] == 401
        assert asked(sim) == ["/anthropic/v1/messages", "/anthropic/v1/models"]
        assert status_of(app, "claude", "default") == "healthy"
        assert (await message(http, app))[0] == 200
        assert renewals(sim) == 0


async def test_a_login_that_is_over_is_renewed_and_the_request_served(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")]) as app:
        assert (await message(http, app))[0] == 200
        sim.accounts["claude"].expire()
        assert (await message(http, app))[0] == 200
        assert renewals(sim) == 1
        sim.accounts["claude"].expire()
        sim.accounts["claude"].revoke("expired")
        status, answer = await message(http, app)
        assert status in {401, 403}
        assert "OAuth token" in answer["error"]["message"]
        assert status_of(app, "claude", "default") == "parked"


async def test_a_provider_without_an_account_does_not_keep_the_others_from_being_ready(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")]) as app:
        async with http.get(f"{app.addresses[0]}/ready") as answer:
            told = await answer.json()
        assert (answer.status, told["ready"]) == (200, True)
        assert told["providers"]["chatgpt"] == {"ready": False, "accounts": {}}
        app.pools["claude"].accounts["default"].disable()
        async with http.get(f"{app.addresses[0]}/ready") as answer:
            assert answer.status == 503


@pytest.mark.parametrize(
    ("path", "advice", "shape"),
    [
        ("/v1/messages?beta=true", "set ANTHROPIC_BASE_URL (or the SDK's base_url) to {}/claude.", "anthropic"),
        ("/messages", "ANTHROPIC_BASE_URL", "anthropic"),
        ("/cluade/v1/messages", "ANTHROPIC_BASE_URL", "anthropic"),
        ("/chatgpt/v1/messages", "to {}/claude.", "anthropic"),
        ("/chatgpt/v1/messages/count_tokens", "to {}/claude.", "anthropic"),
        ("/v1/responses", "to {}/chatgpt/v1.", "openai"),
        ("/v1/chat/completions", "base_url in Codex's config.toml) to {}/chatgpt/v1.", "openai"),
        ("/claude/v1/responses", "to {}/chatgpt/v1.", "openai"),
        ("/claude/v1/chat/completions", "OPENAI_BASE_URL", "openai"),
        # A base URL that is a whole endpoint's.
        ("/claude/v1/messages/v1/messages?beta=true", "to {}/claude.", "anthropic"),
        ("/claude/v1/messages/messages", "to {}/claude.", "anthropic"),
        ("/claude/v1/messages/v1/messages/count_tokens", "to {}/claude.", "anthropic"),
        ("/chatgpt/v1/chat/completions/chat/completions", "to {}/chatgpt/v1.", "openai"),
        ("/chatgpt/v1/responses/v1/chat/completions", "to {}/chatgpt/v1.", "openai"),
        ("/v1/responses/responses", "to {}/chatgpt/v1.", "openai"),
        ("/claude/v1/responses/responses", "to {}/chatgpt/v1.", "openai"),
    ],
)
@pytest.mark.parametrize("lane", [True, False])
async def test_a_wrong_base_url_is_a_400_that_names_the_right_one(
    tmp_path: Path, http: aiohttp.ClientSession, path: str, advice: str, shape: str, lane: bool
) -> None:
    """Claude Code shows any 404 as a problem with the model."""
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")], lane=lane) as app:
        async with http.post(app.addresses[0] + path, json=MESSAGE) as answer:
            told = await answer.json()
        assert answer.status == 400
        assert answer.headers["x-should-retry"] == "false"
        assert advice.format(app.addresses[0]) in told["error"]["message"]
        mount = path.split("/")[1]
        here = f"below /{mount}" if mount in {"claude", "chatgpt"} else "without the mount before it"
        assert f" is not served {here}: " in told["error"]["message"]
        assert (told.get("type") == "error") is (shape == "anthropic")
        assert told["error"]["type"] == "invalid_request_error"
        assert not sim.requests


@pytest.mark.parametrize(
    ("page", "statuses", "reader"),
    [("app://obsidian.md", [204, 400], "app://obsidian.md"), ("https://evil.example", [400, 400], None)],
)
async def test_a_page_that_may_call_can_read_that_its_base_url_is_wrong(
    tmp_path: Path, http: aiohttp.ClientSession, page: str, statuses: list[int], reader: str | None
) -> None:
    """Its browser would call that a matter of CORS, and the person looks for the fault there."""
    allowed = {"cors": {"allowed_origins": ["app://obsidian.md"]}}
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")], **allowed) as app:
        url, asks = f"{app.addresses[0]}/v1/messages", {"origin": page, "access-control-request-method": "POST"}
        async with http.options(url, headers=asks) as asked, http.post(url, json=MESSAGE, headers=asks) as told:
            assert [asked.status, told.status] == statuses
            assert {answer.headers.get("access-control-allow-origin") for answer in (asked, told)} == {reader}
            assert "ANTHROPIC_BASE_URL" in await told.text()


async def test_what_is_no_other_formats_passes_or_is_not_there(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")]) as app:
        for path, status in (
            ("/claude/v1/nothing", 404),
            ("/chatgpt/v1/threads/t_1/messages", 503),
            ("/v1/models", 404),
        ):
            async with http.post(app.addresses[0] + path, json=MESSAGE) as answer:
                assert answer.status in {status, 400}
                assert "BASE_URL" not in await answer.text()


async def test_a_stranger_below_a_mount_is_asked_for_a_token_first(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")]) as app:
        url = f"{app.addresses[0]}/chatgpt/v1/messages"
        async with http.post(url, json=MESSAGE, headers={"authorization": "Bearer wrong-wrong-wrong"}) as answer:
            assert answer.status == 401


@pytest.mark.parametrize(
    ("more", "to_set"),
    [
        ({"stream": False, "store": False}, "set `stream` to true"),
        ({"stream": True, "store": True}, "`store` to false"),
    ],
)
async def test_what_a_chatgpt_login_refuses_is_told_in_openais_shape(
    tmp_path: Path, http: aiohttp.ClientSession, more: dict[str, bool], to_set: str
) -> None:
    """SDKs show nothing of the vendor's `detail`."""
    body = {"model": "gpt-5.5", "instructions": "be brief", "input": [{"role": "user", "content": "hi"}], **more}
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["chatgpt"], "default")]) as app:
        async with http.post(f"{app.addresses[0]}/chatgpt/v1/responses", json=body) as answer:
            told = await answer.json()
        assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
        assert to_set in told["error"]["message"]
        assert told["error"]["type"] == "invalid_request_error"
        assert "must be set" in told["detail"], "and as the vendor says it"
        assert answer.headers.getall("x-request-id")
        assert status_of(app, "chatgpt", "default") == "healthy"


LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "gpt-5.5", "input": "hi"}}'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("responses", {"model": "gpt-5.5", "input": "hi"}),
        ("responses", {"model": "gpt-5.5", "input": "hi", "stream": True}),
        ("files", {"purpose": "batch", "file": LINE.decode()}),
    ],
    ids=["unstreamed", "stored", "another path"],
)
async def test_what_a_chatgpt_login_does_not_serve_goes_to_a_key_and_not_to_the_other_logins(
    tmp_path: Path, http: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    async with Simulator() as sim:
        logins = [(sim.add_account(f"login{number}", "openai", "oauth"), f"login{number}") for number in range(4)]
        accounts = [*logins, (sim.accounts["openai-key"], "the-key")]
        async with gateway(tmp_path, sim, accounts) as app:
            app.pools["chatgpt"].accounts["the-key"].load(1)  # a login is asked first
            sent: dict[str, Any] = {"json": body}
            if path == "files":
                form = aiohttp.FormData({"purpose": "batch"})
                form.add_field("file", LINE, filename="batch.jsonl")
                sent = {"data": form}
            async with http.post(f"{app.addresses[0]}/chatgpt/v1/{path}", **sent) as answer:
                assert answer.status == 200, await answer.text()
            login, key = asked(sim)
        assert login.startswith("/chatgpt/backend-api/codex/")
        assert key == f"/openai/v1/{path}"


async def test_what_no_account_has_is_told_in_the_words_of_a_key(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with Simulator() as sim:
        accounts = [(sim.accounts["chatgpt"], "login"), (sim.accounts["openai-key"], "the-key")]
        async with gateway(tmp_path, sim, accounts) as app:
            app.pools["chatgpt"].accounts["the-key"].load(1)
            async with http.get(f"{app.addresses[0]}/chatgpt/v1/files/file-0123456789abcdef") as answer:
                told = await answer.json()
        assert len(asked(sim)) == 2
        assert answer.status == 404
        assert "detail" not in told, "which is ChatGPT's word for a path that it does not know"
