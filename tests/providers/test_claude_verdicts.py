"""What a refusal of Anthropic's means for the account, and in which words errors are told."""

from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from aimux.plugin import RELAY, Action, ErrorKind, GatewayError, Verdict
from aimux_claude import Claude
from tests.providers.errors import anthropic_error


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
    verdict = claude.classify(403, CIMultiDict(), anthropic_error("permission_error", message))
    assert verdict.action is Action.PARK
    assert "log in" in verdict.remedy
    assert claude.classify(400, CIMultiDict(), anthropic_error("invalid_request_error", message)) == RELAY
    quoted = f"messages.0.content: {message} is not allowed"
    assert claude.classify(403, CIMultiDict(), anthropic_error("permission_error", quoted)) == RELAY


@pytest.mark.parametrize("status", [400, 403])
def test_a_permanent_refusal_parks_the_account_and_says_what_to_do(claude: Claude, status: int) -> None:
    body = anthropic_error("permission_error", "This organization has been disabled.")
    verdict = claude.classify(status, CIMultiDict(), body)
    assert verdict.action is Action.PARK
    assert verdict.remedy


@pytest.mark.parametrize("status", [400, 401, 403])
def test_oauth_that_is_not_allowed_is_checked_before_it_parks(claude: Claude, status: int) -> None:
    """Where a subscription has lapsed it is so for good, but accounts that serve hear it now and then."""
    body = anthropic_error("permission_error", "OAuth authentication is currently not allowed for this organization.")
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
    assert claude.classify(400, CIMultiDict(), anthropic_error("invalid_request_error", message)) == RELAY


@pytest.mark.parametrize(
    ("status", "message", "action"),
    [
        (401, "Invalid bearer token", Action.REFRESH),
        (401, "", Action.REFRESH),
        (401, "CORS requests must set 'anthropic-dangerous-direct-browser-access' header", Action.RELAY),
        (402, "There's an issue with your billing or payment information.", Action.COOL_DOWN),
        (403, "OAuth token has been revoked. Please obtain a new token.", Action.REFRESH),
        (403, "OAuth token does not meet scope requirement user:profile", Action.RELAY),
        (403, "OAuth token does not meet scope requirement any_of(user:ccr_inference, user:inference)", Action.REFRESH),
        (403, "x: OAuth token does not meet scope requirement user:inference", Action.RELAY),
        (403, "Permission denied", Action.BACK_OFF),
        (403, "messages: Permission denied", Action.RELAY),
        (400, "The long context beta is not yet available for this subscription.", Action.MISSING),
        (400, "This authentication style is incompatible with the long context beta header.", Action.MISSING),
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
    assert claude.classify(status, CIMultiDict(), anthropic_error("some_error", message)).action is action
    between = Action.BACK_OFF if status in {401, 403} else Action.RELAY
    assert claude.classify(status, CIMultiDict(), b"<html>").action in {action, between}


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(
    ("status", "code", "action"),
    [
        (403, "organization_on_hold", Action.PARK),
        (403, "organization_disabled", Action.PARK),
        (403, "verification_required", Action.PARK),
        (403, "ip_not_in_allowed_range", Action.COOL_DOWN),
        (403, "oauth_not_allowed_for_organization", Action.REFRESH),
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
    assert bool(verdict.remedy) is (action in {Action.PARK, Action.COOL_DOWN, Action.REFRESH})


def test_what_is_refused_in_front_of_the_api_may_be_served_with_another_account(claude: Claude) -> None:
    """anthropics/claude-code#50411, can1357/oh-my-pi#9559: by region, or for some accounts alone."""
    raw = b'{"error":{"type":"forbidden","message":"Request not allowed"}}'
    assert claude.classify(403, CIMultiDict(), raw).action is Action.BACK_OFF


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


def test_a_model_that_the_plan_leaves_out_is_asked_of_others(claude: Claude) -> None:
    said = {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-opus-5"}}
    raw = json.dumps(said).encode()
    missing = Verdict(Action.MISSING, "it does not have the model", model="claude-opus-5")
    assert claude.classify(404, CIMultiDict(), raw, model="claude-opus-5") == missing
    for model in ("", "claude-opus"):
        assert claude.classify(404, CIMultiDict(), raw, model=model).action is Action.RELAY
