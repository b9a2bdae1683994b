"""What scripts of other gateways ask for: aimux_compat, in a whole aimux."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.control.conftest import Aimux, Start, sim, start
from tests.control.test_logins import signed_in

__all__ = ["sim", "start"]  # fixtures

SECRET = "the secret that signs tokens"
JWT = {"secret": SECRET, "prefix": "la_sk_", "user_claim": ["label", "sub"]}
PATHS = [
    ("POST", "/api/tokens"),
    ("GET", "/oauth/authorize"),
    ("POST", "/oauth/exchange"),
    ("GET", "/api/accounts"),
    ("POST", "/api/accounts"),
    ("DELETE", "/api/accounts/default"),
    ("POST", "/api/oauth/authorize"),
    ("POST", "/api/oauth/exchange"),
    ("GET", "/api/oauth/tokens"),
]
ALL = ["link-assistant-router", "claude-proxy", "claude-code-mux"]


async def ask(gateway: Aimux, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, gateway.url + path, json=body, headers=headers) as answer,
    ):
        return answer.status, await (answer.json() if "json" in answer.content_type else answer.text())


def bearer(gateway: Aimux) -> dict[str, str]:
    return {"authorization": f"Bearer {gateway.key}"}


def key(gateway: Aimux) -> dict[str, str]:
    return {"x-api-key": gateway.key}


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_not_there_unless_it_is_asked_for(start: Start, sim: Simulator, method: str, path: str) -> None:
    gateway = await start(mounts={"/": "claude"})
    assert (await ask(gateway, method, path, {}, **bearer(gateway)))[0] == 404
    assert not sim.requests, "it went to the vendor"


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_nobody_without_the_admin_key(start: Start, sim: Simulator, method: str, path: str) -> None:
    gateway = await start(mounts={"/": "claude"}, compatibility=ALL)
    assert (await ask(gateway, method, path, {}))[0] == 401
    assert (await ask(gateway, method, path, {}, **{"x-api-key": "some-other-key-0123456789"}))[0] == 401
    assert not sim.requests


async def test_a_name_that_no_plugin_knows_is_said(start: Start) -> None:
    gateway = await start(compatibility=["claude-prox"])
    assert "no plugin knows 'claude-prox'; known are claude-code-mux, claude-proxy" in gateway.log


# --- Link.Assistant.Router -------------------------------------------------------------------------------------------


async def test_tokens_as_the_router_issued_them(start: Start) -> None:
    gateway = await start(auth={"jwt": JWT}, compatibility=["link-assistant-router"])
    status, issued = await ask(gateway, "POST", "/api/tokens", {"ttl_hours": 2, "label": "dev"}, **bearer(gateway))
    assert (status, issued.get("ttl_hours"), issued.get("label")) == (200, 2, "dev"), issued
    assert issued["token"].startswith("la_sk_")
    theirs = {"authorization": f"Bearer {issued['token']}"}
    assert (await gateway.message(**theirs))[0] == 200
    assert (await ask(gateway, "GET", "/api/v1/me", **theirs))[1]["name"] == "dev"
    assert (await ask(gateway, "POST", "/api/tokens", {"label": "x"}, **theirs))[0] == 403

    (signed,) = (entry for entry in (await gateway.get("/audit"))["items"] if entry["action"] == "token.sign")
    assert signed["actor"] == "admin-key"
    subject = signed["target"].removeprefix("subject:")
    revoked = await ask(gateway, "POST", "/api/tokens/revoke", {"id": subject}, **bearer(gateway))
    assert revoked == (200, {"revoked": subject})
    assert (await gateway.message(**theirs))[0] == 403


@pytest.mark.parametrize("body", [{"ttl_hours": 0}, {"ttl_hours": "1"}, {"label": 7}, {"account": "a"}, ["x"]])
async def test_what_the_router_could_not_mean(start: Start, body: object) -> None:
    gateway = await start(auth={"jwt": JWT}, compatibility=["link-assistant-router"])
    status, answer = await ask(gateway, "POST", "/api/tokens", body, **bearer(gateway))
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"


async def test_without_a_secret_it_says_what_is_missing(start: Start) -> None:
    gateway = await start(compatibility=["link-assistant-router"])
    status, answer = await ask(gateway, "POST", "/api/tokens", {}, **bearer(gateway))
    assert status == 409
    assert "auth.jwt.secret" in answer["error"]["message"]


async def test_health_is_the_routers_word_and_json_for_who_asks_for_it(start: Start) -> None:
    gateway = await start(compatibility=["link-assistant-router"])
    assert await ask(gateway, "GET", "/health") == (200, "ok")
    assert await ask(gateway, "GET", "/health", accept="application/json") == (200, {"status": "ok"})


async def test_health_is_aimuxs_own_where_the_router_is_not_named(start: Start) -> None:
    gateway = await start(compatibility=["claude-proxy", "claude-code-mux"])
    assert await ask(gateway, "GET", "/health", accept="text/plain") == (200, {"status": "ok"})


# --- claude-proxy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/oauth/exchange", "/api/accounts"])
async def test_a_login_as_claude_proxy_made_it(start: Start, sim: Simulator, path: str) -> None:
    gateway = await start(mounts={"/": "claude"}, compatibility=["claude-proxy"])
    status, begun = await ask(gateway, "GET", "/oauth/authorize", **key(gateway))
    assert status == 200
    brought = (await signed_in(begun["authorization_url"])).query
    assert brought["state"] == begun["state"]
    exchange = {"name": "Team A", "code": brought["code"], "state": begun["state"]}
    status, answer = await ask(gateway, "POST", path, exchange | {"code_verifier": "x"}, **key(gateway))
    assert (status, answer["error"]["message"]) == (400, "Code verifier mismatch")
    exchange["code_verifier"] = begun["code_verifier"]
    status, answer = await ask(gateway, "POST", path, exchange, **key(gateway))
    assert (status, answer["success"]) == (200, True), answer
    assert (answer["account"]["id"], answer["account"]["status"]) == ("Team-A", "active")

    listed = (await ask(gateway, "GET", "/api/accounts", **key(gateway)))[1]["accounts"]
    assert [one["name"] for one in listed] == ["Team-A", "default"]
    assert sim.accounts["claude"].access_token not in str(listed)
    assert (await ask(gateway, "DELETE", "/api/accounts/Team-A", **key(gateway)))[0] == 200
    assert (await ask(gateway, "GET", "/api/accounts/Team-A", **key(gateway)))[0] == 404
    changes = {(entry["actor"], entry["action"]) for entry in (await gateway.get("/audit"))["items"]}
    assert {("admin-key", "account.login"), ("admin-key", "account.remove")} <= changes


async def test_the_callback_shows_what_it_was_brought(start: Start) -> None:
    gateway = await start(mounts={"/": "claude"}, compatibility=["claude-proxy"])
    assert await ask(gateway, "GET", "/oauth/callback?code=c&state=s") == (200, {"code": "c", "state": "s"})
    assert (await ask(gateway, "GET", "/oauth/callback?code=c"))[0] == 400


# --- claude-code-mux -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["max", "openai-codex"])
async def test_a_login_as_claude_code_mux_made_it(start: Start, kind: str) -> None:
    gateway = await start(mounts={"/": "claude"}, compatibility=["claude-code-mux"])
    for _ in range(2):  # the second takes the first one's place
        status, begun = await ask(gateway, "POST", "/api/oauth/authorize", {"oauth_type": kind}, **key(gateway))
        assert status == 200
        code = (await signed_in(begun["url"])).query["code"]
        body = {"code": code, "verifier": begun["verifier"], "provider_id": "mine", "oauth_type": kind}
        status, answer = await ask(gateway, "POST", "/api/oauth/exchange", body, **key(gateway))
        assert (status, answer["provider_id"]) == (200, "mine"), answer
    listed = (await ask(gateway, "GET", "/api/oauth/tokens", **key(gateway)))[1]
    assert {one["provider_id"]: one["is_expired"] for one in listed} == {"default": False, "mine": False}
    name = {"provider_id": "mine"}
    assert (await ask(gateway, "POST", "/api/oauth/tokens/refresh", name, **key(gateway)))[0] == 200
    assert (await ask(gateway, "POST", "/api/oauth/tokens/delete", name, **key(gateway)))[0] == 200
    assert (await ask(gateway, "POST", "/api/oauth/tokens/delete", name, **key(gateway)))[0] == 404
    assert (await ask(gateway, "GET", "/api/oauth/callback?code=c")) == (200, "c")


async def test_a_kind_of_login_that_is_not_there(start: Start) -> None:
    gateway = await start(compatibility=["claude-code-mux"])
    status, answer = await ask(gateway, "POST", "/api/oauth/authorize", {"oauth_type": "gemini"}, **key(gateway))
    assert status == 400
    assert "openai-codex" in answer["error"]["message"]
