"""How accounts look in a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aimux.cli.show import COLUMNS, account_row, expires_or_expired

SHOWN_AT = datetime(2030, 1, 1, tzinfo=UTC)


def shown(**changed: Any) -> dict[str, str]:
    account: dict[str, Any] = {
        "provider": "claude", "name": "ann", "kind": "oauth", "plan": "max", "status": "healthy", "reason": "",
        "remedy": "", "until": None, "expires_at": None, "renewable": True, "limits": [], "last_used": None,
    }  # fmt: skip
    return dict(zip(COLUMNS, account_row(account | changed, SHOWN_AT), strict=True))


def test_cells_are_for_people() -> None:
    assert shown(kind="", plan=None) | {"KIND": "-", "PLAN": "-"} == shown(kind="", plan=None)
    assert shown(expires_at="2030-01-01T08:00:00Z")["EXPIRES"] == "in 8 h"
    assert shown(expires_at="2029-12-31T23:00:00Z")["EXPIRES"] == "60 min ago"
    assert shown(expires_at="2030-03-01T00:00:00Z", renewable=False)["EXPIRES"] == "in 59 d (for good)"
    assert expires_or_expired({"expires_at": "2030-01-01T08:00:00Z", "renewable": True}, SHOWN_AT) == "expires in 8 h"
    ended = {"expires_at": "2029-12-31T23:00:00Z", "renewable": False}
    assert expires_or_expired(ended, SHOWN_AT) == "expired 60 min ago (for good)"
    assert shown(last_used="2029-12-31T23:59:30Z")["LAST USED"] == "30 s ago"
    cooling = shown(status="cooling", reason="rate limited", until="2030-01-01T00:48:00Z")
    assert cooling["STATE"] == "cooling for 48 min: rate limited"
    window = {"name": "5h", "used": 0.421, "status": "allowed", "resets_at": "2030-01-01T03:00:00Z", "scope": None}
    overage = {"name": "overage", "used": None, "status": "rejected", "resets_at": None, "scope": "overage"}
    assert shown(limits=[window, overage])["LIMITS (RESET IN)"] == "5h 42 % (3 h), overage rejected"
    overage["status"] = "warning"  # of extra usage, which is no limit that was used up
    assert shown(limits=[window, overage])["LIMITS (RESET IN)"] == "5h 42 % (3 h)"
