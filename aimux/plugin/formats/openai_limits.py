"""aimux's own limits as Codex reads those of a ChatGPT plan: two windows, in headers, in errors and at `/status`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aimux.plugin.errors import LimitReached
    from aimux.plugin.types import LimitState, LimitWindow, RequestHead

PREFIX = "x-codex-"
PLAN = "enterprise"
"""A plan is required, and access through a gateway is most like an employer's plan."""
_MINUTES = {"day": 1440, "week": 10080, "month": 43200}
_FREE = frozenset({"files", "uploads", "input_tokens", "moderations", "vector_stores", "conversations", "cancel"})
_LENGTHS = {"h": 60, "d": 1440}
_PLACES = ("primary", "secondary")


class _Window(NamedTuple):
    percent: int
    minutes: int
    resets_at: int
    """0: unknown."""


def refusal(error: LimitReached) -> Mapping[str, str]:
    """The headers of a refusal."""
    return _headers([_own(error.limit)._replace(percent=100)]) if error.limit is not None else {}


def error_object(error: LimitReached) -> dict[str, Any]:
    """Codex stops and shows the time; SDKs show the message."""
    return {
        "message": error.message,
        "type": "usage_limit_reached",
        "param": None,
        "code": "usage_limit_reached",
        "resets_at": int(error.until),
        "resets_in_seconds": max(1, int(error.until - time.time())),
    }


def headers(limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> Mapping[str, str]:
    """The headers of an answer to a caller with limits, else with shares of the vendor's windows."""
    return _headers(_told(limits, windows))


def usage(limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
    """The answer for the client's `/status`: a person's own limits, else the windows of all accounts together."""
    told = _told(limits, windows)
    full = any(window.percent >= 100 for window in told)
    now = int(time.time())
    rate_limit: dict[str, Any] = {"allowed": not full, "limit_reached": full}
    for place, window in zip(_PLACES, [*told, None, None], strict=False):
        rate_limit[f"{place}_window"] = window and {
            "used_percent": window.percent,
            "limit_window_seconds": 60 * window.minutes,
            "reset_after_seconds": max(0, window.resets_at - now),
            "reset_at": window.resets_at,
        }
    return json.dumps({"plan_type": PLAN, "rate_limit": rate_limit, "credits": None}).encode()


def event(limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> bytes:
    """What the headers say, on a WebSocket."""
    told = _told(limits, windows)
    full = any(window.percent >= 100 for window in told)
    rate_limits: dict[str, Any] = {"allowed": not full, "limit_reached": full}
    for place, window in zip(_PLACES, told, strict=False):
        rate_limits[place] = {
            "used_percent": window.percent,
            "window_minutes": window.minutes,
            "reset_at": window.resets_at or None,
        }
    told_event = {"type": "codex.rate_limits", "plan_type": PLAN, "rate_limits": rate_limits, "credits": None}
    return json.dumps(told_event).encode()


def counts(request: RequestHead) -> bool:
    """Everything that may consume something: all that is not known to be free."""
    return not (request.makes_nothing or _FREE.intersection(request.path.split("/")))


def asks_usage(request: RequestHead) -> bool:
    """Codex asks below its `chatgpt_base_url`, in a way that depends on whether that ends in `/backend-api`."""
    return request.method == "GET" and request.path.endswith(("/wham/usage", "/api/codex/usage"))


def _headers(windows: Sequence[_Window]) -> dict[str, str]:
    now = int(time.time())
    told = {}
    for place, window in zip(_PLACES, windows, strict=False):
        told[f"{PREFIX}{place}-used-percent"] = f"{window.percent}"
        told[f"{PREFIX}{place}-window-minutes"] = f"{window.minutes}"
        if window.resets_at:
            told[f"{PREFIX}{place}-reset-at"] = f"{window.resets_at}"
            told[f"{PREFIX}{place}-reset-after-seconds"] = f"{max(0, window.resets_at - now)}"
    return told


def _told(limits: Sequence[LimitState], windows: Sequence[LimitWindow]) -> list[_Window]:
    """Two of a person's own limits, else of the windows: the most used ones, the shorter first, as the client expects
    them."""
    if not limits:
        return [window for window in map(_vendors, windows) if window is not None][:2]
    most = sorted(limits, key=lambda limit: -limit.part)[:2]
    return sorted(map(_own, most), key=lambda window: window.minutes)


def _own(limit: LimitState) -> _Window:
    return _Window(min(100, int(100 * limit.part)), _MINUTES[limit.period], int(limit.resets_at))


def _vendors(window: LimitWindow) -> _Window | None:
    number, unit = window.name[:-1], window.name[-1:]
    if window.used is None or window.scope is not None or unit not in _LENGTHS or not number.isdigit():
        return None
    resets_at = int(window.resets_at) if window.resets_at is not None else 0
    return _Window(min(100, int(100 * window.used)), int(number) * _LENGTHS[unit], resets_at)
