"""`usage.iterations` of Anthropic's answers: what its own counts leave out, and only that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aimux.plugin import Usage
from aimux.plugin.formats.anthropic import MessagesAnswer, MessagesStream
from aimux.plugin.formats.anthropic_usage import read_usage

MESSAGE = {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000}
COMPACTION = {
    "type": "compaction",
    "input_tokens": 180_000,
    "output_tokens": 3_500,
    "cache_read_input_tokens": 7,
    "cache_creation_input_tokens": 9,
    "cache_creation": {"ephemeral_1h_input_tokens": 4, "ephemeral_5m_input_tokens": 5},
}
ADVICE = {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 823, "output_tokens": 1_612}
COMPACTED = Usage("", 180_000, 3_500, 7, 9, 4)
ADVISED = Usage("claude-opus-4-8", 823, 1_612)


def answered(*iterations: Any, **told: Any) -> Usage:
    usage = {"input_tokens": 23_000, "output_tokens": 1_000, **told, "iterations": [*iterations]}
    meter = MessagesAnswer()
    meter.feed(json.dumps({"model": "m", "usage": usage}).encode())
    meter.end()
    return meter.usage


def test_a_compaction_and_the_advisor_are_counted_in() -> None:
    usage = answered(COMPACTION, MESSAGE, ADVICE)
    assert (usage.input_tokens, usage.output_tokens) == (203_823, 6_112)
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (7, 9, 4)
    assert usage.model == "m"
    assert usage.beside == (COMPACTED, ADVISED)


def test_what_the_counts_hold_is_not_counted_again() -> None:
    fallback = {"type": "fallback_message", "model": "claude-sonnet-5", "input_tokens": 5, "output_tokens": 5}
    assert answered(MESSAGE, MESSAGE, fallback) == Usage("m", 23_000, 1_000)


DECLINED = {
    "type": "message",
    "model": "claude-fable-5",
    "input_tokens": 2,
    "output_tokens": 578,
    "cache_read_input_tokens": 72_769,
    "cache_creation_input_tokens": 10_421,
    "cache_creation": {"ephemeral_1h_input_tokens": 10_421, "ephemeral_5m_input_tokens": 0},
}
TOOK_OVER = {
    "type": "fallback_message",
    "model": "claude-opus-4-8",
    "input_tokens": 2,
    "output_tokens": 13_658,
    "cache_read_input_tokens": 79_214,
    "cache_creation_input_tokens": 0,
}
SERVED = Usage("claude-opus-4-8", 2, 13_658, 79_214)
BEGUN = Usage("claude-fable-5", 2, 578, 72_769, 10_421, 10_421)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("said", "billed"), [(578, (BEGUN,)), (1, ()), (0, ())])
def test_a_model_that_declined_is_counted_if_it_had_begun(
    said: int, billed: tuple[Usage, ...], *, streamed: bool
) -> None:
    """A usage's own counts are the last model's; a stream begins with the first's (ccusage/ccusage#1552)."""
    declined = DECLINED | {"output_tokens": said}
    told = TOOK_OVER | {"iterations": [declined, TOOK_OVER, ADVICE]}
    if streamed:
        meter: MessagesStream | MessagesAnswer = MessagesStream()
        first = {"type": "message_start", "message": {"model": "claude-fable-5", "usage": declined}}
        last = {"type": "message_delta", "delta": {}, "usage": told}
        for event in (first, last, last):
            meter.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    else:
        meter = MessagesAnswer()
        meter.feed(json.dumps({"model": "claude-opus-4-8", "usage": told}).encode())
    meter.end()
    assert meter.usage.beside == (*billed, ADVISED)
    meter.usage.put_beside(())
    assert meter.usage == SERVED


@pytest.mark.parametrize("odd", [None, 7, "x", [], {}, {"type": "compaction", "input_tokens": "many", "model": 3}])
def test_odd_iterations_count_nothing(odd: Any) -> None:
    usage = answered(odd)
    assert (usage.input_tokens, usage.output_tokens) == (23_000, 1_000)


def test_a_stream_tells_them_again_and_again_and_they_count_once() -> None:
    start = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 23_000, "output_tokens": 1}}}
    first = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 400, "iterations": [COMPACTION]}}
    last = {"type": "message_delta", "usage": {"output_tokens": 1_000, "iterations": [COMPACTION, MESSAGE, ADVICE]}}
    silent = {"type": "message_delta", "usage": {"output_tokens": 1_001}}
    meter = MessagesStream()
    for event in (start, first, last, silent):
        meter.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (203_823, 6_113)
    assert meter.usage.beside == (COMPACTED, ADVISED)


def test_turns_of_a_socket_add_up_with_what_is_beside_them() -> None:
    usage, turn = Usage("m", 1, 1), Usage("m", 2, 2)
    usage.put_beside((COMPACTED,))
    turn.put_beside((ADVISED,))
    usage.add(turn)
    assert usage.beside == (COMPACTED, ADVISED)
    assert (usage.input_tokens, usage.output_tokens) == (180_826, 5_115)


@pytest.mark.parametrize("where", ["apart", "together"])
def test_the_first_samplings_split_of_what_is_cached_holds_for_all(where: str) -> None:
    """With the vendor's own tools the total goes on, and the split does not (BerriAI/litellm#42663)."""
    first = {
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 10},
    }
    usage = Usage()
    if where == "apart":
        read_usage(usage, {"usage": first})
        read_usage(usage, {"usage": {"cache_creation_input_tokens": 180, "output_tokens": 5}})
    else:
        read_usage(usage, {"usage": first | {"cache_creation_input_tokens": 180}})
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (180, 120)
    read_usage(usage, {"usage": {"cache_creation_input_tokens": 0, "cache_creation": {}}})
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (180, 120)
