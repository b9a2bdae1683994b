"""What the usage of an answer in OpenAI's formats means, as OpenAI and others write it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from aimux.metering.estimates import Estimates
from aimux.metering.record import RequestRecord
from aimux.plugin import Meter, RequestHead, Usage
from aimux.plugin.formats import anthropic, anthropic_stored, openai, openai_meters, openai_usage
from aimux.plugin.meters import MAX_LINE

JSON, EVENTS = "application/json", "text/event-stream"


def read(path: str, answer: dict[str, Any], *, status: int = 200, content_type: str = JSON) -> Usage:
    meter = meter_for(path, content_type)
    assert meter is not None
    raw = json.dumps(answer).encode()
    meter.feed(b"data: %b\n\n" % raw if content_type == EVENTS else raw)
    meter.end()
    assert meter.consumes
    return meter.usage


def meter_for(path: str, content_type: str = JSON) -> Meter | None:
    return openai.meter(RequestHead("POST", path, CIMultiDict()), 200, CIMultiDict({"content-type": content_type}))


def test_what_was_written_to_the_cache_has_a_price_of_its_own() -> None:
    """Since GPT-5.6, at 1.25 times the input's."""
    told = {
        "input_tokens": 4_000,
        "input_tokens_details": {"cached_tokens": 700, "cache_write_tokens": 3_207},
        "output_tokens": 9,
        "total_tokens": 4_009,
    }
    usage = read("/v1/responses", {"model": "gpt-5.6-sol", "usage": told})
    assert usage == Usage("gpt-5.6-sol", 93, 9, cache_read_tokens=700, cache_write_tokens=3_207)
    chat = {"prompt_tokens": 194, "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 100}}
    assert read("/v1/chat/completions", {"usage": chat}) == Usage("", 94, cache_write_tokens=100)


@pytest.mark.parametrize(
    ("told", "output", "reasoning"),
    [
        ({"completion_tokens": 1499, "total_tokens": 14428, "reasoning": 2809}, 4308, 2809),  # xAI
        ({"completion_tokens": 10, "total_tokens": 10630}, 510, 500),  # Gemini
        ({"completion_tokens": 0, "total_tokens": 10180, "reasoning": 60}, 60, 60),
        ({"completion_tokens": 90, "total_tokens": 10210, "reasoning": 60}, 90, 60),  # OpenAI
        ({"completion_tokens": 90, "total_tokens": 0}, 90, 0),
        ({"completion_tokens": 90, "reasoning": 100}, 90, 90),
    ],
)
def test_thinking_is_output_whether_a_vendor_counts_it_there_or_only_in_the_total(
    told: dict[str, int], output: int, reasoning: int
) -> None:
    told = {"prompt_tokens": 10120, **told}
    details = {"completion_tokens_details": {"reasoning_tokens": told.pop("reasoning", None)}}
    usage = read("/v1/chat/completions", {"usage": told | details})
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (10120, output, reasoning)


@pytest.mark.parametrize("key", ["cached_tokens", "prompt_cache_hit_tokens"])
def test_what_was_read_from_a_cache_may_stand_beside_the_totals(key: str) -> None:
    usage = read("/v1/chat/completions", {"usage": {"prompt_tokens": 2_989, "completion_tokens": 3, key: 2_900}})
    assert usage == Usage("", 89, 3, cache_read_tokens=2_900)


def test_a_streams_usage_may_be_its_last_choices() -> None:
    """Moonshot tells it there."""
    told = {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32}
    chunk = {"model": "kimi", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": told}]}
    assert read("/v1/chat/completions", chunk, content_type=EVENTS) == Usage("kimi", 19, 13)


def test_a_streams_usage_may_be_its_servers_own_part() -> None:
    """Groq tells it there, unless it was asked for in OpenAI's way."""
    told = {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32}
    choices = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    chunk = {"model": "llama", "choices": choices, "x_groq": {"id": "req_1", "usage": told}}
    assert read("/v1/chat/completions", chunk, content_type=EVENTS) == Usage("llama", 19, 13)


def test_zeros_behind_a_streams_usage_take_nothing_back() -> None:
    meter = meter_for("/v1/chat/completions", EVENTS)
    assert meter is not None
    for told in ({"prompt_tokens": 19, "completion_tokens": 13}, {"prompt_tokens": 0, "completion_tokens": 0}):
        chunk: dict[str, Any] = {"choices": [], "usage": told}
        meter.feed(b"data: %b\n\n" % json.dumps(chunk).encode())
    meter.end()
    assert meter.usage == Usage("", 19, 13)


def test_an_answer_without_choices_took_nothing() -> None:
    """MiniMax says with a 200 that there is no credit."""
    meter = meter_for("/v1/chat/completions")
    assert meter is not None
    meter.feed(b'{"id": "", "choices": null, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}')
    meter.end()
    assert meter.failed
    assert not Estimates().usage(RequestRecord("", 0.0, "POST", "/"), meter).anything


@pytest.mark.parametrize("content_type", [JSON, EVENTS])
def test_searches_of_the_web_are_counted(content_type: str) -> None:
    """They cost a cent each. What the model does with the pages that it found costs nothing besides their tokens."""
    calls = [{"type": "web_search_call", "action": {"type": kind}} for kind in ("search", "open_page", "find_in_page")]
    calls += [{"type": "web_search_call"}, {"type": "message", "content": []}]
    answer: dict[str, Any] = {"output": calls, "usage": {"input_tokens": 5, "output_tokens": 1}}
    if content_type == EVENTS:
        answer = {"type": "response.completed", "response": answer}
    assert read("/v1/responses", answer, content_type=content_type) == Usage("", 5, 1, server_tools=2)


@pytest.mark.parametrize("told", [{}, {"output": []}, {"output": None}])
@pytest.mark.parametrize("size", [0, MAX_LINE + 1])
def test_searches_are_counted_that_the_last_event_leaves_out(told: dict[str, Any], size: int) -> None:
    """As ChatGPT's backend does with all of the answer (get-bb/bb#3310)."""
    items: list[dict[str, Any]] = [{"type": "web_search_call", "action": {"type": "search"}}] * 2
    items += [{"type": "web_search_call", "action": {"type": "open_page"}}, {"type": "message"}]
    meter = openai_meters.ResponsesStream()

    def feed(**event: Any) -> None:
        meter.feed(b"data: " + json.dumps(event).encode() + b"\n\n")

    for item in items:
        feed(type="response.output_item.added", item=item)
        feed(type="response.output_item.done", item=item)
    assert meter.usage.server_tools == 2, "also where it is cut off"
    usage = {"input_tokens": 5, "output_tokens": 1}
    feed(type="response.completed", response={"instructions": "x" * size, **told, "usage": usage})
    assert (meter.usage, meter.complete) == (Usage("", 5, 1, server_tools=2), True)


def test_searches_of_files_are_counted_and_have_a_price_of_their_own() -> None:
    calls: list[Any] = [{"type": "web_search_call"}, *2 * [{"type": "file_search_call", "queries": []}], None]
    answer = {"output": calls, "usage": {"input_tokens": 5, "output_tokens": 1}}
    expected = Usage("", 5, 1, server_tools=3, beside=(Usage(server_tools=2, tier="file_search"),))
    assert read("/v1/responses", answer) == expected
    usage = Usage()
    for _ in range(2):
        openai_usage.read_usage(usage, answer)
    assert usage == expected, "however often it is told"


def test_what_is_heard_seen_said_and_drawn_is_told_apart_and_counted_once() -> None:
    told = {
        "prompt_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 30, "audio_tokens": 60, "image_tokens": 90},
        "completion_tokens": 50,
        "completion_tokens_details": {"reasoning_tokens": 10, "audio_tokens": 70},
    }
    usage = read("/v1/chat/completions", {"model": "gpt-audio", "usage": told})
    heard, seen = Usage(input_tokens=60, output_tokens=40, tier="audio"), Usage(input_tokens=10, tier="image")
    assert usage == Usage("gpt-audio", 70, 50, 30, reasoning_tokens=10, beside=(heard, seen))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "/v1/chat/completion%73",
        "/v1/Chat/Completions",
        "/v1/chat/completions;x=/",
        "/v1/chat/completions%20",
        "/v1/chat%2Fcompletions//",
    ],
)
def test_a_path_that_is_spelled_oddly_is_counted_like_any_other(path: str) -> None:
    told = {"usage": {"prompt_tokens": 70, "completion_tokens": 9}}
    assert read(path, told) == Usage("", 70, 9)
    assert read(path.replace("chat/completions", "responses"), told) == Usage("", 70, 9)


@pytest.mark.parametrize("path", ["/v1/messages/", "/v1/message%73", "/v1/Messages;a=b", "/v1/messages%20//"])
def test_so_is_one_of_anthropics_format(path: str) -> None:
    head, headers = RequestHead("POST", path, CIMultiDict()), CIMultiDict({"content-type": JSON})
    assert isinstance(anthropic.meter(head, 200, headers), anthropic.MessagesAnswer)
    results = RequestHead("GET", "/v1/messages/batches/msgbatch%5F01Hk/Results/", CIMultiDict())
    meter = anthropic.meter(results, 200, CIMultiDict({"content-type": "application/x-jsonl"}))
    assert isinstance(meter, anthropic_stored.BatchResults)
    meter.end()
    assert [over.id for over in meter.over] == ["msgbatch_01Hk"]


def test_a_type_is_the_same_in_capitals() -> None:
    assert isinstance(meter_for("/v1/responses", "Text/Event-Stream;charset=UTF-8"), openai_meters.ResponsesStream)
    assert isinstance(meter_for("/v1/responses", "Application/JSON"), openai_meters.OpenAIAnswer)
    head, stream = (
        RequestHead("POST", "/v1/messages", CIMultiDict()),
        CIMultiDict({"content-type": "TEXT/EVENT-STREAM"}),
    )
    assert isinstance(anthropic.meter(head, 200, stream), anthropic.MessagesStream)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/embeddings", "/v1/score", "//v1/Rerank/"])
def test_where_a_total_is_all_that_is_told_it_is_input(path: str) -> None:
    """Voyage and Jina tell no more."""
    told = {"model": "rerank-2.5", "results": [], "usage": {"total_tokens": 815}}
    assert read(path, told) == Usage("rerank-2.5", 815)


def test_what_is_sold_apiece_has_no_price() -> None:
    """Cohere's rankings, and Mistral's reading of pages."""
    assert read("/v1/rerank", {"results": [], "meta": {"billed_units": {"search_units": 1}}}) == Usage(unknown=True)
    pages = {"model": "mistral-ocr-latest", "pages": [], "usage_info": {"pages_processed": 3}}
    assert read("/v1/ocr", pages) == Usage("mistral-ocr-latest", unknown=True)


@pytest.mark.parametrize("path", ["/v1/conversations", "/v1/conversations/conv_1", "/v1/conversations/conv_1/restart"])
def test_a_conversation_of_mistrals_is_answered_and_kept(path: str) -> None:
    told = {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 45, "connector_tokens": 5}
    outputs = [{"type": "tool.execution"}, {"type": "message.output", "model": "mistral-medium-latest"}]
    answer = {"conversation_id": "conv_1", "object": "conversation.response", "outputs": outputs, "usage": told}
    meter = meter_for(path)
    assert meter is not None
    meter.feed(json.dumps(answer).encode())
    meter.end()
    assert (meter.consumes, meter.stored) == (True, ("conv_1",))
    assert meter.usage == Usage("mistral-medium-latest", 30, 15, reasoning_tokens=5)


def test_a_conversation_of_mistrals_streams() -> None:
    events: list[dict[str, Any]] = [
        {"type": "conversation.response.started", "conversation_id": "conv_1"},
        *[{"type": "message.output.delta", "content": "x" * 40, "model": "m"}] * 20,
        {"type": "conversation.response.done", "usage": {"prompt_tokens": 30, "completion_tokens": 200}},
    ]
    whole = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    meter = meter_for("/v1/conversations", EVENTS)
    assert meter is not None
    meter.feed(b"".join(whole))
    meter.end()
    assert (meter.complete, meter.stored, meter.usage) == (True, ("conv_1",), Usage("", 30, 200))
    cut = meter_for("/v1/conversations", EVENTS)
    assert cut is not None
    cut.feed(b"".join(whole[:-1]))
    cut.end()
    assert not cut.complete
    assert Estimates().usage(RequestRecord("", 0.0, "POST", "/"), cut).output_tokens == pytest.approx(200, rel=0.1)


def test_a_conversation_of_openais_is_kept_and_costs_nothing() -> None:
    meter = meter_for("/v1/conversations")
    assert meter is not None
    meter.feed(b'{"id": "conv_1", "object": "conversation"}')
    meter.end()
    assert (meter.consumes, meter.stored, meter.usage) == (False, ("conv_1",), Usage())


@pytest.mark.parametrize("path", ["/v1/files", "/v1/vector_stores/", "/v1/batches"])
def test_what_is_only_kept_consumes_nothing(path: str) -> None:
    meter = meter_for(path)
    assert meter is not None
    assert not meter.consumes


PAINTED = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5.5",
    "tools": [{"type": "web_search"}, {"type": "image_generation", "model": "gpt-image-1.5"}],
    "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
    "tool_usage": {"image_gen": {"input_tokens": 30, "output_tokens": 4000}, "web_search": {"num_requests": 0}},
}
PICTURE = (Usage("gpt-image-1.5", 30), Usage("gpt-image-1.5", 0, 4000, tier="image"))


@pytest.mark.parametrize("size", [0, MAX_LINE + 1])
def test_what_a_responses_tool_paints_is_another_models(size: int) -> None:
    """Its usage leaves it out, though it is most of the price (Wei-Shaw/sub2api#4644)."""
    output = [{"type": "image_generation_call", "result": "A" * size}]
    told = {key: value for key, value in PAINTED.items() if key not in {"tools", "usage", "tool_usage"}}
    response = told | {"output": output} | {key: PAINTED[key] for key in ("tools", "usage", "tool_usage")}
    meter = openai_meters.ResponsesStream()
    for name in ("response.created", "response.completed"):
        meter.feed(b"data: " + json.dumps({"type": name, "response": response}).encode() + b"\n\n")
    assert meter.usage.beside == PICTURE
    assert (meter.usage.model, meter.usage.input_tokens, meter.usage.output_tokens) == ("gpt-5.5", 130, 4020)
    assert meter.complete


def test_the_words_of_a_picture_cost_less_than_what_is_seen_and_painted() -> None:
    painted = {"input_tokens": 30, "input_tokens_details": {"text_tokens": 10, "image_tokens": 20}, "output_tokens": 9}
    usage = Usage()
    openai_usage.read_usage(usage, PAINTED | {"tool_usage": {"image_gen": painted}})
    words, seen = Usage("gpt-image-1.5", 10), Usage("gpt-image-1.5", 20, 9, tier="image")
    assert (usage.beside, usage.input_tokens, usage.output_tokens) == ((words, seen), 130, 29)


def test_what_is_read_from_a_cache_costs_less_in_pictures_too() -> None:
    painted = {
        "input_tokens": 100,
        "input_tokens_details": {"text_tokens": 30, "image_tokens": 70},
        "cached_tokens": 50,
        "cached_tokens_details": {"cached_text_tokens": 10, "cached_image_tokens": 40},
        "output_tokens": 9,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 9},
    }
    usage = Usage()
    for _ in range(2):
        openai_usage.read_usage(usage, PAINTED | {"tool_usage": {"image_gen": painted}})
    words, seen = Usage("gpt-image-1.5", 20, 0, 10), Usage("gpt-image-1.5", 30, 9, 40, tier="image")
    assert usage.beside == (words, seen)
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (150, 50, 29)
    told = {"input_tokens": 100, "cached_tokens": 500, "cached_tokens_details": [], "output_tokens": 1}
    openai_usage.read_usage(usage, PAINTED | {"tool_usage": {"image_gen": told}})
    assert usage.beside == (Usage("gpt-image-1.5", 0, 0, 100), Usage("gpt-image-1.5", 0, 1, tier="image"))


DRAWN = {"input_tokens": 700, "model": "gpt-6-sol", "output_tokens": 900, "reasoning_tokens": 200, "total_tokens": 1600}


def test_a_drawing_is_written_by_a_model_of_texts() -> None:
    """Which the usage of pictures leaves out."""
    item = {"type": "image_generation_call", "svg_usage": DRAWN}
    usage = Usage()
    for _ in range(2):
        openai_usage.read_usage(usage, PAINTED | {"output": [item, item | {"svg_usage": None}, 1]})
    assert usage.beside == (*PICTURE, Usage("gpt-6-sol", 700, 900))
    assert (usage.input_tokens, usage.output_tokens) == (830, 4920)


def test_a_search_that_is_not_charged_is_not_counted() -> None:
    """Of what the tool did, the items tell; of what is charged, its usage."""
    searches = [{"type": "web_search_call", "action": {"type": "search"}}] * 3
    for charged in (0, 2):
        told = {"tool_usage": {"web_search": {"num_requests": charged}}, "output": searches}
        assert read("/v1/responses", PAINTED | told).server_tools == charged
    assert read("/v1/responses", PAINTED | {"output": searches, "tool_usage": {"web_search": None}}).server_tools == 3


def test_what_is_kept_for_half_a_day_is_told_apart() -> None:
    kept = {"ttl_12h_tokens": 3_000, "ttl_30m_tokens": 207}
    details = {"cached_tokens": 700, "cache_write_tokens": 3_207, "cache_write_tokens_details": kept}
    told = {"input_tokens": 4_000, "input_tokens_details": details, "output_tokens": 9}
    expected = Usage("m", 93, 9, cache_read_tokens=700, cache_write_tokens=3_207, cache_write_1h_tokens=3_000)
    assert read("/v1/responses", {"model": "m", "usage": told}) == expected
    odds: list[object] = [None, [], {"ttl_12h_tokens": "3"}]
    for odd in odds:
        oddly = told | {"input_tokens_details": details | {"cache_write_tokens_details": odd}}
        assert not read("/v1/responses", {"usage": oddly}).cache_write_1h_tokens


def test_decisions_are_answers_like_others() -> None:
    told = {"input_tokens": 90, "input_tokens_details": {"cached_tokens": 40}, "output_tokens": 3, "total_tokens": 93}
    answer = {"answers": [{"type": "predicate", "probability": 0.9}], "model": "gpt-6-luna", "usage": told}
    assert read("/v1/decisions", answer) == Usage("gpt-6-luna", 50, 3, 40)


def test_a_summary_of_codexs_memories_is_estimated() -> None:
    meter = meter_for("/v1/memories/trace_summarize")
    assert meter is not None
    meter.feed(json.dumps({"output": [{"memory_summary": "x" * 366}]}).encode())
    meter.end()
    record = RequestRecord("", 0.0, "POST", "/", bytes_in=4_000)
    assert Estimates().usage(record, meter) == Usage("", 1_000, 100, estimated=True)


@pytest.mark.parametrize("content_type", [JSON, "text/plain"])
def test_a_search_that_codex_does_itself_costs_as_the_tools_do(content_type: str) -> None:
    meter = meter_for("/v1/alpha/search", content_type)
    assert meter is not None
    meter.feed(json.dumps({"encrypted_output": "A" * 4_000, "output": "x" * 4_000}).encode())
    meter.end()
    assert Estimates().usage(RequestRecord("", 0.0, "POST", "/"), meter) == Usage(server_tools=1)


def test_a_picture_without_a_model_is_of_the_usual_one() -> None:
    usage = Usage()
    for _ in range(2):
        openai_usage.read_usage(usage, PAINTED | {"tools": None})
    assert {one.model for one in usage.beside} == {openai_usage.PAINTER}
    assert usage.output_tokens == 4020
    openai_usage.read_usage(usage, PAINTED | {"tool_usage": {"image_gen": None}})
    assert (usage.beside, usage.output_tokens) == ((), 20)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        # What is cached is apart from the input (Menci/Floway#350, Portkey-AI/gateway#1754), …
        ({"prompt_tokens": 479, "total_tokens": 14_164, "cached": 13_312}, Usage("", 479, 373, 13_312)),
        ({"prompt_tokens": 479, "total_tokens": 1_252, "cached": 300, "wrote": 100}, Usage("", 479, 373, 300, 100)),
        # … or a part of it, …
        ({"prompt_tokens": 13_791, "total_tokens": 14_164, "cached": 13_312}, Usage("", 479, 373, 13_312)),
        ({"prompt_tokens": 879, "total_tokens": 1_252, "cached": 300, "wrote": 100}, Usage("", 479, 373, 300, 100)),
        # … and what is beyond both is thinking.
        ({"prompt_tokens": 879, "total_tokens": 1_262, "cached": 400}, Usage("", 479, 383, 400, reasoning_tokens=10)),
    ],
)
def test_what_is_cached_is_no_thinking(told: dict[str, int], expected: Usage) -> None:
    details = {"cached_tokens": told.pop("cached")}
    usage = Usage()
    written = {"cache_creation_input_tokens": told.pop("wrote", 0)}
    openai_usage.read_usage(
        usage, {"usage": told | written | {"completion_tokens": 373, "prompt_tokens_details": details}}
    )
    assert usage == expected


def test_dashscope_has_anthropics_word_for_what_is_written_to_a_cache() -> None:
    """At a quarter more than input (BerriAI/litellm#40090)."""
    details = {"cache_creation_input_tokens": 1_889, "cache_type": "ephemeral", "cached_tokens": 0}
    told = {"prompt_tokens": 1_900, "completion_tokens": 9, "total_tokens": 1_909, "prompt_tokens_details": details}
    assert read("/v1/chat/completions", {"usage": told}) == Usage("", 11, 9, cache_write_tokens=1_889)
