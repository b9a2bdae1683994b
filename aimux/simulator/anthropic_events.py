"""The Messages API's bodies: one message, or the event sequence that adds up to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.simulator.answers import sse

if TYPE_CHECKING:
    from aimux.simulator.replies import Reply

FRAME = 6
"""A stream's events without text: start of message and block, ping, end of block, message_delta, message_stop."""


def usage(reply: Reply) -> dict[str, Any]:
    """`input_tokens` excludes what was cached, as the vendor's does."""
    hour = reply.cache_write // 4
    return {
        "input_tokens": reply.fresh,
        "cache_creation_input_tokens": reply.cache_write,
        "cache_read_input_tokens": reply.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": reply.cache_write - hour, "ephemeral_1h_input_tokens": hour},
        "output_tokens": reply.output,
        "service_tier": "standard",
    }


def message(reply: Reply, model: str, message_id: str) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "text", "text": reply.text}
    if reply.tool:
        tool_id = "toolu_" + message_id.removeprefix("msg_")
        content = {"type": "tool_use", "id": tool_id, "name": reply.tool.name, "input": reply.tool.arguments}
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [content],
        "stop_reason": "tool_use" if reply.tool else "end_turn",
        "stop_sequence": None,
        "usage": usage(reply),
    }


def stream(reply: Reply, model: str, message_id: str) -> list[bytes]:
    """The events of a healthy stream, one each."""
    whole = message(reply, model, message_id)
    start = whole | {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 1}}
    block: dict[str, Any] = {"type": "text", "text": ""}
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": piece} for piece in reply.pieces]
    if reply.tool:
        block = whole["content"][0] | {"input": {}}
        text = reply.tool.json()
        parts = ("", text[: len(text) // 2], text[len(text) // 2 :])
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
    # The last event repeats the input's tokens, and is the one whose output tokens count.
    final = {key: value for key, value in whole["usage"].items() if key.endswith("_tokens")}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
            "usage": final,
        },
        {"type": "message_stop"},
    ]
    return [sse(event) for event in events]


def overloaded(events: list[bytes], after: int, request_id: str) -> list[bytes]:
    """An overload inside a 200: at the very beginning, or after `after` events."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": request_id}
    return [*events[:after], sse(error)]
