"""What the load generator sends and the upstream answers: the sizes of a small request and of a Claude Code turn."""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import Any

EVENTS = 300
"""Events of a real turn."""
FEW_EVENTS = 10
"""Events of the turn that is subtracted to get the cost of one event."""
TICK = 0.004
"""Seconds between two events of a stream. All streams tick together, so that a proxy finds several ready at once."""

SMALL_IN, SMALL_OUT = 4 * 1024, 1024
TURN_IN = 60 * 1024

KINDS = ("small", "turn", "short", "hold")

USER_TOKEN = "bench-user-token-0123456789"
ACCOUNT_TOKEN = "sk-ant-oat01-bench-only-not-a-secret-0"
CREDENTIAL, SWAPPED = "x-bench-credential", "the account's credential"
"""The upstream's answers to `check` tell in this header whose credential it got."""

_HEAD = (
    "user-agent: claude-cli/2.1.0 (external, cli)\r\n"
    "accept: application/json\r\n"
    "content-type: application/json\r\n"
    "anthropic-version: 2023-06-01\r\n"
    "anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14\r\n"
    "anthropic-dangerous-direct-browser-access: true\r\n"
    "x-app: cli\r\n"
    "x-claude-code-session-id: 0b9f7a52-5a0e-4c53-9d37-6f0e7d1c2b3a\r\n"
    "x-stainless-arch: x64\r\nx-stainless-lang: js\r\nx-stainless-os: Linux\r\nx-stainless-package-version: 0.60.0\r\n"
    "x-stainless-retry-count: 0\r\nx-stainless-runtime: node\r\nx-stainless-runtime-version: v22.11.0\r\n"
    "x-stainless-timeout: 600\r\n"
    "accept-language: *\r\nsec-fetch-mode: cors\r\naccept-encoding: gzip, deflate\r\n"
)


def request(kind: str, prefix: str, number: int = 0, *, token: str = USER_TOKEN) -> bytes:
    """A whole request as Claude Code sends it. `number` makes it a conversation of its own."""
    whole = kind in {"small", "check"}
    size = SMALL_IN if whole else TURN_IN
    body = {"model": "claude-sonnet-4-5", "max_tokens": 4096, "stream": not whole}
    body["metadata"] = {"user_id": f"user_bench_session_{number}"}
    body["messages"] = [{"role": "user", "content": ""}]
    filler = "the quick brown fox jumps over the lazy dog; " * (size // 40)
    body["messages"] = [{"role": "user", "content": filler[: size - len(json.dumps(body))]}]
    raw = json.dumps(body).encode()
    return (
        f"POST {prefix}/v1/messages?bench={kind} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: keep-alive\r\n"
        f"authorization: Bearer {token}\r\n{_HEAD}content-length: {len(raw)}\r\n\r\n"
    ).encode() + raw


_ANSWER_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Type: %b\r\n%bConnection: keep-alive\r\n"
    b"anthropic-ratelimit-unified-status: allowed\r\nanthropic-ratelimit-unified-5h-status: allowed\r\n"
    b"anthropic-ratelimit-unified-5h-reset: %d\r\nanthropic-ratelimit-unified-5h-utilization: 0.%04d\r\n"
    b"anthropic-ratelimit-unified-7d-status: allowed\r\nanthropic-ratelimit-unified-7d-reset: %d\r\n"
    b"anthropic-ratelimit-unified-7d-utilization: 0.%04d\r\n"
    b"anthropic-ratelimit-unified-representative-claim: five_hour\r\n"
    b"anthropic-ratelimit-unified-fallback-percentage: 0.5\r\nanthropic-ratelimit-unified-reset: %d\r\n"
    b"anthropic-ratelimit-unified-overage-disabled-reason: org_level_disabled\r\n"
    b"anthropic-ratelimit-unified-overage-status: rejected\r\n"
    b"request-id: req_011%021x\r\nanthropic-organization-id: 5c9a6f3e-7d5e-4f0e-8f57-3a1c5d0b6e21\r\n"
    b"x-envoy-upstream-service-time: %d\r\nvia: 1.1 google\r\ncf-cache-status: DYNAMIC\r\n"
    b"Server: cloudflare\r\nCF-RAY: %016x-FRA\r\n\r\n"
)
_MIXED = 0x9E3779B97F4A7C15
"""Odd, with its bits mixed: what is multiplied by it looks like a random id, and is the same in each run."""
_NO_ID = "msg_011" + 21 * "0"


def credential_line(request: bytes) -> bytes:
    """The header line that tells whose credential a request's head has."""
    got = request.lower()
    if f"bearer {ACCOUNT_TOKEN}".encode() in got:
        whose = SWAPPED if USER_TOKEN.encode() not in got else "both credentials"
    else:
        whose = "the user's token" if USER_TOKEN.encode() in got else ""
    return f"{CREDENTIAL}: {whose}\r\n".encode()


def answer_head(kind: str, number: int, now: int) -> bytes:
    """The head of the upstream's answer `number` at `now` (unix seconds): its ids, times and limits are its own.

    What repeats in real answers repeats here, and nothing else does: a proxy that remembers lines gains what it would.
    """
    content_type, framing = b"text/event-stream; charset=utf-8", b"Transfer-Encoding: chunked\r\n"
    if kind in {"small", "check"}:
        content_type, framing = b"application/json", b"Content-Length: %d\r\n" % SMALL_OUT
    mixed = number * _MIXED & 0xFFFFFFFFFFFFFFFF
    five_hours, seven_days = now - now % 18000 + 18000, now - now % 604800 + 604800
    used, used_7d = 1000 + number // 4 % 9000, 1000 + number // 64 % 9000
    return _ANSWER_HEAD % (
        formatdate(now, usegmt=True).encode(),
        content_type,
        framing,
        five_hours,
        used,
        seven_days,
        used_7d,
        five_hours,
        mixed,
        100 + mixed % 900,
        mixed,
    )


def _message(text: str) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5-20250929",
        "id": _NO_ID,
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 25,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 15000,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 290,
            "service_tier": "standard",
        },
    }


def small_answer(number: int, now: int) -> bytes:
    """A whole answer that is not streamed."""
    return answer_head("small", number, now) + _SMALL_BODY.replace(_NO_ID.encode(), b"msg_011%021x" % number)


_SMALL_BODY = json.dumps(_message("x" * (SMALL_OUT - len(json.dumps(_message("")))))).encode()


def stream_payload(events: int) -> bytes:
    """What a client gets of a stream."""
    return b"".join(_events(events))


def stream_chunks(events: int) -> list[bytes]:
    """The events, each in its own HTTP chunk; the last one brings the end of the body along."""
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in _events(events)]
    chunks[-1] += b"0\r\n\r\n"
    return chunks


def _events(events: int) -> list[bytes]:
    start = dict(_message(""), content=[], stop_reason=None)
    delta = {"type": "text_delta", "text": " of the words that"}
    data: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[{"type": "content_block_delta", "index": 0, "delta": delta}] * (events - 5),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 290}},
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in data]
