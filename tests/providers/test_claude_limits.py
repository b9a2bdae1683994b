"""What Anthropic says of its limits: until when an account, or one model of it, is not asked."""

from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from aimux.plugin import RELAY, Action, LimitWindow, Verdict
from aimux_claude import Claude
from tests.providers.conftest import NOW
from tests.providers.errors import anthropic_error

pytestmark = pytest.mark.usefixtures("now")
UNIFIED = "anthropic-ratelimit-unified-"
HOUR = 3600.0


def unified(**values: object) -> CIMultiDict[str]:
    return CIMultiDict({UNIFIED + key.lstrip("_").replace("__", "-"): str(value) for key, value in values.items()})


def limited(claude: Claude, headers: CIMultiDict[str], message: str = "Rate limited", model: str = "") -> Verdict:
    return claude.classify(429, headers, anthropic_error("rate_limit_error", message), model=model)


def test_the_cooldown_is_the_latest_reset_among_the_rejected_windows(claude: Claude) -> None:
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


def test_both_windows_rejected(claude: Claude) -> None:
    headers = unified(
        status="rejected",
        _5h__status="rejected",
        _5h__reset=int(NOW + HOUR),
        _7d__status="rejected",
        _7d__reset=int(NOW + 50 * HOUR),
    )
    assert limited(claude, headers).until == NOW + 50 * HOUR


def test_a_model_window_alone_limits_that_model_only(claude: Claude) -> None:
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
def test_a_limit_that_no_window_shows_is_one_of_the_models_own(claude: Claude, told: dict[str, str]) -> None:
    """Wei-Shaw/sub2api#6055: the account serves the other models."""
    headers = unified(status="rejected", _5h__status="allowed", _7d__status="allowed_warning")
    headers.update(told)
    verdict = limited(claude, headers, model="claude-fable-5")
    assert (verdict.action, verdict.until, verdict.model) == (Action.COOL_DOWN, NOW + 2 * HOUR, "claude-fable-5")
    assert limited(claude, headers).action is Action.BACK_OFF, "nobody knows which model that was"


def test_a_limit_that_no_window_shows_is_believed_for_a_day(claude: Claude) -> None:
    """router-for-me/CLIProxyAPI#5770: told until the month's end, it outlived the included usage's own reset."""
    headers = unified(status="rejected", _5h__status="allowed", _7d__status="allowed")
    headers["retry-after"] = "1587827"
    verdict = limited(claude, headers, model="claude-sonnet-5")
    assert (verdict.until, verdict.model) == (NOW + 24 * HOUR, "claude-sonnet-5")


def test_credits_that_a_model_needs_may_be_on_another_account(claude: Claude) -> None:
    """Wei-Shaw/sub2api#6484."""
    error = {"type": "rate_limit_error", "message": "Error", "details": {"error_code": "credits_required"}}
    coded = json.dumps({"type": "error", "error": error}).encode()
    said = anthropic_error("rate_limit_error", "Usage credits are required for this model.")
    headers = unified(status="rejected", reset=int(NOW + 700 * HOUR))
    for raw in (coded, said):
        verdict = claude.classify(429, headers, raw, model="claude-fable-5")
        assert (verdict.action, verdict.model) == (Action.MISSING, "claude-fable-5")


def test_a_reset_beyond_its_window_is_not_believed(claude: Claude) -> None:
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
    claude: Claude, headers: CIMultiDict[str]
) -> None:
    """claude-relay-service#1000: a bogus 429 locked an account."""
    assert limited(claude, headers).action is Action.BACK_OFF


def test_an_account_without_plan_and_credit_is_looked_at_again_later(claude: Claude) -> None:
    """tombii/better-ccflare#261. With a plan, answers that serve tell the same of the credit."""
    headers = CIMultiDict({UNIFIED + "overage-disabled-reason": "out_of_credits", "x-should-retry": "true"})
    verdict = limited(claude, headers)
    assert (verdict.action, verdict.until) == (Action.COOL_DOWN, NOW + 900)


def test_the_overall_reset_counts_where_all_is_rejected(claude: Claude) -> None:
    assert limited(claude, unified(status="rejected", reset=int(NOW + HOUR))).until == NOW + HOUR


def test_a_limit_of_some_models_cools_no_account_that_was_asked_for_none(claude: Claude) -> None:
    headers = unified(status="rejected", _7d_oi__status="rejected", _7d_oi__reset=int(NOW + 50 * HOUR))
    assert limited(claude, headers).action is Action.BACK_OFF


@pytest.mark.parametrize(
    "message",
    [
        "Extra usage is required for long context requests.",
        "Usage credits are required for long context requests.",
        "Usage credits are required for fast mode",
    ],
)
def test_what_is_to_be_paid_for_may_be_included_in_another_plan(claude: Claude, message: str) -> None:
    """CLIProxyAPI#2323. It limits nothing: the next request may be shorter."""
    headers = unified(status="rejected", _5h__status="rejected", _5h__reset=int(NOW + HOUR))
    verdict = limited(claude, headers, message, model="claude-opus-5")
    assert (verdict.action, verdict.model, verdict.until) == (Action.MISSING, None, None)


def test_a_limit_of_fast_mode_is_none_of_the_accounts(claude: Claude) -> None:
    """KarpelesLab/teamclaude#22: each request in fast mode took another account away from all others for a minute."""
    headers = unified(status="allowed", _5h__status="allowed", _5h__reset=int(NOW + HOUR))
    headers["retry-after"] = "60"
    message = "This request would exceed your rate limit of 0 fast mode input tokens per minute (org: 1, model: x)."
    for told in (headers, CIMultiDict({"retry-after": "60", "anthropic-ratelimit-requests-remaining": "4"})):
        verdict = limited(claude, told, message, model="claude-opus-5")
        assert (verdict.action, verdict.model, verdict.until) == (Action.MISSING, None, None)
    headers["anthropic-fast-output-tokens-remaining"] = "0"
    assert limited(claude, headers, model="claude-opus-5").action is Action.MISSING


def test_a_429_about_usage_to_be_paid_for_passes_through(claude: Claude) -> None:
    headers = unified(status="rejected", _5h__status="rejected", _5h__reset=int(NOW + HOUR))
    assert limited(claude, headers, "Extra usage is off for this feature.") == RELAY


def test_an_api_key_is_limited_for_as_long_as_it_is_told(claude: Claude) -> None:
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
    claude: Claude, status: int, date: str, until: float, whose: str
) -> None:
    message = f"You have reached your specified {whose}API usage limits. You will regain access on {date}."
    verdict = claude.classify(status, CIMultiDict(), anthropic_error("invalid_request_error", message))
    assert (verdict.action, verdict.until, verdict.model) == (Action.COOL_DOWN, until, None)


def test_no_credit_is_looked_at_again_later(claude: Claude) -> None:
    message = (
        "Your credit balance is too low to access the Anthropic API. "
        "Please go to Plans & Billing to upgrade or purchase credits."
    )
    verdict = claude.classify(400, CIMultiDict(), anthropic_error("invalid_request_error", message))
    assert (verdict.action, verdict.until) == (Action.COOL_DOWN, NOW + 900)
    assert verdict.remedy


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
