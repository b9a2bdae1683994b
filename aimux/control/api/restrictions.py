"""What limits forbid to somebody, and what is refused because of that now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from aimux.accounts.selection import Selection
from aimux.control.api.limit_models import RefusedNow, Restriction
from aimux.limits.rules import Owner
from aimux.people.models import User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aimux.control.api.parts import Parts
    from aimux.limits.rules import Scope, Who
    from aimux.people.directory import Access


class Spent(NamedTuple):
    """A provider whose accounts serve a model ("": every one) only as paid extra usage; since when (0.0: unknown) and
    until when."""

    provider: str
    model: str
    since: float
    until: float


def restrictions(parts: Parts, owner: Owner, who: Who, now: float) -> list[Restriction]:
    """Everything that is forbidden to a caller for whom an owner's limits hold, whoever forbids it."""
    access = _access(parts, owner)
    return [
        Restriction(
            what=cast("Any", one.what),
            set_by=str(one.owner),
            scope=str(one.scope),
            refused=[*_refused(parts, access, one.scope, now)] if one.what == "overage" and access else [],
        )
        for one in parts.limits.limits.policy.restrictions(who)
    ]


def _access(parts: Parts, owner: Owner) -> Access | None:
    """Whom a provider's accounts have to serve: a user, with the token; for a group, a member who is in no other."""
    directory, (kind, name) = parts.people.directory, owner
    if kind == "group":
        return directory.access(User(name, groups=(name,)), "", None, ())
    token = directory.token(name) if kind == "token" else None
    user = directory.users.get(token.user if token is not None else name)
    return directory.access(user, "", None, token.scopes if token is not None else ()) if user is not None else None


def spent_until(parts: Parts, who: Who, provider: str, now: float) -> float:
    """Until when a provider serves nothing to a user who may not go on with paid extra usage; 0.0: it serves."""
    access = _access(parts, Owner("user", who.user))
    if access is None or not parts.limits.limits.policy.forbids("overage", who, provider, ""):
        return 0.0
    return next((spent.until for spent in _spent(parts, access, provider, now) if not spent.model), 0.0)


def _refused(parts: Parts, access: Access, scope: Scope, now: float) -> Iterator[RefusedNow]:
    for provider in sorted(parts.pools):
        if scope.provider in {"", provider}:
            for name, model, since, until in _spent(parts, access, provider, now):
                if not model or scope.covers(name, model):
                    begun = datetime.fromtimestamp(since, UTC) if since else None
                    yield RefusedNow(provider=name, model=model, since=begun, until=datetime.fromtimestamp(until, UTC))


def _spent(parts: Parts, access: Access, provider: str, now: float) -> Iterator[Spent]:
    """For every model, if no account that would serve has any included usage left, or for single ones."""
    if access.allowance is not None and not access.allowance.allows(provider, None):
        return
    candidates = parts.pools[provider].candidates(Selection(groups=access.groups))
    quotas = [account.quota for account in candidates if account.free_at("") <= now]
    for model in ("", *sorted({model for quota in quotas for model in quota.paid})):
        until = min((quota.spent_until(model, now) for quota in quotas), default=0.0)
        if until:
            since = [quota.spent_since(model, now) for quota in quotas]
            yield Spent(provider, model, max(since) if all(since) else 0.0, until)
        if until and not model:
            return
