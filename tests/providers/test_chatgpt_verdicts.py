"""What a refusal of ChatGPT's or OpenAI's means for the account, and in which words errors are told."""

from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from aimux.plugin import Action, ErrorKind, GatewayError, RequestHead, Verdict
from aimux_chatgpt import ChatGPT
from tests.contracts import samples
from tests.providers.errors import judged, openai_error

RESPONSES = RequestHead("POST", "/v1/responses", CIMultiDict())


@pytest.mark.parametrize(
    ("status", "raw", "action"),
    [
        (401, openai_error(None, code="token_expired"), Action.REFRESH),
        (401, b'{"detail": "Unauthorized"}', Action.REFRESH),
        (401, b"", Action.BACK_OFF),
        (401, b"<html>log in to the proxy</html>", Action.BACK_OFF),
        (401, openai_error("invalid_request_error", code="missing_scope"), Action.RELAY),
        (401, openai_error(None, code="account_deactivated"), Action.PARK),
        (402, b'{"detail": {"code": "deactivated_workspace"}}', Action.PARK),
        (403, b'{"detail": "Forbidden"}', Action.BACK_OFF),
        (403, b'{"detail": {"code": "invalid_workspace_selected"}}', Action.PARK),
        (403, openai_error(None, code="account_suspended"), Action.PARK),
        (403, openai_error(None, code="unsupported_country_region_territory"), Action.RELAY),
        (403, openai_error(None, code="token_revoked"), Action.REFRESH),
        (403, openai_error("usage_not_included"), Action.PARK),
        (403, b"<html>Just a moment</html>", Action.BACK_OFF),
        (400, b'{"detail": "The model is not supported when using Codex with a ChatGPT account"}', Action.RELAY),
        (400, openai_error(None, code="context_length_exceeded"), Action.RELAY),
        (400, b'{"detail": "Unsupported content type"}', Action.RELAY),
        (400, openai_error(None, code="Not Found"), Action.RELAY),
        (413, b"", Action.RELAY),
        (500, openai_error("server_error"), Action.BACK_OFF),
        (502, b"", Action.BACK_OFF),
        (503, openai_error(None, code="server_is_overloaded"), Action.BACK_OFF),
    ],
)
def test_the_other_rows(chatgpt: ChatGPT, status: int, raw: bytes, action: Action) -> None:
    """CLIProxyAPI#4087: a 401 renews first."""
    verdict = judged(chatgpt, status, raw)
    assert verdict.action is action
    assert bool(verdict.remedy) is (action is Action.PARK)


@pytest.mark.parametrize(("retry", "status"), [(False, 400), (None, None), (True, None)])
def test_codex_stops_at_once_where_asking_again_is_pointless(
    chatgpt: ChatGPT, retry: bool | None, status: int | None
) -> None:
    """It asks for a 5xx 30 times, whatever x-should-retry says."""
    answer = chatgpt.error(GatewayError(ErrorKind.UNAVAILABLE, "every account is parked", retry=retry))
    assert answer.status == status
    refused = chatgpt.error(GatewayError(ErrorKind.UNAUTHORIZED, "aimux needs a token", retry=False))
    assert refused.status is None


def test_errors_have_openais_shape(chatgpt: ChatGPT) -> None:
    answer = json.loads(chatgpt.error(GatewayError(ErrorKind.UNAUTHORIZED, "aimux needs a token")).body)
    assert answer == {
        "error": {
            "message": "aimux needs a token",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", "invalid_api_key"),
        (403, "invalid_request_error", "forbidden"),
        (404, "invalid_request_error", "not_found"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", "server_error"),
        (502, "server_error", "bad_gateway"),
        (503, "server_error", "service_unavailable"),
        (504, "server_error", "timeout"),
    ],
)
def test_every_status_has_openais_words(chatgpt: ChatGPT, status: int, kind: str, code: str | None) -> None:
    told = json.loads(chatgpt.error(GatewayError(ErrorKind.UNAVAILABLE, "m", status=status)).body)
    assert told == {"error": {"message": "m", "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize("kind", ["error", "response.failed"])
def test_on_a_socket_an_overload_may_be_the_accounts_alone(chatgpt: ChatGPT, kind: str) -> None:
    """icebear0828/codex-proxy#702."""
    meter = chatgpt.websocket_meter(RESPONSES)
    assert meter is not None
    meter.asked(b'{"type": "response.create", "model": "gpt-6"}')
    created = b'{"type": "response.created", "response": {}}'
    error = {"type": "service_unavailable_error", "code": "server_is_overloaded", "message": "…"}
    told = {"status": 503, "error": error} if kind == "error" else {"response": {"error": error}}
    refusal = json.dumps({"type": kind, **told}).encode()
    assert meter.tells_nothing(created)
    assert meter.tells_nothing(b'{"type":"codex.response.metadata","headers":{}}')
    assert not meter.tells_nothing(refusal)
    meter.feed(created)
    meter.feed(refusal)
    assert meter.verdict == Verdict(Action.BACK_OFF, "server_is_overloaded")


@pytest.mark.parametrize(
    ("raw", "message", "code"),
    [
        (b'{"detail": "Unsupported parameter: temperature"}', "Unsupported parameter: temperature", None),
        (
            b'{"detail": {"code": "deactivated_workspace"}}',
            '{"code": "deactivated_workspace"}',
            "deactivated_workspace",
        ),
        (openai_error("usage_limit_reached"), None, None),
        (b'{"detail": ""}', None, None),
        (b'{"message": "x"}', None, None),
        (b"[1]", None, None),
        (b"<html>", None, None),
    ],
)
def test_a_detail_is_told_in_openais_shape_too(
    chatgpt: ChatGPT, raw: bytes, message: str | None, code: str | None
) -> None:
    told = chatgpt.explained(400, raw)
    if message is None:
        assert told is None
    else:
        assert told is not None
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        assert json.loads(told) == {"error": error, **json.loads(raw)}


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (400, "Stream must be set to true"),
        (400, "Store must be set to false."),
        (400, "Unsupported parameter: max_output_tokens"),
        (404, "Not Found"),
    ],
)
def test_what_no_login_serves_is_left_to_keys(chatgpt: ChatGPT, status: int, detail: str) -> None:
    verdict = judged(chatgpt, status, json.dumps({"detail": detail}).encode())
    assert (verdict.action, verdict.kind) == (Action.MISSING, "oauth")


UNSUPPORTED = "The 'gpt-5.3-codex-spark' model is not supported when using Codex with a ChatGPT account."


LACKING = Verdict(Action.MISSING, "it does not have the model", model="gpt-5.3-codex-spark")


@pytest.mark.parametrize(
    ("status", "raw"),
    [
        (400, json.dumps({"detail": UNSUPPORTED}).encode()),
        (400, json.dumps({"detail": UNSUPPORTED[:-1]}).encode()),
        (400, openai_error("model_not_found")),
        (403, openai_error("model_not_found")),
        (404, openai_error("model_not_found")),
    ],
)
def test_a_model_that_the_plan_leaves_out_is_asked_of_others(chatgpt: ChatGPT, status: int, raw: bytes) -> None:
    """Soju06/codex-lb#608, CLIProxyAPI#4184, Wei-Shaw/sub2api#6711."""
    assert chatgpt.classify(status, CIMultiDict(), raw, model="gpt-5.3-codex-spark") == LACKING
    if status == 400 and b"detail" in raw:
        assert chatgpt.classify(status, CIMultiDict(), raw, model="gpt-5.5").action is Action.RELAY


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    "said", ["stream this model. Please go to: …", "use the model `gpt-image-1`.", "generate reasoning summaries."]
)
def test_what_an_unverified_organization_may_not_do_is_asked_of_others(
    chatgpt: ChatGPT, status: int, said: str
) -> None:
    error = {"message": f"Your organization must be verified to {said}", "code": "unsupported_value", "param": "stream"}
    verdict = chatgpt.classify(status, CIMultiDict(), json.dumps({"error": error}).encode(), model="gpt-5.5")
    assert (verdict.action, verdict.model) == (Action.MISSING, "gpt-5.5")
    quoted = json.dumps({"error": error | {"message": f"input: {error['message']}"}}).encode()
    assert chatgpt.classify(400, CIMultiDict(), quoted, model="gpt-5.5").action is Action.RELAY


def test_a_stream_may_tell_as_well_that_a_model_is_not_there(chatgpt: ChatGPT) -> None:
    failed = {"type": "response.failed", "response": {"error": {"code": "model_not_found", "message": "…"}}}
    started = {"type": "response.created", "response": {}}
    opening = chatgpt.opening(CIMultiDict(), samples.sse(started, failed), model="gpt-5.3-codex-spark")
    assert opening == LACKING


@pytest.mark.parametrize("kind", ["error", "response.failed"])
def test_on_a_socket_too(chatgpt: ChatGPT, kind: str) -> None:
    meter = chatgpt.websocket_meter(RESPONSES)
    assert meter is not None
    meter.asked(json.dumps({"type": "response.create", "model": "gpt-5.3-codex-spark"}).encode())
    error = {"type": "invalid_request_error", "message": UNSUPPORTED}
    told = {"status": 400, "error": error} if kind == "error" else {"response": {"error": error}}
    meter.feed(json.dumps({"type": kind, **told}).encode())
    assert meter.verdict == LACKING


UNREADABLE = (
    {"code": "invalid_encrypted_content", "message": "m"},
    {"code": None, "message": "The encrypted content for item rs_043e could not be verified."},
    {
        "type": "invalid_request_error",
        "message": "The encrypted content gAAA...pg= could not be verified. Reason: it could not be parsed.",
    },
    {"code": None, "message": "Encrypted function output content could not be decrypted or decoded."},
)


@pytest.mark.parametrize("problem", UNREADABLE)
def test_what_another_account_has_encrypted_is_that_ones_to_read(chatgpt: ChatGPT, problem: dict[str, object]) -> None:
    """CLIProxyAPI#81, nikships/droidproxy#58, sub2api#7506: an account can't read what the model thought, or wrote to
    another agent, with another one."""
    raw = json.dumps({"error": problem}).encode()
    assert chatgpt.classify(400, CIMultiDict(), raw).action is Action.MISSING
    started = samples.sse({"type": "response.created", "response": {"error": None}})
    failed = samples.sse({"type": "response.failed", "response": {"error": problem}})
    opening = chatgpt.opening(CIMultiDict(), started + failed)
    assert opening is not None
    assert opening.action is Action.MISSING
    meter = chatgpt.websocket_meter(RESPONSES)
    assert meter is not None
    meter.asked(b'{"type": "response.create", "model": "m"}')
    meter.feed(json.dumps({"type": "error", "status": 400, "error": problem}).encode())
    assert meter.verdict is not None
    assert (meter.verdict.action, meter.verdict.model) == (Action.MISSING, None)


@pytest.mark.parametrize("code", ["token_expired", "token_revoked", "token_invalidated", None])
@pytest.mark.parametrize("kind", ["error", "response.failed"])
def test_on_a_socket_a_credential_may_be_refused_as_well(chatgpt: ChatGPT, kind: str, code: str | None) -> None:
    """Soju06/codex-lb#2093."""
    meter = chatgpt.websocket_meter(RESPONSES)
    assert meter is not None
    meter.asked(b'{"type": "response.create"}')
    error = {"type": "invalid_request_error", "code": code, "message": "Your authentication token …"}
    told = {"status": 401, "error": error} if kind == "error" else {"response": {"error": error}}
    meter.feed(json.dumps({"type": kind, **told}).encode())
    if kind == "error" or code:
        assert meter.verdict is not None
        assert meter.verdict.action is Action.REFRESH
    else:
        assert meter.verdict is None
