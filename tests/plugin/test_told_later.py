"""What batches and answers in the background took, as both formats tell it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from aimux.plugin import Meter, Over, RequestHead, Usage
from aimux.plugin.formats import anthropic, openai
from aimux.plugin.meters import MAX_LINE, MOST_MODELS

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
RESULTS = "/v1/messages/batches/msgbatch_01ABC/results"


def of_anthropic(target: str, method: str = "GET", content_type: str = JSON, status: int = 200) -> Meter | None:
    head = RequestHead(method, target, CIMultiDict())
    return anthropic.meter(head, status, CIMultiDict({"content-type": content_type}))


def of_openai(target: str, method: str = "GET", content_type: str = JSON) -> Meter:
    meter = openai.meter(RequestHead(method, target, CIMultiDict()), 200, CIMultiDict({"content-type": content_type}))
    assert meter is not None
    return meter


def fed(meter: Meter | None, data: object, size: int = 1 << 20) -> Meter:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    assert meter is not None
    for begin in range(0, len(raw), size):
        meter.feed(raw[begin : begin + size])
    meter.end()
    return meter


# --- message batches --------------------------------------------------------------------------------------------------


def result(model: str = "claude-opus-5", **told: Any) -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 5, "service_tier": "batch"} | told
    message = {"type": "message", "model": model, "content": [{"type": "text", "text": "Grüß Gott"}], "usage": usage}
    return json.dumps({"custom_id": "q", "result": {"type": "succeeded", "message": message}}).encode() + b"\n"


def test_a_batch_begins_with_its_id() -> None:
    batch = {"id": "msgbatch_01ABC", "type": "message_batch", "processing_status": "in_progress"}
    meter = fed(of_anthropic("/v1/messages/batches", "POST"), batch)
    assert (meter.begun, meter.stored, meter.consumes) == ("msgbatch_01ABC", ("msgbatch_01ABC",), False)
    assert fed(of_anthropic("/v1/files", "POST"), {"id": "file_1", "type": "file"}).begun == ""


def test_a_batch_without_any_result_is_over() -> None:
    ended = {"id": "msgbatch_01ABC", "type": "message_batch", "processing_status": "ended"}
    none, some = ({"request_counts": {"succeeded": count, "canceled": 3}} for count in (0, 1))
    place = "/v1/messages/batches"
    assert fed(of_anthropic(f"{place}/msgbatch_01ABC"), ended | none).over == (Over("msgbatch_01ABC", ()),)
    page = {"data": [ended | some, ended | none | {"id": "msgbatch_02DEF"}, None, {"id": 7}], "has_more": False}
    assert fed(of_anthropic(place), page).over == (Over("msgbatch_02DEF", ()),)
    for working in (some, none | {"processing_status": "canceling"}, {}):
        assert fed(of_anthropic(f"{place}/msgbatch_01ABC"), ended | working).over == ()
    cancelled = BATCH | {"status": "cancelled", "usage": None, "request_counts": {"total": 3, "completed": 0}}
    assert fed(of_openai("/v1/batches/batch_A1"), cancelled).over == (Over("batch_A1", ()),)
    assert fed(of_openai("/v1/batches/batch_A1"), cancelled | {"request_counts": {"completed": 1}}).over == ()


def test_results_add_up_by_model_and_length_wherever_they_are_cut() -> None:
    failed = json.dumps({"custom_id": "q", "result": {"type": "errored", "error": {}}}).encode() + b"\n"
    odd = b'\n[]\n{"result":{"message":[]}}\n{"result":0}\n{\n'
    long = result(input_tokens=1000, cache_read_input_tokens=150_000, output_tokens=7)
    data = result() + failed + result(output_tokens=6) + odd + long + result("claude-haiku-4-5")[:-1]
    opus = Usage("claude-opus-5", 20, 11, tier="batch", requests=2)
    for size in range(1, 400, 7):
        (over,) = fed(of_anthropic(RESULTS), data, size).over
        assert (over.id, over.whole) == ("msgbatch_01ABC", True)
        used = [usage for usage in over.usage if usage.requests]
        assert used == [
            opus,
            Usage("claude-opus-5", 1000, 7, cache_read_tokens=150_000, tier="batch", requests=1),
            Usage("claude-haiku-4-5", 10, 5, tier="batch", requests=1),
        ]


def test_a_batchs_requests_in_a_region_are_apart() -> None:
    (over,) = fed(of_anthropic(RESULTS), result() + result(inference_geo="us") + result(inference_geo="us")).over
    assert [usage for usage in over.usage if usage.requests] == [
        Usage("claude-opus-5", 10, 5, tier="batch", requests=1),
        Usage("claude-opus-5", 20, 10, tier="batch+region", requests=2),
    ]


def test_what_was_read_so_far_is_not_all() -> None:
    meter = of_anthropic(RESULTS)
    assert meter is not None
    meter.feed(result() + result()[:50])
    (over,) = meter.over
    assert (over.whole, over.usage[0].output_tokens, meter.consumes) == (False, 5, False)


def test_what_was_sampled_beside_a_message_counts_as_its_models() -> None:
    advice = {"type": "advisor_message", "model": "big", "input_tokens": 100, "output_tokens": 50}
    (over,) = fed(of_anthropic(RESULTS), result(iterations=[advice])).over
    used = {usage.model: (usage.input_tokens, usage.output_tokens) for usage in over.usage if usage.requests}
    assert used == {"claude-opus-5": (10, 5), "big": (100, 50)}


def test_neither_long_lines_nor_many_models_fill_the_memory() -> None:
    meter = of_anthropic(RESULTS)
    assert meter is not None
    for _ in range(MAX_LINE // (1 << 20) + 1):
        meter.feed(b"x" * (1 << 20))
    meter.feed(b"\n" + result())
    assert [usage.output_tokens for usage in meter.over[0].usage if usage.requests] == [5]
    fed(meter, b"".join(result(f"claude-{number}") for number in range(2 * MOST_MODELS)))
    assert len({usage.model for usage in meter.over[0].usage}) == MOST_MODELS


@pytest.mark.parametrize("status", [206, 404])
def test_a_part_of_a_file_and_an_error_are_no_results(status: int) -> None:
    assert of_anthropic(RESULTS, content_type="application/x-jsonl", status=status) is None


# --- OpenAI -----------------------------------------------------------------------------------------------------------

TOLD = {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 40}, "output_tokens": 9}
BATCH = {
    "id": "batch_A1",
    "object": "batch",
    "status": "completed",
    "model": "gpt-5.5",
    "output_file_id": "file-A1",
    "request_counts": {"total": 3, "completed": 2, "failed": 1},
    "usage": TOLD,
}
RESPONSE = {"id": "resp_A1", "object": "response", "status": "completed", "model": "gpt-5.5", "usage": TOLD}
OF_BATCH = Over("batch_A1", (Usage("gpt-5.5", 60, 9, 40, tier="batch", requests=2),))
OF_RESPONSE = Over("resp_A1", (Usage("gpt-5.5", 60, 9, 40),))


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in events)


def test_a_batch_tells_when_it_is_over() -> None:
    for status in ("validating", "in_progress", "finalizing", "cancelling"):
        meter = fed(of_openai("/v1/batches", "POST"), BATCH | {"status": status})
        assert (meter.begun, meter.over) == ("batch_A1", ()), status
    assert fed(of_openai("/v1/batches/batch_A1"), BATCH).over == (OF_BATCH,)
    page = {"object": "list", "data": [BATCH, None, BATCH | {"id": "batch_B2", "usage": None}, {"object": "file"}]}
    assert fed(of_openai("/v1/batches"), page).over == (OF_BATCH,)


FILM = {"id": "video_A1", "object": "video", "model": "sora-2", "seconds": "8", "size": "720x1280"}
TUNED = {"id": "ftjob-A1", "object": "fine_tuning.job", "model": "gpt-4.1", "trained_tokens": 5_768}


@pytest.mark.parametrize(
    ("path", "made", "working", "done", "took"),
    [
        ("/v1/videos", FILM, ("queued", "in_progress"), "completed", Usage("sora-2", seconds=8)),
        (
            "/v1/fine_tuning/jobs",
            TUNED,
            ("validating_files", "queued", "running", "paused"),
            "succeeded",
            Usage("gpt-4.1", 5_768, unknown=True),
        ),
    ],
)
def test_films_and_fine_tuning_tell_when_they_are_over(
    path: str, made: dict[str, Any], working: tuple[str, ...], done: str, took: Usage
) -> None:
    one = made["id"]
    for status in working:
        begun = made | {"status": status, "trained_tokens": None}
        assert fed(of_openai(path, "POST"), begun).begun == one
        assert fed(of_openai(f"{path}/{one}"), begun).over == ()
    assert fed(of_openai(f"{path}/{one}"), made | {"status": done}).over == (Over(one, (took,)),)
    assert fed(of_openai(path), {"object": "list", "data": [made | {"status": done}]}).over == (Over(one, (took,)),)


RUN = {"id": "evalrun_A1", "object": "eval.run", "eval_id": "eval_A1", "model": "gpt-6-sol"}


def test_a_run_of_an_eval_tells_what_each_model_took() -> None:
    took = {"invocation_count": 3, "prompt_tokens": 100, "completion_tokens": 9, "total_tokens": 109}
    models = [{"model_name": "gpt-6-sol", "cached_tokens": 40, **took}, {"model_name": "gpt-6-luna"} | took, None]
    path = "/v1/evals/eval_A1/runs"
    for status in ("queued", "in_progress"):
        assert fed(of_openai(path, "POST"), RUN | {"status": status, "per_model_usage": models}).begun == "evalrun_A1"
        assert not fed(of_openai(f"{path}/evalrun_A1"), RUN | {"status": status, "per_model_usage": models}).over
    done = RUN | {"status": "completed", "per_model_usage": models}
    judged = Usage("gpt-6-luna", 100, 9, requests=3)
    assert fed(of_openai(f"{path}/evalrun_A1"), done).over == (
        Over("evalrun_A1", (Usage("gpt-6-sol", 60, 9, 40, requests=3), judged)),
    )
    assert not fed(of_openai(f"{path}/evalrun_A1"), done | {"per_model_usage": None}).over


SESSION = {"id": "asess_A1", "object": "agent.session", "status": "idle", "agent": {"model": "gpt-6-sol"}}
OF_SESSION = Over("asess_A1", (Usage("gpt-6-sol", 60, 9, 40),), whole=False)


def test_a_session_of_agents_tells_what_it_took_so_far() -> None:
    made = fed(of_openai("/v1/agents/sessions", "POST"), SESSION | {"status": "in_progress", "usage": None})
    assert (made.begun, made.over, made.consumes) == ("asess_A1", (), False)
    assert fed(of_openai("/v1/agents/sessions/asess_A1"), SESSION | {"usage": TOLD}).over == (OF_SESSION,)
    events: list[dict[str, Any]] = [
        {"type": "agent.session.created", "session": SESSION | {"usage": None}},
        {"type": "agent.session.turn.output_text.delta", "delta": "x"},
        {"type": "agent.session.idle", "session": SESSION | {"usage": TOLD | {"output_tokens": 1}}},
        {"type": "agent.session.idle", "session": SESSION | {"usage": TOLD}},
        {"type": "agent.session.failed", "session": SESSION | {"usage": None}},
        {"type": "agent.session.failed", "session": 1},
    ]
    for method, path in (("POST", "/v1/agents/sessions"), ("GET", "/v1/agents/sessions/asess_A1/events")):
        meter = fed(of_openai(path, method, EVENTS), sse(*events))
        assert (meter.stored, meter.begun, meter.over) == (("asess_A1",), "asess_A1", (OF_SESSION,))
        assert (meter.consumes, meter.complete) == (False, True)


@pytest.mark.parametrize("made", [BATCH, RESPONSE, FILM, TUNED, RUN])
def test_what_failed_is_over_and_took_nothing(made: dict[str, Any]) -> None:
    failed = made | {"status": "failed", "usage": None, "trained_tokens": None}
    assert fed(of_openai(f"/v1/things/{made['id']}"), failed).over == (Over(made["id"], ()),)


@pytest.mark.parametrize("odd", [{"status": []}, {"id": 1}, {"usage": []}, {"usage": {}}, {"object": {}}])
def test_what_does_not_tell_is_told_later(odd: dict[str, Any]) -> None:
    assert fed(of_openai("/v1/batches/batch_A1"), BATCH | odd).over in ((), (OF_BATCH,))
    assert fed(of_openai("/v1/batches/batch_A1"), BATCH | {"usage": {}}).over == ()
    event = {"type": "response.completed", "response": RESPONSE | odd}
    assert len(fed(of_openai("/v1/responses/resp_A1", content_type=EVENTS), sse(event)).over) <= 1


def test_a_response_in_the_background_tells_when_it_is_over() -> None:
    begun = RESPONSE | {"status": "queued", "usage": None, "background": True}
    meter = fed(of_openai("/v1/responses", "POST"), begun)
    assert (meter.begun, meter.sent, meter.usage.total_input) == ("resp_A1", 0, 0)
    assert fed(of_openai("/v1/responses", "POST"), RESPONSE).begun == ""
    assert fed(of_openai("/v1/responses/resp_A1"), begun).over == ()
    assert fed(of_openai("/v1/responses/resp_A1"), RESPONSE).over == (OF_RESPONSE,)
    assert fed(of_openai("/v1/responses/resp_A1/cancel", "POST"), RESPONSE | {"status": "cancelled"}).over
    done = {"type": "response.completed", "response": RESPONSE}
    streamed = fed(of_openai("/v1/responses/resp_A1?stream=true", content_type=EVENTS), sse(done), 9)
    assert (streamed.over, streamed.consumes, streamed.complete) == ((OF_RESPONSE,), False, True)
    large = {"type": "response.completed", "response": RESPONSE | {"output": "x" * MAX_LINE, "usage": TOLD}}
    assert fed(of_openai("/v1/responses/resp_A1", content_type=EVENTS), sse(large)).over == (OF_RESPONSE,)


def test_a_stream_that_ends_where_it_was_taken_up_is_whole() -> None:
    """Whoever has seen the last event gets nothing behind it."""
    meter = fed(of_openai("/v1/responses/resp_A1?stream=true&starting_after=9", content_type=EVENTS), b"")
    assert meter.complete
    assert not meter.over


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_a_stream_in_the_background_goes_on_when_its_client_has_left(size: int) -> None:
    shown = {"id": "resp_A1", "object": "response", "created_at": 1, "status": "queued", "background": True}
    created = {"type": "response.created", "sequence_number": 0, "response": shown | {"tools": "x" * 40_000}}
    word = {"type": "response.output_text.delta", "item_id": "i", "delta": "Grüß Gott " * 50}
    meter = of_openai("/v1/responses", "POST", EVENTS)
    for begin in range(0, len(begun := sse(created, word)), size):
        meter.feed(begun[begin : begin + size])
    assert (meter.begun, meter.stored, meter.sent) == ("resp_A1", ("resp_A1",), 0)
    fed(meter, sse({"type": "response.completed", "response": RESPONSE}))
    assert (meter.begun, meter.usage.output_tokens) == ("", 9), "told at once, it is not told later"


def test_not_even_where_all_of_it_is_short() -> None:
    created = {"type": "response.created", "response": {"id": "resp_A1", "background": True}}
    meter = of_openai("/v1/responses", "POST", EVENTS)
    meter.feed(sse(created, {"type": "response.completed", "response": RESPONSE}))
    fed(meter, b": the end\n\n")
    assert meter.begun == ""


@pytest.mark.parametrize(
    "clients",
    [
        {"instructions": 'x{"background":true}' * 100, "tools": [{"background": True}]},
        {"tools": [{"background": True}]},
        {"metadata": {"background": True}},
    ],
)
@pytest.mark.parametrize("told", [{"background": False}, {}])
def test_no_other_stream_does(told: dict[str, Any], clients: dict[str, Any]) -> None:
    """Else whoever hung up just before its end would pay nothing."""
    shown = {"id": "resp_A1", "object": "response", "status": "in_progress"} | told
    created = sse({"type": "response.created", "response": shown | clients})
    meter = fed(of_openai("/v1/responses", "POST", EVENTS), created)
    assert meter.begun == ""
