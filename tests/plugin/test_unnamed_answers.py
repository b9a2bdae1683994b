"""Answers that are called something else than what they are: clients read them, so they count."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from multidict import CIMultiDict

from aimux.gateway.meter_feed import MeterFeed
from aimux.plugin import Meter, RequestHead
from aimux.plugin.formats import anthropic, openai
from tests.contracts import samples

ANSWERS = {
    "/v1/messages": (samples.MESSAGE_STREAM, samples.MESSAGE),
    "/v1/responses": (samples.RESPONSE_STREAM, samples.RESPONSE),
    "/v1/chat/completions": (samples.CHAT_STREAM, samples.CHAT),
}
KINDS = ["text/plain; charset=utf-8", "text/html", "application/octet-stream", ""]


def meter_of(path: str, kind: str) -> Meter:
    make: Callable[[RequestHead, int, CIMultiDict[str]], Meter | None]
    make = anthropic.meter if path == "/v1/messages" else openai.meter
    meter = make(RequestHead("POST", path, CIMultiDict()), 200, CIMultiDict({"content-type": kind}))
    assert meter is not None
    return meter


def fed(path: str, kind: str, answer: bytes, size: int = 1000) -> tuple[Meter, MeterFeed]:
    meter = meter_of(path, kind)
    feed = MeterFeed(meter, "", "acme")
    for start in range(0, len(answer), size):
        feed.pending.append(answer[start : start + size])
        feed.flush()
    feed.end()
    return meter, feed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("size", [1, 1000])
def test_it_counts_as_what_it_is(path: str, kind: str, streamed: bool, size: int) -> None:
    answer = ANSWERS[path][0 if streamed else 1]
    named, _ = fed(path, "text/event-stream" if streamed else "application/json", answer)
    meter, feed = fed(path, kind, b" \n" + answer if not streamed else answer, size)
    assert meter.usage == named.usage
    assert meter.usage.total_input
    assert meter.stored == named.stored
    assert not feed.truncated


@pytest.mark.parametrize("path", ANSWERS)
def test_a_stream_that_is_cut_short_is_known_for_it(path: str) -> None:
    stream = ANSWERS[path][0]
    _, feed = fed(path, "text/plain", stream[: stream.rfind(b"data:", 0, len(stream) // 2)])
    assert feed.truncated


@pytest.mark.parametrize("answer", [b"", b"<html><p>data: {}</html>", b"Bad gateway. " * 20])
def test_what_is_no_answer_took_nothing(answer: bytes) -> None:
    meter, feed = fed("/v1/messages", "text/html", answer)
    assert not meter.usage.total_input
    assert (meter.sent, feed.truncated, feed.torn) == (0, False, False)


@pytest.mark.parametrize(("status", "failed"), [("completed", False), ("incomplete", False), ("failed", True)])
def test_a_response_may_end_with_done(status: str, failed: bool) -> None:
    """decolua/9router#2142, jlcodes99/cockpit-tools#2328: `response.done` is the end, too, whatever became of it."""
    usage = {} if failed else {"usage": {"input_tokens": 7, "output_tokens": 9}}
    done = {"type": "response.done", "response": {"id": "resp_1", "status": status, **usage}}
    meter, feed = fed("/v1/responses", "text/event-stream", b"data: %b\n\n" % json.dumps(done).encode())
    assert not feed.truncated
    assert (meter.complete, meter.failed, meter.usage.output_tokens) == (True, failed, 0 if failed else 9)
