from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from aimux.plugin import Body, Credential, CredentialError, ErrorKind, RequestHead, RequestRefused, Upstream
from aimux_claude import Claude
from tests.contracts import samples

OAUTH = Credential("oauth", "sk-ant-oat01-x", refresh_token="r")
KEY = Credential("api_key", "sk-ant-api03-x")


def request(target: str = "/v1/messages?beta=true", **headers: str) -> RequestHead:
    return RequestHead("POST", target, CIMultiDict({k.replace("_", "-"): v for k, v in headers.items()}))


def passes(claude: Claude, credential: Credential, head: RequestHead) -> CIMultiDict[str]:
    """The headers after `prepare`, as the core applies it."""
    upstream = claude.prepare(head, credential)
    changed = {name.lower() for name in upstream.set_headers} | upstream.drop_headers
    kept = [(name, value) for name, value in head.headers.items() if name.lower() not in changed]
    return CIMultiDict([*kept, *upstream.set_headers.items()])


def test_an_oauth_account_sends_a_bearer_token_and_the_oauth_beta(claude: Claude) -> None:
    """ai-mux lets the client's `x-api-key` go upstream, which prefers it."""
    head = request(x_api_key="aimux-token", authorization="Bearer aimux-token", anthropic_version="2023-06-01")
    assert claude.prepare(head, OAUTH) == Upstream(
        "https://api.anthropic.com",
        "/v1/messages?beta=true",
        {"authorization": "Bearer sk-ant-oat01-x", "anthropic-beta": "oauth-2025-04-20"},
        frozenset({"x-api-key"}),
    )
    assert passes(claude, OAUTH, head)["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("written", ["", "/", "/v1", "/v1/", "/v1/v1", "/v1/messages"])
@pytest.mark.parametrize("base", ["https://proxy.example", "https://proxy.example/anthropic"])
def test_a_base_url_with_the_version_means_the_same(base: str, written: str) -> None:
    claude = Claude(Claude.Settings(base_url=base + written))
    upstream = claude.prepare(request("/v1/messages"), KEY)
    assert upstream.base_url + upstream.target == f"{base}/v1/messages"


@pytest.mark.parametrize(
    ("sent", "goes"),
    [
        ([], ["oauth-2025-04-20"]),
        (["a-1,b-2"], ["a-1,b-2,oauth-2025-04-20"]),
        (["a-1, b-2"], ["a-1, b-2,oauth-2025-04-20"]),
        (["a-1", "b-2"], ["a-1,b-2,oauth-2025-04-20"]),
        (["a-1,oauth-2025-04-20,b-2"], ["a-1,oauth-2025-04-20,b-2"]),
        (["a-1", "oauth-2025-04-20 , b-2"], ["a-1", "oauth-2025-04-20 , b-2"]),
        (["not-oauth-2025-04-20"], ["not-oauth-2025-04-20,oauth-2025-04-20"]),
        ([""], ["oauth-2025-04-20"]),
        (["", " a-1, "], ["a-1,oauth-2025-04-20"]),
    ],
)
def test_the_oauth_beta_is_there_once_and_the_clients_own_stay_in_order(
    claude: Claude, sent: list[str], goes: list[str]
) -> None:
    """maxmux appends a second oauth beta value."""
    head = RequestHead("POST", "/v1/messages", CIMultiDict([("Anthropic-Beta", value) for value in sent]))
    assert passes(claude, OAUTH, head).getall("anthropic-beta") == goes


@pytest.mark.parametrize(
    ("sent", "goes"),
    [
        ([], []),
        (["a-1, b-2"], ["a-1, b-2"]),
        (["a-1,oauth-2025-04-20,b-2"], ["a-1,b-2"]),
        (["oauth-2025-04-20", "a-1"], ["a-1"]),
        (["oauth-2025-04-20"], []),
    ],
)
def test_an_api_key_account_sends_its_key_alone_and_no_oauth_beta(
    claude: Claude, sent: list[str], goes: list[str]
) -> None:
    fields = [("authorization", "Bearer aimux-token"), *(("anthropic-beta", value) for value in sent)]
    headers = passes(claude, KEY, RequestHead("POST", "/v1/messages", CIMultiDict(fields)))
    assert headers.getall("x-api-key") == ["sk-ant-api03-x"]
    assert "authorization" not in headers
    assert headers.getall("anthropic-beta", []) == goes


@pytest.mark.parametrize(
    ("target", "goes"),
    [
        ("/v1/messages", "/v1/messages"),
        ("//v1/messages?beta=true", "/v1/messages?beta=true"),
        ("/v1/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("//v1/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/v1//messages?beta=true", "/v1/messages?beta=true"),
        ("/v1//v1//files", "/v1/files"),
        # Vercel's AI SDK wants a base URL with `/v1`, and adds the rest to the one that Claude Code takes.
        ("/messages", "/v1/messages"),
        ("//messages?beta=true", "/v1/messages?beta=true"),
        ("/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/models?limit=1000", "/v1/models?limit=1000"),
        ("/models/claude-opus-5", "/v1/models/claude-opus-5"),
        ("/v1/models?limit=1000", "/v1/models?limit=1000"),
        ("/", "/"),
        ("/api/hello", "/api/hello"),
        ("/v1/files/a%2Fb?x=//y", "/v1/files/a%2Fb?x=//y"),
    ],
)
@pytest.mark.parametrize("credential", [OAUTH, KEY])
def test_paths_pass_unchanged_but_for_bases_with_a_slash_or_a_version(
    claude: Claude, credential: Credential, target: str, goes: str
) -> None:
    assert claude.prepare(request(target), credential).target == goes


@pytest.mark.parametrize(
    "target",
    [
        "/api/oauth/claude_cli/create_api_key",
        "/api/oauth/profile",
        "//api/oauth/usage",
        "/API/OAuth/profile?x=1",
        "/%61pi/oauth/profile",
        "/v1/oauth/token",
        "/v1//oauth/token",
        "/v1/v1/oauth/token",
        "/v1/code/sessions",
        "/v1/%63ode/triggers",
        "/v1/mcp_servers?limit=1000",
        "/v1/environment_providers",
        "/v1/privacy-consents",
        "/v1/organizations/api_keys",
        "//v1/v1/Organizations/users?limit=1",
        "/v1/organizations;a=b/users",
        "/v1/oauth%20/token",
        "/v1/sessions",
        "/v1/environments/env_01",
        "/v2/session_ingress/shttp/mcp/x",
    ],
)
def test_nobody_reaches_the_account_behind_a_login(claude: Claude, target: str) -> None:
    """One of these answers with a new API key of the account, another with its owner's address, others work with the
    owner's mail and repositories."""
    with pytest.raises(RequestRefused) as caught:
        claude.prepare(request(target), OAUTH)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    if "organizations" in target.lower():  # which a personal key opens, too
        with pytest.raises(RequestRefused):
            claude.prepare(request(target), KEY)
    else:
        assert claude.prepare(request(target), KEY).target


@pytest.mark.parametrize("target", ["/v1/sessions", "/v1/environments", "/v1/environments/bridge", "/v1/code/sessions"])
def test_managed_agents_are_no_cloud_sessions_of_claude_code(claude: Claude, target: str) -> None:
    named = "files-api-2025-04-14, managed-agents-2026-04-01"
    head = RequestHead("POST", target, CIMultiDict({"anthropic-beta": named}))
    if target in {"/v1/sessions", "/v1/environments"}:
        assert claude.prepare(head, OAUTH).target == target
    else:
        with pytest.raises(RequestRefused):
            claude.prepare(head, OAUTH)
    with pytest.raises(RequestRefused):
        claude.prepare(RequestHead("POST", target, CIMultiDict({"anthropic-beta": "ccr-byoc-2025-07-29"})), OAUTH)


def test_a_credential_goes_to_the_host_of_the_settings() -> None:
    """litellm#42172: an OAuth token was sent to a third-party host."""
    claude = Claude(Claude.Settings(base_url="https://proxy.example/anthropic/"))
    assert claude.prepare(request("//evil.example/v1/messages"), KEY).base_url == "https://proxy.example/anthropic"
    assert claude.prepare(request("//v1/models"), OAUTH).base_url == "https://proxy.example/anthropic"
    with pytest.raises(RequestRefused):
        claude.prepare(request("//evil.example/v1/messages"), OAUTH)


@pytest.mark.parametrize(
    ("headers", "body", "key"),
    [
        ({"X-Claude-Code-Session-Id": "s-1"}, {}, "s-1"),
        ({}, {"metadata": {"user_id": f"user_{'0' * 64}_account_11-22_session_6c7e0123-4567"}}, "6c7e0123-4567"),
        ({}, {"metadata": {"user_id": json.dumps({"device_id": "d", "session_id": "6c7e"})}}, "6c7e"),
        ({}, {"metadata": {"user_id": "ada"}}, None),
        ({}, {"metadata": {"user_id": 7}}, None),
        ({}, {"metadata": "x", "user_id": "a_session_6c7e0123"}, None),
        ({}, {"messages": [{"content": '"user_id": "x_session_01234567"'}]}, None),
        ({}, {}, None),
    ],
)
def test_a_conversation_is_known_by_its_session(
    claude: Claude, headers: dict[str, str], body: dict[str, object], key: str | None
) -> None:
    head = RequestHead("POST", "/v1/messages", CIMultiDict(headers))
    assert claude.conversation_key(head, Body(json.dumps(body).encode())) == key


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("sk-ant-oat01-0123456789", "Claude's own login token"),
        ("sk-ant-ort01-0123456789", "Claude's own login token"),
        ("sk-ant-api03-0123456789", "an Anthropic API key"),
    ],
)
def test_a_vendors_token_is_answered_with_the_variable_to_set(claude: Claude, token: str, says: str) -> None:
    advice = claude.vendor_token_advice(token)
    assert advice is not None
    assert says in advice
    assert "ANTHROPIC_AUTH_TOKEN" in advice
    assert claude.vendor_token_advice("aimux-0123456789abcdef") is None


def test_the_response_does_not_name_the_organization(claude: Claude) -> None:
    assert "anthropic-organization-id" in claude.hidden_headers
    assert not {"request-id", "retry-after", "cf-ray", "anthropic-ratelimit-unified-status"} & claude.hidden_headers


@pytest.mark.parametrize(
    ("target", "body", "ids"),
    [
        ("/v1/files/file_011CNha8", {}, ["file_011CNha8"]),
        ("/v1/messages/batches/msgbatch_01Hkc/results", {}, ["msgbatch_01Hkc"]),
        ("/v1/messages", {"container": "container_01"}, ["container_01"]),
        ("/v1/messages", {"messages": [{"content": [{"source": {"type": "file", "file_id": "file_9"}}]}]}, ["file_9"]),
        ("/v1/messages", {"thread": {"type": "continue", "previous_message_id": "msg_1"}}, ["msg_1"]),
        ("/v1/messages/count_tokens", {}, []),
    ],
)
def test_what_a_request_refers_to(claude: Claude, target: str, body: dict[str, object], ids: list[str]) -> None:
    assert list(claude.refers_to(request(target), Body(json.dumps(body).encode()))) == ids


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("betas", "ids"), [("a-1,message-threads-2026-08-12", ("msg_1",)), ("a-1", ())])
def test_an_answer_that_a_thread_goes_on_from_is_kept(
    claude: Claude, betas: str, ids: tuple[str, ...], streamed: bool
) -> None:
    head = RequestHead("POST", "/v1/messages", CIMultiDict({"anthropic-beta": betas}))
    kind = "text/event-stream" if streamed else "application/json"
    meter = claude.meter(head, 200, CIMultiDict({"content-type": kind}))
    assert meter is not None
    message = {"id": "msg_1", "usage": {"input_tokens": 3, "output_tokens": 1}}
    started = {"type": "message_start", "message": message}
    meter.feed(samples.sse(started) if streamed else json.dumps(message).encode())
    meter.end()
    assert meter.stored == ids


@pytest.mark.parametrize(
    ("target", "answer", "ids"),
    [
        ("/v1/files", {"id": "file_1", "type": "file"}, ("file_1",)),
        ("/v1/messages/batches", {"id": "msgbatch_1"}, ("msgbatch_1",)),
        ("/v1/messages", {"id": "msg_1", "container": {"id": "container_1"}}, ("container_1",)),
        ("/v1/messages", {"id": "msg_1"}, ()),
    ],
)
def test_what_an_answer_says_is_kept(
    claude: Claude, target: str, answer: dict[str, object], ids: tuple[str, ...]
) -> None:
    meter = claude.meter(request(target), 200, CIMultiDict({"content-type": "application/json"}))
    assert meter is not None
    meter.feed(json.dumps(answer).encode())
    meter.end()
    assert meter.stored == ids


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"authorization": "Bearer sk-ant-oat01-mine"}, ("oauth", "sk-ant-oat01-mine")),
        ({"authorization": "Bearer sk-ant-api03-mine"}, ("api_key", "sk-ant-api03-mine")),
        ({"x_api_key": "sk-ant-api03-mine"}, ("api_key", "sk-ant-api03-mine")),
        ({}, None),
    ],
)
def test_the_credential_that_a_client_brings(claude: Claude, headers: dict[str, str], expected: object) -> None:
    found = claude.own_credential(request(**headers).headers)
    assert (found and (found.kind, found.secret)) == expected


@pytest.mark.parametrize("theirs", ["sk-proj-theirs", "eyJh.eyJi.c"])
def test_another_vendors_credential_is_not_sent_to_this_one(claude: Claude, theirs: str) -> None:
    with pytest.raises(CredentialError):
        claude.own_credential(request(authorization=f"Bearer {theirs}").headers)


def test_names_of_the_configuration_are_on_the_last_page_of_the_models(claude: Claude) -> None:
    """The next page is asked for behind `last_id`, which the upstream has to know."""
    head = RequestHead("GET", "/v1/models?limit=1", CIMultiDict())
    page = {"data": [{"id": "claude-a"}], "has_more": True, "first_id": "claude-a", "last_id": "claude-a"}
    assert claude.list_models(head, json.dumps(page).encode(), {"mine": "claude-a"}) is None
    told = json.loads(claude.list_models(head, json.dumps({**page, "has_more": False}).encode(), {"mine": "x"}) or b"")
    assert ([model["id"] for model in told["data"]], told["last_id"]) == (["claude-a", "mine"], "mine")


@pytest.mark.parametrize("target", ["//v1/models?limit=1000", "/v1/v1/models?limit=1000", "/models", "/v1/models/"])
def test_names_of_the_configuration_are_listed_whatever_the_base_url_ends_in(claude: Claude, target: str) -> None:
    """Claude Code adds `/v1/models` to a base URL that ends in `/v1`, too, and Vercel's AI SDK no `/v1` to any."""
    head = RequestHead("GET", target, CIMultiDict())
    told = json.loads(claude.list_models(head, b'{"data": []}', {"mine": "claude-a"}) or b"")
    assert [model["id"] for model in told["data"]] == ["mine"]


def test_what_is_no_list_of_models_passes_as_it_came(claude: Claude) -> None:
    """A list of the configured names alone would hide that something stands in between."""
    head = RequestHead("GET", "/v1/models", CIMultiDict())
    assert claude.list_models(head, b"<html>Log in to this network</html>", {"mine": "claude-a"}) is None


def test_a_name_of_the_configuration_can_do_what_its_model_can(claude: Claude) -> None:
    """copilot-api#257: clients go by the context window that the list tells."""
    known = {"id": "claude-a", "type": "model", "display_name": "A", "created_at": "2026-11-09", "max_input_tokens": 9}
    head = RequestHead("GET", "/v1/models", CIMultiDict())
    names = {"mine": "claude-a", "other": "elsewhere"}
    told = json.loads(claude.list_models(head, json.dumps({"data": [known]}).encode(), names) or b"")
    assert told["data"][0] == known
    assert told["data"][1] == {**known, "lifecycle": "active", "id": "mine", "display_name": "mine"}
    assert told["data"][2].keys() == {"id", "type", "display_name", "created_at", "lifecycle"}


def test_a_name_of_the_configuration_may_be_asked_for_by_itself(claude: Claude) -> None:
    """An SDK's `models.retrieve`. What the upstream has under this name passes as it is."""
    head = RequestHead("GET", "/v1/models/mine%2Ffast", CIMultiDict())
    told = json.loads(claude.list_models(head, b"", {"mine/fast": "claude-a"}) or b"")
    assert (told["type"], told["id"]) == ("model", "mine/fast")
    assert claude.list_models(head, b"{}", {"mine/fast": "claude-a"}) is None
    assert claude.list_models(head, b"", {"other": "claude-a"}) is None
    assert claude.list_models(head, b"", {}) is None
