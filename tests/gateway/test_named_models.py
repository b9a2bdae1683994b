"""Models that a body names beside its own: they are found wherever a vendor reads them, and nowhere else."""

from __future__ import annotations

import json

import pytest

from aimux.gateway.named_models import LONGEST, NamedModels
from aimux.gateway.outline import SLICE, Outline
from aimux.plugin.body import Body
from tests.gateway.conftest import Start, Upstream
from tests.gateway.people import add, status

SCHEMA = {
    "type": "object",
    "properties": {"model": {"type": "string", "default": "large"}, "models": {"type": "array", "const": ["large"]}},
    "required": ["model"],
    "examples": [{"model": "large", "models": ["large"]}],
}
ADVISOR = {"type": "advisor_20260301", "name": "advisor", "model": "large"}
PICTURES = {"type": "image_generation", "model": "large"}

NAMED = [
    {"tools": [ADVISOR]},
    {"tools": [{"name": "x", "input_schema": SCHEMA}, PICTURES]},
    {"tools": [{"type": "openrouter:advisor", "parameters": {"model": "large"}}]},
    {"tools": [{"type": "openrouter:fusion", "parameters": {"analysis_models": ["small", "large"]}}]},
    {"tools": [{"type": "openrouter:advisor", "parameters": {"tools": [{"parameters": {"model": "large"}}]}}]},
    {"plugins": [{"id": "fusion", "model": "small", "analysis_models": ["large"]}]},
    {"providerOptions": {"gateway": {"models": ["small", "large"]}}},
    {"input": [{"tools": None}, {"type": "additional_tools", "role": "developer", "tools": [PICTURES]}]},
    {"fallbacks": [{"model": "small"}, {"small": ["large"]}]},
    {"models": ["small", "large"]},
    {"models": "large"},
    {"session": {"type": "realtime", "audio": {"input": {"transcription": {"model": "large"}}}}},
    {"Model": "large"},
    {"context_window_fallbacks": [{"small": ["large"]}]},
    {"requests": [{"custom_id": "a", "params": {"model": "small"}}, {"params": {"model": "large", "messages": []}}]},
    {"data_source": {"type": "completions", "model": "large"}},
    {"testing_criteria": [{"type": "score_model", "model": "large"}]},
    {"method": {"reinforcement": {"grader": {"type": "multi", "graders": {"a": {"model": "large"}}}}}},
]
FREE: list[dict[str, object]] = [
    {"tools": [{"name": "x", "input_schema": SCHEMA, "input_examples": [{"model": "large"}]}]},
    {"tools": [{"type": "function", "name": "x", "parameters": SCHEMA}, {**ADVISOR, "model": "small"}]},
    {"tools": [{"type": "function", "function": {"name": "x", "parameters": SCHEMA}}, {"type": "image_generation"}]},
    {"tools": [{"type": "mcp", "headers": {"model": "large"}}]},
    {"response_format": {"json_schema": {"schema": SCHEMA}}},
    {"messages": [{"content": [{"type": "tool_use", "input": {"model": "large", "models": ["large"]}}]}]},
    {"messages": [{"content": [{"type": "fallback", "from": {"model": "small"}, "to": {"model": "large"}}]}]},
    {"messages": [{"content": '"tools": [{"model": "large"}]'}]},
    {"input": [{"type": "message", "content": '"tools": [{"model": "large"}]'}, {"model": "large"}, "tools"]},
    {"input": "tools"},
    {"input": [{"tools": [1, [2]]}, {"tools": None}, [{"tools": True}], "x"]},
    {"metadata": {"model": "large"}},
    {"fallbacks": "default"},
    {"fallbacks": None, "models": [], "tools": {}, "plugins": 1},
]


def looked_at(raw: bytes) -> str:
    names = NamedModels("small".__eq__)
    names.look(Body(raw))
    return names.refused


def gone_by(raw: bytes, size: int) -> str:
    names = NamedModels("small".__eq__)
    outline = Outline(names=names)
    for begin in range(0, len(raw), size):
        outline.feed(raw[begin : begin + size])
    assert outline.done
    return names.refused


def refusals(members: dict[str, object], **style: object) -> set[bool]:
    raw = json.dumps({"model": "small", **members, "end": True}, **style).encode()  # type: ignore[arg-type]
    return {bool(looked_at(raw)), *(bool(gone_by(raw, size)) for size in (1, 2, 7, 50, SLICE))}


@pytest.mark.parametrize("members", NAMED, ids=str)
def test_one_that_is_not_allowed_is_found_however_the_body_comes(members: dict[str, object]) -> None:
    assert refusals(members) == {True}
    assert refusals(members, indent=3) == {True}
    assert refusals(json.loads(json.dumps(members).replace("large", "small"))) == {False}


def test_a_batch_of_a_files_requests_could_ask_any() -> None:
    assert refusals({"input_file_id": "file-abc", "endpoint": "/v1/responses"}) == {True}


@pytest.mark.parametrize("members", FREE, ids=str)
def test_what_is_no_model_for_the_vendor_is_none_here(members: dict[str, object]) -> None:
    assert refusals(members) == {False}
    assert refusals(members, indent=3) == {False}


@pytest.mark.parametrize(
    "members",
    [
        '"t\\u006fols": [{"model": "large"}]',
        '"tools": [{"mod\\u0065l": "large"}]',
        '"tools": [{"model": "l\\u0061rge"}]',
        '"input": [{"\\u0074\\u006f\\u006F\\u006c\\u0073" : [{"model": "large"}]}]',
        f'"input": [{{"tools"{" " * 9_000}:{" " * 9_000}[{{"model": "large"}}]}}]',
        '"tools": [{}], "tools": [{"model": "large"}]',
        '"Model": "large", "model": "small"',
        '"model": "large", "model": "small"',
        '"tools": [{"model": "large"}], "tools": [{}]',
        '"tools": [{"model": "large", "type": "advisor", "model": "small"}]',
        '"input": [{"tools": [{"model": "large"}]}], "input": []',
    ],
)
def test_nor_can_it_be_written_out_of_sight(members: str) -> None:
    raw = f'{{"model": "small", {members}}}'.encode()
    assert looked_at(raw)
    assert all(gone_by(raw, size) for size in (1, 5, SLICE))


def test_long_lists_are_read_item_by_item_and_what_is_too_long_is_refused() -> None:
    tool = {"name": "x", "input_schema": SCHEMA, "description": "d" * 5_000}
    long: dict[str, object] = {"tools": [tool] * 100}
    assert not gone_by(json.dumps(long).encode(), SLICE)
    assert "'large' in tools" in gone_by(json.dumps({"tools": [tool] * 100 + [ADVISOR]}).encode(), SLICE)
    tool["description"] = "d" * 3 * LONGEST
    assert "so long in tools" in gone_by(json.dumps({"tools": [tool]}).encode(), SLICE)
    assert not gone_by(json.dumps({"input": [tool], "messages": [tool]}).encode(), SLICE)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"small","models":["large"],"x":"\xff"}',
        b'{"model":"small","models":[]',
        b"{\"model\":\"small\",'model' : 'large'}",
        b'{"model":"small",model:"large"}',
        b'{"model":"small",models:["large"]}',
        b'{"model":"small",\'fallbacks\':["large"]}',
    ],
)
def test_what_only_some_servers_can_read_is_refused(raw: bytes) -> None:
    assert looked_at(raw)


@pytest.mark.parametrize("padding", ["", "x" * 200_000])
async def test_who_is_bound_may_not_have_a_tool_ask_another_model(
    start: Start, upstream: Upstream, padding: str
) -> None:
    aimux = await start()
    bound = await add(aimux, "bound", "model:small*")
    body = json.dumps({"model": "small-1", "padding": padding, "tools": [ADVISOR]}).encode()
    code, said = await status(aimux, bound, body=body)
    assert (code, said) == (400, "You may not use the model 'large' in tools; ask whoever runs aimux.")
    assert not upstream.requests
    assert (await status(aimux, await add(aimux, "free", "provider:plain"), body=body))[0] == 200
    assert (await status(aimux, bound, body=body.replace(b"large", b"small-2")))[0] == 200
