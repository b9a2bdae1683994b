"""What limits forbid to somebody, and what is refused now because of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from aimux.accounts.selection import Selection
from aimux.control.api.limit_models import RefusedNow, Restriction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aimux.control.api.parts import Parts
    from aimux.limits.rules import Scope, Who


def restrictions(parts: Parts, who: Who, now: float) -> list[Restriction]:
    """Everything that is forbidden to a caller, whoever forbids it."""
    return [
        Restriction(
            what=cast("Any", one.what),
            set_by=str(one.owner),
            scope=str(one.scope),
            refused=[*_refused(parts, who, one.scope, now)] if one.what == "overage" else [],
        )
        for one in parts.limits.limits.policy.restrictions(who)
    ]


def spent_until(parts: Parts, who: Who, provider: str, now: float) -> float:
    """Until when a provider serves nothing to a caller who may not go on with paid extra usage; 0.0: it serves."""
    if not parts.limits.limits.policy.forbids("overage", who, provider, ""):
        return 0.0
    return next((until for _, model, until in _spent(parts, who, provider, now) if not model), 0.0)


def _refused(parts: Parts, who: Who, scope: Scope, now: float) -> Iterator[RefusedNow]:
    for provider in sorted(parts.pools):
        if scope.provider in {"", provider}:
            for name, model, until in _spent(parts, who, provider, now):
                if not model or scope.covers(name, model):
                    yield RefusedNow(provider=name, model=model, until=datetime.fromtimestamp(until, UTC))


def _spent(parts: Parts, who: Who, provider: str, now: float) -> Iterator[tuple[str, str, float]]:
    """Provider, model ("": every one) and until when no account that would serve has anything included left."""
    user = parts.people.directory.users.get(who.user)
    if user is None:
        return
    access = parts.people.directory.access(user, "", None, ())
    if access.allowance is not None and not access.allowance.allows(provider, None):
        return
    candidates = parts.pools[provider].candidates(Selection(groups=access.groups))
    quotas = [account.quota for account in candidates if account.free_at("") <= now]
    for model in ("", *sorted({model for quota in quotas for model in quota.paid})):
        until = min((quota.spent_until(model, now) for quota in quotas), default=0.0)
        if until:
            yield provider, model, until
        if until and not model:
            return
