"""What ChatGPT and OpenAI say of their limits: until when an account, or one model of it, is not asked."""

from __future__ import annotations

import json

import pytest
from multidict import CIMultiDict

from aimux.plugin import RELAY, Action, LimitWindow, RequestHead, Verdict
from aimux_chatgpt import ChatGPT
from tests.contracts import samples
from tests.providers.conftest import NOW
from tests.providers.errors import judged, openai_error

pytestmark = pytest.mark.usefixtures("now")
RESPONSES = RequestHead("POST", "/v1/responses", CIMultiDict())
EVENTS = CIMultiDict({"content-type": "text/event-stream"})


def test_a_used_up_plan_cools_down_until_its_own_reset(chatgpt: ChatGPT) -> None:
    """CLIProxyAPI#5639: a cooldown outlived the real reset."""
    at = judged(chatgpt, 429, openai_error("usage_limit_reached", resets_at=int(NOW) + 3600, plan_type="pro"))
    assert (at.action, at.until) == (Action.COOL_DOWN, NOW + 3600)
    after = judged(chatgpt, 429, openai_error("usage_limit_reached", resets_in_seconds=120), retry_after="9999")
    assert after.until == NOW + 120


def test_a_used_up_plan_without_a_reset_is_looked_at_again_later(chatgpt: ChatGPT) -> None:
    assert judged(chatgpt, 429, openai_error("usage_limit_reached")).until == NOW + 900


def test_the_headers_know_the_reset_too(chatgpt: ChatGPT) -> None:
    verdict = judged(
        chatgpt, 429, openai_error("usage_limit_reached"),
        x_codex_primary_used_percent="100", x_codex_primary_window_minutes="300",
        x_codex_primary_reset_after_seconds="60", x_codex_secondary_used_percent="40",
        x_codex_secondary_reset_after_seconds="7777",
    )  # fmt: skip
    assert verdict.until == NOW + 60


@pytest.mark.parametrize("status", [429, 500, 502])
def test_a_used_up_plan_may_be_told_in_words_alone(chatgpt: ChatGPT, status: int) -> None:
    """lidge-jun/opencodex#3176: with a status of an overload."""
    for said in (
        {"error": {"message": "The usage limit has been reached", "resets_in_seconds": 120}},
        {
            "error": {
                "message": "The usage limit has been reached.",
                "code": "server_error",
                "resets_in_seconds": 120,
            }
        },
    ):
        verdict = judged(chatgpt, status, json.dumps(said).encode())
        assert (verdict.action, verdict.until) == (Action.COOL_DOWN, NOW + 120)
    said_alone = b'{"detail": "The usage limit has been reached"}'
    assert judged(chatgpt, status, said_alone).until == NOW + 900


@pytest.mark.parametrize(
    "said",
    [
        "Selected model is at capacity. Please try a different model.",
        "Our servers are currently overloaded. Please try again later.",
    ],
)
def test_an_overload_may_be_told_in_words_alone(chatgpt: ChatGPT, said: str) -> None:
    """Wei-Shaw/sub2api#5281, #5652: as if the request were wrong."""
    error = {"type": "invalid_request_error", "message": said}
    assert judged(chatgpt, 400, json.dumps({"error": error}).encode()).action is Action.BACK_OFF
    started = samples.sse({"type": "response.created", "response": {"error": None}})
    for failed in ({"error": error}, {"response": {"error": {"message": said}}}):
        opening = chatgpt.opening(CIMultiDict(), started + samples.sse({"type": "response.failed", **failed}))
        assert opening is not None
        assert opening.action is Action.BACK_OFF


def test_an_absurd_reset_is_not_believed(chatgpt: ChatGPT) -> None:
    assert judged(chatgpt, 429, openai_error("usage_limit_reached", resets_at=9_000_000_000)).until == NOW + 31 * 86400


def test_after_a_429_without_any_reset_another_account_is_asked(chatgpt: ChatGPT) -> None:
    """claude-relay-service#1000: a bogus 429 locked an account."""
    assert judged(chatgpt, 429, openai_error("rate_limit_exceeded")).action is Action.BACK_OFF
    assert judged(chatgpt, 429, b"<html>slow down</html>").action is Action.BACK_OFF


BUCKET = {
    "x_codex_bengalfox_limit_name": "GPT-5.3-Codex-Spark",
    "x_codex_bengalfox_primary_used_percent": "100",
    "x_codex_bengalfox_primary_window_minutes": "300",
    "x_codex_bengalfox_primary_reset_after_seconds": "900",
    "x_codex_bengalfox_secondary_used_percent": "91",
    "x_codex_bengalfox_secondary_reset_after_seconds": "9000",
    "x_codex_primary_used_percent": "1",
    "x_codex_primary_reset_after_seconds": "7000",
}


@pytest.mark.parametrize("active", [{"x_codex_active_limit": "codex_bengalfox"}, {}])
@pytest.mark.parametrize(("told", "until"), [({}, 900), ({"resets_in_seconds": 120}, 120)])
def test_the_limit_of_a_models_own_bucket_cools_that_model(
    chatgpt: ChatGPT, active: dict[str, str], told: dict[str, int], until: float
) -> None:
    """router-for-me/CLIProxyAPI#5619."""
    headers = CIMultiDict({k.replace("_", "-"): v for k, v in (BUCKET | active).items()})
    raw = openai_error("usage_limit_reached", **told)
    verdict = chatgpt.classify(429, headers, raw, model="gpt-5.3-codex-spark")
    reason = "the limit of GPT-5.3-Codex-Spark is reached"
    assert verdict == Verdict(Action.COOL_DOWN, reason, until=NOW + until, model="gpt-5.3-codex-spark")
    assert chatgpt.classify(429, headers, raw).action is Action.BACK_OFF, "nobody knows which model that was"


def test_the_plans_own_limit_is_the_accounts_whatever_a_bucket_says(chatgpt: ChatGPT) -> None:
    full = BUCKET | {"x_codex_primary_used_percent": "100", "x_codex_active_limit": "codex"}
    verdict = judged(chatgpt, 429, openai_error("usage_limit_reached", resets_in_seconds=60), **full)
    assert (verdict.action, verdict.until, verdict.model) == (Action.COOL_DOWN, NOW + 60, None)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "17"}, 17),
        ({"retry_after_ms": "250"}, 0.25),
        ({"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "6m0.5s"}, 360.5),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "120ms"}, 0.12),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "1h2m3s"}, 3723),
    ],
)
def test_an_api_key_is_limited_for_as_long_as_it_is_told(
    chatgpt: ChatGPT, headers: dict[str, str], wait: float
) -> None:
    raw = openai_error("requests", code="rate_limit_exceeded")
    verdict = judged(chatgpt, 429, raw, **headers)
    assert verdict.until == pytest.approx(NOW + wait)
    told = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    assert chatgpt.classify(429, told, raw, model="gpt-6").model == "gpt-6", "each has limits of its own"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("insufficient_quota", "insufficient_quota"),
        ("billing_not_active", "billing_not_active"),
        ("credit_balance_exhausted", "insufficient_quota"),
        ("organization_spend_limit_exceeded", "insufficient_quota"),
        ("project_spend_limit_exceeded", "rate_limit_error"),
        ("organization_usage_limit_exceeded", "x"),
        ("of_tomorrow", "insufficient_quota"),
    ],
)
def test_no_money_left_is_looked_at_again_later(chatgpt: ChatGPT, code: str, kind: str) -> None:
    verdict = judged(chatgpt, 429, openai_error(kind, code=code), retry_after="1")
    assert (verdict.action, verdict.until, verdict.model) == (Action.COOL_DOWN, NOW + 900, None)
    failed = {"type": "response.failed", "response": {"error": {"code": code, "message": "m"}}}
    opened = chatgpt.opening(CIMultiDict(), samples.sse(failed))
    assert opened is not None
    assert (opened.action is Action.COOL_DOWN) is (code != "of_tomorrow")


def test_no_room_for_what_may_wait_is_no_accounts_fault(chatgpt: ChatGPT) -> None:
    """The client may ask for the usual tier then, and no account is to be left for it."""
    raw = openai_error("rate_limit_error", code="flex_unavailable")
    assert judged(chatgpt, 429, raw, retry_after="60") == RELAY
    meter = chatgpt.websocket_meter(RESPONSES)
    assert meter is not None
    meter.asked(b'{"type": "response.create"}')
    told = {"error": {"code": "flex_unavailable"}, "headers": {"retry-after": "60"}}
    meter.feed(json.dumps({"type": "error", "status": 429, **told}).encode())
    assert meter.verdict is None


def test_a_402_is_looked_at_again_later(chatgpt: ChatGPT) -> None:
    verdict = judged(chatgpt, 402, b'{"detail": "Payment required"}')
    assert (verdict.action, verdict.until) == (Action.COOL_DOWN, NOW + 900)


def test_the_windows_of_an_answer(chatgpt: ChatGPT) -> None:
    headers = CIMultiDict(
        {
            "x-codex-primary-used-percent": "42.5",
            "x-codex-primary-window-minutes": "300",
            "x-codex-primary-reset-at": "1780010000",
            "X-Codex-Secondary-Used-Percent": "100",
            "X-Codex-Secondary-Window-Minutes": "10079",
            "X-Codex-Secondary-Reset-After-Seconds": "60",
        }
    )
    assert chatgpt.limits(headers) == (
        LimitWindow("5h", 0.425, 1_780_010_000.0),
        LimitWindow("7d", 1.0, NOW + 60, "rejected"),
    )


def test_a_stream_tells_in_its_midst_that_the_plan_is_used_up(chatgpt: ChatGPT) -> None:
    """lidge-jun/opencodex#3795: the account's other requests would fail in the same way."""
    meter = chatgpt.meter(RESPONSES, 200, EVENTS)
    assert meter is not None
    error = {"code": "server_error", "message": "The usage limit has been reached"}
    failed = {"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": error}}
    meter.feed(samples.sse({"type": "response.output_text.delta", "delta": "Hi"}, failed))
    assert meter.verdict == Verdict(Action.COOL_DOWN, "the plan's usage limit is reached", until=NOW + 900)


def test_a_plan_may_have_one_window_alone(chatgpt: ChatGPT) -> None:
    """The second one lasts no time then (router-for-me/CLIProxyAPI#4833)."""
    headers = {
        "x-codex-primary-used-percent": "4",
        "x-codex-primary-window-minutes": "10080",
        "x-codex-primary-reset-at": "1780010000",
    }
    none = {
        "x-codex-secondary-used-percent": "0",
        "x-codex-secondary-window-minutes": "0",
        "x-codex-secondary-reset-at": "",
        "x-codex-secondary-reset-after-seconds": "0",
    }
    weekly = (LimitWindow("7d", 0.04, 1_780_010_000.0),)
    assert chatgpt.limits(CIMultiDict(headers)) == weekly
    told = chatgpt.limits(CIMultiDict(headers | none))
    assert told == weekly
    assert chatgpt.limits(CIMultiDict(headers | none)) is told, "nothing is parsed anew for each answer"


@pytest.mark.parametrize("named", [{}, {"metered_limit_name": "codex"}, {"metered_limit_name": None}])
def test_windows_come_in_events_as_well(chatgpt: ChatGPT, named: dict[str, str]) -> None:
    meter = chatgpt.meter(RESPONSES, 200, EVENTS)
    assert meter is not None
    limits = {"primary": {"used_percent": 7, "window_minutes": 300, "reset_at": 1_780_010_000}, "secondary": None}
    meter.feed(samples.sse({"type": "codex.rate_limits", "plan_type": "pro", "rate_limits": limits, **named}))
    assert meter.limits == (LimitWindow("5h", 0.07, 1_780_010_000.0),)
    assert not meter.complete


@pytest.mark.parametrize(
    "named",
    [
        {"metered_limit_name": "codex_bengalfox", "limit_name": "GPT-5.3-Codex-Spark"},
        {"metered_limit_name": None, "limit_id": "codex-bengalfox"},
        {"limit_name": "bengalfox"},
    ],
)
def test_the_windows_of_a_models_own_bucket_are_not_the_plans(chatgpt: ChatGPT, named: dict[str, str]) -> None:
    meter = chatgpt.websocket_meter(RESPONSES)
    assert meter is not None
    limits = {"primary": {"used_percent": 100, "window_minutes": 300, "reset_at": 1_780_010_000}}
    meter.feed(json.dumps({"type": "codex.rate_limits", "rate_limits": limits, **named}).encode())
    window = LimitWindow("5h_bengalfox", 1.0, 1_780_010_000.0, "rejected", scope="bengalfox")
    assert meter.limits == (window,)


@pytest.mark.parametrize(
    ("code", "action", "model"),
    [
        ("usage_limit_reached", Action.COOL_DOWN, "gpt-5.3-codex-spark"),
        ("usage_limit_reached", Action.BACK_OFF, ""),
        ("invalid_prompt", Action.RELAY, "gpt-5.3-codex-spark"),
    ],
)
def test_within_a_200_the_limit_of_a_bucket_is_of_the_requests_model(
    chatgpt: ChatGPT, code: str, action: Action, model: str
) -> None:
    headers = CIMultiDict({"x-codex-bengalfox-primary-used-percent": "100", "x-codex-primary-used-percent": "1"})
    failed = samples.sse({"type": "response.failed", "response": {"error": {"code": code}}})
    opening = chatgpt.opening(headers, failed, model=model)
    assert opening is not None
    assert (opening.action, opening.model or "") == (action, model if action is not Action.RELAY else "")


@pytest.mark.parametrize("model", ["gpt-5.3-codex-spark", ""])
def test_on_a_socket_the_limit_of_a_bucket_is_of_the_turns_model(chatgpt: ChatGPT, model: str) -> None:
    meter = chatgpt.websocket_meter(RESPONSES)
    assert meter is not None
    meter.asked(json.dumps({"type": "response.create", "model": model} if model else {"type": "x"}).encode())
    headers = {"x-codex-active-limit": "codex_bengalfox", "x-codex-bengalfox-primary-used-percent": "100"}
    error = {"type": "usage_limit_reached", "resets_in_seconds": 60}
    meter.feed(json.dumps({"type": "error", "status": 429, "error": error, "headers": headers}).encode())
    assert meter.verdict is not None
    action = Action.COOL_DOWN if model else Action.BACK_OFF
    assert (meter.verdict.action, meter.verdict.model or "") == (action, model)


def test_a_hard_limit_of_billing_cools_whatever_its_status(chatgpt: ChatGPT) -> None:
    assert judged(chatgpt, 400, openai_error("billing_hard_limit_reached")).action is Action.COOL_DOWN
