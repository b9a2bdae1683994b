"""An account as the API shows it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aimux.control.api import models

if TYPE_CHECKING:
    from aimux.accounts import Account


def shown(
    account: Account, shared_with: str | None, same_as: list[str], serves: str, *, settings_configured: bool
) -> models.Account:
    """An account as the API shows it. Of its credential only whose it is and when it ends."""
    now = time.time()
    state, credential = account.state(now), account.credential
    return models.Account(
        provider=account.provider,
        name=account.name,
        kind=account.kind,
        plan=account.plan,
        email=credential.email if credential else None,
        organization=account.organization,
        status=state.status,
        reason=state.reason,
        remedy=state.remedy,
        until=moment(state.until),
        expires_at=moment(credential.expires_at if credential else None),
        renewable=account.renewable,
        limits=[
            models.Limit(name=w.name, used=w.used, status=w.status, resets_at=moment(w.resets_at), scope=w.scope)
            for w in account.limits.values()
        ],
        in_flight=account.in_flight,
        last_used=moment(account.last_used),
        weight=account.settings.weight,
        priority=account.settings.priority,
        groups=list(account.settings.groups),
        settings_configured=settings_configured,
        serves=serves,
        shared_with=shared_with,
        same_as=same_as,
        configured=account.renewer is None,
    )


def moment(seconds: float | None) -> datetime | None:
    """Unix seconds as a date, without fractions; None for what no calendar has."""
    try:
        return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
