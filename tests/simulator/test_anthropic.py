"""api.anthropic.com as the simulator plays it: who gets in, what is refused in whose words, how limits fill."""

from __future__ import annotations

import io
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator

from .conftest import BETA, MESSAGE, claude

Answered = tuple[int, dict[str, Any], dict[str, str]]


async def post(
    http: aiohttp.ClientSession, sim: Simulator, headers: dict[str, str], path: str = "/v1/messages", **change: Any
) -> Answered:
    body = {name: value for name, value in (MESSAGE | change).items() if value is not None}
    async with http.post(f"{sim.url}/anthropic{path}", json=body, headers=headers) as answer:
        return answer.status, await answer.json(), {name.lower(): value for name, value in answer.headers.items()}


async def get(http: aiohttp.ClientSession, sim: Simulator, path: str, headers: dict[str, str]) -> Answered:
    async with http.get(f"{sim.url}/anthropic{path}", headers=headers) as answer:
        return answer.status, await answer.json(), {name.lower(): value for name, value in answer.headers.items()}


async def test_both_kinds_of_credential(sim: Simulator, http: aiohttp.ClientSession) -> None:
    for account in ("claude", "claude-setup", "claude-key"):
        status, body, headers = await post(http, sim, claude(sim, account))
        assert status == 200
        assert "You said: “Grüß Gott”" in body["content"][0]["text"]
        assert headers["anthropic-organization-id"] == sim.accounts[account].organization
        assert headers["request-id"].startswith("req_011")
    assert [received.account for received in sim.requests] == ["claude", "claude-setup", "claude-key"]


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({}, 401, "x-api-key header is required"),
        ({"authorization": "Basic eDp5", **BETA}, 401, "x-api-key header is required"),
        ({"x-api-key": "sk-ant-api03-wrong"}, 401, "invalid x-api-key"),
        ({"authorization": "Bearer wrong", **BETA}, 401, "Invalid bearer token"),
        ({"authorization": "Bearer GOOD"}, 401, "OAuth authentication is currently not supported."),
        # The key is preferred where both are there: a good bearer does not help a wrong key.
        ({"authorization": "Bearer GOOD", "x-api-key": "wrong", **BETA}, 401, "invalid x-api-key"),
        ({"authorization": "Bearer OPENAI", **BETA}, 401, "Invalid bearer token"),
    ],
)
async def test_who_is_refused(
    sim: Simulator, http: aiohttp.ClientSession, headers: dict[str, str], status: int, message: str
) -> None:
    if "authorization" in headers:
        good = headers["authorization"].replace("GOOD", sim.accounts["claude"].access_token)
        headers = headers | {"authorization": good.replace("OPENAI", sim.accounts["chatgpt"].access_token)}
    got, body, _ = await post(http, sim, headers)
    assert (got, body["error"]) == (status, {"type": "authentication_error", "message": message})
    assert body["type"] == "error"
    assert body["request_id"].startswith("req_011")


async def test_the_key_wins_over_the_bearer(sim: Simulator, http: aiohttp.ClientSession) -> None:
    await post(http, sim, claude(sim) | claude(sim, "claude-key"))
    assert sim.requests[0].account == "claude-key"


async def test_the_beta_may_be_one_of_several(sim: Simulator, http: aiohttp.ClientSession) -> None:
    headers = claude(sim) | {"anthropic-beta": "context-1m-2025-08-07, oauth-2025-04-20,other"}
    assert (await post(http, sim, headers))[0] == 200


async def test_tokens_that_are_no_longer_good(sim: Simulator, http: aiohttp.ClientSession) -> None:
    account = sim.accounts["claude"]
    headers = claude(sim)
    account.script("500")
    account.expire()
    status, body, _ = await post(http, sim, headers)
    assert (status, body["error"]["type"]) == (401, "authentication_error")
    assert body["error"]["message"].startswith("OAuth token has expired.")
    account.revoke()
    status, body, _ = await post(http, sim, headers)
    assert (status, body["error"]["type"]) == (403, "permission_error")
    assert body["error"]["message"] == "OAuth token has been revoked. Please obtain a new token."
    assert [received.account for received in sim.requests] == ["claude", "claude"]
    assert len(account.script) == 1, "a request that was never let in uses up no scenario"


@pytest.mark.parametrize(
    ("change", "status", "kind", "message"),
    [
        ({"model": None}, 400, "invalid_request_error", "model: Field required"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens: Field required"),
        ({"messages": None}, 400, "invalid_request_error", "messages: Field required"),
        ({"model": "gpt-5.5"}, 404, "not_found_error", "model: gpt-5.5"),
    ],
)
async def test_requests_that_are_the_callers_fault(
    sim: Simulator, http: aiohttp.ClientSession, change: dict[str, Any], status: int, kind: str, message: str
) -> None:
    got, body, _ = await post(http, sim, claude(sim), **change)
    assert (got, body["error"]) == (status, {"type": kind, "message": message})


async def test_the_version_and_json_are_demanded(sim: Simulator, http: aiohttp.ClientSession) -> None:
    headers = claude(sim)
    del headers["anthropic-version"]
    assert (await post(http, sim, headers))[1]["error"]["message"] == "anthropic-version: header is required"
    async with http.post(f"{sim.url}/anthropic/v1/messages", data=b"no json", headers=claude(sim)) as answer:
        assert answer.status == 400
    huge = io.BytesIO(b" " * (32 * 1024 * 1024 + 1))
    async with http.post(f"{sim.url}/anthropic/v1/messages", data=huge, headers=claude(sim)) as answer:
        assert (answer.status, (await answer.json())["error"]["type"]) == (413, "request_too_large")


async def test_usage_follows_from_the_request(sim: Simulator, http: aiohttp.ClientSession) -> None:
    _, body, _ = await post(http, sim, claude(sim), system="x" * 40_000)
    usage = body["usage"]
    sent = len(sim.requests[0].body)
    total = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
    assert total == sent // 4
    assert usage["cache_read_input_tokens"] > usage["cache_creation_input_tokens"] > 0
    assert sum(usage["cache_creation"].values()) == usage["cache_creation_input_tokens"]
    assert usage["output_tokens"] == len(body["content"][0]["text"].encode()) // 4
    assert sim.requests[0].usage == usage
    assert (await post(http, sim, claude(sim), "/v1/messages/count_tokens"))[1] == {
        "input_tokens": len(sim.requests[1].body) // 4
    }


async def test_the_users_words_are_found(sim: Simulator, http: aiohttp.ClientSession) -> None:
    reminder = {"type": "text", "text": "<system-reminder>Be kind.</system-reminder>"}
    said = {"role": "user", "content": [{"type": "text", "text": "What I said"}, reminder]}
    messages = [said, {"role": "system", "content": "Available agents"}]
    for more in ([], [{"role": "assistant", "content": "x"}, {"role": "user", "content": [reminder]}]):
        _, body, _ = await post(http, sim, claude(sim), messages=messages + more)
        assert "You said: “What I said”." in body["content"][0]["text"]
    _, body, _ = await post(http, sim, claude(sim), messages=[])
    assert "You said nothing." in body["content"][0]["text"]


async def test_windows_fill_and_then_refuse(sim: Simulator, http: aiohttp.ClientSession) -> None:
    account = sim.accounts["claude"]
    seen = []
    for _ in range(2):
        _, _, headers = await post(http, sim, claude(sim), system="x" * 40_000)
        assert headers["anthropic-ratelimit-unified-status"] == "allowed"
        seen.append(float(headers["anthropic-ratelimit-unified-5h-utilization"]))
    assert 0 < seen[0] < seen[1]
    account.windows["7d"].used = 0.95
    _, _, headers = await post(http, sim, claude(sim))
    assert headers["anthropic-ratelimit-unified-7d-status"] == "allowed_warning"
    until = account.windows["5h"].resets_at
    account.exhaust("5h", until)
    status, body, headers = await post(http, sim, claude(sim))
    assert (status, body["error"]["type"]) == (429, "rate_limit_error")
    assert headers["anthropic-ratelimit-unified-status"] == "rejected"
    assert headers["anthropic-ratelimit-unified-5h-status"] == "rejected"
    assert float(headers["anthropic-ratelimit-unified-reset"]) == pytest.approx(until, abs=1)
    account.exhaust("5h", 1.0)
    assert (await post(http, sim, claude(sim)))[0] == 200, "past its reset a window is empty again"


async def test_one_window_holds_for_one_model_alone(sim: Simulator, http: aiohttp.ClientSession) -> None:
    account = sim.accounts["claude"]
    account.exhaust("7d_oi", account.windows["7d_oi"].resets_at)
    assert (await post(http, sim, claude(sim)))[0] == 200
    status, _, headers = await post(http, sim, claude(sim), model="claude-opus-5")
    assert status == 429
    assert headers["anthropic-ratelimit-unified-7d_oi-status"] == "rejected"
    assert headers["anthropic-ratelimit-unified-5h-status"] == "allowed"


async def test_accounts_of_one_organization_share_their_windows(sim: Simulator, http: aiohttp.ClientSession) -> None:
    one = sim.add_account("one", "anthropic", organization="acme")
    two = sim.add_account("two", "anthropic", organization="acme")
    one.exhaust("5h", one.windows["5h"].resets_at)
    status, _, headers = await post(http, sim, claude(sim, "two"))
    assert (status, headers["anthropic-organization-id"]) == (429, "acme")
    assert one.access_token != two.access_token


@pytest.mark.parametrize(
    ("scenario", "status", "kind", "header"),
    [
        ("401", 401, "authentication_error", None),
        ("403", 403, "permission_error", None),
        ("403:revoked", 403, "permission_error", None),
        ("403:disabled", 400, "invalid_request_error", None),
        ("403:organization", 403, "permission_error", None),
        ("429", 429, "rate_limit_error", ("x-should-retry", "true")),
        ("429:60", 429, "rate_limit_error", ("retry-after", "60")),
        ("429:60:7d", 429, "rate_limit_error", ("anthropic-ratelimit-unified-7d-status", "rejected")),
        ("429:60:7d_oi", 429, "rate_limit_error", ("anthropic-ratelimit-unified-5h-status", "allowed")),
        ("429:extra-usage", 429, "rate_limit_error", ("x-should-retry", "false")),
        ("500", 500, "api_error", ("x-should-retry", "true")),
        ("503:7", 503, "api_error", ("retry-after", "7")),
        ("529", 529, "overloaded_error", ("x-should-retry", "true")),
        ("529,no-retry", 529, "overloaded_error", ("x-should-retry", "false")),
        ("overload", 529, "overloaded_error", None),
    ],
)
async def test_faults_come_in_the_vendors_words(
    sim: Simulator,
    http: aiohttp.ClientSession,
    scenario: str,
    status: int,
    kind: str,
    header: tuple[str, str] | None,
) -> None:
    got, body, headers = await post(http, sim, claude(sim, **{"x-simulator": scenario}))
    assert (got, body["error"]["type"]) == (status, kind)
    if header:
        assert headers[header[0]] == header[1]
    if scenario in {"429", "429:extra-usage"}:
        assert not any("unified" in name or name == "retry-after" for name in headers)


async def test_a_key_is_limited_by_the_minute(sim: Simulator, http: aiohttp.ClientSession) -> None:
    _, _, headers = await post(http, sim, claude(sim, "claude-key"))
    assert headers["anthropic-ratelimit-requests-remaining"] == "3999"
    assert "anthropic-ratelimit-unified-status" not in headers
    _, _, headers = await post(http, sim, claude(sim, "claude-key", **{"x-simulator": "429:9"}))
    assert (headers["retry-after"], headers["anthropic-ratelimit-requests-remaining"]) == ("9", "0")


async def test_a_gateway_error_is_a_page(sim: Simulator, http: aiohttp.ClientSession) -> None:
    sim.script("502")
    async with http.post(f"{sim.url}/anthropic/v1/messages", json=MESSAGE, headers=claude(sim)) as answer:
        assert (answer.status, answer.content_type) == (502, "text/html")


async def test_usage_and_profile_need_their_scope(sim: Simulator, http: aiohttp.ClientSession) -> None:
    sim.accounts["claude"].windows["5h"].used = 0.42
    status, body, _ = await get(http, sim, "/api/oauth/usage", claude(sim))
    assert (status, body["five_hour"]["utilization"]) == (200, 42.0)
    assert body["seven_day"]["resets_at"].endswith("Z")
    assert (await get(http, sim, "/api/oauth/profile", claude(sim)))[1]["account"]["email"].startswith("claude@")
    for path in ("/api/oauth/usage", "/api/oauth/profile"):
        status, body, _ = await get(http, sim, path, claude(sim, "claude-setup"))
        assert (status, body["error"]["type"]) == (403, "permission_error")


async def test_probes_and_models(sim: Simulator, http: aiohttp.ClientSession) -> None:
    for path, status in (("/", 404), ("/api/hello", 200)):
        async with http.head(f"{sim.url}/anthropic{path}") as answer:
            assert answer.status == status
    status, body, _ = await get(http, sim, "/v1/models?limit=1000", claude(sim))
    assert (status, body["has_more"]) == (200, False)
    name = body["data"][0]["id"]
    assert (await get(http, sim, f"/v1/models/{name}", claude(sim)))[1]["id"] == name
    assert (await get(http, sim, "/v1/models/claude-none", claude(sim)))[0] == 404
    assert (await get(http, sim, "/v1/messages", claude(sim)))[0] == 405
