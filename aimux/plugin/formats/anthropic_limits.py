"""aimux's own limits as Claude Code reads those of a gateway: headers of answers and errors, and what `/usage` shows.

Only the most used limit is reported: the format has room for one.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aimux.plugin.errors import LimitReached
    from aimux.plugin.types import LimitState, LimitWindow, RequestHead

PREFIX = "anthropic-ratelimit-"
_UNIFIED = f"{PREFIX}unified-"
_STATUS, _CLAIM, _RESET = f"{_UNIFIED}status", f"{_UNIFIED}representative-claim", f"{_UNIFIED}reset"
_OVERAGE_STATUS, _OVERAGE_USED = f"{_UNIFIED}overage-status", f"{_UNIFIED}overage-utilization"
_OVERAGE_RESET, _OVERAGE_PASSED = f"{_UNIFIED}overage-reset", f"{_UNIFIED}overage-surpassed-threshold"
_PERIODS = {"day": "daily", "week": "weekly", "month": "monthly"}
_FREE = frozenset({"count_tokens", "files", "skills", "cancel"})
_THRESHOLDS = (0.75, 0.95)
_WINDOWS = {"5h": "five_hour", "7d": "seven_day"}


def refusal(error: LimitReached) -> Mapping[str, str]:
    """The headers of a refusal. With a `representative-claim` or an `overage-status` the client would hide its text."""
    headers = {_STATUS: "rejected", _RESET: f"{error.until:.0f}"}
    if error.limit is not None:
        headers |= {
            _OVERAGE_RESET: f"{error.until:.0f}",
            _OVERAGE_USED: "1",
            _OVERAGE_PASSED: "1",
            f"{_UNIFIED}overage-period": _PERIODS[error.limit.period],
            f"{_UNIFIED}overage-disabled-reason": "org_spend_cap_reached",
        }
        if error.limit.shared:
            headers[f"{_UNIFIED}overage-scope"] = "group_pool"
    return headers


def headers(limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> Mapping[str, str]:
    """The headers of an answer to a caller with limits, else with shares; the client warns from 75 and 95 % on."""
    if not limits:
        return _shares(windows)
    part, most = -1.0, limits[0]
    for limit in limits:
        if (its := limit.part) > part:
            part, most = its, limit
    part, passed, status = _graded(part)
    reset = f"{most.resets_at:.0f}"
    told = {
        _STATUS: status,
        _CLAIM: "overage",
        _RESET: reset,
        _OVERAGE_STATUS: status,
        _OVERAGE_USED: f"{part:.3f}",
        _OVERAGE_RESET: reset,
    }
    if passed is not None:
        told[_OVERAGE_PASSED] = f"{passed}"
    return told


def _shares(windows: Sequence[LimitWindow]) -> dict[str, str]:
    """Shares of the vendor's windows, reported like these."""
    known = [window for window in windows if window.name in _WINDOWS and window.used is not None]
    if not known:
        return {}
    most = max(known, key=lambda window: window.used or 0.0)
    told = {
        _STATUS: _graded(most.used or 0.0)[2],
        _CLAIM: _WINDOWS[most.name],
    }
    if most.resets_at is not None:
        told[_RESET] = f"{most.resets_at:.0f}"
    for window in known:
        part, passed, status = _graded(window.used or 0.0)
        told |= {f"{_UNIFIED}{window.name}-status": status, f"{_UNIFIED}{window.name}-utilization": f"{part:.3f}"}
        if window.resets_at is not None:
            told[f"{_UNIFIED}{window.name}-reset"] = f"{window.resets_at:.0f}"
        if passed is not None:
            told[f"{_UNIFIED}{window.name}-surpassed-threshold"] = f"{passed}"
    return told


def _graded(part: float) -> tuple[float, float | None, str]:
    """How much is used, in the form of an answer's headers, the threshold that was passed, and the status."""
    if part < _THRESHOLDS[0]:  # with nearly every answer
        return part, None, "allowed"
    part = min(part, 0.999)  # 1 would mean that nothing was answered
    return part, max(threshold for threshold in _THRESHOLDS if part >= threshold), "allowed_warning"


def counts(request: RequestHead) -> bool:
    """Everything that may consume something: all that is not known to be free."""
    return not (request.makes_nothing or _FREE.intersection(request.path.split("/")))


def asks_usage(request: RequestHead) -> bool:
    return request.method == "GET" and request.path == "/api/oauth/usage"


def usage(limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
    """The answer for the client's `/usage`: a person's own limits, else the windows of all accounts together."""
    told: dict[str, Any] = {
        "limits": [
            {
                "kind": "spend",
                "group": _PERIODS[limit.period],
                "percent": min(100, round(100 * limit.part)),
                "resets_at": _time(limit.resets_at),
                "severity": _severity(limit.part),
                "is_active": limit.part >= 1,
            }
            for limit in limits
        ]
    }
    spending = [limit for limit in limits if limit.unit == "usd"]
    if spending:
        most = max(spending, key=lambda limit: limit.part)
        told["extra_usage"] = {
            "is_enabled": True,
            "monthly_limit": round(100 * most.amount),
            "used_credits": round(100 * most.used),
            "utilization": min(100, round(100 * most.part)),
            "currency": "USD",
        }
    if not limits:
        for window in windows:
            if window.name in _WINDOWS and window.used is not None:
                resets_at = _time(window.resets_at) if window.resets_at is not None else None
                told[_WINDOWS[window.name]] = {"utilization": round(100 * window.used, 1), "resets_at": resets_at}
    return json.dumps(told).encode()


def _severity(part: float) -> str:
    return "critical" if part >= _THRESHOLDS[1] else "warning" if part >= _THRESHOLDS[0] else "normal"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
