"""Lists of what an account keeps, in the vendors' own forms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from aimux.plugin import (
    Body,
    Credential,
    Provider,
    RequestHead,
    RequestRefused,
    StoredAnswer,
    StoredPage,
    TooManyReferences,
    ids_in_path,
)
from aimux_chatgpt import ChatGPT
from aimux_claude import Claude
from aimux_compatible import Compatible

CLAUDE = Claude(Claude.Settings())
CHATGPT = ChatGPT(ChatGPT.Settings())
OTHERS = Compatible(Compatible.Settings.model_validate({"base_url": "https://models.example/v1"}))
JSON = CIMultiDict({"content-type": "application/json"})


def get(target: str) -> RequestHead:
    return RequestHead("GET", target, CIMultiDict())


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        (CLAUDE, "/v1/files"),
        (CLAUDE, "/v1/messages/batches/"),
        (CLAUDE, "/v1/skills?source=custom"),
        (CLAUDE, "/v1/sessions"),
        (CLAUDE, "/v1/files;file_011CNha8iC"),
        (CHATGPT, "/v1//files;x=1;file-abc123/"),
        (CHATGPT, "/v1/files?limit=5"),
        (CHATGPT, "/files"),
        (CHATGPT, "/v1/batches"),
        (CHATGPT, "/v1/vector_stores"),
        (CHATGPT, "/v1/containers"),
        (CHATGPT, "/v1/fine_tuning/jobs"),
        (OTHERS, "/v1/assistants"),
    ],
)
def test_these_are_lists_of_what_is_kept(provider: Provider, path: str) -> None:
    assert provider.lists(get(path)) == "own"
    assert provider.lists(RequestHead("POST", path, CIMultiDict())) == "nothing"


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        (CLAUDE, "/v1/models"),
        (CLAUDE, "/v1/models/claude-opus-4-8"),
        (CLAUDE, "/v1/files/file_011CNha8iCJcU1wXNR6q4V8w"),
        (CLAUDE, "/v1/messages/batches/msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d/results"),
        (CHATGPT, "/v1/models"),
        (CHATGPT, "/v1/responses/resp_67ccd2bed1ec8190b14f964abc054267/input_items"),
        (CHATGPT, "/v1/vector_stores/vs_abc123/files"),
    ],
)
def test_and_these_are_none(provider: Provider, path: str) -> None:
    assert provider.lists(get(path)) == "nothing"


def test_a_list_may_be_a_bare_array() -> None:
    """As Mistral's of conversations and agents."""
    items = [{"id": "conv_0a1b2c3d", "object": "conversation"}, {"id": "conv_4e5f6a7b", "object": "conversation"}]
    page = OTHERS.read_page("/v1/conversations", json.dumps(items).encode())
    assert page == StoredPage(items, None)
    part = OTHERS.part_of_list(get("/v1/conversations"), json.dumps(items).encode(), items[:1])
    assert json.loads(part) == items[:1]


@pytest.mark.parametrize("provider", [CHATGPT, OTHERS])
def test_stored_chat_completions_are_not_listed(provider: Provider) -> None:
    assert provider.lists(get("/v1/chat/completions?limit=2")) == "refused"
    assert provider.lists(get("/v1/chat/%63ompletions;chatcmpl-12AB/")) == "refused"


@pytest.mark.parametrize(
    ("provider", "asked", "first", "page", "following"),
    [
        (
            CLAUDE,
            "/v1/files?limit=5&after_id=file_01&scope_id=x",
            "/v1/files?limit=5&scope_id=x",
            {"data": [{"id": "file_02"}, {"id": "file_03"}], "has_more": True, "first_id": "…", "last_id": "file_03"},
            "/v1/files?scope_id=x&limit=100&after_id=file_03",
        ),
        (
            CLAUDE,
            "/v1/skills",
            "/v1/skills",
            {"data": [{"id": "skill_02"}], "has_more": True, "next_page": "page=2&x"},
            "/v1/skills?limit=100&page=page%3D2%26x",
        ),
        (
            CHATGPT,
            "/v1/batches?after=batch_1",
            "/v1/batches",
            {"object": "list", "data": [{"id": "batch_2"}], "first_id": "batch_2", "last_id": "…", "has_more": True},
            "/v1/batches?limit=100&after=batch_2",
        ),
        (CHATGPT, "/v1/files?purpose=%62atch&", "/v1/files?purpose=%62atch&", {"object": "list", "data": []}, None),
    ],
)
def test_each_vendors_list_is_gone_through_to_its_end(
    provider: Provider, asked: str, first: str, page: dict[str, Any], following: str | None
) -> None:
    assert provider.first_page(get(asked)) == first
    read = provider.read_page(first, json.dumps(page).encode())
    assert read is not None
    assert (read.items, read.more) == (page["data"], following)


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"data":{}}', b"\xff", b"[" * 100_000])
def test_what_is_no_list(answer: bytes) -> None:
    assert CHATGPT.read_page("/v1/files", answer) is None


ITEMS = [{"id": f"file-{number}"} for number in range(5)]


def test_what_has_no_id_hides_nothing() -> None:
    items = [{"id": "file-1"}, {"name": "x"}, {"id": "file-2"}]
    assert json.loads(CLAUDE.part_of_list(get("/v1/files"), b"{}", items))["data"] == items


@pytest.mark.parametrize(
    ("query", "numbers", "more"),
    [
        ("", [0, 1, 2, 3, 4], False),
        ("?limit=2", [0, 1], True),
        ("?limit=2&after=file-1", [2, 3], True),
        ("?after_id=file-2", [3, 4], False),
        ("?limit=2&before_id=file-4", [2, 3], True),
        ("?after=file-9&limit=x", [0, 1, 2, 3, 4], False),
        ("?after=file-4", [], False),
        ("?limit=0", [], True),
    ],
)
def test_a_client_gets_the_part_that_it_asks_for(query: str, numbers: list[int], more: bool) -> None:
    page = {"data": [{"id": "file-of-another"}], "has_more": True, "first_id": "…", "last_id": "…"}
    told = json.loads(CLAUDE.part_of_list(get(f"/v1/files{query}"), json.dumps(page).encode(), ITEMS))
    ids = [f"file-{number}" for number in numbers]
    assert told == {
        "data": [{"id": one} for one in ids],
        "has_more": more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


@pytest.mark.parametrize("has_more", [{}, {"has_more": True}])
def test_a_list_by_pages_is_gone_through_as_its_sdk_does(has_more: dict[str, bool]) -> None:
    """Anthropic's newer lists (files, skills, …) tell the next page, and its SDKs bring that back as `page`."""
    answer = json.dumps({"data": [{"id": "file-of-another"}], "next_page": "page_x", **has_more}).encode()
    page: str | None = ""
    seen: list[dict[str, str]] = []
    while page is not None:
        told = json.loads(CLAUDE.part_of_list(get(f"/v1/files?limit=2{page}"), answer, ITEMS))
        more = told["next_page"] is not None
        assert told.keys() == {"data", "next_page", *has_more}
        assert not has_more or told["has_more"] is more
        seen += told["data"]
        page = f"&page={told['next_page']}" if more else None
    assert seen == ITEMS
    told = json.loads(CLAUDE.part_of_list(get("/v1/sessions"), b'{"data":[],"next_page":"x","prev_page":"y"}', ITEMS))
    assert told == {"data": ITEMS, "next_page": None, "prev_page": None}


def test_what_something_has_made_is_its_owners_too() -> None:
    meter = CHATGPT.meter(get("/v1/batches"), 200, JSON)
    assert isinstance(meter, StoredAnswer)
    meter.read({"id": "batch_1", "output_file_id": "file-2", "fine_tuned_model": None, "result_files": ["file-3", 7]})
    assert meter.stored == ("batch_1", "file-2", "file-3")
    meter.read({"id": "upload_1", "file": {"id": "file-4"}})
    assert meter.stored == ("upload_1", "file-4")


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"container": {"skills": [{"type": "custom", "skill_id": "skill_01"}], "id": "container_01"}}, 2),
        ({"a": [{"file_id": "file_01"}, {"file_id": "file_02"}]}, 2),
        ({"vault_ids": ["vlt_01", "vlt_02"], "user_profile_id": "uprof_01"}, 3),
        ({"inputs": [{"type": "sessions", "session_ids": ["sesn_01"]}]}, 1),
        ({"multiagent": {"agents": ["agent_01", {"type": "agent", "id": "agent_02"}, {"type": "self"}]}}, 2),
    ],
)
def test_what_a_messages_request_names(body: dict[str, Any], ids: int) -> None:
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    assert len(CLAUDE.refers_to(head, Body(json.dumps(body).encode()))) == ids


def test_what_a_responses_request_names() -> None:
    head = RequestHead("POST", "/v1/responses", CIMultiDict())
    tools = [
        {"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]},
        {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}},
    ]
    assert sorted(CHATGPT.refers_to(head, Body(json.dumps({"tools": tools}).encode()))) == ["file-1", "vs_1", "vs_2"]
    with pytest.raises(TooManyReferences):
        CHATGPT.refers_to(head, Body(b'{"file_id":"x",' * 2_000))


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("/v1/files/file-abcdefghijklmnopqrstuV", ["file-abcdefghijklmnopqrstuV"]),
        ("/v1/files/file%2Dabc1/content", ["file-abc1"]),
        ("/v1/files/file-abc1;x=y", ["file-abc1"]),
        ("/v1//files//file-abc1/", ["file-abc1"]),
        ("/v1/vector_stores/vs_1abc/files/file-2abc", ["vs_1abc", "file-2abc"]),
        ("/v1/fine_tuning/jobs", []),
        ("/v1/responses/input_items", []),
    ],
)
def test_ids_in_a_path(path: str, ids: list[str]) -> None:
    assert [*ids_in_path(path)] == ids


@pytest.mark.parametrize("path", ["/v1/models/ft:gpt-5:acme::1", "/models/x", "/v1/%6dodels/x", "//v1/models/x"])
def test_nobody_deletes_a_model(path: str) -> None:
    credential = Credential(kind="api_key", secret="sk-proj-x")
    with pytest.raises(RequestRefused):
        CHATGPT.prepare(RequestHead("DELETE", path, CIMultiDict()), credential)
    assert CHATGPT.prepare(get(path), credential).target
    kept = CHATGPT.prepare(RequestHead("DELETE", "/v1/files/file-1", CIMultiDict()), credential)
    assert kept.target == "/v1/files/file-1"


@pytest.mark.parametrize(
    "path", ["/v1/webhook_endpoints", "/webhook_endpoints/we_1/rotate_secret", "//v1/%77ebhook_Endpoints;a=b?limit=1"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nobody_sets_up_a_webhook(path: str, method: str) -> None:
    """It would hear of everybody's answers, batches and calls."""
    credential = Credential(kind="api_key", secret="sk-proj-x")
    with pytest.raises(RequestRefused, match="webhooks"):
        CHATGPT.prepare(RequestHead(method, path, CIMultiDict()), credential)
    assert CHATGPT.prepare(get("/v1/webhook_event_types"), credential).target == "/v1/webhook_event_types"


@pytest.mark.parametrize(
    "path", ["/v1/me", "//v1/%6dE/?x=1", "/organizations", "/v1/organization/users", "/v1/usage;a"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_asks_who_owns_an_account(path: str, method: str) -> None:
    with pytest.raises(RequestRefused, match="belongs to the owner"):
        CHATGPT.prepare(RequestHead(method, path, CIMultiDict()), Credential(kind="api_key", secret="sk-proj-x"))


RESULTS = b'/v1/messages/batches/msgbatch_1/results"'


@pytest.mark.parametrize("path", ["/v1/messages/batches/msgbatch_1", "//v1/v1/messages/batches?limit=2"])
def test_the_results_of_a_batch_are_asked_of_aimux(path: str) -> None:
    """The SDKs go wherever `results_url` says, with the key that they have."""
    anthropic = Compatible(
        Compatible.Settings.model_validate({"base_url": "https://gateway.example/claude", "format": "anthropic"})
    )
    for provider, base in ((CLAUDE, b"https://api.anthropic.com"), (anthropic, b"https://gateway.example/claude")):
        addresses = provider.own_addresses(get(path))
        assert addresses is not None
        told = b'{"id":"msgbatch_1","type":"message_batch","results_url": "%b'
        assert addresses.sub(b"", told % (base + RESULTS) + b"}") == told % RESULTS + b"}"
        assert addresses.sub(b"", told % b'https://api.anthropic.com/v1/messages"}') == (
            told % b'https://api.anthropic.com/v1/messages"}'
        )


def test_no_other_answer_is_looked_at_for_addresses() -> None:
    for path in ("/v1/messages/batches/msgbatch_1/results", "/v1/files", "/v1/messages"):
        assert CLAUDE.own_addresses(get(path)) is None
    assert CHATGPT.own_addresses(get("/v1/batches/batch_1")) is None
    assert OTHERS.own_addresses(get("/v1/batches/batch_1")) is None
