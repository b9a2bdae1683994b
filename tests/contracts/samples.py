"""Credentials and answers as the vendors make them, all values made up."""

from __future__ import annotations

import base64
import json
from typing import Any


def jwt(claims: dict[str, Any]) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


def sse(*events: dict[str, Any] | str, named: bool = True) -> bytes:
    """A stream of events, with `event:` lines as Anthropic and Responses have them, or without, as Chat has none."""
    lines = []
    for event in events:
        if isinstance(event, str):
            lines.append(f"data: {event}\n\n")
        else:
            name = f"event: {event['type']}\n" if named else ""
            lines.append(f"{name}data: {json.dumps(event, separators=(',', ':'), ensure_ascii=False)}\n\n")
    return "".join(lines).encode()


# --- Anthropic -------------------------------------------------------------------------------------------------------

CLAUDE_CODE_LOGIN = json.dumps(
    {
        "claudeAiOauth": {
            "accessToken": "sk-ant-oat01-first-access-token-0123456789",
            "refreshToken": "sk-ant-ort01-first-refresh-token-0123456789",
            "expiresAt": 1_790_000_000_000,
            "refreshTokenExpiresAt": 1_799_000_000_000,
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
            "isMax": True,
            "rateLimitTier": "default_claude_max_20x",
            "accountUuid": "11111111-1111-4111-8111-111111111111",
            "organizationUuid": "22222222-2222-4222-8222-222222222222",
        },
        "mcpOAuth": {"linear|0123": {"accessToken": "mcp-token", "expiresAt": 1}},
    }
).encode()

CLAUDE_FLAT_CAMEL = json.dumps(
    {
        "accessToken": "sk-ant-oat01-flat-access-token-0123456789",
        "refreshToken": "sk-ant-ort01-flat-refresh-token-0123456789",
        "expiresAt": 1_790_000_000_000,
    },
    indent=2,
).encode()

CLAUDE_FLAT_SNAKE = json.dumps(
    {
        "access_token": "sk-ant-oat01-snake-access-token-0123456789",
        "refresh_token": "sk-ant-ort01-snake-refresh-token-0123456789",
        "expires_at": "2026-09-21T14:13:20Z",
    }
).encode()

MESSAGE_USAGE = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 3000,
    "cache_read_input_tokens": 20000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000},
    "output_tokens": 1,
    "service_tier": "standard",
}

MESSAGE_STREAM = sse(
    {
        "type": "message_start",
        "message": {
            "id": "msg_01",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [],
            "stop_reason": None,
            "usage": MESSAGE_USAGE,
        },
    },
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 'He said "usage" – ünïcode'}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": '{"type":"message_stop"}'}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 42},
    },
    {"type": "message_stop"},
)

MESSAGE = json.dumps(
    {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {**MESSAGE_USAGE, "output_tokens": 42},
    }
).encode()

# --- OpenAI ----------------------------------------------------------------------------------------------------------

CHATGPT_CLAIMS = {
    "chatgpt_account_id": "33333333-3333-4333-8333-333333333333",
    "chatgpt_plan_type": "pro",
    "chatgpt_user_id": "user-ada",
    "organizations": [{"id": "org-ada", "is_default": True}],
}
CHATGPT_ACCESS = jwt({"iss": "https://auth.openai.com", "exp": 1_790_000_000, "n": 1})
CHATGPT_ID = jwt({"email": "ada@example.com", "https://api.openai.com/auth": CHATGPT_CLAIMS})

CODEX_LOGIN = json.dumps(
    {
        "OPENAI_API_KEY": None,
        "tokens": {
            "id_token": CHATGPT_ID,
            "access_token": CHATGPT_ACCESS,
            "refresh_token": "rt_first-refresh-token-0123456789",
            "account_id": "33333333-3333-4333-8333-333333333333",
            "oauth_provenance": "login",
        },
        "last_refresh": "2026-09-11T14:13:20.123456789Z",
    },
    indent=2,
).encode()

AI_MUX_FLAT = json.dumps(
    {
        "access_token": "opaque-flat-access-token-0123456789",
        "refresh_token": "rt_flat-refresh-token-0123456789",
        "expires_at": "2026-09-21T14:13:20Z",
        "account_id": "33333333-3333-4333-8333-333333333333",
    }
).encode()

RESPONSE_USAGE = {
    "input_tokens": 23000,
    "input_tokens_details": {"cached_tokens": 20000},
    "output_tokens": 420,
    "output_tokens_details": {"reasoning_tokens": 128},
    "total_tokens": 23420,
}


def _response(status: str, usage: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "id": "resp_01",
        "object": "response",
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": 'Be brief. "usage" and "response.completed" are words.',
        "model": "gpt-5.5",
        "output": [],
        "tools": [{"type": "function", "name": "shell", "parameters": {"enum": ["error", "warn"]}}],
        "usage": usage,
    }


RESPONSE_STREAM = sse(
    {"type": "response.created", "sequence_number": 0, "response": _response("in_progress")},
    {"type": "response.in_progress", "sequence_number": 1, "response": _response("in_progress")},
    {"type": "response.output_item.added", "sequence_number": 2, "output_index": 0, "item": {"type": "message"}},
    {"type": "response.output_text.delta", "sequence_number": 3, "delta": 'a "usage" – ü'},
    {"type": "response.output_text.delta", "sequence_number": 4, "delta": '{"type":"response.completed"}'},
    {"type": "response.completed", "sequence_number": 5, "response": _response("completed", RESPONSE_USAGE)},
)
RESPONSE = json.dumps(_response("completed", RESPONSE_USAGE)).encode()

CHAT_USAGE = {
    "prompt_tokens": 23000,
    "completion_tokens": 420,
    "total_tokens": 23420,
    "prompt_tokens_details": {"cached_tokens": 20000, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 128},
}


def _chunk(usage: dict[str, Any] | None = None, **choice: Any) -> dict[str, Any]:
    choices = [{"index": 0, "logprobs": None, "finish_reason": None, **choice}] if choice else []
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "gpt-5.5",
        "choices": choices,
        "usage": usage,
    }


CHAT_STREAM = sse(
    _chunk(delta={"role": "assistant", "content": ""}),
    _chunk(delta={"content": 'a "usage":{} and [DONE] ü'}),
    _chunk(delta={}, finish_reason="stop"),
    _chunk(CHAT_USAGE),
    "[DONE]",
    named=False,
)
CHAT_STREAM_WITHOUT_USAGE = sse(
    _chunk(delta={"role": "assistant", "content": "hi"}), _chunk(delta={}, finish_reason="stop"), "[DONE]", named=False
)
CHAT = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-5.5",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": CHAT_USAGE,
    }
).encode()
