"""What a stream of Anthropic's says: whether it is an answer, what it took, and whether it is whole."""

from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from aimux.gateway.meter_feed import MeterFeed
from aimux.plugin import Action, ErrorKind, GatewayError, RequestHead
from aimux_claude import Claude
from tests.contracts import samples

START = samples.MESSAGE_STREAM[: samples.MESSAGE_STREAM.index(b"event: content_block_start")]


@pytest.mark.parametrize(
    ("payload", "action"),
    [
        (b"", None),
        (START, None),
        (START[:-1], None),
        (b": keep-alive\n\n" + START, None),
        (START + b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"', None),
        (START + samples.sse({"type": "error", "error": {"type": "overloaded_error", "message": ""}}), Action.BACK_OFF),
        (samples.sse({"type": "error", "error": {"type": "api_error", "message": ""}}), Action.BACK_OFF),
        (samples.sse({"type": "error", "error": {"type": "invalid_request_error", "message": ""}}), Action.RELAY),
        (START + samples.sse({"type": "content_block_start", "index": 0}), Action.RELAY),
        (b"event: error\ndata: what\n\n", Action.RELAY),
    ],
)
def test_an_overload_inside_a_200_is_told_from_content(claude: Claude, payload: bytes, action: Action | None) -> None:
    verdict = claude.opening(CIMultiDict(), payload)
    assert (verdict.action if verdict else None) is action


def test_a_stream_without_its_end_is_told_in_the_protocols_own_event(claude: Claude) -> None:
    """CLIProxyAPI#3996."""
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    meter = claude.meter(head, 200, CIMultiDict({"content-type": "text/event-stream"}))
    assert meter is not None
    meter.feed(samples.MESSAGE_STREAM[: samples.MESSAGE_STREAM.index(b"event: message_stop")])
    meter.end()
    assert not meter.complete
    event = claude.stream_error(GatewayError(ErrorKind.BAD_GATEWAY, "the upstream broke off"), head)
    name, data, *rest = event.split(b"\n")
    assert (name, rest) == (b"event: error", [b"", b""])
    assert json.loads(data.removeprefix(b"data: "))["error"] == {
        "type": "api_error",
        "message": "the upstream broke off",
    }


def test_a_stream_that_ends_with_the_upstreams_own_error_is_complete(claude: Claude) -> None:
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    meter = claude.meter(head, 200, CIMultiDict({"content-type": "text/event-stream"}))
    assert meter is not None
    meter.feed(START + samples.sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}))
    assert meter.complete


def test_the_placeholder_of_an_interrupted_stream_is_no_output(claude: Claude) -> None:
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    meter = claude.meter(head, 200, CIMultiDict({"content-type": "text/event-stream"}))
    assert meter is not None
    usage = {"input_tokens": 7, "output_tokens": 1}
    meter.feed(b"data: " + json.dumps({"type": "message_start", "message": {"usage": usage}}).encode() + b"\n\n")
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (7, 0)
    meter.feed(b'data: {"type":"message_delta","usage":{"output_tokens":1}}\n\n')
    assert meter.usage.output_tokens == 1, "unless that is what it was in the end"


def test_cache_tokens_are_counted_beside_the_input(claude: Claude) -> None:
    """new-api#3258: they were counted wrong."""
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    meter = claude.meter(head, 200, CIMultiDict({"content-type": "application/json"}))
    assert meter is not None
    meter.feed(samples.MESSAGE)
    meter.end()
    assert (meter.usage.input_tokens, meter.usage.total_input) == (12, 23012)
    assert (meter.usage.cache_write_tokens, meter.usage.cache_write_1h_tokens) == (3000, 2000)


def test_what_a_key_is_asked_in_openais_form_counts(claude: Claude) -> None:
    """Anthropic has a layer for OpenAI's SDKs, at the same address."""
    head = RequestHead("POST", "/v1/chat/completions", CIMultiDict())
    meter = claude.meter(head, 200, CIMultiDict({"content-type": "application/json"}))
    assert meter is not None
    meter.feed(samples.CHAT)
    meter.end()
    usage = meter.usage
    assert usage.total_input == samples.CHAT_USAGE["prompt_tokens"]
    assert usage.output_tokens == samples.CHAT_USAGE["completion_tokens"]


def test_a_stream_that_says_why_it_stops_is_an_answer_without_its_last_event(claude: Claude) -> None:
    """As some compatible servers end (esengine/DeepSeek-Reasonix#8756); Claude Code takes it for one."""
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    stop = samples.MESSAGE_STREAM.index(b"event: message_stop")
    before = samples.MESSAGE_STREAM.index(b"event: message_delta")
    for end, answered, whole in ((stop, True, True), (stop + 40, True, False), (before, False, False)):
        meter = claude.meter(head, 200, CIMultiDict({"content-type": "text/event-stream"}))
        assert meter is not None
        feed = MeterFeed(meter, "", "claude")
        feed.pending.append(samples.MESSAGE_STREAM[:end])
        feed.end()
        assert (meter.answered, feed.truncated, feed.whole) == (answered, not whole, False)
