"""The limits of a configuration as rules."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from aimux.limits.rules import EVERYBODY, LIMITS, Forbidden, Owner, Policy, Rule, Scope, amount_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aimux.config.limits import Allowance, Allowances, Limits
    from aimux.limits.rules import Grant

FORBIDDABLE = ("overage", "long_context")


def policy(
    limits: Limits,
    tokens: Mapping[str, Allowances] = MappingProxyType({}),
    grants: Sequence[Grant] = (),
    successors: Mapping[str, str] = MappingProxyType({}),
) -> Policy:
    """What the section `limits` says, with limits of tokens (by id), grants, and whose limits tokens have besides."""
    owners: list[tuple[Owner, Allowances]] = [(EVERYBODY, limits.default)]
    owners += [(Owner("user", name), allowed) for name, allowed in limits.users.items()]
    owners += [(Owner("token", name), allowed) for name, allowed in tokens.items()]
    for name, group in limits.groups.items():
        owners += [(Owner("group", name), group), (Owner("member", name), group.each)]
    scoped = [(owner, scope, allowed) for owner, whole in owners for scope, allowed in _scopes(whole)]
    return Policy(
        tuple(
            Rule(owner, limit, amount_of(limit, value), scope)
            for owner, scope, allowed in scoped
            for limit in LIMITS
            if (value := getattr(allowed, limit)) is not None
        ),
        tuple(grants),
        frozenset(
            Forbidden(owner, what, scope)
            for owner, scope, allowed in scoped
            for what in FORBIDDABLE
            if getattr(allowed, what) == "forbid"
        ),
        {
            Owner(kind, name): one.weight
            for kind, held in (("user", limits.users), ("group", limits.groups))
            for name, one in held.items()
            if one.weight is not None
        },
        successors,
    )


def _scopes(whole: Allowances) -> Iterator[tuple[Scope, Allowance]]:
    yield Scope(), whole
    for provider, allowed in whole.providers.items():
        yield Scope(provider=provider), allowed
    for model, allowed in whole.models.items():
        yield Scope(model=model), allowed
