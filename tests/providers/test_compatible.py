from __future__ import annotations

import json
import time
from typing import Any

import pytest
from multidict import CIMultiDict
from pydantic import ValidationError

from aimux.plugin import Action, Body, CredentialError, ErrorKind, GatewayError, RequestHead, RequestRefused, Verdict
from aimux_compatible import Compatible
from tests.contracts.samples import jwt
from tests.providers.conftest import NOW

KEY = b'{"api_key": "or-0123456789"}'


def make(**settings: Any) -> Compatible:
    return Compatible(Compatible.Settings(**settings), instance="openrouter")


def address(provider: Compatible, target: str) -> str:
    upstream = provider.prepare(RequestHead("POST", target, CIMultiDict()), provider.parse_credential(KEY))
    return upstream.base_url + upstream.target


@pytest.mark.parametrize(
    ("base_url", "address_of_chat"),
    [
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/chat/completions"),
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api/v1/chat/completions"),
        ("https://openrouter.ai/api/v1/chat/completions", "https://openrouter.ai/api/v1/chat/completions"),
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1/chat/completions"),
        ("https://open.bigmodel.cn/api/paas/v4", "https://open.bigmodel.cn/api/paas/v4/chat/completions"),
        ("https://host.example/v1beta/openai", "https://host.example/v1beta/openai/chat/completions"),
    ],
)
@pytest.mark.parametrize(
    "target", ["/v1/chat/completions", "/chat/completions", "//v1/chat/completions", "/v1//chat/completions"]
)
def test_an_openai_base_is_what_the_sdk_takes(base_url: str, address_of_chat: str, target: str) -> None:
    assert address(make(base_url=base_url), target) == address_of_chat


def test_its_servers_take_no_packed_bodies() -> None:
    assert not make(base_url="https://a.example").takes_packed


@pytest.mark.parametrize("base_url", ["https://kimi.example/anthropic", "https://kimi.example/anthropic/v1/messages"])
@pytest.mark.parametrize("below", ["/v1/messages", "//v1/messages", "/v1/v1/messages", "/v1//messages", "/messages"])
def test_an_anthropic_base_is_what_the_sdk_takes(base_url: str, below: str) -> None:
    provider = make(base_url=base_url, format="anthropic")
    assert address(provider, f"{below}?beta=true") == "https://kimi.example/anthropic/v1/messages?beta=true"


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({}, {"authorization": "Bearer or-0123456789"}),
        ({"format": "anthropic"}, {"x-api-key": "or-0123456789"}),
        ({"format": "anthropic", "auth": "bearer"}, {"authorization": "Bearer or-0123456789"}),
        ({"auth": "x-api-key"}, {"x-api-key": "or-0123456789"}),
    ],
)
def test_the_key_goes_where_the_server_looks_for_it(settings: dict[str, str], header: dict[str, str]) -> None:
    provider = make(base_url="https://host.example/v1", **settings)
    upstream = provider.prepare(RequestHead("POST", "/v1/x", CIMultiDict()), provider.parse_credential(KEY))
    assert upstream.set_headers == header
    assert upstream.drop_headers == {"authorization", "x-api-key"}


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize("path", ["/v1/client/sessions", "/v1/auth/keys/code", "/v1/auth//Keys/", "/v1/keys"])
def test_no_answer_is_a_key_of_the_account(wire: str, path: str) -> None:
    """Mistral's for a browser, and OpenRouter's, for which any key of the account is enough."""
    provider = make(base_url="https://host.example/v1", format=wire)
    with pytest.raises(RequestRefused):
        provider.prepare(RequestHead("POST", path, CIMultiDict()), provider.parse_credential(KEY))
    provider.prepare(RequestHead("GET", path, CIMultiDict()), provider.parse_credential(KEY))


@pytest.mark.parametrize(("wire", "path"), [("openai", "/v1/messages"), ("anthropic", "/v1/responses")])
def test_a_server_may_speak_the_other_format_beside_its_own(wire: str, path: str) -> None:
    """As OpenRouter, vLLM, Ollama and LM Studio do."""
    provider = make(base_url="http://h/v1", format=wire)
    raw = b'{"container": "cntr_1", "metadata": {"user_id": "user_1_account__session_abcdef01-2345"}}'
    raw = raw if wire == "openai" else b'{"previous_response_id": "resp_1", "prompt_cache_key": "abcdef01-2345"}'
    head = RequestHead("POST", path, CIMultiDict())
    assert provider.refers_to(head, Body(raw)) == (("cntr_1",) if wire == "openai" else ("resp_1",))
    assert provider.conversation_key(head, Body(raw)) == "abcdef01-2345"
    cut = provider.stream_error(GatewayError(ErrorKind.BAD_GATEWAY, "cut"), head)
    assert cut.startswith(b"event: error\n" if wire == "openai" else b"event: response.failed\n")


def test_each_format_has_its_own_errors() -> None:
    error = GatewayError(ErrorKind.UNAUTHORIZED, "no")
    assert b'"authentication_error"' in make(base_url="http://h", format="anthropic").error(error).body
    assert b'"invalid_api_key"' in make(base_url="http://h").error(error).body


def test_a_base_url_is_needed_and_a_format_is_one_of_two() -> None:
    with pytest.raises(ValidationError, match="base_url"):
        make()
    with pytest.raises(ValidationError, match="format"):
        make(base_url="http://h", format="gemini")


@pytest.mark.parametrize("login", ["sk-ant-oat01-x", "ya29.x", jwt({"iss": "https://auth.openai.com"})])
def test_a_persons_login_at_a_vendor_is_no_key_for_somebody_else(login: str) -> None:
    with pytest.raises(CredentialError, match="goes to that vendor only"):
        make(base_url="http://h").parse_credential(login.encode())


def test_a_key_that_is_said_to_be_another_vendors_is_not_taken() -> None:
    assert make(base_url="http://h").parse_credential(b'{"type": "openrouter", "api_key": "sk-x"}').secret == "sk-x"
    with pytest.raises(CredentialError, match="names another vendor"):
        make(base_url="http://h").parse_credential(b'{"type": "deepseek", "api_key": "sk-x"}')


def test_a_token_of_a_gateway_may_be_a_jwt() -> None:
    token = jwt({"iss": "https://gateway.example"})
    assert make(base_url="http://h").parse_credential(token.encode()).secret == token


@pytest.mark.parametrize("raw", [b"", b"two words", b"{}", b'{"api_key": 7}', b'{"api_key": ""}', b"{"])
def test_what_is_no_key_is_refused(raw: bytes) -> None:
    with pytest.raises(CredentialError):
        make(base_url="http://h").parse_credential(raw)


@pytest.mark.parametrize(
    ("status", "headers", "action"),
    [
        (401, {}, Action.BACK_OFF),
        (402, {}, Action.COOL_DOWN),
        (429, {"retry-after": "3"}, Action.COOL_DOWN),
        (429, {}, Action.BACK_OFF),
        (503, {}, Action.BACK_OFF),
        (400, {}, Action.RELAY),
    ],
)
def test_verdicts(status: int, headers: dict[str, str], action: Action) -> None:
    assert make(base_url="http://h").classify(status, CIMultiDict(headers), b"").action is action


KIMI = "You've reached your usage limit for this billing cycle. Your quota will be refreshed in the next cycle."
XAI = {
    "message": "Your team 16f2151a-40f4 has either used all available credits or reached its monthly spending limit."
}
ZHIPU = "Usage limit reached for 5 hour. Your limit will reset at 2026-09-09 03:30:06"


@pytest.mark.parametrize(
    ("wire", "status", "error"),
    [
        ("anthropic", 403, {"type": "permission_error", "message": KIMI}),
        ("anthropic", 403, {"type": "x", "message": "You've reached your weekly (7-day) usage limit. Your quota …"}),
        ("anthropic", 429, {"type": "1308", "message": ZHIPU}),
        ("openai", 429, {"code": "1310", "message": "已达到每周使用上限。您的限额将在 2026-08-25 07:41:44 重置。"}),
        ("openai", 429, {"code": "1113", "message": "Insufficient balance or no resource package."}),
        ("openai", 429, {"type": "exceeded_current_quota_error", "message": "Your account is suspended"}),
        ("anthropic", 500, {"type": "api_error", "message": "insufficient balance (1008)"}),
        ("openai", 403, {"message": "Key limit exceeded (monthly limit). Manage it using https://openrouter.ai/…"}),
        ("openai", 403, {"code": "insufficient_user_quota", "message": "user quota is not enough"}),
        ("openai", 400, {"code": "Arrearage", "message": "Access denied, please make sure your account is in …"}),
        ("openai", 429, XAI),
    ],
)
def test_a_plan_that_is_used_up_is_looked_at_again_later(wire: str, status: int, error: dict[str, str]) -> None:
    """openclaw/openclaw#142656, dirge-code/dirge#818: another account may serve, and nobody is to meet this one again
    and again."""
    provider = make(base_url="http://h", format=wire)
    raw = json.dumps({"error": error}).encode()
    verdict = provider.classify(status, CIMultiDict(), raw, model="m")
    assert (verdict.action, verdict.model) == (Action.COOL_DOWN, "m")
    assert verdict.until == pytest.approx(time.time() + 900, abs=60)
    told = provider.classify(429, CIMultiDict({"retry-after": "7200"}), raw, model="m")
    assert told.until == pytest.approx(time.time() + 7200, abs=60)
    quoted = json.dumps({"error": {"message": f"messages.0: {error['message']}"}}).encode()
    assert provider.classify(403, CIMultiDict(), quoted, model="m").action is Action.RELAY


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            402,
            {"code": 402, "message": "This request requires more credits, or fewer max_tokens. You requested up to …"},
        ),
        (402, {"code": 402, "message": "Prompt tokens limit exceeded: 69120 > 36608. To increase, visit https://…"}),
        (403, {"code": "pre_consume_token_quota_failed", "message": "token quota is not enough, …"}),
    ],
)
def test_a_request_that_is_too_much_for_what_is_left_takes_the_account_from_nobody(
    status: int, error: dict[str, Any]
) -> None:
    """can1357/oh-my-pi#9569: with fewer tokens it would be served."""
    raw = json.dumps({"error": error}).encode()
    verdict = make(base_url="http://h").classify(status, CIMultiDict(), raw, model="m")
    assert verdict == Verdict(Action.BACK_OFF, "its credit is too little for this request")


def gemini(status: str, *details: dict[str, Any], message: str = "…") -> bytes:
    """With a list around it, as its endpoint for OpenAI's clients has it."""
    return json.dumps([{"error": {"code": 0, "message": message, "status": status, "details": details}}]).encode()


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.837906927s"}
QUOTA = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "…"}]}
ALIBABA = "You exceeded your current quota, …: https://help.aliyun.com/zh/model-studio/error-code#token-limit"
IN_AN_HOUR = str(int((NOW + 3600) * 1000))


@pytest.mark.parametrize(
    ("headers", "raw", "wait"),
    [
        ({}, gemini("RESOURCE_EXHAUSTED", QUOTA, RETRY), 45.8),
        ({"retry-after": "7"}, gemini("RESOURCE_EXHAUSTED", RETRY), 7),
        ({}, gemini("RESOURCE_EXHAUSTED", RETRY | {"retryDelay": "9e9s"}), 86400),
        ({}, json.dumps({"error": {"metadata": {"headers": {"X-RateLimit-Reset": IN_AN_HOUR}}}}).encode(), 3600),
        ({"x-ratelimit-reset": IN_AN_HOUR}, b'{"error": {"message": "Rate limit exceeded"}}', 3600),
        ({"x-ratelimit-reset": "1"}, b"{}", None),
        ({"x-ratelimit-reset-tokens-minute": "11.38"}, b'{"code": "token_quota_exceeded"}', 11.4),
        ({}, json.dumps({"error": {"code": "insufficient_quota", "message": ALIBABA}}).encode(), None),
        ({}, gemini("RESOURCE_EXHAUSTED", QUOTA, RETRY | {"retryDelay": "soons"}), None),
        ({}, gemini("RESOURCE_EXHAUSTED", {"@type": 3, "retryDelay": 5}), None),
    ],
)
def test_a_limits_time_may_be_elsewhere(headers: dict[str, str], raw: bytes, wait: float | None, now: float) -> None:
    """In Gemini's answer, in a header of OpenRouter's, or in its answer as if it were there, in one of Cerebras'. What
    Alibaba calls a quota are tokens a minute (hawkxtreme/mini-ai-1c#23)."""
    verdict = make(base_url="http://h").classify(429, CIMultiDict(headers), raw, model="m")
    assert verdict.action is (Action.BACK_OFF if wait is None else Action.COOL_DOWN)
    assert verdict.until == (None if wait is None else pytest.approx(now + wait, abs=1))


def test_a_key_that_gemini_refuses_is_looked_at() -> None:
    """It says so with a 400 (Wei-Shaw/sub2api#1709), or with a 403 where a key was suspended or published."""
    provider = make(base_url="http://h")
    invalid = gemini("INVALID_ARGUMENT", {"reason": "API_KEY_INVALID"}, message="API key not valid.")
    assert provider.classify(400, CIMultiDict(), invalid).action is Action.REFRESH
    assert provider.classify(403, CIMultiDict(), gemini("PERMISSION_DENIED")).action is Action.REFRESH
    assert provider.classify(400, CIMultiDict(), gemini("INVALID_ARGUMENT")).action is Action.RELAY


def test_limits_count_a_conversation_that_is_answered() -> None:
    """OpenAI's is only kept, Mistral's runs a model."""
    provider = make(base_url="http://h")
    assert provider.counts(RequestHead("POST", "/v1/conversations", CIMultiDict()))
    assert not provider.counts(RequestHead("GET", "/v1/conversations", CIMultiDict()))
    assert not provider.counts(RequestHead("POST", "/v1/files", CIMultiDict()))


@pytest.mark.parametrize(
    ("base_url", "wire", "asked"),
    [
        ("https://openrouter.ai/api/v1", "openai", "https://openrouter.ai/api/v1/key"),
        ("https://openrouter.ai/api", "anthropic", "https://openrouter.ai/api/v1/key"),
        ("https://api.mistral.example/v1", "openai", "https://api.mistral.example/v1/models"),
    ],
)
def test_the_cheapest_request_needs_the_key(base_url: str, wire: str, asked: str) -> None:
    """OpenRouter lists its models to everybody: `aimux accounts test` would be content with any key."""
    provider = make(base_url=base_url, format=wire)
    request, _ = provider.cheapest_request(provider.parse_credential(KEY))
    assert address(provider, request.target) == asked


def test_a_rate_is_of_the_model() -> None:
    verdict = make(base_url="http://h").classify(429, CIMultiDict({"retry-after": "3"}), b"", model="m")
    assert (verdict.action, verdict.model) == (Action.COOL_DOWN, "m")


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        ("openai", {"code": "model_not_found", "message": "The model `m` does not exist"}),
        ("anthropic", {"type": "not_found_error", "message": "model: m"}),
    ],
)
def test_a_model_that_a_key_may_not_use_is_asked_of_others(wire: str, error: dict[str, str]) -> None:
    provider = make(base_url="http://h", format=wire)
    raw = json.dumps({"type": "error", "error": error}).encode()
    missing = Verdict(Action.MISSING, "it does not have the model", model="m")
    assert provider.classify(404, CIMultiDict(), raw, model="m") == missing
    assert provider.classify(404, CIMultiDict(), b'{"error": "no such page"}', model="m").action is Action.RELAY


def test_a_key_is_refused_in_the_servers_own_words() -> None:
    provider = make(base_url="http://h")
    assert provider.classify(401, CIMultiDict(), b'{"error":"no"}').action is Action.REFRESH
    assert provider.classify(401, CIMultiDict(), b"<html>no</html>").action is Action.BACK_OFF
