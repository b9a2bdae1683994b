"""Streams that are cut off after some words."""

from __future__ import annotations

import json
from typing import Any

from aimux.metering.record import RequestRecord
from aimux.plugin.meters import Meter

WORDS = ["Grüße ", "the quick", " brown\n", '"fox" ', "jumps"] * 60
TEXT = sum(len(json.dumps(word, ensure_ascii=False).encode()) - 2 for word in WORDS)
"""Bytes as they are sent: some are escaped."""


def sse(*events: dict[str, Any], named: bool = True) -> bytes:
    lines = []
    for event in events:
        name = f"event: {event['type']}\n".encode() if named else b""
        lines.append(b"%bdata: %b\n\n" % (name, json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()))
    return b"".join(lines)


START = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}}
DELTAS = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS]
STOP: dict[str, Any] = {"type": "message_stop"}
END = [{"type": "message_delta", "delta": {}, "usage": {"output_tokens": 500}}, STOP]
MESSAGES = sse(
    START, {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, *DELTAS
)
RESPONSES = sse(
    {"type": "response.created", "response": {"instructions": "x" * 40_000, "usage": None}},
    *[{"type": "response.output_text.delta", "item_id": "i", "delta": word} for word in WORDS],
)
CHAT = sse(
    *[
        {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None}
        for delta in ({"role": "assistant", "content": ""}, *[{"content": word} for word in WORDS])
    ],
    named=False,
)


def record(**changes: Any) -> RequestRecord:
    return RequestRecord("own", 0.0, "POST", "/", provider="p", model="m", status=200, bytes_in=4000, **changes)


def fed(meter: Meter, payload: bytes, size: int = 1500) -> Meter:
    for start in range(0, len(payload), size):
        meter.feed(payload[start : start + size])
    return meter
