"""The headers of api.anthropic.com: request ids, and the limits of subscriptions and of API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aimux.simulator.accounts import stable

if TYPE_CHECKING:
    from aimux.simulator.answers import Call, Pairs

MONTH = 30 * 86400.0
CLAIMS = {"5h": "five_hour", "7d": "seven_day", "7d_oi": "seven_day_overage_included"}


def request_id(call: Call) -> str:
    """The same for every header and body of one answer."""
    return "req_011" + stable(call.number, "request")[:21]


def ids(call: Call) -> Pairs:
    """What every answer tells, errors too."""
    pairs = [("request-id", request_id(call)), ("cf-ray", f"{stable(call.number, 'ray')[:16]}-SIM")]
    if call.account is not None:
        pairs.append(("anthropic-organization-id", call.account.organization))
    return pairs


def headers_of(call: Call) -> Pairs:
    """The headers of a good answer."""
    limits = key_limits(call, None) if call.owner.kind == "api_key" else unified(call)
    return [*ids(call), *limits]


def unified(call: Call, rejected: str = "", until: float = 0.0) -> Pairs:
    """The headers of a subscription's windows. `rejected` is refused until `until`, whatever was used of it."""
    pairs: Pairs = []
    call.owner.rejected(call.now)  # rolls the windows
    paid = call.scenario.overage and not rejected
    claim = rejected or (call.scenario.window if paid else "5h")
    statuses = {}
    for window in call.owner.windows.values():
        used, status, reset = window.used, window.status, window.resets_at
        if window.name == rejected:
            used, status, reset = 1.0, "rejected", until
        elif paid and window.name == claim:
            used, status = 1.0, "rejected"
        statuses[window.name] = (status, reset)
        prefix = f"anthropic-ratelimit-unified-{window.name}"
        pairs += [
            (f"{prefix}-status", status),
            (f"{prefix}-reset", f"{reset:.0f}"),
            (f"{prefix}-utilization", f"{used:.4f}"),
        ]
    overall = "rejected" if rejected else "allowed" if paid else statuses[claim][0]
    extra = [("overage-status", "rejected"), ("overage-disabled-reason", "org_level_disabled")]
    if paid:
        extra = [
            ("overage-status", "allowed"),
            ("overage-utilization", "0.1200"),
            ("overage-reset", f"{call.now + MONTH:.0f}"),
            ("overage-in-use", "true"),
        ]
    return [
        ("anthropic-ratelimit-unified-status", overall),
        ("anthropic-ratelimit-unified-reset", f"{statuses[claim][1]:.0f}"),
        ("anthropic-ratelimit-unified-representative-claim", "overage" if paid else CLAIMS[claim]),
        *((f"anthropic-ratelimit-unified-{name}", value) for name, value in extra),
        ("anthropic-ratelimit-unified-fallback-percentage", "0.5"),
        *pairs,
    ]


def key_limits(call: Call, exhausted_until: float | None) -> Pairs:
    """The headers of an API key's limits per minute."""
    pairs: Pairs = []
    reset = iso(call.now + 60 if exhausted_until is None else exhausted_until)
    for what, limit in (("requests", 4000), ("input-tokens", 2_000_000), ("output-tokens", 400_000)):
        left = 0 if exhausted_until is not None and what == "requests" else limit - 1
        prefix = f"anthropic-ratelimit-{what}"
        pairs += [(f"{prefix}-limit", str(limit)), (f"{prefix}-remaining", str(left)), (f"{prefix}-reset", reset)]
    return pairs


def iso(seconds: float) -> str:
    """Unix seconds as the vendor writes a time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
