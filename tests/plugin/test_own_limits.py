"""How aimux's own limits are told in the two formats, as their clients read them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict

from aimux.plugin import ErrorKind, GatewayError, LimitReached, LimitState, LimitWindow, RequestHead
from aimux.plugin.formats import anthropic, anthropic_limits, openai, openai_limits

RESET = 4_102_444_800.0
"""2100-01-01."""


def state(
    used: float, *, amount: float = 10, period: str = "day", unit: str = "usd", shared: bool = False
) -> LimitState:
    return LimitState(unit, period, amount, used, RESET, shared)


def unified(**values: str) -> dict[str, str]:
    return {f"anthropic-ratelimit-unified-{name.replace('_', '-')}": value for name, value in values.items()}


# --- Claude Code -----------------------------------------------------------------------------------------------------


def test_claude_code_shows_the_text_of_a_billing_error() -> None:
    answer = anthropic.error(LimitReached("$5 of $5 are used.", until=RESET, limit=state(10, shared=True)))
    assert json.loads(answer.body) == {
        "type": "error",
        "error": {"type": "billing_error", "message": "$5 of $5 are used."},
    }
    assert answer.headers == unified(
        status="rejected",
        reset="4102444800",
        overage_reset="4102444800",
        overage_utilization="1",
        overage_surpassed_threshold="1",
        overage_period="daily",
        overage_disabled_reason="org_spend_cap_reached",
        overage_scope="group_pool",
    )


def test_accounts_that_are_all_limited_are_no_matter_of_billing() -> None:
    answer = anthropic.error(LimitReached("Limited until 13:05.", until=RESET))
    assert json.loads(answer.body)["error"] == {"type": "rate_limit_error", "message": "Limited until 13:05."}
    assert answer.headers == unified(status="rejected", reset="4102444800")


def test_claude_code_is_warned_at_75_and_95_percent() -> None:
    told = {
        used: {name.removeprefix("anthropic-ratelimit-unified-"): value for name, value in found.items()}
        for used in (7.4, 7.5, 9.5, 12.0)
        for found in [anthropic_limits.headers([state(1), state(used)], [])]
    }
    assert told[7.4] == {
        "status": "allowed",
        "representative-claim": "overage",
        "reset": "4102444800",
        "overage-status": "allowed",
        "overage-utilization": "0.740",
        "overage-reset": "4102444800",
    }
    assert {used: one.get("overage-surpassed-threshold") for used, one in told.items()} == {
        7.4: None,
        7.5: "0.75",
        9.5: "0.95",
        12.0: "0.95",
    }
    assert told[9.5]["status"] == told[9.5]["overage-status"] == "allowed_warning"
    assert told[12.0]["overage-utilization"] == "0.999"


def test_shares_of_an_account_are_told_as_its_windows() -> None:
    shares = [LimitWindow("5h", 0.8, RESET), LimitWindow("7d", 1.0), LimitWindow("30m", 0.5)]
    told = anthropic_limits.headers([], shares)
    assert told == unified(
        status="allowed_warning",
        representative_claim="seven_day",
        **{"5h_status": "allowed_warning", "5h_utilization": "0.800", "5h_reset": "4102444800"},
        **{"5h_surpassed_threshold": "0.75"},
        **{"7d_status": "allowed_warning", "7d_utilization": "0.999", "7d_surpassed_threshold": "0.95"},
    )
    low = anthropic_limits.headers([], [LimitWindow("5h", 0.2, RESET)])
    assert low["anthropic-ratelimit-unified-status"] == low["anthropic-ratelimit-unified-5h-status"] == "allowed"
    assert anthropic_limits.headers([], [LimitWindow("30m", 0.5)]) == {}
    codex = openai_limits.headers([], shares)
    assert (codex["x-codex-primary-used-percent"], codex["x-codex-secondary-used-percent"]) == ("80", "100")
    assert codex["x-codex-primary-window-minutes"] == "300"
    assert openai_limits.headers([state(1)], shares)["x-codex-primary-used-percent"] == "10", "own limits come first"


def test_claude_code_asks_for_usage() -> None:
    assert anthropic_limits.asks_usage(RequestHead("GET", "/api/oauth/usage", CIMultiDict()))
    windows = [LimitWindow("5h", 0.256, RESET), LimitWindow("7d", 0.5), LimitWindow("overage", 0.9, scope="overage")]
    own = json.loads(anthropic_limits.usage([state(8), state(5e5, amount=1e6, period="week", unit="tokens")], windows))
    moment = datetime.fromtimestamp(RESET, UTC).isoformat()
    assert own == {
        "limits": [
            {
                "kind": "spend",
                "group": "daily",
                "percent": 80,
                "resets_at": moment,
                "severity": "warning",
                "is_active": False,
            },
            {
                "kind": "spend",
                "group": "weekly",
                "percent": 50,
                "resets_at": moment,
                "severity": "normal",
                "is_active": False,
            },
        ],
        "extra_usage": {
            "is_enabled": True,
            "monthly_limit": 1000,
            "used_credits": 800,
            "utilization": 80,
            "currency": "USD",
        },
    }
    assert json.loads(anthropic_limits.usage([], windows)) == {
        "limits": [],
        "five_hour": {"utilization": 25.6, "resets_at": moment},
        "seven_day": {"utilization": 50.0, "resets_at": None},
    }


def test_counting_tokens_is_free() -> None:
    post = [RequestHead("POST", path, CIMultiDict()) for path in ("/v1/messages", "/v1/messages/count_tokens")]
    assert [anthropic_limits.counts(request) for request in post] == [True, False]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "QUERY"])
def test_another_method_is_not_free_where_a_server_takes_it_for_post(method: str) -> None:
    answer = CIMultiDict({"content-type": "application/json"})
    message = RequestHead(method, "/v1/messages", CIMultiDict())
    response = RequestHead(method, "/v1/responses", CIMultiDict())
    assert anthropic_limits.counts(message)
    assert openai_limits.counts(response)
    for meter in (anthropic.meter(message, 200, answer), openai.meter(response, 200, answer)):
        assert meter is not None
        assert meter.consumes


# --- Codex -----------------------------------------------------------------------------------------------------------


def test_codex_stops_at_a_usage_limit_and_knows_the_time() -> None:
    until = time.time() + 3600
    error = LimitReached("$5 of $5 are used.", until=until, limit=state(10))
    answer = openai.error(error)
    found = json.loads(answer.body)["error"]
    assert (found["type"], found["code"], found["message"]) == (
        "usage_limit_reached",
        "usage_limit_reached",
        "$5 of $5 are used.",
    )
    assert found["resets_at"] == int(until)
    assert 3590 <= found["resets_in_seconds"] <= 3600
    assert answer.headers["x-codex-primary-used-percent"] == "100"
    assert answer.headers["x-codex-primary-window-minutes"] == "1440"
    message = json.loads(openai.websocket_error(error))
    assert (message["type"], message["status"], message["error"]["type"]) == ("error", 429, "usage_limit_reached")
    assert message["headers"] == dict(answer.headers)
    assert (
        json.loads(openai.error(LimitReached("Limited.", until=until)).body)["error"]["type"] == "usage_limit_reached"
    )


def test_codex_asks_again_on_a_socket_for_what_is_free_in_seconds() -> None:
    error = GatewayError(ErrorKind.RATE_LIMITED, "You may use 9 tokens a minute; try again in 5 s.", retry_after=5)
    message = json.loads(openai.websocket_error(error))
    assert (message["type"], message["response"]["status"]) == ("response.failed", "failed")
    assert message["response"]["error"] == {"code": "rate_limit_exceeded", "message": error.message}


def test_codex_has_two_windows_the_shorter_first() -> None:
    told = openai_limits.headers([state(1, period="week"), state(9, period="month"), state(5, period="day")], [])
    windows = {name: value for name, value in told.items() if "reset-after" not in name}
    assert windows == {
        "x-codex-primary-used-percent": "50",
        "x-codex-primary-window-minutes": "1440",
        "x-codex-primary-reset-at": "4102444800",
        "x-codex-secondary-used-percent": "90",
        "x-codex-secondary-window-minutes": "43200",
        "x-codex-secondary-reset-at": "4102444800",
    }


def test_codex_is_told_on_a_socket_what_headers_tell() -> None:
    told = json.loads(openai_limits.event([], [LimitWindow("5h", 0.1, RESET), LimitWindow("7d", 1.0)]))
    assert told == {
        "type": "codex.rate_limits",
        "plan_type": "enterprise",
        "rate_limits": {
            "allowed": False,
            "limit_reached": True,
            "primary": {"used_percent": 10, "window_minutes": 300, "reset_at": int(RESET)},
            "secondary": {"used_percent": 100, "window_minutes": 10080, "reset_at": None},
        },
        "credits": None,
    }
    own = json.loads(openai_limits.event([state(5)], [LimitWindow("5h", 0.1, RESET)]))
    assert own["rate_limits"]["primary"]["used_percent"] == 50
    assert "secondary" not in own["rate_limits"]


def test_codex_asks_for_its_status() -> None:
    for path in ("/api/codex/usage", "/backend-api/wham/usage", "/v1/api/codex/usage"):
        assert openai_limits.asks_usage(RequestHead("GET", path, CIMultiDict()))
    own = json.loads(openai_limits.usage([state(10)], [LimitWindow("5h", 0.1, RESET)]))
    assert own["rate_limit"]["limit_reached"] is True
    assert own["rate_limit"]["allowed"] is False
    assert own["rate_limit"]["primary_window"]["used_percent"] == 100
    assert own["rate_limit"]["secondary_window"] is None
    pool = json.loads(openai_limits.usage([], [LimitWindow("5h", 0.1, RESET), LimitWindow("7d", 0.5, RESET)]))
    assert [pool["rate_limit"][f"{place}_window"]["limit_window_seconds"] for place in ("primary", "secondary")] == [
        18000,
        604800,
    ]
    assert pool["rate_limit"]["secondary_window"]["used_percent"] == 50
