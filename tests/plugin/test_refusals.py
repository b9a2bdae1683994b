"""What Claude's classifiers refuse before any output is not billed; its usage says what it read all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aimux.plugin import Usage
from aimux.plugin.formats.anthropic import MessagesAnswer, MessagesStream
from aimux.plugin.formats.anthropic_stored import BatchResults

TOLD = {"input_tokens": 200_000, "cache_read_input_tokens": 7, "output_tokens": 1}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Sure"}}
FREE = Usage("claude-fable-5-2")


def streamed(*events: dict[str, Any], reason: str = "refusal", output: int = 1) -> MessagesStream:
    meter = MessagesStream()
    ended = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": output}}
    start = {"type": "message_start", "message": {"model": FREE.model, "usage": TOLD}}
    for event in (start, *events, ended, {"type": "message_stop"}):
        meter.feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    meter.end()
    return meter


def message(**told: Any) -> dict[str, Any]:
    return {"type": "message", "model": FREE.model, "content": [], "stop_reason": "refusal", "usage": TOLD} | told


def answered(**told: Any) -> MessagesAnswer:
    meter = MessagesAnswer()
    meter.feed(json.dumps(message(**told)).encode())
    meter.end()
    return meter


def test_a_refusal_without_output_took_nothing() -> None:
    for meter in (streamed(), streamed(output=0), answered()):
        assert meter.usage == FREE
        assert meter.sent == 0, "and nothing is estimated"
        assert not meter.failed


@pytest.mark.parametrize(
    "meter",
    [
        streamed(TEXT, output=9),
        streamed(TEXT),
        streamed(output=500),
        streamed(reason="end_turn"),
        answered(content=[{"type": "text", "text": "Sure"}]),
        answered(stop_reason="end_turn"),
    ],
)
def test_other_answers_count(meter: MessagesStream | MessagesAnswer) -> None:
    assert meter.usage.total_input == 200_007


def test_so_it_is_in_a_batch() -> None:
    results = BatchResults("msgbatch_1")
    assert results.read({"result": {"type": "succeeded", "message": message()}}) is None
    assert results.read({"result": {"type": "succeeded", "message": message(content=[{"type": "text"}])}}) is not None
