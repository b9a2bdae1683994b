"""Accounts as the pages show them."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from aimux.control.api.problems import sentence
from aimux.control.dashboard.charts import window
from aimux.control.dashboard.rendering import parsed, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AT_ONCE = 25
"""Accounts that a page shows; with more it shows first what matters there."""
SERVING_FIRST = ("healthy", "cooling", "parked", "disabled")
URGENT_FIRST = ("parked", "cooling", "healthy", "disabled")


def rows(accounts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """With their windows against time; what serves comes first within each provider."""
    now = time.time()
    made = [
        {
            **account,
            "id": f"{account['provider']}/{account['name']}",
            "windows": _windows(account, now),
            "ended": (ends := parsed(account["expires_at"])) is not None and ends.timestamp() <= now,
        }
        for account in accounts
    ]
    return sorted(made, key=lambda row: (row["provider"], SERVING_FIRST.index(row["status"]), row["name"]))


def busy_first(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """With requests under way first, and else as they were: how many there are does not count, or a live list would
    never rest."""
    return sorted(rows, key=lambda row: row["in_flight"] == 0)


def urgent_first(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What there is an alert about first, whatever its provider; what somebody switched off last."""
    return sorted(
        rows,
        key=lambda row: (row["status"] == "disabled", not alerts([row]), URGENT_FIRST.index(row["status"])),
    )


def counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many there are in each state that any is in."""
    found = Counter(row["status"] for row in rows)
    return {status: found[status] for status in URGENT_FIRST if found[status]}


def _windows(account: Mapping[str, Any], now: float) -> list[Any]:
    made = []
    for limit in account["limits"]:
        if limit["used"] is None and limit["resets_at"] is None:
            continue  # the window exists, but nothing is known about it
        resets_at = parsed(limit["resets_at"])
        made.append(
            window(
                limit["name"],
                limit["used"],
                resets_at.timestamp() if resets_at else None,
                limit["status"],
                limit["scope"],
                now,
            )
        )
    return sorted(made, key=lambda one: (one.scope is not None, one.name))


def alerts(accounts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What needs attention, worst first: an account, and the message about it."""
    found: list[dict[str, Any]] = []
    for account in accounts:
        if account["status"] == "parked":
            remedy = f" {sentence(account['remedy'])}" if account["remedy"] else ""
            found.append({"level": "bad", "account": account, "text": f"is parked: {account['reason']}.{remedy}"})
        elif account["status"] == "healthy" and account["remedy"]:
            text = f"serves still: {account['reason']}. {sentence(account['remedy'])}"
            found.append({"level": "warn", "account": account, "text": text})
        elif account["status"] == "cooling":
            found.append({"level": "warn", "account": account, "text": f"is cooling down: {account['reason']}."})
        for one in account["windows"]:
            if account["status"] == "healthy" and one.level != "ok" and (one.used or 0) >= 0.8:
                text = f"has used {percent(one.used)} of {one.name}."
                found.append({"level": one.level, "account": account, "text": text})
    return sorted(found, key=lambda alert: alert["level"] != "bad")
