"""api.openai.com and chatgpt.com/backend-api as the simulator plays them."""

from __future__ import annotations

import base64
import json
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator

from .conftest import CODEX, RESPONSE, codex, openai

Answered = tuple[int, dict[str, Any], dict[str, str]]


async def call(
    http: aiohttp.ClientSession, url: str, headers: dict[str, str], body: dict[str, Any] | None = None
) -> Answered:
    async with http.request("GET" if body is None else "POST", url, json=body, headers=headers) as answer:
        text = await answer.text()
        data = json.loads(text) if answer.content_type == "application/json" else {"text": text}
        return answer.status, data, {name.lower(): value for name, value in answer.headers.items()}


async def test_a_key_opens_the_api(sim: Simulator, http: aiohttp.ClientSession) -> None:
    status, body, headers = await call(http, f"{sim.url}/openai/v1/responses", openai(sim), RESPONSE)
    assert (status, body["status"]) == (200, "completed")
    assert headers["openai-model"] == "gpt-5.5"
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-ratelimit-limit-requests"] == "10000"
    assert sim.requests[0].usage == body["usage"]


@pytest.mark.parametrize(
    ("authorization", "code"),
    [("", None), ("Bearer sk-proj-wrong", "invalid_api_key"), ("Bearer LOGIN", "missing_scope")],
)
async def test_who_is_refused_by_the_api(
    sim: Simulator, http: aiohttp.ClientSession, authorization: str, code: str | None
) -> None:
    authorization = authorization.replace("LOGIN", sim.accounts["chatgpt"].access_token)
    status, body, _ = await call(http, f"{sim.url}/openai/v1/responses", {"authorization": authorization}, RESPONSE)
    assert (status, body["error"]["code"]) == (401, code)
    assert sim.accounts["chatgpt"].access_token not in str(body)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("responses", {"model": "gpt-5.5"}, 400, "missing_required_parameter"),
        ("chat/completions", {"model": "gpt-5.5"}, 400, "missing_required_parameter"),
        ("responses", {"input": "x"}, 400, "missing_required_parameter"),
        ("responses", {"model": "claude-opus-5", "input": "x"}, 404, "model_not_found"),
        ("embeddings", {"model": "gpt-5.5"}, 404, None),
    ],
)
async def test_requests_that_are_the_callers_fault(
    sim: Simulator, http: aiohttp.ClientSession, path: str, body: dict[str, Any], status: int, code: str | None
) -> None:
    got, answer, _ = await call(http, f"{sim.url}/openai/v1/{path}", openai(sim), body)
    assert (got, answer["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("scenario", "status", "code", "header"),
    [
        ("429", 429, "insufficient_quota", None),
        ("429:1.5", 429, "rate_limit_exceeded", ("retry-after-ms", "1500")),
        ("500", 500, None, None),
        ("503:3", 503, "server_is_overloaded", ("retry-after", "3")),
        ("overload", 503, "server_is_overloaded", None),
        ("401", 401, "invalid_api_key", None),
    ],
)
async def test_faults_of_the_api(
    sim: Simulator,
    http: aiohttp.ClientSession,
    scenario: str,
    status: int,
    code: str | None,
    header: tuple[str, str] | None,
) -> None:
    sim.accounts["openai-key"].script(scenario)
    got, body, headers = await call(http, f"{sim.url}/openai/v1/responses", openai(sim), RESPONSE)
    assert (got, body["error"]["code"]) == (status, code)
    if header:
        assert headers[header[0]] == header[1]


async def test_a_login_opens_codex(sim: Simulator, http: aiohttp.ClientSession) -> None:
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    status, body, headers = await call(http, url, codex(sim), CODEX)
    assert status == 200
    assert body["text"].startswith("event: response.created\n")
    assert headers["openai-model"] == "gpt-5.5"
    assert headers["x-codex-primary-window-minutes"] == "300"
    assert 0 < float(headers["x-codex-primary-reset-after-seconds"]) <= 5 * 3600
    state = headers["x-codex-turn-state"]
    _, _, headers = await call(http, url, codex(sim, **{"x-codex-turn-state": state}), CODEX)
    assert headers["x-codex-turn-state"] == state, "what the client echoes stays"


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"authorization": ""}, 401, {"detail": "Unauthorized"}),
        ({"chatgpt-account-id": ""}, 401, {"detail": "Unauthorized"}),
        ({"chatgpt-account-id": "another"}, 401, {"detail": "Unauthorized"}),
        (
            {"authorization": "Bearer sk-proj-x"},
            401,
            {"detail": "Could not parse your authentication token. Please try signing in again."},
        ),
    ],
)
async def test_who_is_refused_by_codex(
    sim: Simulator, http: aiohttp.ClientSession, change: dict[str, str], status: int, says: dict[str, str]
) -> None:
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    assert (await call(http, url, codex(sim) | change, CODEX))[:2] == (status, says)


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("stream", "Stream must be set to true"),
        ("store", "Store must be set to false"),
    ],
)
async def test_codex_demands_more_than_the_api(
    sim: Simulator, http: aiohttp.ClientSession, missing: str, says: str
) -> None:
    body = {name: value for name, value in CODEX.items() if name != missing}
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    assert (await call(http, url, codex(sim), body))[:2] == (400, {"detail": says})


async def test_tokens_that_are_no_longer_good(sim: Simulator, http: aiohttp.ClientSession) -> None:
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    sim.accounts["chatgpt"].expire()
    status, body, _ = await call(http, url, codex(sim), CODEX)
    assert (status, body["error"]["code"], body["status"]) == (401, "token_expired", 401)
    sim.accounts["chatgpt"].revoke()
    status, body, _ = await call(http, url, codex(sim), CODEX)
    assert (status, body["error"]["code"]) == (401, "token_revoked")


@pytest.mark.parametrize(("scenario", "window"), [("429:60", "primary"), ("429:60:secondary", "secondary")])
async def test_a_window_that_is_used_up(
    sim: Simulator, http: aiohttp.ClientSession, scenario: str, window: str
) -> None:
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    status, body, headers = await call(http, url, codex(sim, **{"x-simulator": scenario}), CODEX)
    assert (status, body["error"]["type"], body["error"]["resets_in_seconds"]) == (429, "usage_limit_reached", 60)
    assert headers[f"x-codex-{window}-used-percent"] == "100.0"
    account = sim.accounts["chatgpt"]
    account.exhaust(window, account.windows[window].resets_at)
    status, body, _ = await call(http, url, codex(sim), CODEX)
    assert (status, body["error"]["plan_type"]) == (429, "plus")
    _, body, _ = await call(http, f"{sim.url}/chatgpt/backend-api/wham/usage", codex(sim))
    assert body["rate_limit"]["limit_reached"] is True
    assert body["rate_limit"][f"{window}_window"]["used_percent"] == 100


@pytest.mark.parametrize(
    ("scenario", "status", "key"), [("429", 429, "detail"), ("403", 403, "detail"), ("500", 500, "error")]
)
async def test_other_faults_of_codex(
    sim: Simulator, http: aiohttp.ClientSession, scenario: str, status: int, key: str
) -> None:
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    got, body, _ = await call(http, url, codex(sim, **{"x-simulator": scenario}), CODEX)
    assert got == status
    assert key in body


async def test_models_and_compaction(sim: Simulator, http: aiohttp.ClientSession) -> None:
    base = f"{sim.url}/chatgpt/backend-api/codex"
    _, body, headers = await call(http, f"{base}/models?client_version=0.171.0", codex(sim))
    assert {"slug", "shell_type", "truncation_policy", "base_instructions"} <= body["models"][0].keys()
    assert headers["etag"]
    _, body, _ = await call(http, f"{base}/responses/compact", codex(sim), RESPONSE)
    assert body["object"] == "response.compaction"
    _, body, _ = await call(http, f"{sim.url}/openai/v1/models", openai(sim))
    name = body["data"][0]["id"]
    assert (await call(http, f"{sim.url}/openai/v1/models/{name}", openai(sim)))[1]["id"] == name
    assert (await call(http, f"{base}/v1/responses", codex(sim), CODEX))[0] == 404


async def test_a_zstd_body_is_understood(sim: Simulator, http: aiohttp.ClientSession) -> None:
    import zstandard

    body = zstandard.compress(json.dumps(CODEX).encode())
    headers = codex(sim, **{"content-encoding": "zstd", "content-type": "application/json"})
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    async with http.post(url, data=body, headers=headers) as answer:
        assert "Grüß Gott" in await answer.text()


async def test_overload_inside_a_200(sim: Simulator, http: aiohttp.ClientSession) -> None:
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    events = {}
    for scenario in ("overload", "overload-error:2"):
        status, body, _ = await call(http, url, codex(sim, **{"x-simulator": scenario}), CODEX)
        assert status == 200
        blocks = body["text"].removesuffix("\n\n").split("\n\n")
        events[scenario] = [json.loads(block.split("\ndata: ", 1)[1]) for block in blocks]
    failed = events["overload"]
    assert [event["type"] for event in failed] == ["response.created", "response.failed"]
    assert failed[1]["response"]["error"]["code"] == "server_is_overloaded"
    bare = events["overload-error:2"]
    assert len(bare) == 4
    assert bare[-1]["error"]["code"] == "server_is_overloaded"
    assert [event["sequence_number"] for event in bare] == [0, 1, 2, 3]


def test_a_login_token_carries_the_claims_of_a_real_one(sim_claims: dict[str, Any]) -> None:
    auth = sim_claims["https://api.openai.com/auth"]
    assert auth["chatgpt_plan_type"] == "plus"
    assert {"chatgpt_account_id", "chatgpt_user_id"} <= auth.keys()
    assert sim_claims["exp"] > sim_claims["iat"]


@pytest.fixture
def sim_claims(sim: Simulator) -> dict[str, Any]:
    payload = sim.accounts["chatgpt"].access_token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
