"""Streams that clients read, though no vendor writes them so: a meter that can't takes a whole answer for a cut one."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from aimux.gateway.meter_feed import MeterFeed
from aimux.plugin import Action, SSEMeter
from aimux.plugin.formats import anthropic
from aimux.plugin.formats.openai_meters import ChatStream, ResponsesStream
from aimux.plugin.odd_streams import LONGEST

MESSAGE: tuple[dict[str, object], ...] = (
    {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 7, "output_tokens": 1}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)
CHAT = (
    {"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9}},
)
RESPONSE = (
    {"type": "response.created", "response": {"id": "resp_1", "tools": []}},
    {"type": "response.output_text.delta", "delta": "hello"},
    {"type": "response.completed", "response": {"id": "resp_1", "usage": {"input_tokens": 7, "output_tokens": 9}}},
)


def usual(event: dict[str, object]) -> bytes:
    return f"event: {event.get('type', 'x')}\ndata: {json.dumps(event)}\n\n".encode()


def spread(event: dict[str, object]) -> bytes:
    lines = [f"data: {line}\n" for line in json.dumps(event, indent=1).split("\n")]
    return f": comment\nevent: {event.get('type', 'x')}\n{''.join(lines)}\n".encode()


def returns(event: dict[str, object]) -> bytes:
    return usual(event).replace(b"\n", b"\r")


def both(event: dict[str, object]) -> bytes:
    return spread(event).replace(b"\n", b"\r\n")


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("written", [usual, spread, returns, both], ids=["usual", "spread", "CR", "spread CRLF"])
@pytest.mark.parametrize(
    ("kind", "events"),
    [(anthropic.MessagesStream, MESSAGE), (ChatStream, CHAT), (ResponsesStream, RESPONSE)],
    ids=["messages", "chat", "responses"],
)
def test_it_is_read(
    kind: type[SSEMeter],
    events: tuple[dict[str, object], ...],
    written: Callable[[dict[str, object]], bytes],
    size: int,
) -> None:
    meter = kind()
    feed = MeterFeed(meter, "", "acme")
    stream = b"".join(map(written, events))
    for start in range(0, len(stream), size):
        feed.pending.append(stream[start : start + size])
        feed.flush()
    feed.end()
    assert not feed.truncated
    assert (meter.usage.input_tokens, meter.usage.output_tokens, meter.sent) == (7, 9, 5)


@pytest.mark.parametrize("written", [usual, spread, returns], ids=["usual", "spread", "CR"])
def test_one_that_is_cut_short_is_known_for_it(written: Callable[[dict[str, object]], bytes]) -> None:
    whole = b"".join(map(written, MESSAGE))
    for cut, torn in ((whole.index(b"message_stop"), True), (len(b"".join(map(written, MESSAGE[:-2]))), False)):
        feed = MeterFeed(anthropic.MessagesStream(), "", "acme")
        feed.pending.append(whole[:cut])
        feed.end()
        assert feed.truncated
        assert feed.torn is torn or written is returns


def test_an_event_without_an_end_ends_the_metering() -> None:
    feed = MeterFeed(ChatStream(), "", "acme")
    feed.pending.append(b"data: {\n")
    for _ in range(LONGEST // 1024 + 1):
        feed.pending.append(b"data: " + b" " * 1018 + b"\n")
        feed.flush()
    feed.end()
    assert not feed.truncated, "nobody knows"


@pytest.mark.parametrize("written", [spread, returns], ids=["spread", "CR"])
def test_so_is_its_start(written: Callable[[dict[str, object]], bytes]) -> None:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    verdict = anthropic.opening(written({"type": "error", "error": error}))
    assert verdict is not None
    assert verdict.action is Action.BACK_OFF
