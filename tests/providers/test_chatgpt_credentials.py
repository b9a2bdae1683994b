from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from aimux.plugin import CredentialError, HttpUnavailable, LoginError, RefreshRejected, RefreshUnavailable
from aimux.testing import ScriptedHttp, reply
from aimux_chatgpt import ChatGPT
from tests.contracts import samples

SECOND_ACCESS = samples.jwt({"iss": "https://auth.openai.com", "exp": 1_791_000_000, "n": 2})
ANSWER = {"access_token": SECOND_ACCESS, "refresh_token": "rt_second", "id_token": samples.CHATGPT_ID}


def test_codexs_login_is_read_whole(chatgpt: ChatGPT) -> None:
    credential = chatgpt.parse_credential(samples.CODEX_LOGIN)
    assert (credential.kind, credential.secret) == ("oauth", samples.CHATGPT_ACCESS)
    assert credential.refresh_token == "rt_first-refresh-token-0123456789"
    assert credential.expires_at == 1_790_000_000
    assert credential.account_id == "33333333-3333-4333-8333-333333333333"
    assert (credential.email, credential.plan) == ("ada@example.com", "pro")


def test_without_an_id_token_the_access_token_says_whose_login_it_is(chatgpt: ChatGPT) -> None:
    """opencode keeps none."""
    access = samples.jwt({"iss": "https://auth.openai.com", "https://api.openai.com/profile": {"email": "a@b.example"}})
    assert chatgpt.parse_credential(json.dumps({"access_token": access}).encode()).email == "a@b.example"
    odd = samples.jwt({"iss": "https://auth.openai.com", "https://api.openai.com/profile": "a@b.example"})
    assert chatgpt.parse_credential(json.dumps({"access_token": odd}).encode()).email is None


def test_members_of_a_workspace_have_limits_of_their_own(chatgpt: ChatGPT) -> None:
    credential = chatgpt.parse_credential(samples.CODEX_LOGIN)
    assert credential.organization == "33333333-3333-4333-8333-333333333333/user-ada"


def test_without_an_expiry_in_the_token_eight_days_after_the_last_renewal_count(chatgpt: ChatGPT) -> None:
    document = {"tokens": {"access_token": "opaque", "refresh_token": "r"}, "last_refresh": "2026-09-13T14:13:20Z"}
    assert chatgpt.parse_credential(json.dumps(document).encode()).expires_at == 1_790_000_000
    del document["last_refresh"]
    assert chatgpt.parse_credential(json.dumps(document).encode()).expires_at is None


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "api_key"),
        ({"auth_mode": None}, "api_key"),
        ({"auth_mode": "apikey"}, "api_key"),
        ({"auth_mode": "something new"}, "api_key"),
        ({"auth_mode": "chatgpt"}, "oauth"),
        ({"auth_mode": "chatgptAuthTokens"}, "oauth"),
        ({"OPENAI_API_KEY": None}, "oauth"),
        ({"OPENAI_API_KEY": ""}, "oauth"),
        ({"auth_mode": "apikey", "OPENAI_API_KEY": None}, "oauth"),
        ({"auth_mode": "chatgpt", "tokens": None}, "api_key"),
        ({"auth_mode": ["chatgpt"]}, "api_key"),
    ],
)
def test_of_a_key_and_tokens_the_one_counts_that_codex_takes(
    chatgpt: ChatGPT, fields: dict[str, Any], kind: str
) -> None:
    document: dict[str, Any] = {"OPENAI_API_KEY": "sk-key", "tokens": {"access_token": "opaque"}} | fields
    assert chatgpt.parse_credential(json.dumps(document).encode()).kind == kind


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is empty"),
        (b'{"OPENAI_API_KEY": null, "tokens": null}', "no ChatGPT credential"),
        (b'{"tokens": {"access_token": "two\\nlines"}}', "can't be in a header"),
        (b'{"a": {"access_token": "x"}, "b": {"access_token": "y"}}', "2 logins"),
        (b'{"gemini": {"access_token": "x", "refresh_token": "y"}}', "the name 'gemini'"),
        (b'{"auth_mode": "x", "personal_access_token": "at-1"}', "personal access token"),
        (samples.CLAUDE_CODE_LOGIN, "another vendor's"),
        (samples.CLAUDE_FLAT_SNAKE, "Anthropic's"),
        (b"sk-ant-api03-a-key", "Anthropic's"),
        (b'{"api_key": "sk-ant-api03-a-key"}', "Anthropic's"),
        (b'{"type": "claude", "access_token": "x"}', "another vendor's"),
        (b'{"type": ["codex"], "access_token": "x"}', "another vendor's"),
        (b'"sk-proj-in-quotes"', "not a JSON object"),
        (b'{"api_key": "\'sk-proj-in-quotes\'"}', "quotation marks"),
    ],
)
def test_what_is_no_credential_is_refused_with_a_reason(chatgpt: ChatGPT, raw: bytes, says: str) -> None:
    with pytest.raises(CredentialError, match=says):
        chatgpt.parse_credential(raw)


@pytest.mark.parametrize("name", ["openai", "openai-codex", "My ChatGPT"])
def test_a_login_in_a_map_of_several_vendors_is_taken_by_its_name(chatgpt: ChatGPT, name: str) -> None:
    raw = json.dumps({name: {"access_token": "opaque", "refresh_token": "r"}}).encode()
    assert chatgpt.parse_credential(raw).secret == "opaque"


# --- renewal ---------------------------------------------------------------------------------------------------------


def test_white_space_around_a_refresh_token_is_not_part_of_it(chatgpt: ChatGPT) -> None:
    document = {"tokens": {"access_token": "opaque", "refresh_token": "rt_x\n"}}
    assert chatgpt.parse_credential(json.dumps(document).encode()).refresh_token == "rt_x"
    document["tokens"]["refresh_token"] = " "
    assert not chatgpt.parse_credential(json.dumps(document).encode()).renewable


def test_a_renewal_merges_every_field_and_replaces_nothing(chatgpt: ChatGPT, now: float) -> None:
    """ai-mux's refresh drops the account id."""
    http = ScriptedHttp(reply(ANSWER))
    after = json.loads(asyncio.run(chatgpt.refresh(samples.CODEX_LOGIN, http)))
    assert (http.sent[0].method, http.sent[0].url) == ("POST", "https://auth.openai.com/oauth/token")
    assert http.sent[0].json == {
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
        "grant_type": "refresh_token",
        "refresh_token": "rt_first-refresh-token-0123456789",
    }
    before = json.loads(samples.CODEX_LOGIN)
    assert after.pop("last_refresh").startswith("20")
    before.pop("last_refresh")
    assert after == {**before, "tokens": {**before["tokens"], **ANSWER}}


def test_every_field_of_the_answer_but_one_is_optional(chatgpt: ChatGPT) -> None:
    after = json.loads(
        asyncio.run(chatgpt.refresh(samples.CODEX_LOGIN, ScriptedHttp(reply({"access_token": SECOND_ACCESS}))))
    )
    assert after["tokens"] == {**json.loads(samples.CODEX_LOGIN)["tokens"], "access_token": SECOND_ACCESS}


def test_ai_muxs_flat_form_keeps_its_form(chatgpt: ChatGPT, now: float) -> None:
    answer = {"access_token": "opaque-2", "expires_in": 100}
    after = json.loads(asyncio.run(chatgpt.refresh(samples.AI_MUX_FLAT, ScriptedHttp(reply(answer)))))
    before = json.loads(samples.AI_MUX_FLAT)
    assert after == {**before, "access_token": "opaque-2", "expires_at": "2026-05-28T20:28:20Z"}


@pytest.mark.parametrize(
    "code",
    [
        "refresh_token_expired",
        "refresh_token_reused",
        "refresh_token_invalidated",
        "invalid_refresh_token",
        "app_session_expired",
        "app_session_terminated",
        "token_expired",
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_reused_refresh_token_is_refused_for_good(chatgpt: ChatGPT, code: str, status: int) -> None:
    """CLIProxyAPI#1687: `refresh_token_reused` was retried for ever. openai/codex#27351: so was a session's end."""
    answer = reply({"error": {"message": "…", "type": "invalid_request_error", "code": code}}, status=status)
    with pytest.raises(RefreshRejected, match=code) as caught:
        asyncio.run(chatgpt.refresh(samples.CODEX_LOGIN, ScriptedHttp(answer)))
    assert caught.value.remedy == "log in again: aimux login chatgpt"


def test_a_401_of_something_in_between_is_not_for_good(chatgpt: ChatGPT) -> None:
    with pytest.raises(RefreshUnavailable):
        asyncio.run(chatgpt.refresh(samples.CODEX_LOGIN, ScriptedHttp(reply(status=401, body=b"<html>proxy</html>"))))


def test_a_wrong_client_id_is_not_held_against_the_account(chatgpt: ChatGPT) -> None:
    answer = reply({"error": "invalid_client"}, status=400)
    with pytest.raises(RefreshUnavailable) as caught:
        asyncio.run(chatgpt.refresh(samples.CODEX_LOGIN, ScriptedHttp(answer)))
    assert "client_id" in caught.value.remedy


def test_the_token_endpoint_follows_the_issuer_unless_it_is_set() -> None:
    assert ChatGPT.Settings(issuer="https://id.example").tokens_at == "https://id.example/oauth/token"  # type: ignore[call-arg, attr-defined]
    moved = ChatGPT(ChatGPT.Settings(token_url="https://new.example/token"))  # type: ignore[call-arg]
    http = ScriptedHttp(reply(ANSWER))
    asyncio.run(moved.refresh(samples.CODEX_LOGIN, http))
    assert http.sent[0].url == "https://new.example/token"


# --- login -----------------------------------------------------------------------------------------------------------


def test_the_sign_in_address_is_codexs(chatgpt: ChatGPT) -> None:
    redirect = chatgpt.redirect_uri("loopback", 1455)
    assert redirect == chatgpt.redirect_uri("paste", 0) == "http://127.0.0.1:1455/auth/callback"
    url = urlsplit(chatgpt.authorization_url(redirect_uri=redirect, state="st", challenge="ch"))
    assert (url.scheme, url.netloc, url.path) == ("https", "auth.openai.com", "/oauth/authorize")
    assert {key: value[0] for key, value in parse_qs(url.query).items()} == {
        "response_type": "code",
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
        "redirect_uri": redirect,
        "scope": "openid profile email offline_access",
        "code_challenge": "ch",
        "code_challenge_method": "S256",
        "id_token_add_organizations": "true",
        "codex_cli_simplified_flow": "true",
        "state": "st",
    }


async def test_an_exchange_is_a_form_and_writes_codexs_format(chatgpt: ChatGPT) -> None:
    http = ScriptedHttp(reply(ANSWER))
    raw = await chatgpt.exchange(http, code="c", state="s", verifier="v", redirect_uri="http://x")
    assert http.sent[0].json is None
    assert http.sent[0].form == {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": "http://x",
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
        "code_verifier": "v",
    }
    document = json.loads(raw)
    assert set(document) == {"OPENAI_API_KEY", "tokens", "last_refresh"}
    assert document["tokens"] == {**ANSWER, "account_id": "33333333-3333-4333-8333-333333333333"}


async def test_the_device_flow_from_code_to_credential(chatgpt: ChatGPT) -> None:
    http = ScriptedHttp(
        reply({"device_auth_id": "dev-1", "user_code": "ABCD-1234", "interval": "7"}),
        reply(status=403, body=b""),
        reply(status=404, body=b""),
        HttpUnavailable("auth.openai.com: no answer"),
        reply({"authorization_code": "the-code", "code_verifier": "the-verifier", "code_challenge": "x"}),
        reply(ANSWER),
    )
    device = await chatgpt.device_start(http)
    assert (device.user_code, device.interval, device.expires_in) == ("ABCD-1234", 7.0, 900.0)
    assert device.verification_url == "https://auth.openai.com/codex/device"
    for _ in range(3):
        assert await chatgpt.device_poll(http, device) is None
    raw = await chatgpt.device_poll(http, device)
    assert raw is not None
    assert chatgpt.parse_credential(raw).secret == SECOND_ACCESS
    start, *polls, exchange = http.sent
    assert (start.url, start.json) == (
        "https://auth.openai.com/api/accounts/deviceauth/usercode",
        {"client_id": "app_EMoamEEZ73f0CkXaXp7hrann"},
    )
    assert {poll.url for poll in polls} == {"https://auth.openai.com/api/accounts/deviceauth/token"}
    assert all(poll.json == {"device_auth_id": "dev-1", "user_code": "ABCD-1234"} for poll in polls)
    assert exchange.form is not None
    assert exchange.form["redirect_uri"] == "https://auth.openai.com/deviceauth/callback"
    assert (exchange.form["code"], exchange.form["code_verifier"]) == ("the-code", "the-verifier")


@pytest.mark.parametrize("interval", [None, "soon", [], {}, pytest.param(10**400, id="huge"), -1e400, "nan"])
async def test_a_pause_that_is_none_starts_the_device_flow_all_the_same(chatgpt: ChatGPT, interval: object) -> None:
    http = ScriptedHttp(reply({"device_auth_id": "d", "user_code": "U", "interval": interval}))
    assert (await chatgpt.device_start(http)).interval == 5.0


async def test_a_denied_device_login_ends(chatgpt: ChatGPT) -> None:
    http = ScriptedHttp(reply({"device_auth_id": "d", "user_code": "U", "interval": 5}), reply({}, status=400))
    device = await chatgpt.device_start(http)
    with pytest.raises(LoginError, match="start again"):
        await chatgpt.device_poll(http, device)


def test_where_codex_keeps_its_login(chatgpt: ChatGPT) -> None:
    home = Path("/home/ada")
    assert chatgpt.vendor_logins({}, home) == [home / ".codex/auth.json"]
    assert chatgpt.vendor_logins({"CODEX_HOME": "/codex"}, home)[0] == Path("/codex/auth.json")


@pytest.mark.parametrize("token", [samples.CHATGPT_ACCESS, samples.CHATGPT_ID, "sk-proj-0123456789abcdef"])
def test_a_vendors_token_is_answered_with_the_setting_to_change(chatgpt: ChatGPT, token: str) -> None:
    advice = chatgpt.vendor_token_advice(token)
    assert advice is not None
    assert "experimental_bearer_token" in advice
    assert "env_key" in advice
    assert chatgpt.vendor_token_advice("aimux-0123456789abcdef") is None
