"""Anthropic's managed agents: what is kept of them, and what they take behind the answers that begin them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from aimux.plugin import Meter, RequestHead
from aimux.plugin.formats import anthropic
from aimux.plugin.formats.anthropic_stored import KeptAnswer

JSON = CIMultiDict({"content-type": "application/json"})
SESSION = {
    "id": "sesn_01",
    "type": "session",
    "status": "running",
    "archived_at": None,
    "agent": {"id": "agent_01", "type": "agent", "model": {"id": "claude-opus-5", "speed": "fast"}},
    "usage": {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
    },
}
DREAM = {
    "id": "drm_01",
    "type": "dream",
    "status": "completed",
    "model": {"id": "claude-opus-5"},
    "outputs": [{"type": "memory_store", "memory_store_id": "memstore_02"}],
    "usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 4},
}


def read(answer: object, method: str = "GET", path: str = "/v1/sessions") -> Meter:
    meter = anthropic.meter(RequestHead(method, path, CIMultiDict()), 200, JSON)
    assert meter is not None
    meter.feed(json.dumps(answer).encode())
    meter.end()
    return meter


@pytest.mark.parametrize("many", [False, True])
def test_a_session_tells_what_it_took_so_far(many: bool) -> None:
    meter = read({"data": [SESSION], "next_page": None} if many else SESSION)
    (over,) = meter.over
    (usage,) = over.usage
    assert (over.id, over.whole) == ("sesn_01", False)
    assert (usage.model, usage.tier) == ("claude-opus-5", "fast")
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (10, 20, 30)
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens, usage.server_tools) == (9, 5, 2)
    assert meter.begun == ("" if many else "sesn_01")


EVENTS = [
    {"type": "session.status_running", "id": "sevt_01"},
    {"type": "session.usage", "id": "sevt_02", "usage": {"input_tokens": 5}},
    {"type": "agent.message", "id": "sevt_03", "content": [{"type": "text", "text": '"session.usage"'}]},
    {"type": "session.usage", "id": "sevt_04", "usage": SESSION["usage"]},
]


@pytest.mark.parametrize("path", ["/v1/sessions/sesn_01/events/stream", "/v1/sessions/sesn_01/threads/sthr_01/stream"])
def test_so_do_its_events_as_they_happen(path: str) -> None:
    sent = CIMultiDict({"content-type": "text/event-stream"})
    meter = anthropic.meter(RequestHead("GET", path, CIMultiDict()), 200, sent)
    assert meter is not None
    for event in EVENTS:
        meter.feed(f"event: message\ndata: {json.dumps(event)}\n\n".encode())
    meter.end()
    (over,) = meter.over
    assert (over.id, over.whole, over.total, over.usage[0].input_tokens) == ("sesn_01", False, True, 10)
    assert not meter.consumes


def test_and_a_list_of_them() -> None:
    meter = read({"data": EVENTS, "next_page": None}, path="/v1/sessions/sesn_01/events?limit=100")
    assert [(over.id, over.usage[0].input_tokens) for over in meter.over] == [("sesn_01", 5), ("sesn_01", 10)]


@pytest.mark.parametrize("change", [{"status": "terminated"}, {"archived_at": "2026-11-28T00:00:00Z"}])
def test_it_takes_nothing_more_behind_its_end(change: dict[str, Any]) -> None:
    (over,) = read(SESSION | change).over
    assert over.whole


def test_a_dream_tells_what_it_took_and_its_memory_is_its_owners() -> None:
    meter = read(DREAM, path="/v1/dreams/drm_01")
    (over,) = meter.over
    (usage,) = over.usage
    assert over.whole
    assert (usage.model, usage.total_input, usage.output_tokens) == ("claude-opus-5", 8, 2)
    assert meter.stored == ("drm_01", "memstore_02")
    (over,) = read(DREAM | {"status": "canceled"}).over
    assert not over.whole  # its counts can go on


def test_a_deployments_run_begins_a_session() -> None:
    run = {"id": "drun_01", "type": "deployment_run", "deployment_id": "depl_01", "session_id": "sesn_02"}
    meter = read(run, "POST", "/v1/deployments/depl_01/run")
    assert (meter.begun, meter.stored) == ("sesn_02", ("drun_01", "sesn_02"))
    assert isinstance(meter, KeptAnswer)
    assert meter.makers(run) == ("depl_01",)
    assert meter.makers({"id": "file_01", "scope": {"type": "session", "id": "sesn_02"}}) == ("sesn_02",)


@pytest.mark.parametrize("value", [{}, [], "x", 1, None])
@pytest.mark.parametrize(
    "key", ["id", "type", "status", "agent", "usage", "model", "outputs", "scope", "deployment_id"]
)
def test_foreign_values_are_left_alone(key: str, value: object) -> None:
    for answer in (SESSION | {key: value}, DREAM | {key: value}, {"data": [SESSION | {key: value}, value]}):
        meter = read(answer)
        assert isinstance(meter, KeptAnswer)
        assert all(isinstance(one, str) for one in (*meter.stored, *meter.makers(answer)))
