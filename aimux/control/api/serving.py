"""The operation that tells a person whether the providers that they may use serve them now."""

# ruff: noqa: TC001, TC003 - the table and pydantic read the annotations

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import Literal

from pydantic import Field

from aimux.accounts.selection import Selection
from aimux.control.api.body import Body
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.restrictions import spent_until
from aimux.control.api.views import moment
from aimux.control.principal import Principal, Role
from aimux.limits.rules import Who

operation = Table()


class OwnProvider(Body):
    """A provider that the caller may use."""

    provider: str
    status: Literal["serving", "limited", "out"] = Field(
        description="`limited`: every account that would serve waits, or has nothing included left, and the caller may "
        "not go on with paid extra usage; `out`: none comes back by itself."
    )
    until: datetime | None = Field(description="When the first limited account is free.")


class OwnProviders(Body):
    """By name; those without an account for the caller are left out."""

    items: list[OwnProvider]


@operation("GET", "/me/providers", "Show which providers serve me now", role=Role.MEMBER)
async def show_own_providers(parts: Parts, caller: Principal) -> OwnProviders:
    """By the caller's own groups and scopes, whatever their token narrows."""
    now, found = time.time(), []
    access = None if caller.user is None else parts.people.directory.access(caller.user, "", None, ())
    for name, pool in sorted(parts.pools.items()):
        if access is not None and access.allowance is not None and not access.allowance.allows(name, None):
            continue
        selection = Selection(groups=None if access is None else access.groups)
        free = [account.free_at("") for account in pool.candidates(selection)]
        if not free:
            continue
        first = min(free)
        if first <= now and caller.user is not None:
            who = Who(caller.user.name, "", tuple(caller.user.groups))
            first = max(first, spent_until(parts, who, name, now))
        status: Literal["serving", "limited", "out"] = (
            "serving" if first <= now else "out" if first == math.inf else "limited"
        )
        found.append(OwnProvider(provider=name, status=status, until=moment(first) if status == "limited" else None))
    return OwnProviders(items=found)
