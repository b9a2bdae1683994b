from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from aimux.plugin import CredentialError, LoginError, RefreshRejected, RefreshUnavailable
from aimux.plugin.oauth import read_time
from aimux.testing import ScriptedHttp, reply
from aimux_claude import Claude
from aimux_claude.credentials import API_KEY, SETUP_TOKEN
from tests.contracts import samples

ANSWER = {
    "access_token": "sk-ant-oat01-second-access",
    "refresh_token": "sk-ant-ort01-second-refresh",
    "expires_in": 28800,
    "scope": "user:inference user:profile",
    "organization": {"uuid": "22222222-2222-4222-8222-222222222222", "name": "Ada's"},
    "account": {"uuid": "11111111-1111-4111-8111-111111111111", "email_address": "ada@example.com"},
}


def test_claude_codes_login_is_read_whole(claude: Claude) -> None:
    credential = claude.parse_credential(samples.CLAUDE_CODE_LOGIN)
    assert credential.kind == "oauth"
    assert credential.secret == "sk-ant-oat01-first-access-token-0123456789"
    assert credential.refresh_token == "sk-ant-ort01-first-refresh-token-0123456789"
    assert credential.expires_at == 1_790_000_000.0
    assert credential.scopes == ("user:inference", "user:profile")
    assert credential.plan == "max"
    assert credential.account_id == "11111111-1111-4111-8111-111111111111"
    assert credential.organization == "22222222-2222-4222-8222-222222222222"


@pytest.mark.parametrize(
    "written",
    [
        1_790_000_000_000,
        "1790000000000",
        1_790_000_000,
        "1790000000",
        "2026-09-21T14:13:20Z",
        "2026-09-21T16:13:20+02:00",
    ],
)
def test_an_expiry_is_read_and_written_in_its_own_notation(claude: Claude, written: int | str, now: float) -> None:
    raw = json.dumps({"access_token": "sk-ant-oat01-a", "refresh_token": "r", "expires_at": written}).encode()
    assert claude.parse_credential(raw).expires_at == 1_790_000_000.0
    again = json.loads(_renew(claude, raw))["expires_at"]
    assert type(again) is type(written)
    assert read_time(again) == now + 28800
    assert len(str(again)) <= len(str(written)), "the same unit"


def test_members_of_a_team_have_limits_of_their_own(claude: Claude) -> None:
    document = json.loads(samples.CLAUDE_CODE_LOGIN)
    document["claudeAiOauth"]["subscriptionType"] = "team"
    one = claude.parse_credential(json.dumps(document).encode()).organization
    document["claudeAiOauth"]["accountUuid"] = "someone-else"
    assert claude.parse_credential(json.dumps(document).encode()).organization != one


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (bytes(512), "is empty"),
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"claudeAiOauth": {}}', "no access token"),
        (b'{"claudeAiOauth": {"accessToken": "two\\nlines"}}', "can't be in a header"),
        (b'{"a": {"access_token": "x"}, "b": {"access_token": "y"}}', "2 logins"),
        (b'{"hello": "world"}', "no Claude credential"),
        (b'{"mcpOAuth": {"linear|0": {"accessToken": "mcp"}}}', "MCP servers only"),
        (samples.CODEX_LOGIN, "another vendor's"),
        (samples.CODEX_LOGIN.replace(b'"OPENAI_API_KEY": null,', b""), "under the name 'tokens'"),
        (b'{"auth_mode": "apikey", "api_key": "k"}', "another vendor's"),
        (json.dumps({"access_token": samples.CHATGPT_ACCESS}).encode(), "JWT"),
        (json.dumps({"anthropic": {"access_token": samples.CHATGPT_ACCESS}}).encode(), "JWT"),
        (b'{"gemini": {"access_token": "ya29.x", "refresh_token": "y"}}', "the name 'gemini'"),
        (b'{"type": "codex", "access_token": "x"}', "another vendor's"),
        (b'{"type": {}, "access_token": "x"}', "another vendor's"),
        (b"sk-proj-a-key", "OpenAI"),
        (b'{"api_key": "sk-svcacct-a-key"}', "OpenAI"),
        (b'{"api_key": "\\"sk-ant-in-quotes\\""}', "quotation marks"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_credential_is_refused_with_a_reason(claude: Claude, raw: bytes, says: str) -> None:
    with pytest.raises(CredentialError, match=says):
        claude.parse_credential(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type": "claude", "access_token": "opaque", "refresh_token": "r", "expired": "2026-09-21T14:13:20Z"}',
        b'{"claude-max": {"access_token": "opaque", "refresh_token": "r", "expires_at": "2026-09-21T14:13:20Z"}}',
        b'{"x": {"access_token": "sk-ant-oat01-x", "refresh_token": "r", "expires_at": "2026-09-21T14:13:20Z"}}',
    ],
)
def test_a_login_from_beside_other_vendors_is_taken(claude: Claude, raw: bytes) -> None:
    credential = claude.parse_credential(raw)
    assert (credential.refresh_token, credential.expires_at) == ("r", 1_790_000_000.0)


# --- renewal ---------------------------------------------------------------------------------------------------------


def _renew(provider: Claude, raw: bytes, answer: dict[str, Any] | None = None) -> bytes:
    return asyncio.run(provider.refresh(raw, ScriptedHttp(reply(answer or ANSWER))))


@pytest.mark.parametrize("told", [None, "never", 0, -1, [], {}, pytest.param(10**400, id="huge")])
def test_claude_codes_end_of_a_login_moves_only_where_the_answer_says_when(claude: Claude, told: object) -> None:
    def end(raw: bytes) -> float:
        return float(json.loads(raw)["claudeAiOauth"]["refreshTokenExpiresAt"])

    before = samples.CLAUDE_CODE_LOGIN
    assert end(_renew(claude, before, ANSWER | {"refresh_token_expires_in": told})) == end(before)
    moved = end(_renew(claude, before, ANSWER | {"refresh_token_expires_in": 3600}))
    assert moved / 1000 == pytest.approx(time.time() + 3600, abs=60)
    assert end(_renew(claude, before, ANSWER | {"refresh_token_expires_in": 9 * 365 * 86400})) == end(before)
    assert claude.parse_credential(before).login_ends_at == end(before) / 1000


def test_a_renewal_asks_as_claude_code_does(claude: Claude) -> None:
    http = ScriptedHttp(reply(ANSWER))
    asyncio.run(claude.refresh(samples.CLAUDE_CODE_LOGIN, http))
    (sent,) = http.sent
    assert (sent.method, sent.url) == ("POST", "https://platform.claude.com/v1/oauth/token")
    assert sent.json == {
        "grant_type": "refresh_token",
        "refresh_token": "sk-ant-ort01-first-refresh-token-0123456789",
        "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
        "scope": "user:inference user:profile",
    }


def test_a_renewal_keeps_scopes_tier_account_and_other_programs_logins(claude: Claude, now: float) -> None:
    """ai-mux's refresh drops account id, scopes and tier; others lose `mcpOAuth`."""
    before = json.loads(samples.CLAUDE_CODE_LOGIN)
    after = json.loads(_renew(claude, samples.CLAUDE_CODE_LOGIN))
    changed = {
        "accessToken": "sk-ant-oat01-second-access",
        "refreshToken": "sk-ant-ort01-second-refresh",
        "expiresAt": int((now + 28800) * 1000),
        "emailAddress": "ada@example.com",
    }
    assert after == {**before, "claudeAiOauth": {**before["claudeAiOauth"], **changed}}


@pytest.mark.parametrize("ends", [0, "0001-01-01T00:00:00Z", None])
def test_an_end_that_nobody_knows_is_none(claude: Claude, ends: object) -> None:
    token: dict[str, Any] = {"type": "claude", "access_token": "sk-ant-oat01-setup", "expires_at": ends}
    assert claude.parse_credential(json.dumps(token).encode()).expires_at is None
    renewable = claude.parse_credential(json.dumps(token | {"refresh_token": "r"}).encode())
    assert renewable.expires_within(0, time.time()) is (ends is not None), "so that it is renewed at once"


@pytest.mark.parametrize(
    ("before", "granted", "after"),
    [
        (["user:inference"], "", ["user:inference"]),
        (["user:inference"], "user:inference user:profile", ["user:inference", "user:profile"]),
        (None, "user:inference", ["user:inference"]),
        (None, None, None),
    ],
)
def test_scopes_without_which_claude_code_is_logged_out(
    claude: Claude, before: list[str] | None, granted: str | None, after: list[str] | None
) -> None:
    """Claude Code's own renewal may leave them out of the file that it shares, and an answer need not name any."""
    login = {"accessToken": "sk-ant-oat01-a", "refreshToken": "r"} | ({"scopes": before} if before else {})
    answer = ANSWER | {"scope": granted}
    fresh = asyncio.run(claude.refresh(json.dumps({"claudeAiOauth": login}).encode(), ScriptedHttp(reply(answer))))
    assert json.loads(fresh)["claudeAiOauth"].get("scopes") == after


def test_a_file_stays_indented_or_compact(claude: Claude) -> None:
    assert b"\n" not in _renew(claude, samples.CLAUDE_FLAT_SNAKE)
    assert b"\n  " in _renew(claude, samples.CLAUDE_FLAT_CAMEL)


def test_new_keys_follow_the_spelling_of_the_file(claude: Claude) -> None:
    after = json.loads(_renew(claude, b'{"oauth_token": "sk-ant-oat01-a", "refresh_token": "r"}'))
    assert set(after) == {"oauth_token", "refresh_token", "expires_at", "account_uuid", "email", "organization_uuid"}


def test_a_token_endpoint_that_moved_is_an_alarm_and_no_dead_account(claude: Claude) -> None:
    """claude-relay-service#1207: the token host moved, and pools drained silently."""
    with pytest.raises(RefreshUnavailable) as caught:
        asyncio.run(claude.refresh(samples.CLAUDE_CODE_LOGIN, ScriptedHttp(reply(status=404, body=b"Not Found"))))
    assert "404" in caught.value.reason
    assert "providers.claude.token_url" in caught.value.remedy


@pytest.mark.parametrize(("status", "error"), [(400, "invalid_grant"), (401, "invalid_grant"), (403, "access_denied")])
def test_no_login_helps_an_account_that_is_on_hold(claude: Claude, status: int, error: str) -> None:
    """As Claude Code 2.1.332 reads it. As a 403 it was asked for ever, and an `invalid_grant` sent people to log in."""
    held = {
        "error": error,
        "error_description": "account_on_hold",
        "error_uri": "https://claude.ai/restricted?ref=TS-1",
    }
    with pytest.raises(RefreshRejected, match="account_on_hold") as caught:
        asyncio.run(claude.refresh(samples.CLAUDE_CODE_LOGIN, ScriptedHttp(reply(held, status=status))))
    assert "claude.ai/restricted" in caught.value.remedy
    assert "log in" not in caught.value.remedy


def test_the_alarm_names_the_setting_of_this_instance() -> None:
    work = Claude(Claude.Settings(), instance="claude-work")
    with pytest.raises(RefreshUnavailable) as caught:
        asyncio.run(work.refresh(samples.CLAUDE_CODE_LOGIN, ScriptedHttp(reply(status=404, body=b""))))
    assert "providers.claude-work.token_url" in caught.value.remedy


def test_a_dead_setup_token_says_how_to_make_a_new_one(claude: Claude) -> None:
    with pytest.raises(RefreshRejected) as caught:
        asyncio.run(claude.refresh(b"sk-ant-oat01-setup", ScriptedHttp()))
    assert "claude setup-token" in caught.value.remedy


# --- login -----------------------------------------------------------------------------------------------------------


def test_the_sign_in_address_is_claude_codes(claude: Claude) -> None:
    redirect = claude.redirect_uri("paste", 0)
    url = urlsplit(claude.authorization_url(redirect_uri=redirect, state="st", challenge="ch"))
    assert (url.scheme, url.netloc, url.path) == ("https", "claude.com", "/cai/oauth/authorize")
    query = {key: value[0] for key, value in parse_qs(url.query).items()}
    assert query.pop("scope").split() == list(Claude.Settings().scopes)  # type: ignore[attr-defined]
    assert query == {
        "code": "true",
        "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
        "response_type": "code",
        "redirect_uri": "https://platform.claude.com/oauth/code/callback",
        "code_challenge": "ch",
        "code_challenge_method": "S256",
        "state": "st",
    }
    assert claude.redirect_uri("loopback", 4711) == "http://localhost:4711/callback"


async def test_a_login_keeps_when_it_ends(claude: Claude, now: float) -> None:
    http = ScriptedHttp(reply(ANSWER | {"refresh_token_expires_in": 30 * 86400}))
    raw = await claude.exchange(http, code="c", state="s", verifier="v", redirect_uri="http://x")
    assert json.loads(raw)["claudeAiOauth"]["refreshTokenExpiresAt"] == int((now + 30 * 86400) * 1000)
    assert claude.parse_credential(raw).login_ends_at == int(now + 30 * 86400)


async def test_an_exchange_sends_the_state_and_writes_claude_codes_format(claude: Claude, now: float) -> None:
    http = ScriptedHttp(reply(ANSWER))
    raw = await claude.exchange(
        http, code="the-code", state="the-state", verifier="the-verifier", redirect_uri="http://x"
    )
    assert http.sent[0].json == {
        "grant_type": "authorization_code",
        "code": "the-code",
        "redirect_uri": "http://x",
        "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
        "code_verifier": "the-verifier",
        "state": "the-state",
    }
    assert json.loads(raw) == {
        "claudeAiOauth": {
            "accessToken": "sk-ant-oat01-second-access",
            "refreshToken": "sk-ant-ort01-second-refresh",
            "expiresAt": int((now + 28800) * 1000),
            "scopes": ["user:inference", "user:profile"],
            "accountUuid": "11111111-1111-4111-8111-111111111111",
            "emailAddress": "ada@example.com",
            "organizationUuid": "22222222-2222-4222-8222-222222222222",
        }
    }


async def test_a_used_code_says_so(claude: Claude) -> None:
    with pytest.raises(LoginError, match="start again"):
        await claude.exchange(
            ScriptedHttp(reply({"error": "invalid_grant"}, status=400)),
            code="c", state="s", verifier="v", redirect_uri="http://x",
        )  # fmt: skip


def test_a_setup_token_serves_inference_and_is_not_renewed(claude: Claude) -> None:
    credential = claude.parse_credential(claude.setup_token_file("  sk-ant-oat01-setup\r\n  -token\n"))
    assert credential.secret == "sk-ant-oat01-setup-token", "as a narrow terminal shows it"
    assert (credential.kind, credential.renewable, credential.expires_at) == ("oauth", False, None)
    assert credential.scopes == ("user:inference",)
    with pytest.raises(LoginError, match="--api-key"):
        claude.setup_token_file("sk-ant-api03-0123")
    with pytest.raises(LoginError, match="begins with"):
        claude.setup_token_file("hello")


def test_a_person_is_told_how_tokens_and_keys_begin(claude: Claude) -> None:
    assert f"begins with {SETUP_TOKEN}" in claude.login_words["setup_token"]
    assert f"begins with {API_KEY}" in claude.login_words["api_key"]


def test_an_api_key_setting_may_hold_a_setup_token(claude: Claude) -> None:
    assert claude.parse_credential(claude.api_key_file("sk-ant-oat01-x")).kind == "oauth"


def test_where_claude_code_keeps_its_login(claude: Claude) -> None:
    found = claude.vendor_logins({"CLAUDE_CONFIG_DIR": "/etc/claude"}, Path("/home/ada"))
    assert found[0] == Path("/etc/claude/.credentials.json")
    assert Path("/home/ada/.claude/.credentials.json") in found
    assert claude.vendor_logins({}, Path("/home/ada"))[0] == Path("/home/ada/.claude/.credentials.json")
    apart = {"CLAUDE_CONFIG_DIR": "/etc/claude", "CLAUDE_SECURESTORAGE_CONFIG_DIR": "/run/claude"}
    assert claude.vendor_logins(apart, Path("/home/ada"))[0] == Path("/run/claude/.credentials.json")


@pytest.mark.parametrize("key", ["refreshToken", "refresh_token"])
def test_white_space_around_a_refresh_token_is_not_part_of_it(claude: Claude, key: str) -> None:
    """The vendor would refuse it, and the account would be parked."""
    document = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-x", key: " sk-ant-ort01-x\r\n"}}
    assert claude.parse_credential(json.dumps(document).encode()).refresh_token == "sk-ant-ort01-x"
    document["claudeAiOauth"][key] = " "
    assert not claude.parse_credential(json.dumps(document).encode()).renewable


def test_scopes_may_be_written_as_one_string() -> None:
    assert Claude.Settings(scopes="user:inference user:profile").scopes == ("user:inference", "user:profile")  # type: ignore[call-arg, attr-defined]


@pytest.mark.parametrize("holder", ["", "main", "claudeAiOauth"])
def test_a_renewal_stays_readable_whatever_the_new_token_looks_like(claude: Claude, holder: str) -> None:
    login = {"access_token": "sk-ant-oat01-before", "refresh_token": "sk-ant-ort01-before"}
    raw = json.dumps({holder: login} if holder else login).encode()
    for token in ("opaque", samples.CHATGPT_ACCESS):
        renewed = {"access_token": token, "refresh_token": "r2", "expires_in": 3600}
        fresh = claude.parse_credential(asyncio.run(claude.refresh(raw, ScriptedHttp(reply(renewed)))))
        assert (fresh.secret, fresh.refresh_token) == (token, "r2")


def test_a_jwt_of_anthropics_is_claudes(claude: Claude) -> None:
    def token(claims: bytes) -> str:
        header, _, signature = samples.CHATGPT_ACCESS.split(".")
        return f"{header}.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.{signature}"

    own = token(b'{"iss": "https://platform.claude.com"}')
    assert claude.parse_credential(json.dumps({"access_token": own}).encode()).secret == own
    for claims in (b'{"iss": "http://[anthropic.com"}', b'{"iss": "https://anthropic.com.example"}', b'{"sub": "1"}'):
        with pytest.raises(CredentialError, match="JWT"):
            claude.parse_credential(json.dumps({"access_token": token(claims)}).encode())
