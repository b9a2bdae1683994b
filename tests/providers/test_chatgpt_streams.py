"""What a stream of ChatGPT's or OpenAI's says: whether it is an answer, what it took, and whether it is whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from aimux.plugin import Action, ErrorKind, GatewayError, RequestHead
from aimux_chatgpt import ChatGPT
from tests.contracts import samples

RESPONSES = RequestHead("POST", "/v1/responses", CIMultiDict())
CHAT = RequestHead("POST", "/v1/chat/completions", CIMultiDict())
EVENTS = CIMultiDict({"content-type": "text/event-stream"})
START = samples.RESPONSE_STREAM[: samples.RESPONSE_STREAM.index(b"event: response.output_item.added")]


def failed(code: str, **more: Any) -> bytes:
    return samples.sse({"type": "response.failed", "response": {"status": "failed", "error": {"code": code, **more}}})


def chat(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], "usage": None}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def chat_error(**error: Any) -> bytes:
    return b"data: " + json.dumps({"error": {"message": "…", **error}}).encode() + b"\n\n"


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(
    ("payload", "verdict"),
    [
        (b"", None),
        (START, None),
        (START + b"event: codex.rate_limits\ndata: {}\n\n", None),
        (START + samples.sse({"type": "codex.response.metadata", "headers": {}}), None),
        (START + failed("server_is_overloaded")[:-1], None),
        (START + failed("server_is_overloaded"), Action.BACK_OFF),
        (START + failed("slow_down"), Action.BACK_OFF),
        (START + failed("rate_limit_exceeded"), Action.BACK_OFF),
        (START + failed("usage_limit_reached", resets_in_seconds=60), Action.COOL_DOWN),
        (START + failed("context_length_exceeded"), Action.RELAY),
        (samples.sse({"type": "error", "code": "server_is_overloaded", "message": "…"}), Action.BACK_OFF),
        (samples.sse({"type": "error", "error": {"code": "server_is_overloaded"}}), Action.BACK_OFF),
        (samples.sse({"type": "error", "error": {"type": "service_unavailable_error"}}), Action.BACK_OFF),
        (samples.sse({"type": "error", "error": {"type": "server_error"}}, named=False), Action.BACK_OFF),
        (samples.CHAT_STREAM, Action.RELAY),
        (b'data: {"error": {"type": "server_error", "message": "overloaded"}}\n\n', Action.BACK_OFF),
        (START + samples.sse({"type": "response.output_item.added"}), Action.RELAY),
        (chat({"role": "assistant", "content": ""}), None),
        (b'data: {"choices": [], "prompt_filter_results": []}\n\n' + chat({"role": "assistant"}), None),
        (chat({"role": "assistant", "content": ""}) + chat({"content": "hi"}), Action.RELAY),
        (chat({"role": "assistant", "content": None, "reasoning_content": "hm"}), Action.RELAY),
        (chat({"role": "assistant", "tool_calls": [{"index": 0}]}), Action.RELAY),
        (chat({}, finish_reason="stop"), Action.RELAY),
        (chat({"role": "assistant"}) + chat_error(type="server_error"), Action.BACK_OFF),
        (chat({"role": "assistant"}) + chat_error(type="InternalServerError", code=500), Action.BACK_OFF),
        (chat_error(code=502), Action.BACK_OFF),
        (chat_error(code=400), Action.RELAY),
        (chat_error(code=True), Action.RELAY),
        (b'data: {"choices": [7]}\n\n', Action.RELAY),
    ],
)
def test_an_overload_inside_a_200_is_told_from_content(
    chatgpt: ChatGPT, payload: bytes, verdict: Action | None
) -> None:
    found = chatgpt.opening(CIMultiDict(), payload)
    assert (found.action if found else None) is verdict


def test_cached_tokens_are_taken_out_of_the_input(chatgpt: ChatGPT) -> None:
    """new-api#3258: cache tokens were counted wrong. OpenAI's input includes them."""
    meter = chatgpt.meter(RESPONSES, 200, EVENTS)
    assert meter is not None
    meter.feed(samples.RESPONSE_STREAM)
    usage = meter.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.total_input) == (3000, 20000, 23000)


def test_codex_hangs_up_after_the_last_event_and_all_is_counted(chatgpt: ChatGPT) -> None:
    """Codex closes before the body's end: its usage must not be lost."""
    meter = chatgpt.meter(RESPONSES, 200, EVENTS)
    assert meter is not None
    meter.feed(samples.RESPONSE_STREAM.rstrip(b"\n") + b"\n")
    assert meter.complete
    assert meter.usage.output_tokens == 420


@pytest.mark.parametrize("kind", ["response.failed", "response.incomplete"])
def test_an_answer_that_failed_or_was_cut_by_its_limits_is_complete(chatgpt: ChatGPT, kind: str) -> None:
    meter = chatgpt.meter(RESPONSES, 200, EVENTS)
    assert meter is not None
    meter.feed(samples.sse({"type": kind, "response": {"usage": {"input_tokens": 3, "output_tokens": 2}}}))
    assert meter.complete
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (3, 2)


def test_the_long_first_events_are_not_parsed(chatgpt: ChatGPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """They repeat instructions and tools: 50 kB of JSON, twice."""
    meter = chatgpt.meter(RESPONSES, 200, EVENTS)
    assert meter is not None
    monkeypatch.setattr(type(meter), "read", lambda *_: pytest.fail("parsed"))
    meter.feed(START.replace(b'"error","warn"', b'"warn"'))


def test_a_stream_without_its_end_is_told_in_the_protocols_own_event(chatgpt: ChatGPT) -> None:
    """CLIProxyAPI#3996."""
    error = GatewayError(ErrorKind.BAD_GATEWAY, "the upstream broke off")
    name, data, *_ = chatgpt.stream_error(error, RESPONSES).split(b"\n")
    event = json.loads(data.removeprefix(b"data: "))
    assert name == b"event: response.failed"
    assert (event["type"], event["response"]["status"]) == ("response.failed", "failed")
    assert event["response"]["error"] == {"code": "bad_gateway", "message": "the upstream broke off"}
    data = chatgpt.stream_error(error, CHAT)
    assert json.loads(data.removeprefix(b"data: "))["error"]["message"] == "the upstream broke off"
