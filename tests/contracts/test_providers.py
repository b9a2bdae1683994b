"""Our own providers keep the contract that is shipped for everybody's."""

from __future__ import annotations

from aimux.plugin import Usage
from aimux.testing import ProviderContract, SampleAnswer, reply
from aimux_chatgpt import ChatGPT
from aimux_claude import Claude
from aimux_compatible import Compatible
from tests.contracts import samples

EVENTS = "text/event-stream; charset=utf-8"

MESSAGE_USAGE = Usage(
    model="claude-sonnet-4-5",
    input_tokens=12,
    output_tokens=42,
    cache_read_tokens=20000,
    cache_write_tokens=3000,
    cache_write_1h_tokens=2000,
    tier="standard",
)
OPENAI_USAGE = Usage(
    model="gpt-5.5", input_tokens=3000, output_tokens=420, cache_read_tokens=20000, reasoning_tokens=128
)
ANTHROPIC_ANSWERS = [
    SampleAnswer("POST", "/v1/messages?beta=true", samples.MESSAGE_STREAM, MESSAGE_USAGE, EVENTS),
    SampleAnswer("POST", "//v1/messages", samples.MESSAGE_STREAM.replace(b"\n", b"\r\n"), MESSAGE_USAGE, EVENTS),
    SampleAnswer("POST", "/v1/messages", samples.MESSAGE, MESSAGE_USAGE),
    SampleAnswer("POST", "/v1/messages/count_tokens?beta=true", b'{"input_tokens": 14}'),
    SampleAnswer("GET", "/v1/models?limit=1000", b'{"data": []}'),
    SampleAnswer("POST", "/v1/messages", b'{"type": "error"}', status=529),
    SampleAnswer("POST", "/v1/messages", b"<html>", Usage(), content_type="text/html"),
]
OPENAI_ANSWERS = [
    SampleAnswer("POST", "/v1/responses", samples.RESPONSE_STREAM, OPENAI_USAGE, EVENTS),
    SampleAnswer("POST", "/v1/responses", samples.RESPONSE, OPENAI_USAGE),
    SampleAnswer("POST", "/v1/responses/compact", samples.RESPONSE, OPENAI_USAGE),
    SampleAnswer("POST", "/v1/chat/completions", samples.CHAT_STREAM, OPENAI_USAGE, EVENTS),
    SampleAnswer("POST", "/v1/chat/completions", samples.CHAT_STREAM_WITHOUT_USAGE, Usage(), EVENTS),
    SampleAnswer("POST", "/v1/chat/completions", samples.CHAT, OPENAI_USAGE),
    SampleAnswer("GET", "/v1/responses/resp_01", samples.RESPONSE),
    SampleAnswer("GET", "/v1/models", b'{"data": []}'),
]
UNIFIED = [
    f"anthropic-ratelimit-unified-{what}"
    for what in ("status", "reset", "5h-status", "5h-reset", "5h-utilization", "7d-status", "7d-reset", "7d_oi-status")
]
CODEX = [
    f"x-codex-{place}-{what}"
    for place in ("primary", "secondary")
    for what in ("used-percent", "window-minutes", "reset-at", "reset-after-seconds")
]


class TestClaude(ProviderContract):
    provider = Claude
    credentials = {
        "Claude Code's login": samples.CLAUDE_CODE_LOGIN,
        "flat, camel case": samples.CLAUDE_FLAT_CAMEL,
        "flat, snake case": samples.CLAUDE_FLAT_SNAKE,
        "flat, seconds": b'{"oauth_token": "sk-ant-oat01-seconds-0123456789", "refresh_token": "r-0123456789",'
        b' "expires_at": 1790000000}',
        "flat, no expiry": b'{"oauthToken": "sk-ant-oat01-no-expiry-0123456789", "refreshToken": "r-0123456789"}',
        "claude-code-mux's map": b'{"anthropic": {"access_token": "sk-ant-oat01-map-0123456789",'
        b' "refresh_token": "sk-ant-ort01-map-0123456789", "expires_at": "2026-09-21T14:13:20+00:00"}}',
        "setup token": Claude(Claude.Settings()).setup_token_file("sk-ant-oat01-setup-token-0123456789"),
        "bare setup token": b"sk-ant-oat01-bare-setup-token-0123456789\n",
        "API key": b'{"api_key": "sk-ant-api03-0123456789"}',
        "bare API key": b"sk-ant-api03-bare-0123456789",
    }
    answers = ANTHROPIC_ANSWERS
    limit_headers = [*UNIFIED, "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"]


class TestChatGPT(ProviderContract):
    provider = ChatGPT
    credentials = {
        "Codex's login": samples.CODEX_LOGIN,
        "ai-mux's flat form": samples.AI_MUX_FLAT,
        "Codex's API key": b'{"OPENAI_API_KEY": "sk-proj-0123456789", "tokens": null}',
        "both, with a mode": b'{"auth_mode": "apikey", "OPENAI_API_KEY": "sk-proj-0123456789",'
        b' "tokens": {"access_token": "opaque-0123456789"}}',
        "API key": b'{"api_key": "sk-proj-0123456789"}',
        "bare API key": b"sk-proj-bare-0123456789\n",
        "one entry of a map": b'{"openai": {"access_token": "opaque-map-0123456789", "refresh_token": "r-0123456789",'
        b' "expires_at": 1790000000}}',
    }
    refresh_answer = {
        "id_token": samples.CHATGPT_ID,
        "access_token": samples.jwt({"iss": "https://auth.openai.com", "exp": 1_791_000_000, "n": 2}),
        "refresh_token": "rt_second-refresh-token-0123456789",
    }
    refresh_refusals = [
        reply({"error": {"code": "refresh_token_reused", "message": "…", "type": "invalid_request_error"}}, status=401),
        reply({"error": {"code": "refresh_token_expired"}}, status=400),
        reply({"error": {"code": "refresh_token_invalidated"}}, status=400),
        reply({"error": "invalid_grant"}, status=400),
        reply({"detail": "Unauthorized"}, status=401),
    ]
    answers = OPENAI_ANSWERS
    limit_headers = [*CODEX, "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]


class TestCompatibleWithOpenAI(ProviderContract):
    provider = Compatible
    settings = {"base_url": "https://openrouter.example/api/v1"}
    credentials = {"API key": b'{"api_key": "or-0123456789"}', "bare API key": b"or-0123456789\n"}
    answers = [
        *OPENAI_ANSWERS,
        SampleAnswer("POST", "/v1/messages", samples.MESSAGE, MESSAGE_USAGE),
        SampleAnswer("POST", "/v1//Messages/", samples.MESSAGE_STREAM, MESSAGE_USAGE, EVENTS),
        SampleAnswer("POST", "/v1/threads/thread_1/messages", b'{"id": "msg_1", "object": "thread.message"}'),
    ]


class TestCompatibleWithAnthropic(ProviderContract):
    provider = Compatible
    settings = {"base_url": "https://kimi.example/anthropic", "format": "anthropic"}
    credentials = {"API key": b'{"api_key": "kimi-0123456789"}', "bare API key": b"kimi-0123456789\n"}
    answers = [
        *ANTHROPIC_ANSWERS,
        SampleAnswer("POST", "/v1/chat/completions", samples.CHAT_STREAM, OPENAI_USAGE, EVENTS),
        SampleAnswer("POST", "/v1/responses", samples.RESPONSE, OPENAI_USAGE),
    ]
