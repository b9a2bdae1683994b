from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from aimux.plugin import RELAY, Action, ErrorKind, GatewayError, LimitWindow, RequestHead, Verdict
from aimux_claude import Claude
from tests.contracts import samples
from tests.providers.conftest import NOW

UNIFIED = "anthropic-ratelimit-unified-"
HOUR = 3600.0


def problem(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()


def unified(**values: object) -> CIMultiDict[str]:
    return CIMultiDict({UNIFIED + key.lstrip("_").replace("__", "-"): str(value) for key, value in values.items()})


def limited(claude: Claude, headers: CIMultiDict[str], message: str = "Rate limited", model: str = "") -> Verdict:
    return claude.classify(429, headers, problem("rate_limit_error", message), model=model)


@pytest.mark.usefixtures("now")
class TestRateLimits:
    def test_the_cooldown_is_the_latest_reset_among_the_rejected_windows(self, claude: Claude) -> None:
        """CLIProxyAPI#5639: a cooldown outlived the real reset."""
        headers = unified(
            status="rejected",
            reset=int(NOW + 9 * HOUR),
            _5h__status="rejected",
            _5h__reset=int(NOW + HOUR),
            _7d__status="allowed_warning",
            _7d__reset=int(NOW + 90 * HOUR),
            overage__status="rejected",
            overage__reset=int(NOW + 600 * HOUR),
        )
        verdict = limited(claude, headers, model="claude-opus-4-5")
        assert verdict == Verdict(Action.COOL_DOWN, "the 5h limit is reached", until=NOW + HOUR)

    def test_both_windows_rejected(self, claude: Claude) -> None:
        headers = unified(
            status="rejected",
            _5h__status="rejected",
            _5h__reset=int(NOW + HOUR),
            _7d__status="rejected",
            _7d__reset=int(NOW + 50 * HOUR),
        )
        assert limited(claude, headers).until == NOW + 50 * HOUR

    def test_a_model_window_alone_limits_that_model_only(self, claude: Claude) -> None:
        headers = unified(
            status="rejected",
            _5h__status="allowed",
            _5h__reset=int(NOW + HOUR),
            _7d_oi__status="rejected",
            _7d_oi__reset=int(NOW + 50 * HOUR),
        )
        verdict = limited(claude, headers, model="claude-opus-4-5")
        assert (verdict.until, verdict.model) == (NOW + 50 * HOUR, "claude-opus-4-5")

    @pytest.mark.parametrize("told", [{"retry-after": "7200"}, {UNIFIED + "reset": str(int(NOW + 2 * HOUR))}])
    def test_a_limit_that_no_window_shows_is_one_of_the_models_own(self, claude: Claude, told: dict[str, str]) -> None:
        """Wei-Shaw/sub2api#6055: the account serves the other models."""
        headers = unified(status="rejected", _5h__status="allowed", _7d__status="allowed_warning")
        headers.update(told)
        verdict = limited(claude, headers, model="claude-fable-5")
        assert (verdict.action, verdict.until, verdict.model) == (Action.COOL_DOWN, NOW + 2 * HOUR, "claude-fable-5")
        assert limited(claude, headers).action is Action.BACK_OFF, "nobody knows which model that was"

    def test_a_limit_that_no_window_shows_is_believed_for_a_day(self, claude: Claude) -> None:
        """router-for-me/CLIProxyAPI#5770: told until the month's end, it outlived the included usage's own reset."""
        headers = unified(status="rejected", _5h__status="allowed", _7d__status="allowed")
        headers["retry-after"] = "1587827"
        verdict = limited(claude, headers, model="claude-sonnet-5")
        assert (verdict.until, verdict.model) == (NOW + 24 * HOUR, "claude-sonnet-5")

    def test_credits_that_a_model_needs_may_be_on_another_account(self, claude: Claude) -> None:
        """Wei-Shaw/sub2api#6484."""
        error = {"type": "rate_limit_error", "message": "Error", "details": {"error_code": "credits_required"}}
        coded = json.dumps({"type": "error", "error": error}).encode()
        said = problem("rate_limit_error", "Usage credits are required for this model.")
        headers = unified(status="rejected", reset=int(NOW + 700 * HOUR))
        for raw in (coded, said):
            verdict = claude.classify(429, headers, raw, model="claude-fable-5")
            assert (verdict.action, verdict.model) == (Action.MISSING, "claude-fable-5")

    def test_a_reset_beyond_its_window_is_not_believed(self, claude: Claude) -> None:
        headers = unified(status="rejected", _5h__status="rejected", _5h__reset=int(NOW + 500 * HOUR))
        assert limited(claude, headers).until == NOW + 5 * HOUR

    @pytest.mark.parametrize(
        "headers",
        [
            CIMultiDict(),
            unified(status="allowed", overage__disabled__reason="out_of_credits"),
            unified(status="rejected", _5h__status="rejected"),
            unified(status="rejected", reset=int(NOW - 5), _5h__status="rejected", _5h__reset=int(NOW - 5)),
            unified(status="allowed", reset=int(NOW + HOUR), _5h__status="allowed", _5h__reset=int(NOW + HOUR)),
            unified(status="allowed_warning", reset=int(NOW + HOUR), _7d__status="allowed_warning"),
        ],
    )
    def test_without_the_reset_of_a_rejected_window_another_account_is_asked(
        self, claude: Claude, headers: CIMultiDict[str]
    ) -> None:
        """claude-relay-service#1000: a bogus 429 locked an account."""
        assert limited(claude, headers).action is Action.BACK_OFF

    def test_an_account_without_plan_and_credit_is_looked_at_again_later(self, claude: Claude) -> None:
        """tombii/better-ccflare#261. With a plan, answers that serve tell the same of the credit."""
        headers = CIMultiDict({UNIFIED + "overage-disabled-reason": "out_of_credits", "x-should-retry": "true"})
        verdict = limited(claude, headers)
        assert (verdict.action, verdict.until) == (Action.COOL_DOWN, NOW + 900)

    def test_the_overall_reset_counts_where_all_is_rejected(self, claude: Claude) -> None:
        assert limited(claude, unified(status="rejected", reset=int(NOW + HOUR))).until == NOW + HOUR

    def test_a_limit_of_some_models_cools_no_account_that_was_asked_for_none(self, claude: Claude) -> None:
        headers = unified(status="rejected", _7d_oi__status="rejected", _7d_oi__reset=int(NOW + 50 * HOUR))
        assert limited(claude, headers).action is Action.BACK_OFF

    @pytest.mark.parametrize(
        "message",
        ["Extra usage is required for long context requests.", "Usage credits are required for long context requests."],
    )
    def test_a_length_that_is_to_be_paid_for_may_be_included_in_another_plan(
        self, claude: Claude, message: str
    ) -> None:
        """CLIProxyAPI#2323. It limits nothing: the next request may be shorter."""
        headers = unified(status="rejected", _5h__status="rejected", _5h__reset=int(NOW + HOUR))
        verdict = limited(claude, headers, message, model="claude-opus-5")
        assert (verdict.action, verdict.model, verdict.until) == (Action.MISSING, None, None)

    def test_a_429_about_usage_to_be_paid_for_passes_through(self, claude: Claude) -> None:
        headers = unified(status="rejected", _5h__status="rejected", _5h__reset=int(NOW + HOUR))
        assert limited(claude, headers, "Extra usage is off for this feature.") == RELAY

    def test_an_api_key_is_limited_for_as_long_as_it_is_told(self, claude: Claude) -> None:
        assert limited(claude, CIMultiDict({"retry-after": "17"})).until == NOW + 17
        headers = CIMultiDict(
            {
                "anthropic-ratelimit-requests-remaining": "4",
                "anthropic-ratelimit-requests-reset": "2100-01-01T00:00:00Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-05-28T20:27:20Z",
            }
        )
        verdict = limited(claude, headers, model="claude-opus-5")
        assert (verdict.until, verdict.model) == (NOW + 40, "claude-opus-5")
        verdict = limited(claude, headers)
        assert (verdict.until, verdict.model) == (NOW + 40, None), "nobody knows which model that was"

    @pytest.mark.parametrize("status", [400, 403, 429])
    @pytest.mark.parametrize(
        ("date", "until"),
        [
            ("2026-06-01 at 00:00 UTC", 1780272000.0),
            ("2026-06-01 at 13:30 UTC", 1780320600.0),
            ("2026-06-01", 1780272000.0),
            ("2026-06-01T00:00:00Z", 1780272000.0),
            ("the first of June", NOW + 900),
        ],
    )
    @pytest.mark.parametrize("whose", ["", "workspace "])
    def test_a_spending_limit_of_the_accounts_own_ends_when_it_says(
        self, claude: Claude, status: int, date: str, until: float, whose: str
    ) -> None:
        message = f"You have reached your specified {whose}API usage limits. You will regain access on {date}."
        verdict = claude.classify(status, CIMultiDict(), problem("invalid_request_error", message))
        assert (verdict.action, verdict.until, verdict.model) == (Action.COOL_DOWN, until, None)

    def test_no_credit_is_looked_at_again_later(self, claude: Claude) -> None:
        message = (
            "Your credit balance is too low to access the Anthropic API. "
            "Please go to Plans & Billing to upgrade or purchase credits."
        )
        verdict = claude.classify(400, CIMultiDict(), problem("invalid_request_error", message))
        assert (verdict.action, verdict.until) == (Action.COOL_DOWN, NOW + 900)
        assert verdict.remedy


@pytest.mark.parametrize(
    "message",
    [
        "Account is no longer a member of the organization associated with this token.",
        "Your account is not a member of this organization. Please log in again.",
        "Your account does not have access to Claude Code.",
        "Your organization does not have access to Claude. Please login again or contact your administrator.",
        "Your plan does not include Claude Code.",
    ],
)
def test_a_403_about_membership_or_plan_parks_the_account(claude: Claude, message: str) -> None:
    verdict = claude.classify(403, CIMultiDict(), problem("permission_error", message))
    assert verdict.action is Action.PARK
    assert "log in" in verdict.remedy
    assert claude.classify(400, CIMultiDict(), problem("invalid_request_error", message)) == RELAY
    quoted = f"messages.0.content: {message} is not allowed"
    assert claude.classify(403, CIMultiDict(), problem("permission_error", quoted)) == RELAY


@pytest.mark.parametrize("status", [400, 403])
def test_a_permanent_refusal_parks_the_account_and_says_what_to_do(claude: Claude, status: int) -> None:
    body = problem("permission_error", "This organization has been disabled.")
    verdict = claude.classify(status, CIMultiDict(), body)
    assert verdict.action is Action.PARK
    assert verdict.remedy


@pytest.mark.parametrize("status", [400, 401, 403])
def test_oauth_that_is_not_allowed_is_checked_before_it_parks(claude: Claude, status: int) -> None:
    """Where a subscription has lapsed it is so for good, but accounts that serve hear it now and then."""
    body = problem("permission_error", "OAuth authentication is currently not allowed for this organization.")
    verdict = claude.classify(status, CIMultiDict(), body)
    assert verdict.action is Action.REFRESH
    assert "does not allow OAuth" in verdict.reason
    assert "subscription" in verdict.remedy


@pytest.mark.parametrize(
    "message",
    [
        "This organization has been disabled: Extra inputs are not permitted",
        "OAuth authentication is currently not allowed for this organization.: Extra inputs are not permitted",
        "Unexpected value(s) `This organization has been disabled.` for the `anthropic-beta` header.",
        "Your credit balance is too low to access the Anthropic API.: Extra inputs are not permitted",
        "messages.0.content: Input should be a valid list",
    ],
)
def test_no_client_parks_an_account_with_words_of_its_own(claude: Claude, message: str) -> None:
    """Anthropic quotes keys and values of the request in its answer."""
    assert claude.classify(400, CIMultiDict(), problem("invalid_request_error", message)) == RELAY


@pytest.mark.parametrize(
    ("status", "message", "action"),
    [
        (401, "Invalid bearer token", Action.REFRESH),
        (401, "", Action.REFRESH),
        (401, "CORS requests must set 'anthropic-dangerous-direct-browser-access' header", Action.RELAY),
        (402, "There's an issue with your billing or payment information.", Action.COOL_DOWN),
        (403, "OAuth token has been revoked. Please obtain a new token.", Action.REFRESH),
        (403, "OAuth token does not meet scope requirement user:profile", Action.RELAY),
        (400, "The long context beta is not yet available for this subscription.", Action.MISSING),
        (
            400,
            "This credential is only authorized for use with Claude Code and cannot be used for other API requests.",
            Action.RELAY,
        ),
        (400, "Third-party apps now draw from your extra usage, not your plan limits. Add more …", Action.MISSING),
        (400, "tools.0: Third-party apps now draw from your extra usage", Action.RELAY),
        (400, "x: The long context beta is not yet available for this subscription.", Action.RELAY),
        (400, "You're out of extra usage. Add more at claude.ai/settings/usage and keep going.", Action.BACK_OFF),
        (404, "model: claude-nope", Action.RELAY),
        (413, "Request exceeds the maximum size", Action.RELAY),
        (422, "", Action.RELAY),
        (501, "not supported", Action.RELAY),
        (500, "Internal server error", Action.BACK_OFF),
        (503, "", Action.BACK_OFF),
        (529, "Overloaded", Action.BACK_OFF),
    ],
)
def test_the_other_rows(claude: Claude, status: int, message: str, action: Action) -> None:
    """A 401 renews first (CLIProxyAPI#4087); a 529 disables nothing (claude-relay-service#422)."""
    assert claude.classify(status, CIMultiDict(), problem("some_error", message)).action is action
    between = Action.BACK_OFF if status in {401, 403} else Action.RELAY
    assert claude.classify(status, CIMultiDict(), b"<html>").action in {action, between}


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(
    ("status", "code", "action"),
    [
        (403, "organization_on_hold", Action.PARK),
        (401, "claude_code_key_creator_not_member", Action.PARK),
        (429, "enforced_spend_limit_reached", Action.COOL_DOWN),
        (400, "contract_spend_limit_reached", Action.COOL_DOWN),
        (400, "cmek_key_disabled", Action.BACK_OFF),
        (402, "linked_organization_spend_limit_reached", Action.RELAY),
        (403, "user_profile_billing_not_authorized", Action.RELAY),
        (400, "claude_code_version_too_old", Action.RELAY),
        (404, "thread_not_found", Action.RELAY),
    ],
)
def test_the_codes_of_errors(claude: Claude, status: int, code: str, action: Action) -> None:
    """Anthropic advises against matching messages; and a customer whom the client has billed is not the account."""
    error = {"type": "permission_error", "message": "Any words", "details": {"error_code": code}}
    body = json.dumps({"type": "error", "error": error}).encode()
    verdict = claude.classify(status, CIMultiDict(), body, model="claude-opus-5")
    assert verdict.action is action
    assert (verdict.until is not None) is (action is Action.COOL_DOWN)
    assert bool(verdict.remedy) is (action in {Action.PARK, Action.COOL_DOWN})


def test_what_is_refused_in_front_of_the_api_may_be_served_with_another_account(claude: Claude) -> None:
    """anthropics/claude-code#50411, can1357/oh-my-pi#9559: by region, or for some accounts alone."""
    raw = b'{"error":{"type":"forbidden","message":"Request not allowed"}}'
    assert claude.classify(403, CIMultiDict(), raw).action is Action.BACK_OFF


# --- limits ----------------------------------------------------------------------------------------------------------


def test_the_windows_of_an_answer(claude: Claude) -> None:
    headers = unified(
        status="allowed_warning",
        _5h__status="allowed_warning",
        _5h__reset="1780010000",
        _5h__utilization="0.91",
        _7d__status="allowed",
        _7d__utilization="0.2",
        _7d_oi__status="allowed",
        _7d_oi__utilization="nonsense",
        overage__status="rejected",
        overage__disabled__reason="org_level_disabled",
    )
    assert claude.limits(headers) == (
        LimitWindow("5h", 0.91, 1_780_010_000.0, "warning"),
        LimitWindow("7d", 0.2),
        LimitWindow("7d_oi", None, scope="oi"),
        LimitWindow("overage", status="warning", scope="overage"),
    )
    assert claude.limits(CIMultiDict({"anthropic-ratelimit-requests-remaining": "3"})) == ()


def test_a_used_up_window_rejects_nothing_while_extra_usage_pays(claude: Claude) -> None:
    told = {"_5h__status": "rejected", "_5h__utilization": "1.0"}
    assert [w.status for w in claude.limits(unified(status="allowed", **told))] == ["warning"]
    assert [w.status for w in claude.limits(unified(status="rejected", **told))] == ["rejected"]


# --- streams ---------------------------------------------------------------------------------------------------------

START = samples.MESSAGE_STREAM[: samples.MESSAGE_STREAM.index(b"event: content_block_start")]


@pytest.mark.parametrize(
    ("payload", "action"),
    [
        (b"", None),
        (START, None),
        (START[:-1], None),
        (b": keep-alive\n\n" + START, None),
        (START + b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"', None),
        (START + samples.sse({"type": "error", "error": {"type": "overloaded_error", "message": ""}}), Action.BACK_OFF),
        (samples.sse({"type": "error", "error": {"type": "api_error", "message": ""}}), Action.BACK_OFF),
        (samples.sse({"type": "error", "error": {"type": "invalid_request_error", "message": ""}}), Action.RELAY),
        (START + samples.sse({"type": "content_block_start", "index": 0}), Action.RELAY),
        (b"event: error\ndata: what\n\n", Action.RELAY),
    ],
)
def test_an_overload_inside_a_200_is_told_from_content(claude: Claude, payload: bytes, action: Action | None) -> None:
    verdict = claude.opening(CIMultiDict(), payload)
    assert (verdict.action if verdict else None) is action


def test_errors_are_anthropics_envelope(claude: Claude) -> None:
    error = GatewayError(ErrorKind.UNAUTHORIZED, "aimux needs a token")
    error.request_id = "req_0123"
    assert json.loads(claude.error(error).body) == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "aimux needs a token"},
        "request_id": "req_0123",
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_every_status_has_anthropics_word(claude: Claude, status: int, kind: str) -> None:
    told = claude.error(GatewayError(ErrorKind.UNAVAILABLE, "m", status=status))
    assert json.loads(told.body)["error"]["type"] == kind


def test_a_stream_without_its_end_is_told_in_the_protocols_own_event(claude: Claude) -> None:
    """CLIProxyAPI#3996."""
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    meter = claude.meter(head, 200, CIMultiDict({"content-type": "text/event-stream"}))
    assert meter is not None
    meter.feed(samples.MESSAGE_STREAM[: samples.MESSAGE_STREAM.index(b"event: message_stop")])
    meter.end()
    assert not meter.complete
    event = claude.stream_error(GatewayError(ErrorKind.BAD_GATEWAY, "the upstream broke off"), head)
    name, data, *rest = event.split(b"\n")
    assert (name, rest) == (b"event: error", [b"", b""])
    assert json.loads(data.removeprefix(b"data: "))["error"] == {
        "type": "api_error",
        "message": "the upstream broke off",
    }


def test_a_stream_that_ends_with_the_upstreams_own_error_is_complete(claude: Claude) -> None:
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    meter = claude.meter(head, 200, CIMultiDict({"content-type": "text/event-stream"}))
    assert meter is not None
    meter.feed(START + samples.sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}))
    assert meter.complete


def test_cache_tokens_are_counted_beside_the_input(claude: Claude) -> None:
    """new-api#3258: they were counted wrong."""
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    meter = claude.meter(head, 200, CIMultiDict({"content-type": "application/json"}))
    assert meter is not None
    meter.feed(samples.MESSAGE)
    meter.end()
    assert (meter.usage.input_tokens, meter.usage.total_input) == (12, 23012)
    assert (meter.usage.cache_write_tokens, meter.usage.cache_write_1h_tokens) == (3000, 2000)


def test_the_placeholder_of_an_interrupted_stream_is_no_output(claude: Claude) -> None:
    head = RequestHead("POST", "/v1/messages", CIMultiDict())
    meter = claude.meter(head, 200, CIMultiDict({"content-type": "text/event-stream"}))
    assert meter is not None
    usage = {"input_tokens": 7, "output_tokens": 1}
    meter.feed(b"data: " + json.dumps({"type": "message_start", "message": {"usage": usage}}).encode() + b"\n\n")
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (7, 0)
    meter.feed(b'data: {"type":"message_delta","usage":{"output_tokens":1}}\n\n')
    assert meter.usage.output_tokens == 1, "unless that is what it was in the end"


@pytest.mark.parametrize(
    ("headers", "paid"),
    [
        (unified(representative__claim="overage"), True),
        (unified(representative__claim="seven_day_overage_included"), False),
        (unified(representative__claim="five_hour", overage__in__use="true"), True),
        (unified(representative__claim="five_hour", overage__in__use="false", overage__status="allowed"), False),
        (unified(), False),
    ],
)
def test_whether_an_answer_was_paid_extra_usage(claude: Claude, headers: CIMultiDict[str], paid: bool) -> None:
    assert claude.extra_usage(headers) is paid


def test_a_model_that_the_plan_leaves_out_is_asked_of_others(claude: Claude) -> None:
    said = {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-opus-5"}}
    raw = json.dumps(said).encode()
    missing = Verdict(Action.MISSING, "it does not have the model", model="claude-opus-5")
    assert claude.classify(404, CIMultiDict(), raw, model="claude-opus-5") == missing
    for model in ("", "claude-opus"):
        assert claude.classify(404, CIMultiDict(), raw, model=model).action is Action.RELAY
