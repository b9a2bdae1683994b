"""What is counted of answers that were cut short, or whose upstream told nothing."""

from __future__ import annotations

import contextlib
import json
from dataclasses import astuple, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aimux.metering.estimates import FITS, Estimates, possible
from aimux.metering.prices import Prices
from aimux.metering.record import RequestRecord
from aimux.metering.tariff import Tariff
from aimux.plugin.formats.anthropic import MessagesAnswer, MessagesStream
from aimux.plugin.formats.openai_meters import ChatStream, OpenAIAnswer, ResponsesSocket, ResponsesStream
from aimux.plugin.message_meter import MessageMeter
from aimux.plugin.meters import JSONMeter, Meter
from aimux.plugin.reading import MOST_TOKENS
from aimux.plugin.usage import Usage
from tests.metering.said import CHAT, DELTAS, END, MESSAGES, RESPONSES, START, STOP, TEXT, WORDS, fed, record, sse


@pytest.mark.parametrize(
    ("meter", "payload", "input_tokens"),
    [(MessagesStream, MESSAGES, 9), (ResponsesStream, RESPONSES, 1000), (ChatStream, CHAT, 1000)],
)
def test_an_answer_that_is_left_is_not_one_token(meter: type[Meter], payload: bytes, input_tokens: int) -> None:
    """Four characters are a token, of what was asked as well where the upstream tells it at the end only."""
    usage = Estimates().usage(record(error="client_gone"), fed(meter(), payload))
    assert usage.output_tokens == pytest.approx(TEXT / 4, rel=0.15)
    assert usage.input_tokens == input_tokens
    assert usage.estimated


def test_what_a_whole_answer_tells_is_taken_as_it_is() -> None:
    usage = Estimates().usage(record(), fed(MessagesStream(), MESSAGES + sse(*END)))
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (9, 500, False)


def test_how_long_a_token_is_is_learned_from_whole_answers_of_the_model() -> None:
    estimates = Estimates()
    tokens = TEXT // 2  # two characters each
    end = {"type": "message_delta", "usage": {"output_tokens": tokens}}
    for _ in range(3):
        estimates.usage(record(), fed(MessagesStream(), MESSAGES + sse(end, STOP)))
    cut = MESSAGES[: len(MESSAGES) // 2]
    usage = estimates.usage(record(error="upstream_lost"), fed(MessagesStream(), cut))
    assert usage.output_tokens == pytest.approx(tokens / 2, rel=0.05)
    other = RequestRecord("own", 0.0, "POST", "/", provider="another", model="m")
    assert estimates.usage(other, fed(MessagesStream(), cut)).output_tokens == pytest.approx(TEXT / 8, rel=0.15)


def test_how_long_a_token_of_a_question_is_is_learned_where_it_is_told_and_not_short() -> None:
    """The records send 4000 bytes."""

    def whole(asked: int, answered: int, *deltas: dict[str, Any]) -> bytes:
        told = {"type": "message_start", "message": {"usage": {"input_tokens": asked, "output_tokens": 1}}}
        end = {"type": "message_delta", "usage": {"output_tokens": answered}}
        return sse(told, *deltas, end, {"type": "message_stop"})

    estimates = Estimates()
    for asked, answered in ((9, 9), (199, 49)):
        estimates.usage(record(), fed(MessagesStream(), whole(asked, answered, *DELTAS)))
    usage = estimates.usage(record(error="client_gone"), fed(ChatStream(), CHAT))
    assert usage.input_tokens == 1000, "short ones are mostly framing"
    assert usage.output_tokens == pytest.approx(TEXT / 4, rel=0.15)
    estimates.usage(record(), fed(MessagesStream(), whole(2000, TEXT // 4, *DELTAS)))
    usage = estimates.usage(record(error="client_gone"), fed(ChatStream(), CHAT))
    assert usage.input_tokens == 2000
    for _ in range(3):
        estimates.usage(record(), fed(MessagesStream(), whole(1000, TEXT // 4, *DELTAS)))
    usage = estimates.usage(record(error="client_gone"), fed(ChatStream(), CHAT))
    assert usage.input_tokens == round(4000 / (4 - 2 * 0.9**3)), "one that is otherwise moves it by a tenth"


def test_before_a_word_was_said_there_is_nothing_to_estimate() -> None:
    usage = Estimates().usage(record(error="client_gone"), fed(MessagesStream(), sse(START)))
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (9, 0, False)
    assert Estimates().usage(record(), fed(ResponsesStream(), b"")).total_input == 0


def test_an_error_in_the_middle_ends_an_answer_of_which_something_was_made() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    usage = Estimates().usage(record(), fed(MessagesStream(), MESSAGES + sse(error)))
    assert usage.output_tokens == pytest.approx(TEXT / 4, rel=0.15)
    assert usage.estimated
    told = {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 3}}}
    usage = Estimates().usage(record(), fed(MessagesStream(), sse(told, *DELTAS, error)))
    assert usage.output_tokens > 100
    usage = Estimates().usage(record(), fed(MessagesStream(), sse(told, error)))
    assert (usage.output_tokens, usage.estimated) == (3, False)


def test_an_upstream_that_tells_nothing_is_estimated() -> None:
    whole = CHAT + b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    usage = Estimates().usage(record(), fed(ChatStream(), whole))
    assert (usage.input_tokens, usage.estimated) == (1000, True)
    assert usage.output_tokens == pytest.approx(TEXT / 4, rel=0.15)


def test_json_that_is_cut_is_estimated_and_json_that_tells_is_not() -> None:
    answer = json.dumps({"content": "x" * 2000, "usage": {"input_tokens": 5, "output_tokens": 400}}).encode()
    meter = fed(MessagesAnswer(), answer[:1000])
    meter.end()
    usage = Estimates().usage(record(error="upstream_lost"), meter)
    assert (usage.output_tokens, usage.estimated) == (250, True)
    for made in (MessagesAnswer(), OpenAIAnswer()):
        meter = fed(made, answer)
        meter.end()
        usage = Estimates().usage(record(), meter)
        assert (usage.output_tokens, usage.estimated) == (400, False)


@pytest.mark.parametrize(
    ("meter", "answer"),
    [
        (MessagesAnswer, {"type": "error", "error": {"type": "overloaded_error", "message": "x" * 200}}),
        (OpenAIAnswer, {"error": {"message": "x" * 200, "type": "server_error"}}),
        (OpenAIAnswer, {"object": "response", "status": "failed", "error": {"message": "x" * 200}, "usage": None}),
    ],
)
def test_an_error_with_the_status_of_an_answer_took_nothing(meter: type[JSONMeter], answer: dict[str, Any]) -> None:
    read = fed(meter(), json.dumps(answer).encode())
    read.end()
    assert read.failed
    assert Estimates().usage(record(), read) == Usage()


def test_an_answer_that_failed_costs_what_it_tells() -> None:
    usage = {"input_tokens": 8, "output_tokens": 3}
    meter = fed(OpenAIAnswer(), json.dumps({"status": "failed", "error": {"code": "x"}, "usage": usage}).encode())
    meter.end()
    told = Estimates().usage(record(), meter)
    assert (told.input_tokens, told.output_tokens, told.estimated, meter.failed) == (8, 3, False, False)


def test_a_turn_of_a_socket_is_estimated_like_a_stream() -> None:
    meter = MessageMeter(ResponsesStream)
    meter.asked(b'{"type":"response.create"}')
    for word in WORDS:
        meter.feed(json.dumps({"type": "response.output_text.delta", "delta": word}, ensure_ascii=False).encode())
    usage = Estimates().usage(record(error="client_gone"), meter.last)
    assert usage.output_tokens == pytest.approx(TEXT / 4, rel=0.15)
    assert usage.estimated


def test_a_turn_that_is_cut_took_the_conversation_that_it_goes_on_from() -> None:
    told = {"input_tokens": 8_000, "input_tokens_details": {"cached_tokens": 6_000}, "output_tokens": 300}
    done = {"type": "response.completed", "response": {"usage": told}}
    meter, estimates = ResponsesSocket(ResponsesStream), Estimates()

    def turn(message: dict[str, Any], *events: dict[str, Any]) -> Usage:
        meter.asked(json.dumps({"type": "response.create", **message}).encode())
        for event in ({"type": "response.output_text.delta", "delta": "word " * 200}, *events):
            lane = {"stream_id": message["stream_id"]} if "stream_id" in message else {}
            meter.feed(json.dumps(event | lane).encode())
        return estimates.usage(record(), meter.last)

    first = turn({"previous_response_id": "resp_0"})
    assert (first.input_tokens, first.cache_read_tokens) == (1000, 0), "of a socket before nobody knows"
    meter.feed(json.dumps(done).encode())
    turn({}, done)
    cut = turn({"previous_response_id": "resp_1"})
    assert (cut.input_tokens, cut.cache_read_tokens, cut.estimated) == (1300, 8000, True)
    meter.feed(json.dumps(done).encode())
    assert turn({"previous_response_id": None}).total_input == 1000, "it begins anew"
    meter.feed(json.dumps(done).encode())
    assert turn({"previous_response_id": "resp_1", "stream_id": "b"}).total_input == 1000, "another's conversation"


def test_what_goes_on_from_an_earlier_answer_teaches_nothing_of_a_question() -> None:
    """4000 bytes that are 100,000 tokens are a conversation; of 200 tokens, a picture."""
    estimates = Estimates()
    for took in (100_000, 240):
        end = {"type": "response.completed", "response": {"usage": {"input_tokens": took, "output_tokens": 1}}}
        estimates.usage(record(), fed(ResponsesStream(), sse(end)))
    assert estimates.usage(record(error="client_gone"), fed(ChatStream(), CHAT)).input_tokens == 1000


def test_server_tools_and_the_service_tier_are_read() -> None:
    told = {"output_tokens": 5, "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}}
    end = {"type": "message_delta", "usage": told | {"service_tier": "priority"}}
    usage = fed(MessagesStream(), sse(START, end, STOP)).usage
    assert (usage.server_tools, usage.tier) == (2, "priority")
    done = {"type": "response.completed", "response": {"service_tier": "flex", "usage": {"output_tokens": 1}}}
    assert fed(ResponsesStream(), sse(done)).usage.tier == "flex"
    odd = {"type": "response.completed", "response": {"service_tier": "no word\n", "usage": {"output_tokens": 1}}}
    assert fed(ResponsesStream(), sse(odd)).usage.tier == ""


counts = st.one_of(st.integers(0, 10_000), st.sampled_from([-1, -(10**6), MOST_TOKENS, 2**63, 2**200]))
usages = st.builds(Usage, st.just("m"), *[counts] * 7, requests=st.integers(-1, 3))


@given(usages, st.lists(usages, max_size=2))
@example(Usage("m", 100), [Usage("m", -1)])
@example(Usage("m", 100), [Usage("m", 500)])
def test_what_no_request_takes_is_in_no_sum(usage: Usage, beside: list[Usage]) -> None:
    """A plugin's meter may be wrong; its beside may be more than the whole."""
    usage.beside = tuple(beside)
    found = possible(usage)
    prices = Prices()
    prices.tariffs["lab", "m"] = Tariff.of_json([[0, {"": [[0, {"input": 6 * 10**8, "output": 6 * 10**8}]]}]])
    cost = prices.cost("lab", "", "m", found, 0)
    assert cost is not None
    assert 0 <= cost < 2**62
    told, kept = (astuple(one)[1:8] for one in (usage, found))
    assert all(after == (before if 0 <= before < MOST_TOKENS else 0) for before, after in zip(told, kept, strict=True))
    own = replace(found)
    own.put_beside(())
    for one in (own, *found.beside):
        assert all(0 <= number < FITS for number in astuple(one)[1:8])
    assert found.requests > 0
    assert found.estimated == (found is not usage)
    assert possible(found) is found


def test_a_meter_that_is_wrong_is_told_of_once_and_estimated(caplog: pytest.LogCaptureFixture) -> None:
    estimates, meter = Estimates(), fed(MessagesStream(), MESSAGES + sse(*END))
    with contextlib.suppress(TypeError):  # compiled code refuses it where it is set
        meter.usage.cache_read_tokens = None  # type: ignore[assignment]
    meter.usage.output_tokens = -7
    for _ in range(2):
        usage = estimates.usage(record(), meter)
        assert (usage.input_tokens, usage.cache_read_tokens, usage.estimated) == (9, 0, True)
        assert usage.output_tokens == pytest.approx(TEXT / 4, rel=0.15)
    assert caplog.text.count("tells what can't be") == 1
