"""How much of an answer was said, as its meter measures it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from aimux.metering.estimates import Estimates
from aimux.plugin.formats import openai
from aimux.plugin.formats.anthropic import MessagesStream
from aimux.plugin.formats.openai_meters import ChatStream, ResponsesStream
from aimux.plugin.message_meter import MessageMeter
from aimux.plugin.sse_meter import SSEMeter
from aimux.plugin.types import RequestHead
from tests.metering.said import CHAT, DELTAS, MESSAGES, RESPONSES, START, TEXT, WORDS, fed, record, sse


def padded(word: str) -> str:
    """What stands beside a delta so that nobody on the way can tell its length."""
    return "x" * (16 - len(word) % 16)


ITEM = "msg_0c4bb6cd4369e1aa016968ca768e4c819faaeeabe2970ec1fe"
WHOLE = "".join(WORDS)
ARGUMENTS = [json.dumps(word)[1:-1] for word in WORDS]
"""Pieces of a text that is JSON itself: the quotes in it are escaped once more."""
CODEX = [
    {"type": "response.created", "response": {"instructions": "x" * 40_000, "usage": None}, "sequence_number": 0},
    {"type": "response.output_item.added", "item": {"id": "rs_1", "type": "reasoning", "summary": []}},
    *[
        {"type": "response.reasoning_summary_text.delta", "delta": word, "item_id": "rs_1", "obfuscation": padded(word)}
        for word in WORDS
    ],
    {"type": "response.reasoning_summary_text.done", "item_id": "rs_1", "text": WHOLE},
    {"type": "response.reasoning_summary_part.done", "part": {"type": "summary_text", "text": WHOLE}},
    {
        "type": "response.output_item.done",
        "item": {"type": "reasoning", "encrypted_content": "gAAAA" * 800, "summary": [{"text": WHOLE}]},
    },
    *[
        {
            "type": "response.output_text.delta",
            "content_index": 0,
            "delta": word,
            "item_id": ITEM,
            "logprobs": [],
            "obfuscation": padded(word),
            "output_index": 1,
            "sequence_number": number,
        }
        for number, word in enumerate(WORDS)
    ],
    {"type": "response.output_text.done", "item_id": ITEM, "text": WHOLE, "logprobs": []},
    {"type": "response.content_part.done", "item_id": ITEM, "part": {"type": "output_text", "text": WHOLE}},
    {"type": "response.output_item.done", "item": {"id": ITEM, "content": [{"text": WHOLE}]}},
    *[{"type": "response.function_call_arguments.delta", "delta": piece, "item_id": "fc_1"} for piece in ARGUMENTS],
    {"type": "response.function_call_arguments.done", "item_id": "fc_1", "arguments": "".join(ARGUMENTS)},
    {"type": "response.output_item.done", "item": {"id": "fc_1", "arguments": "".join(ARGUMENTS)}},
]
CLAUDE = [
    START,
    *[{"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": word}} for word in WORDS],
    {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "EqQB" * 300}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "content_block": {"type": "web_search_tool_result", "content": [{"encrypted_content": "Ev0D" * 2000}]},
    },
    *DELTAS,
    *[
        {
            "type": "content_block_delta",
            "delta": {"type": "citations_delta", "citation": {"cited_text": "y" * 150, "title": "z" * 50}},
        }
    ]
    * 10,
    *[{"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": p}} for p in ARGUMENTS],
]
CHATTED = [
    {
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}],
        "usage": None,
        "obfuscation": "x" * (number % 16),
    }
    for number, delta in enumerate(
        [
            *[{"content": None, "reasoning_content": word} for word in WORDS],
            *[{"content": word} for word in WORDS],
            *[{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in ARGUMENTS],
        ]
    )
]
COMPLETED = [
    {
        "id": "cmpl-1",
        "object": "text_completion",
        "choices": [
            {"text": word, "index": 0, "logprobs": {"text_offset": [9], "tokens": [word]}, "finish_reason": None}
        ],
        "usage": None,
    }
    for word in WORDS
]
SENT = sum(len(json.dumps(piece, ensure_ascii=False).encode()) - 2 for piece in [*WORDS, *WORDS, *ARGUMENTS])
SAID = [(MessagesStream, CLAUDE, True), (ResponsesStream, CODEX, True), (ChatStream, CHATTED, False)]


@pytest.mark.parametrize("size", [1, 7, 100, 1500, 10**6])
@pytest.mark.parametrize(
    ("meter", "payload"), [(MessagesStream, MESSAGES), (ResponsesStream, RESPONSES), (ChatStream, CHAT)]
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_what_was_said_is_measured_however_it_arrives(
    meter: type[SSEMeter], payload: bytes, size: int, newline: bytes
) -> None:
    assert fed(meter(), payload.replace(b"\n", newline), size).sent == pytest.approx(TEXT, rel=0.15)


@pytest.mark.parametrize("size", [100, 1500, 8192, 10**6])
@pytest.mark.parametrize(("meter", "events", "named"), SAID, ids=["claude", "codex", "chat"])
def test_only_what_is_billed_is_content(
    meter: type[SSEMeter], events: list[dict[str, Any]], named: bool, size: int
) -> None:
    """Neither what the last events repeat, nor padding, signatures, citations and what a search found."""
    assert fed(meter(), sse(*events, named=named), size).sent == pytest.approx(SENT, rel=0.15)


@pytest.mark.parametrize(("meter", "events", "named"), SAID, ids=["claude", "codex", "chat"])
def test_so_it_is_of_a_piece_that_is_looked_at_whole(
    meter: type[SSEMeter], events: list[dict[str, Any]], named: bool
) -> None:
    assert meter().content_in(sse(*events, named=named)) == pytest.approx(SENT, rel=0.02)


@pytest.mark.parametrize("size", [100, 1500, 8192, 10**6])
def test_completions_of_the_oldest_format_are_measured(size: int) -> None:
    request = RequestHead("POST", "/v1/completions", CIMultiDict())
    meter = openai.meter(request, 200, CIMultiDict({"content-type": "text/event-stream"}))
    assert meter is not None
    fed(meter, sse(*COMPLETED, named=False), size)
    assert meter.sent == pytest.approx(TEXT, rel=0.15)
    usage = Estimates().usage(record(error="client_gone"), meter)
    assert usage.output_tokens == pytest.approx(TEXT / 4, rel=0.15)
    assert usage.estimated


PCM = "UklGRiQAAAB"  # how it begins: nothing in base64 looks like text to JSON
SECOND = 64_000
"""Characters in base64 of a second of speech, which is 20 tokens: 24,000 samples of 16 bits."""


def audio(characters: int) -> str:
    return (PCM * (characters // len(PCM) + 1))[:characters]


def spoken_as_responses(name: str, piece: int) -> bytes:
    """30 seconds of speech, each preceded by ten of its words."""
    events: list[dict[str, object]] = []
    for second in range(30):
        words = WORDS[10 * second : 10 * second + 10]
        events += [{"type": f"response.{name}_transcript.delta", "item_id": "i", "delta": word} for word in words]
        for start in range(0, SECOND, piece):
            sound = audio(min(piece, SECOND - start))
            events.append({"type": f"response.{name}.delta", "sequence_number": 1, "item_id": "i", "delta": sound})
    return sse(*events)


def spoken_as_chat(piece: int) -> bytes:
    deltas = []
    for second in range(30):
        words = WORDS[10 * second : 10 * second + 10]
        deltas += [{"audio": {"id": "audio_1", "transcript": word}} for word in words]
        deltas += [{"audio": {"data": audio(min(piece, SECOND - start))}} for start in range(0, SECOND, piece)]
    return sse(*[{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas], named=False)


@pytest.mark.parametrize("size", [1500, 65_536, 10**8])
@pytest.mark.parametrize("piece", [1600, 6400, 32_000])
def test_speech_is_its_seconds_and_its_words_and_not_its_base64(piece: int, size: int) -> None:
    tokens = 30 * 20 + TEXT / 4  # all the words are in 30 seconds
    streams = [
        fed(ResponsesStream(), spoken_as_responses("output_audio", piece), size),
        fed(ResponsesStream(), spoken_as_responses("audio", piece), size),
        fed(ChatStream(), spoken_as_chat(piece), size),
    ]
    made = [Estimates().usage(record(error="client_gone"), meter).output_tokens for meter in streams]
    assert made == pytest.approx([tokens] * 3, rel=0.1)


def test_speech_that_begins_late_is_told_from_text() -> None:
    words = sse(*[{"type": "response.output_text.delta", "item_id": "i", "delta": word} for word in WORDS] * 20)
    meter = fed(ResponsesStream(), words)
    text = meter.sent
    fed(meter, spoken_as_responses("output_audio", 16_000))
    assert meter.sent - text == pytest.approx(30 * 80 + TEXT, rel=0.15)


def test_a_socket_says_as_much_as_a_stream() -> None:
    meter = MessageMeter(ResponsesStream)
    meter.asked(b'{"type":"response.create"}')
    for event in CODEX:
        meter.feed(json.dumps(event, ensure_ascii=False).encode())
    assert meter.last.sent == pytest.approx(SENT, rel=0.15)


def test_a_last_event_that_repeats_the_whole_is_no_content() -> None:
    done = {"type": "response.completed", "response": {"output": "x" * 40_000, "usage": {"output_tokens": TEXT // 4}}}
    assert fed(ResponsesStream(), RESPONSES + sse(done)).sent == pytest.approx(TEXT, rel=0.15)
