"""The bodies of the Responses and Chat Completions APIs, whole and as event sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.simulator.answers import dumps, sse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimux.simulator.replies import Reply

RESPONSES_FRAME = 8
CHAT_FRAME = 3
OVERLOADED = "Our servers are currently overloaded. Please try again later."


def usage(reply: Reply, *, reasoning: bool) -> dict[str, Any]:
    """`input_tokens` includes what was cached, `output_tokens` what was spent on reasoning, as the vendor's do."""
    thought = 64 if reasoning else 0
    return {
        "input_tokens": reply.total_input,
        "input_tokens_details": {"cached_tokens": reply.cache_read, "cache_write_tokens": 0},
        "output_tokens": reply.output + thought,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": reply.total_input + reply.output + thought,
    }


def _item(reply: Reply, serial: str) -> dict[str, Any]:
    if reply.tool:
        return {
            "type": "function_call",
            "id": f"fc_{serial}",
            "call_id": f"call_{serial[:24]}",
            "name": reply.tool.name,
            "arguments": reply.tool.json(),
            "status": "completed",
        }
    text = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": f"msg_{serial}", "role": "assistant", "status": "completed", "content": [text]}


def response(reply: Reply, request: dict[str, Any], serial: str, now: float) -> dict[str, Any]:
    """A completed response object."""
    return {
        "id": f"resp_{serial}",
        "object": "response",
        "created_at": int(now),
        "status": "completed",
        "background": request.get("background") is True,
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "model": request.get("model", ""),
        "output": [_item(reply, serial)],
        "parallel_tool_calls": request.get("parallel_tool_calls", True),
        "previous_response_id": request.get("previous_response_id"),
        "prompt_cache_key": request.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None} | (request.get("reasoning") or {}),
        "service_tier": "default",
        "store": request.get("store", True),
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": request.get("tool_choice", "auto"),
        "tools": request.get("tools", []),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage(reply, reasoning=bool(request.get("reasoning"))),
        "metadata": {},
    }


def begun(whole: dict[str, Any], status: str) -> dict[str, Any]:
    """The same before there is any output."""
    return whole | {"status": status, "output": [], "usage": None}


def responses_events(reply: Reply, request: dict[str, Any], serial: str, now: float) -> list[dict[str, Any]]:
    """The event sequence of a healthy response, numbered."""
    whole = response(reply, request, serial, now)
    started = begun(whole, "in_progress")
    item = whole["output"][0]
    where = {"item_id": item["id"], "output_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
    ]
    added = {"type": "response.output_item.added", "output_index": 0}
    if reply.tool:
        arguments = item["arguments"]
        name = "response.function_call_arguments"
        events += [
            added | {"item": item | {"status": "in_progress", "arguments": ""}},
            {"type": f"{name}.delta", **where, "delta": arguments},
            {"type": f"{name}.done", **where, "arguments": arguments, "name": item["name"]},
        ]
    else:
        where["content_index"] = 0
        part = item["content"][0]
        events += [
            added | {"item": item | {"status": "in_progress", "content": []}},
            {"type": "response.content_part.added", **where, "part": part | {"text": ""}},
            *({"type": "response.output_text.delta", **where, "delta": p, "logprobs": []} for p in reply.pieces),
            {"type": "response.output_text.done", **where, "text": reply.text, "logprobs": []},
            {"type": "response.content_part.done", **where, "part": part},
        ]
    events += [
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return number(events)


def number(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event | {"sequence_number": at} for at, event in enumerate(events)]


def overloaded(events: list[dict[str, Any]], after: int, *, bare: bool) -> list[dict[str, Any]]:
    """`response.created`, `after` more events, then the failure: `response.failed`, or a bare `error` event."""
    begun = events[: 1 + after]
    error: dict[str, Any] = {"code": "server_is_overloaded", "message": OVERLOADED}
    if bare:
        error |= {"type": "service_unavailable_error", "param": None}
        return number([*begun, {"type": "error", "error": error}])
    failed = events[0]["response"] | {"status": "failed", "error": error}
    return number([*begun, {"type": "response.failed", "response": failed}])


def chat_usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.total_input,
        "completion_tokens": reply.output,
        "total_tokens": reply.total_input + reply.output,
        "prompt_tokens_details": {"cached_tokens": reply.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _tool_call(reply: Reply, serial: str) -> dict[str, Any]:
    assert reply.tool is not None
    function = {"name": reply.tool.name, "arguments": reply.tool.json()}
    return {"id": f"call_{serial[:24]}", "type": "function", "function": function}


def chat_completion(reply: Reply, model: str, serial: str, now: float) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
    if reply.tool:
        message |= {"content": None, "tool_calls": [_tool_call(reply, serial)]}
    reason = "tool_calls" if reply.tool else "stop"
    return {
        "id": f"chatcmpl-{serial[:29]}",
        "object": "chat.completion",
        "created": int(now),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": chat_usage(reply),
        "service_tier": "default",
        "system_fingerprint": "fp_simulator",
    }


def chat_stream(reply: Reply, model: str, serial: str, now: float, *, include_usage: bool) -> list[bytes]:
    """The chunks of a healthy stream, including `[DONE]`; the last one with the usage if the client asked for it."""
    whole = chat_completion(reply, model, serial, now)
    base = {key: whole[key] for key in ("id", "created", "model", "service_tier", "system_fingerprint")}
    base["object"] = "chat.completion.chunk"
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    if reply.tool:
        deltas.append({"tool_calls": [{"index": 0, **_tool_call(reply, serial)}]})
    else:
        deltas += [{"content": piece} for piece in reply.pieces]
    reason = whole["choices"][0]["finish_reason"]
    chunks = [base | {"choices": [{"index": 0, "delta": d, "logprobs": None, "finish_reason": None}]} for d in deltas]
    chunks.append(base | {"choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}]})
    if include_usage:
        chunks = [chunk | {"usage": None} for chunk in chunks]
        chunks.append(base | {"choices": [], "usage": whole["usage"]})
    return [*(b"data: " + dumps(chunk) + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def sse_stream(events: list[dict[str, Any]]) -> list[bytes]:
    return [sse(event) for event in events]
