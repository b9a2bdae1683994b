from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.plugin import JSONMeter, SSEMeter, Usage, count, number, sse_events
from aimux.plugin.formats import anthropic, openai_meters
from aimux.plugin.meters import EDGE, MAX_LINE, Meter
from aimux.plugin.reading import MOST_VALUES, json_object, object_behind


class Seen(SSEMeter):
    needles: ClassVar[tuple[bytes, ...]] = (b'"a"', b'"b+"', b"[END]")

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def read(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def read_text(self, data: bytes) -> None:
        self.events.append(data)


def fed(*parts: bytes) -> list[Any]:
    meter = Seen()
    for part in parts:
        meter.feed(part)
    meter.end()
    return meter.events


def test_only_events_with_a_needle_are_parsed() -> None:
    stream = b'data: {"c": 1}\n\ndata: {"a": 2}\n\ndata: {"bb": 3}\n\ndata: {"b+": 4}\n\ndata: [END]\n\n'
    assert fed(stream) == [{"a": 2}, {"b+": 4}, b"[END]"]


def test_a_needle_outside_of_data_is_nothing() -> None:
    assert fed(b'event: "a"\n: "a"\nid: "a"\ndata: 1\n\n') == []


@given(st.data())
def test_lines_may_come_in_any_pieces(data: st.DataObject) -> None:
    stream = b'data: {"a": "x"}\r\n\r\n: comment\n\ndata:{"b+": 1}\n\ndata: {"a": broken\n\ndata: {"a": 3}'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(*parts) == [{"a": "x"}, {"b+": 1}, {"a": 3}]


def test_a_line_without_end_costs_no_memory_and_the_next_is_read() -> None:
    meter = Seen()
    for _ in range(3 * MAX_LINE // 2**20):
        meter.feed(b'data: {"a": "' + bytes(2**20))
    assert meter._tail_size > MAX_LINE
    assert sum(map(len, meter._tail)) <= EDGE
    meter.feed(b'"}\n\ndata: {"a": 1}\n\n')
    assert meter.events == [{"a": 1}]


IMAGE = "A" * (MAX_LINE + 2 * EDGE)
RESPONSE = {
    "id": "resp_1",
    "store": True,
    "model": "gpt-5.5",
    "output": [{"type": "image_generation_call", "result": IMAGE}],
    "usage": {"input_tokens": 30, "input_tokens_details": {"cached_tokens": 10}, "output_tokens": 9},
    "metadata": {},
}


def in_pieces(meter: SSEMeter, stream: bytes, size: int) -> None:
    for at in range(0, len(stream), size):
        meter.feed(stream[at : at + size])
    meter.end()


@pytest.mark.parametrize("size", [64 * 1024, 1_000_003, 1 << 30])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
def test_the_usage_of_an_answer_with_large_images_is_read(size: int, end: bytes) -> None:
    """openai/openai-node#2433: `response.completed` of more than 8 MiB."""
    meter = openai_meters.ResponsesStream()
    event = json.dumps({"type": "response.completed", "sequence_number": 1, "response": RESPONSE}).encode()
    in_pieces(meter, b"event: response.completed\ndata: " + event + end, size)
    assert meter.complete
    usage = meter.usage
    assert (usage.model, usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == ("gpt-5.5", 20, 10, 9)
    assert meter.stored == ("resp_1",)


def test_a_large_image_in_the_middle_is_not_the_end() -> None:
    meter = openai_meters.ResponsesStream()
    event = {"type": "response.image_generation_call.partial_image", "partial_image_b64": IMAGE}
    in_pieces(meter, b"data: " + json.dumps(event).encode() + b"\n\n", 64 * 1024)
    assert not meter.complete
    claude = anthropic.MessagesStream()
    in_pieces(claude, b"data: " + json.dumps({"type": "content_block_start", "x": IMAGE}).encode(), 64 * 1024)
    assert not claude.complete


def test_of_a_large_event_of_no_known_kind_nobody_can_tell() -> None:
    meter = openai_meters.ResponsesStream()
    in_pieces(meter, b"data: " + json.dumps({"x": IMAGE, "type": "response.completed"}).encode(), 64 * 1024)
    assert meter.complete
    seen = Seen()
    in_pieces(seen, b'data: {"c": "' + IMAGE.encode() + b'"}\n\n', 64 * 1024)
    assert seen.complete


@pytest.mark.parametrize(
    ("last", "complete"),
    [
        (b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n', True),
        (b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}\n\n', True),
        (b'data: {"choices":[{"index":0,"delta":{},"finish_reason":null}]}\n\n', False),
        (b'data: {"choices":[{"index":0,"delta":{"content":"\\"finish_reason\\":\\"stop\\""}}]}\n\n', False),
        (b'data: {"choices":[{"index":0,"delta":{},"finish_reason":""}]}\n\n', False),
        (b"data: [DONE]", True),
    ],
)
def test_what_ends_a_chat_is_its_finish_reason(last: bytes, complete: bool) -> None:
    meter = openai_meters.ChatStream()
    in_pieces(meter, b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}\n\n' + last, 1 << 20)
    assert meter.complete is complete


def test_json_that_is_none_is_not_read() -> None:
    for body in (b"", b"[1]", b"{", b"[" * 100_000, b"\xff"):
        meter = JSONMeter()
        meter.feed(body)
        meter.end()
        assert meter.complete, "framing, not content, says whether an answer is whole"


@pytest.mark.parametrize(
    "odd",
    ["NaN", "-Infinity", r'"cut: \ud83d"', "123456789012345678901234567890", "1e999"],
    ids=["NaN", "infinity", "half of a character", "long integer", "large"],
)
def test_json_that_is_odd_is_read_like_any_other(odd: str) -> None:
    """orjson, which reads it, is strict; Python's servers and cut texts are not."""
    body = b' {"odd": %b, "model": "m", "usage": {"input_tokens": 7, "output_tokens": 2}}\r\n' % odd.encode()
    meter = anthropic.MessagesAnswer()
    meter.feed(body)
    meter.end()
    assert (meter.usage.model, meter.usage.input_tokens, meter.usage.output_tokens) == ("m", 7, 2)


DENSE = ["1", "null", "{}", "[]", '{"a":1}']


@pytest.mark.parametrize("value", DENSE)
def test_what_has_too_many_values_is_not_parsed(value: str) -> None:
    """Everybody else waits meanwhile: 30 MB of empty lists take ten seconds."""
    few, many = (f'{{"a":[{",".join([value] * count)}]}}' for count in (MOST_VALUES // 3, MOST_VALUES))
    assert json_object(few.encode()) is not None
    assert json_object(many.encode()) is None
    assert json_object(f'{{"a":"{"b" * len(many)}"}}'.encode()) is not None


@pytest.mark.parametrize(
    ("meter", "answer"),
    [
        (
            anthropic.MessagesAnswer,
            '{"model":"m","content":[{"type":"tool_use","input":{"a":%s}}],"usage":{"input_tokens":7,"output_tokens":2}}',
        ),
        (
            openai_meters.OpenAIAnswer,
            '{"id":"resp_1","model":"m","output":%s,"usage":{"input_tokens":7,"output_tokens":2},"user":null}',
        ),
        (
            openai_meters.OpenAIAnswer,
            '{"choices":[{"logprobs":{"content":%s}}],"usage":{"prompt_tokens":7,"completion_tokens":2},"model":"m"}',
        ),
        (
            openai_meters.ResponsesStream,
            'data: {"type":"response.completed","response":{"id":"resp_1","model":"m","output":%s,'
            '"usage":{"input_tokens":7,"output_tokens":2}}}\n\n',
        ),
    ],
)
def test_of_an_answer_with_too_many_values_the_ends_are_read(meter: type[Meter], answer: str) -> None:
    one = meter()
    one.feed((answer % json.dumps([{"token": "a", "logprob": -1}] * MOST_VALUES)).encode())
    one.end()
    assert (one.usage.model, one.usage.input_tokens, one.usage.output_tokens) == ("m", 7, 2)
    assert one.complete
    assert one.stored == (("resp_1",) if "resp_1" in answer else ())


@pytest.mark.parametrize("name", ["ad5663da-63e6-86c6-e0be-ff15effa8357", "resp_" + "aGVs+bG8=" * 40])
def test_a_response_with_another_kind_of_id_is_kept_as_well(name: str) -> None:
    """xAI's are UUIDs, those of another gateway long."""
    response = {"id": name, "object": "response", "status": "completed", "output": [], "usage": {}}
    whole = openai_meters.OpenAIAnswer()
    whole.feed(json.dumps(response).encode())
    whole.end()
    stream = openai_meters.ResponsesStream()
    event = json.dumps({"type": "response.completed", "response": response})
    stream.feed(f"event: response.completed\ndata: {event}\n\n".encode())
    overlong = openai_meters.ResponsesStream()
    overlong.read_overlong(event.encode(), b"")
    assert whole.stored == stream.stored == overlong.stored == (name,)


def test_few_of_many_places_are_looked_at_for_an_object() -> None:
    """Each is read to the text's end."""
    assert object_behind(b"usage", b'"usage":{"a":1},' + b'"usage":{' * 7) == {"a": 1}
    assert object_behind(b"usage", b'"usage":{"a":1},' + b'"usage":{' * 7000) is None


def test_a_count_beyond_all_bounds_is_none() -> None:
    meter = anthropic.MessagesAnswer()
    meter.feed(b'{"usage": {"input_tokens": 123456789012345678901234567890, "output_tokens": 2}}')
    meter.end()
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (0, 2)


def test_events_are_taken_whole() -> None:
    stream = b'event: one\ndata: {"a":\ndata: 1}\n\n: comment\n\ndata: x\r\n\r\nevent: bare\n\nevent: cut\ndata: {'
    assert list(sse_events(stream)) == [("one", b'{"a":\n1}'), ("", b"x"), ("bare", b"")]


def test_a_count_is_a_count() -> None:
    assert [count(value) for value in (7, 0, -1, 1.5, True, "7", None, 2**53, [7])] == [7, 0, 0, 0, 0, 0, 0, 0, 0]
    assert [count(value) for value in (7.0, -7.0, 1e300, float("inf"), float("nan"))] == [7, 0, 0, 0, 0]


def test_a_number_is_a_finite_one_also_as_a_text() -> None:
    assert [number(value) for value in (7, 1.5, "7", " 0.5 ", -1)] == [7, 1.5, 7, 0.5, -1]
    assert [number(value) for value in (True, None, "", "soon", [7], "nan", float("inf"), 10**400)] == [None] * 8


def test_server_tools_and_the_service_tier_are_read() -> None:
    """A search has a price of its own, and the tier changes all of them."""
    told = {
        "output_tokens": 5,
        "server_tool_use": {
            "web_search_requests": 2,
            "web_fetch_requests": 1,
            "tool_search_requests": 3,
            "code_execution_requests": 4,
        },
    }
    claude = anthropic.MessagesStream()
    claude.feed(sse({"type": "message_delta", "usage": told | {"service_tier": "priority"}}))
    assert (claude.usage.server_tools, claude.usage.tier) == (2, "priority")
    for tier, read in (("flex", "flex"), ("no word\n", "")):
        codex = openai_meters.ResponsesStream()
        codex.feed(sse({"type": "response.completed", "response": {"service_tier": tier, "usage": {}}}))
        assert codex.usage.tier == read


def test_a_higher_speed_is_a_tier() -> None:
    """It costs twice as much or more, and only one of several events may name it."""
    start = {"input_tokens": 5, "service_tier": "standard", "speed": "fast"}
    meter = anthropic.MessagesStream()
    meter.feed(sse({"type": "message_start", "message": {"model": "claude-opus-5", "usage": start}}))
    meter.feed(sse({"type": "message_delta", "usage": {"output_tokens": 9, "service_tier": "standard"}}))
    assert meter.usage == Usage("claude-opus-5", 5, 9, tier="fast")
    answer = anthropic.MessagesAnswer()
    answer.feed(json.dumps({"usage": start | {"speed": "standard"}}).encode())
    answer.end()
    assert answer.usage.tier == "standard"


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        ({"inference_geo": "us"}, "+region"),
        ({"inference_geo": "us", "service_tier": "standard"}, "standard+region"),
        ({"inference_geo": "us", "service_tier": "standard", "speed": "fast"}, "fast+region"),
        ({"inference_geo": "global", "service_tier": "standard"}, "standard"),
        ({"inference_geo": "not_available"}, ""),
        ({"inference_geo": ["us"]}, ""),
    ],
)
@pytest.mark.parametrize("where", [("start",), ("end",), ("start", "end")])
def test_a_region_is_part_of_the_tier(told: dict[str, object], tier: str, where: tuple[str, ...]) -> None:
    """A tenth more, whichever event tells of it."""
    first = {"input_tokens": 5} | (told if "start" in where else {})
    last = {"output_tokens": 9, "iterations": [{"type": "compaction", "input_tokens": 2}]}
    meter = anthropic.MessagesStream()
    meter.feed(sse({"type": "message_start", "message": {"model": "claude-opus-5", "usage": first}}))
    meter.feed(sse({"type": "message_delta", "usage": last | (told if "end" in where else {})}))
    assert (meter.usage.tier, [one.tier for one in meter.usage.beside]) == (tier, [tier])


def sse(event: dict[str, object]) -> bytes:
    return b"data: %b\n\n" % json.dumps(event).encode()


def test_a_message_begins_a_turn_if_the_upstream_would_take_it_for_one() -> None:
    meter = openai_meters.ResponsesSocket(openai_meters.ResponsesStream)
    for message in (
        b'{"type":"response.create"}',
        b' { "type" : "response.create", "type": "response.cancel"}',
        b'{"model":"m","type":"response.create"}',
        b'{"type":"response.cancel","type":"response.create"}',
        b"no JSON",
        b'{"type":"of.tomorrow"}',
        b"{}",
    ):
        assert meter.begins(message), message
    assert not meter.begins(b'{"type":"response.cancel"}')
    assert not meter.begins(b'{"type":"response.processed","response_id":"resp_1"}')
    meter.asked(b'{"type":"response.create","stream_id":"a"}')
    assert not meter.begins(b'{"type":"of.tomorrow"}')
    assert not meter.begins(b"{}")
    assert meter.begins(b"[no JSON")


@pytest.mark.parametrize(
    ("told", "begins"),
    [
        ({"type": "response.create"}, True),
        ({"type": "response.steer"}, False),
        ({"type": "response.steer", "x": "ü"}, True),
    ],
)
def test_a_large_message_is_searched_instead(told: dict[str, str], begins: bool) -> None:
    meter = openai_meters.ResponsesSocket(openai_meters.ResponsesStream)
    meter.asked(b'{"type":"response.create"}')
    large = json.dumps({"input": "x" * openai_meters.LARGE} | told).encode()
    assert meter.begins(large) is begins, "what hides the word needs room, too"


def test_an_answer_may_begin_another_by_itself() -> None:
    """A client has steered it."""
    meter = openai_meters.ResponsesSocket(openai_meters.ResponsesStream)
    created, usage = b'{"type":"response.created","response":{}}', {"input_tokens": 4, "output_tokens": 2}
    meter.asked(b'{"type":"response.create"}')
    meter.feed(created)
    assert not meter.unasked
    steered = {"type": "response.incomplete", "response": {"usage": usage, "incomplete_details": {"reason": "steered"}}}
    meter.feed(json.dumps(steered).encode())
    assert (meter.ended, meter.complete) == (True, True)
    meter.feed(b'{"type":"response.steer.pending"}')
    assert (meter.unasked, meter.complete) == (False, True)
    meter.feed(created)
    assert (meter.unasked, meter.complete, meter.last.before) == (True, False, Usage("", 4, 2))
    meter.feed(created)
    assert not meter.unasked
    meter.feed(json.dumps(steered | {"type": "response.completed"}).encode())
    assert (meter.ended, meter.complete, meter.usage.output_tokens) == (True, True, 4)


def test_an_answer_goes_on_behind_an_error_that_is_not_about_it() -> None:
    """Else whoever sends what the upstream does not know, in the middle of each turn, takes them for nothing."""
    meter = openai_meters.ResponsesSocket(openai_meters.ResponsesStream)
    done = {"type": "response.completed", "response": {"id": "resp_1A", "usage": {"input_tokens": 4}}}
    meter.asked(b'{"type":"response.create"}')
    meter.feed(b'{"type":"response.created","response":{"id":"resp_1A"}}')
    meter.feed(b'{"type":"error","status":400,"error":{"message":"Unknown event."}}')
    assert meter.complete
    meter.feed(b'{"type":"response.output_text.delta","delta":"x"}')
    assert meter.complete
    meter.feed(json.dumps(done).encode())
    assert (meter.unasked, meter.ended, meter.complete, meter.usage.total_input) == (True, True, True, 4)
    for last in (done, done | {"type": "response.done"}, {"type": "response.completed", "response": {}}):
        meter.feed(json.dumps(last).encode())
        assert not meter.unasked, "it was told before, or nobody knows"


def test_of_another_lane_it_does_so_beside_what_is_under_way() -> None:
    meter = openai_meters.ResponsesSocket(openai_meters.ResponsesStream)
    for stream in (b"a", b"b"):
        meter.asked(b'{"type":"response.create","stream_id":"%b"}' % stream)
    meter.feed(b'{"type":"response.completed","response":{},"stream_id":"a"}')
    meter.feed(b'{"type":"response.created","response":{}}')
    assert not meter.unasked, "it may be the other's"
    meter.feed(b'{"type":"response.created","response":{},"stream_id":"a"}')
    assert meter.unasked
    meter.asked(b'{"type":"response.create"}')
    meter.feed(b'{"type":"response.completed","response":{"usage":{"input_tokens":9}}}')
    assert (meter.ended, meter.complete) == (True, False)
    meter.feed(b'{"type":"response.created","response":{}}')
    assert meter.unasked, "it is of the lane without a name"
    assert meter.last.before is not None
    assert meter.last.before.total_input == 9


def test_a_streams_id_is_kept_no_longer_than_need_be() -> None:
    meter = openai_meters.ResponsesSocket(openai_meters.ResponsesStream)
    asked = json.dumps({"type": "response.create", "stream_id": "x" * 100_000}).encode()
    meter.asked(asked)
    assert len(meter.lane(asked)) == openai_meters.LONGEST


def test_a_lane_is_the_one_that_the_client_named() -> None:
    meter = openai_meters.ResponsesSocket(openai_meters.ResponsesStream)
    assert meter.lane(b'{"type":"x","stream_id":"a"}') == "", "nobody named any"
    meter.asked(b'{"type":"response.create","stream_id":"gr\\u00fc\\"n"}')
    first = meter.last
    meter.asked(b'{"type":"response.create","stream_id":"b"}')
    done = {"type": "response.completed", "response": {"usage": {"input_tokens": 4, "output_tokens": 2}}}
    meter.feed(json.dumps(done | {"stream_id": 'grü"n'}, ensure_ascii=False).encode())
    assert (meter.last, meter.ended, meter.complete) == (first, True, False)
    meter.feed(b'{"type":"response.created","stream_id":7}')
    assert not meter.ended
    meter.feed(json.dumps(done | {"stream_id": "another"}).encode())
    assert (meter.ended, meter.complete) == (True, True)
    assert meter.usage.output_tokens == 4
