from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from aimux.plugin import Body, Credential, CredentialError, ErrorKind, RateLimited, RequestHead, RequestRefused
from aimux.plugin.stored import EVERYBODYS
from aimux_chatgpt import ChatGPT
from tests.contracts.samples import jwt

LOGIN = Credential("oauth", "access", refresh_token="r", account_id="acc-1")
KEY = Credential("api_key", "sk-proj-x")
BACKEND = "https://chatgpt.com/backend-api/codex"
API = "https://api.openai.com"


def request(target: str = "/v1/responses", **headers: str) -> RequestHead:
    return RequestHead("POST", target, CIMultiDict({k.replace("_", "-"): v for k, v in headers.items()}))


@pytest.mark.parametrize(
    ("target", "with_login", "with_key"),
    [
        ("/v1/responses", "/responses", "/v1/responses"),
        ("/v1/responses/compact?x=1", "/responses/compact?x=1", "/v1/responses/compact?x=1"),
        ("/responses", "/responses", "/v1/responses"),
        ("//v1/responses", "/responses", "/v1/responses"),
        ("/v1/v1/responses", "/responses", "/v1/responses"),
        ("/v1//responses", "/responses", "/v1/responses"),
        ("/codex/responses", "/responses", "/v1/responses"),
        ("/v1/codex/responses", "/responses", "/v1/responses"),
        ("/backend-api/codex/responses/compact", "/responses/compact", "/v1/responses/compact"),
        ("/v1/models?client_version=0.171.0", "/models?client_version=0.171.0", "/v1/models?client_version=0.171.0"),
    ],
)
def test_a_login_and_a_key_have_different_upstreams(
    chatgpt: ChatGPT, target: str, with_login: str, with_key: str
) -> None:
    login, key = chatgpt.prepare(request(target), LOGIN), chatgpt.prepare(request(target), KEY)
    assert (login.base_url, login.target) == (BACKEND, with_login)
    assert (key.base_url, key.target) == (API, with_key)


@pytest.mark.parametrize("written", ["", "/v1", "/v1/", "/v1/responses", "/v1/chat/completions"])
def test_an_address_of_the_api_with_its_version_means_the_same(written: str) -> None:
    chatgpt = ChatGPT(ChatGPT.Settings(api_base_url="https://proxy.example/openai" + written))  # type: ignore[call-arg]
    upstream = chatgpt.prepare(request(), KEY)
    assert upstream.base_url + upstream.target == "https://proxy.example/openai/v1/responses"


@pytest.mark.parametrize(
    "written",
    ["", "/", "/codex", "/codex/", "/codex/responses", "/codex/v1", "/codex/v1/responses", "/codex/responses/compact"],
)
def test_a_base_url_of_the_backend_means_the_same(written: str) -> None:
    chatgpt = ChatGPT(ChatGPT.Settings(base_url="https://proxy.example/backend-api" + written))
    upstream = chatgpt.prepare(request("/v1/responses"), LOGIN)
    assert upstream.base_url + upstream.target == "https://proxy.example/backend-api/codex/responses"


def test_any_other_base_url_stays() -> None:
    assert ChatGPT.Settings(base_url="https://proxy.example/v1").base_url == "https://proxy.example/v1"


@pytest.mark.parametrize(
    "below",
    ["/evals/eval_1/runs", "/files", "/responses/../evals/eval_1/runs", "/models/..%2ffiles", "/me", "/responses/"],
)
@pytest.mark.parametrize("base", ["/codex", "/backend-api/codex", "/v1/codex"])
def test_what_codex_does_not_ask_for_stays_where_it_is(chatgpt: ChatGPT, base: str, below: str) -> None:
    """Whose it is, is told by the path that the client sent."""
    assert chatgpt.prepare(request(base + below), KEY).target == "/v1" + base.removeprefix("/v1") + below


@pytest.mark.parametrize("base", ["", "/v1", "/codex", "/backend-api/codex", "/backend-api/codex/v1"])
def test_a_socket_and_the_list_of_models_are_where_clients_look_for_them(chatgpt: ChatGPT, base: str) -> None:
    assert chatgpt.websocket(request(f"{base}/responses"))
    assert not chatgpt.websocket(request(f"{base}/responses/compact"))
    asked = RequestHead("GET", f"{base}/models?client_version=0.171.0", CIMultiDict())
    listed = chatgpt.list_models(asked, json.dumps({"models": [{"slug": "gpt-x"}]}).encode(), {"mine": "gpt-x"})
    assert listed is not None
    assert [model["slug"] for model in json.loads(listed)["models"]] == ["gpt-x", "mine"]


def test_a_login_sends_token_and_account(chatgpt: ChatGPT) -> None:
    upstream = chatgpt.prepare(request(authorization="Bearer aimux-token", chatgpt_account_id="evil"), LOGIN)
    assert upstream.set_headers == {"authorization": "Bearer access", "chatgpt-account-id": "acc-1"}
    without = chatgpt.prepare(request(chatgpt_account_id="evil"), Credential("oauth", "access"))
    assert without.set_headers == {"authorization": "Bearer access"}
    assert "chatgpt-account-id" in without.drop_headers


def test_codexs_own_headers_pass_and_the_other_vendors_do_not(chatgpt: ChatGPT) -> None:
    head = request(
        originator="codex_exec", version="0.171.0", session_id="s", x_codex_turn_state="t", openai_beta="b",
        Anthropic_Version="2023-06-01", anthropic_anything="x", x_api_key="aimux-token",
    )  # fmt: skip
    dropped = chatgpt.prepare(head, LOGIN).drop_headers
    assert not {"originator", "version", "session-id", "x-codex-turn-state", "openai-beta"} & dropped
    assert {"anthropic-version", "anthropic-anything", "x-api-key"} <= dropped


@pytest.mark.parametrize("credential", [LOGIN, KEY])
def test_a_client_cannot_choose_whose_organization_pays(chatgpt: ChatGPT, credential: Credential) -> None:
    """A foreign organization is answered 401, which would look like a bad credential and park the account."""
    head = request(openai_organization="org-mine", openai_project="proj-mine")
    assert {"openai-organization", "openai-project"} <= chatgpt.prepare(head, credential).drop_headers


def test_chat_completions_with_a_login_is_a_clear_400_in_openais_shape(chatgpt: ChatGPT) -> None:
    with pytest.raises(RequestRefused) as caught:
        chatgpt.prepare(request("/v1/chat/completions"), LOGIN)
    assert caught.value.status == 400
    assert "/v1/responses" in json.loads(chatgpt.error(caught.value).body)["error"]["message"]
    assert chatgpt.prepare(request("/v1/chat/completions"), KEY).target == "/v1/chat/completions"


@pytest.mark.parametrize(
    "target",
    ["/api/codex/usage", "/backend-api/wham/usage", "/wham/usage", "/v1/%61pi/x"],
)
def test_nobody_reaches_the_account_behind_a_login(chatgpt: ChatGPT, target: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        chatgpt.prepare(request(target), LOGIN)
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json", None])
def test_codex_is_told_in_a_stream_what_is_free_in_seconds(chatgpt: ChatGPT, accept: str | None) -> None:
    """Of a 429 it shows nothing but the number. SDKs ask for JSON, and know a 429."""
    head = request(**({"accept": accept} if accept else {}))
    told = chatgpt.error(RateLimited("You may use 2 requests a minute; try again in 2 s.", head, retry_after=2))
    if accept != "text/event-stream":
        assert told.status is None
        assert json.loads(told.body)["error"]["code"] == "rate_limit_exceeded"
        return
    assert (told.status, told.content_type) == (200, "text/event-stream")
    name, data = told.body.decode().split("\n")[:2]
    assert name == "event: response.failed"
    assert json.loads(data.removeprefix("data: "))["response"]["error"] == {
        "code": "rate_limit_exceeded",
        "message": "You may use 2 requests a minute; try again in 2 s.",
    }
    assert (
        chatgpt.error(RateLimited("No.", request("/v1/files", accept="text/event-stream"), retry_after=2)).status
        is None
    )


@pytest.mark.parametrize("credential", [LOGIN, KEY])
@pytest.mark.parametrize(
    "target",
    [
        "/v1/realtime/client_secrets",
        "/v1/realtime/translations/client_secrets?x=1",
        "/v1/realtime/sessions/",
        "/v1/realtime/transcription%5Fsessions",
        "/v1//Chatkit//sessions;a",
    ],
)
def test_no_answer_is_a_key_of_the_account(chatgpt: ChatGPT, target: str, credential: Credential) -> None:
    with pytest.raises(RequestRefused, match="no key of its accounts") as caught:
        chatgpt.prepare(request(target), credential)
    assert caught.value.status == 403


def test_what_else_is_asked_of_a_call_passes(chatgpt: ChatGPT) -> None:
    target = "/v1/realtime/calls/rtc_1/hangup"
    assert chatgpt.prepare(request(target), KEY).target == target


def test_the_test_call_asks_the_backend_for_its_models(chatgpt: ChatGPT) -> None:
    head, body = chatgpt.cheapest_request(LOGIN)
    assert (head.method, body) == ("GET", b"")
    assert chatgpt.prepare(head, LOGIN).target.startswith("/models?client_version=")
    assert chatgpt.prepare(chatgpt.cheapest_request(KEY)[0], KEY).target == "/v1/models"


def test_an_sdk_gets_a_list_of_models_from_a_login(chatgpt: ChatGPT) -> None:
    """`models.list()` looks into `data`, and the backend wants a client's version."""
    head = RequestHead("GET", "/v1/models", CIMultiDict())
    assert chatgpt.prepare(head, LOGIN).target.startswith("/models?client_version=")
    codex = {"models": [{"slug": "gpt-5.5", "display_name": "GPT-5.5"}, {"slug": "gpt-5.4"}, {"no": 1}, 7]}
    listed = json.loads(chatgpt.list_models(head, json.dumps(codex).encode(), {"mine": "gpt-4"}) or b"")
    assert [model["id"] for model in listed["data"]] == ["gpt-5.5", "gpt-5.4", "mine"]
    assert (listed["models"], listed["object"]) == (codex["models"], "list")
    assert chatgpt.list_models(head, b'{"data": [{"id": "gpt-5.5"}]}', {}) is None, "it passes as it came"


def listed_for_codex(chatgpt: ChatGPT, upstreams: object, names: dict[str, str]) -> Any:
    head = RequestHead("GET", "/v1/models?client_version=0.171.0", CIMultiDict())
    answer = chatgpt.list_models(head, json.dumps(upstreams).encode(), names)
    return None if answer is None else json.loads(answer)


def test_codex_is_told_of_our_names_what_it_has_to_know_of_the_models_behind_them(chatgpt: ChatGPT) -> None:
    known = {"slug": "gpt-5.5", "display_name": "GPT-5.5", "base_instructions": "Be brief.", "context_window": 272_000}
    names = {"fast": "gpt-5.5", "gpt-5.5": "gpt-5.4", "local": "qwen"}
    listed = listed_for_codex(chatgpt, {"models": [known, 7]}, names)
    assert listed["models"] == [known, 7, known | {"slug": "fast", "display_name": "fast"}]
    assert [model["id"] for model in listed["data"]] == ["gpt-5.5", "fast", "local"]


@pytest.mark.parametrize("names", [{}, {"fast": "gpt-5.5"}])
def test_codex_finds_models_where_a_key_lists_none_for_it(chatgpt: ChatGPT, names: dict[str, str]) -> None:
    """The public API describes no model: an empty array leaves Codex what it knows; a missing one is an error to it."""
    listed = listed_for_codex(chatgpt, {"object": "list", "data": [{"id": "gpt-5.5"}]}, names)
    assert listed["models"] == []
    assert [model["id"] for model in listed["data"]] == ["gpt-5.5", *names]


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/v1", "/codex", "/backend-api/codex", "/backend-api/codex/v1"])
def test_codex_finds_models_whatever_its_base_url_ends_in(chatgpt: ChatGPT, base: str) -> None:
    head = RequestHead("GET", f"{base}/models?client_version=0.171.0", CIMultiDict())
    assert chatgpt.prepare(head, LOGIN).target == "/models?client_version=0.171.0"
    told = json.loads(chatgpt.list_models(head, b'{"object": "list", "data": []}', {"fast": "gpt-5.5"}) or b"")
    assert ([model["id"] for model in told["data"]], told["models"]) == (["fast"], [])


@pytest.mark.parametrize("target", ["/v1/models/mine", "/models/mine?client_version=1", "/v1/v1/models/mine"])
def test_a_name_of_the_configuration_may_be_asked_for_by_itself(chatgpt: ChatGPT, target: str) -> None:
    head = RequestHead("GET", target, CIMultiDict())
    told = json.loads(chatgpt.list_models(head, b"", {"mine": "gpt-5.5"}) or b"")
    assert (told["object"], told["id"]) == ("model", "mine")
    assert chatgpt.list_models(head, b"", {"other": "gpt-5.5"}) is None


def test_what_is_no_list_of_models_passes_as_it_came(chatgpt: ChatGPT) -> None:
    assert listed_for_codex(chatgpt, [], {}) is None
    assert listed_for_codex(chatgpt, "a page of something in between", {"mine": "gpt-5.5"}) is None
    assert listed_for_codex(chatgpt, {"models": [], "data": []}, {}) is None


@pytest.mark.parametrize(
    ("headers", "body", "key"),
    [
        ({"session_id": "s", "thread-id": "t"}, {"prompt_cache_key": "p"}, "s"),
        ({"Session-Id": "s"}, {}, "s"),
        ({"thread-id": "t"}, {}, "t"),
        ({"conversation_id": "c"}, {}, "c"),
        ({"x-codex-turn-state": "state"}, {}, "state"),
        ({}, {"model": "m", "prompt_cache_key": "p"}, "p"),
        ({}, {"prompt_cache_key": 7}, None),
        ({}, {"input": '"prompt_cache_key": "x"'}, None),
    ],
)
def test_a_conversation_is_known_by_its_session(
    chatgpt: ChatGPT, headers: dict[str, str], body: dict[str, object], key: str | None
) -> None:
    head = RequestHead("POST", "/v1/responses", CIMultiDict(headers))
    assert chatgpt.conversation_key(head, Body(json.dumps(body).encode())) == key


def test_a_compressed_body_is_read_too(chatgpt: ChatGPT) -> None:
    import zstandard

    raw = zstandard.ZstdCompressor().compress(b'{"prompt_cache_key": "p"}')
    assert chatgpt.conversation_key(request(), Body(raw, "zstd")) == "p"


def test_what_names_the_account_is_hidden_and_what_codex_reads_is_not(chatgpt: ChatGPT) -> None:
    read = {"openai-model", "x-codex-turn-state", "x-codex-primary-used-percent", "x-models-etag", "cf-ray"}
    assert not read & chatgpt.hidden_headers
    assert {"openai-organization", "openai-project"} <= chatgpt.hidden_headers


def _run(source: dict[str, object]) -> dict[str, object]:
    return {"data_source": {"type": "responses", "source": source}}


@pytest.mark.parametrize(
    ("target", "body", "ids"),
    [
        ("/v1/responses/resp_0001/input_items", {}, ["resp_0001"]),
        ("/v1/files/file-abc123/content", {}, ["file-abc123"]),
        ("/v1/responses", {"previous_response_id": "resp_77aa", "input": "x"}, ["resp_77aa"]),
        ("/v1/responses", {"conversation": {"id": "conv_12ab"}}, ["conv_12ab"]),
        ("/v1/responses", {"conversation": "conv_12ab"}, ["conv_12ab"]),
        ("/v1/batches", {"input_file_id": "file-abc123"}, ["file-abc123"]),
        ("/v1/responses", {"input": [{"content": [{"type": "input_file", "file_id": "file-x123"}]}]}, ["file-x123"]),
        ("/v1/responses", {"input": 'say "previous_response_id": "resp_77aa"'}, []),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "rs_12ab"}, {"id": "msg_1"}]}, ["rs_12ab"]),
        ("/v1/responses", {"input": [{"id": "msg_1"}, {"id": "rs_12ab", "type": "item_reference"}]}, ["rs_12ab"]),
        ("/v1/responses", {"input": [{"type": "message", "id": "msg_1", "content": "item_reference"}]}, []),
        ("/v1/audio/speech", {"voice": {"id": "voice_12AB"}, "input": "x"}, ["voice_12AB"]),
        ("/v1/audio/speech", {"voice": {"name": "x", "id": "voice_12AB"}}, ["voice_12AB"]),
        ("/v1/audio/speech", {"voice": "alloy", "input": "x"}, []),
        ("/v1/videos/edits", {"prompt": "x", "video": {"id": "video_12AB"}}, ["video_12AB"]),
        ("/v1/audio/voices", {"name": "x", "consent": "cons_12AB"}, ["cons_12AB"]),
        ("/v1/responses", {"tools": [{"environment": {"container_id": "cntr_12AB"}}]}, ["cntr_12AB"]),
        ("/v1/agents/automations", {"target": {"session_id": "sess_12AB"}}, ["sess_12AB"]),
        ("/v1/agents", {"tools": [{"type": "mcp", "credential_id": "cred_12AB"}]}, ["cred_12AB"]),
        ("/v1/responses", {"metadata": {"session_id": "monday", "source": "the phone"}}, []),
        ("/v1/evals/eval_12AB/runs", _run({"type": "file_id", "id": "file-12AB"}), ["eval_12AB", "file-12AB"]),
        ("/v1/evals/eval_12AB/runs", _run({"type": "file_content", "content": []}), ["eval_12AB"]),
        ("/v1/evals/eval_12AB/runs", _run({"type": "stored_completions"}), ["eval_12AB", EVERYBODYS]),
        ("/v1/evals/eval_12AB/runs", _run({"metadata": {"a": "b"}, "type": "responses"}), ["eval_12AB", EVERYBODYS]),
        ("/v1/Evals/eval_12AB/runs/", _run({"type": "responses"}), ["eval_12AB", EVERYBODYS]),
        ("/v1/agents/sessions", {"agent_id": "agent_1A", "vault_ids": ["vault_1A"]}, ["agent_1A", "vault_1A"]),
        ("/v1/responses", {"prompt_cache_options": {"comparison_response_id": "resp_77aa"}}, ["resp_77aa"]),
        ("/v1/models/gpt-5.5", {}, []),
    ],
)
def test_what_a_request_refers_to(chatgpt: ChatGPT, target: str, body: dict[str, object], ids: list[str]) -> None:
    assert list(chatgpt.refers_to(request(target), Body(json.dumps(body).encode()))) == ids


@pytest.mark.parametrize(
    ("target", "answer", "ids"),
    [
        ("/v1/files", {"id": "file-1"}, ("file-1",)),
        ("/v1/responses", {"id": "resp_1", "store": True}, ("resp_1",)),
        ("/v1/responses", {"id": "resp_1"}, ("resp_1",)),
        ("/v1/responses", {"id": "resp_1", "store": False}, ()),
        ("/v1/batches", {"id": "batch_1", "output_file_id": "file-2", "error_file_id": None}, ("batch_1", "file-2")),
        ("/v1/files", {"id": 7}, ()),
    ],
)
def test_what_an_answer_says_is_kept(
    chatgpt: ChatGPT, target: str, answer: dict[str, object], ids: tuple[str, ...]
) -> None:
    meter = chatgpt.meter(request(target), 200, CIMultiDict({"content-type": "application/json"}))
    assert meter is not None
    meter.feed(json.dumps(answer).encode())
    meter.end()
    assert meter.stored == ids


@pytest.mark.parametrize("store", [True, False])
def test_and_what_the_end_of_a_stream_says(chatgpt: ChatGPT, store: bool) -> None:
    meter = chatgpt.meter(request(), 200, CIMultiDict({"content-type": "text/event-stream"}))
    assert meter is not None
    done = {"type": "response.completed", "response": {"id": "resp_1", "store": store}}
    meter.feed(b"data: " + json.dumps(done).encode() + b"\n\n")
    assert meter.stored == (("resp_1",) if store else ())


def test_the_credential_that_a_client_brings(chatgpt: ChatGPT) -> None:
    login = jwt({"https://api.openai.com/auth": {}})
    headers = CIMultiDict({"authorization": f"Bearer {login}", "chatgpt-account-id": "acc-1"})
    assert chatgpt.own_credential(headers) == Credential("oauth", login, account_id="acc-1")
    headers = CIMultiDict({"authorization": "Bearer sk-proj-mine", "chatgpt-account-id": "acc-1"})
    assert chatgpt.own_credential(headers) == Credential("api_key", "sk-proj-mine")
    assert chatgpt.own_credential(CIMultiDict()) is None
    with pytest.raises(CredentialError):
        chatgpt.own_credential(CIMultiDict({"authorization": "Bearer sk-ant-oat01-theirs"}))
