"""Operations on limits and grants."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from aimux.config.limits import MOST_DOLLARS, Allowances, GroupAllowances, UserAllowances
from aimux.control.api.limit_models import (
    Grant,
    Granted,
    GrantList,
    LimitChanges,
    LimitList,
    LimitOwner,
    LimitSet,
    NewGrant,
    OwnerKind,
    OwnerName,
    OwnLimits,
    Used,
)
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts  # noqa: TC001 - the table reads the annotations
from aimux.control.api.problems import Refused
from aimux.control.api.restrictions import restrictions
from aimux.control.principal import Principal, Role
from aimux.limits import stored
from aimux.limits.rules import ANYTHING, Key, Owner, Who, amount_of, value_of
from aimux.limits.windows import moment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import tzinfo

    from aimux.limits.keeper import LimitKeeper
    from aimux.limits.leases import Limits, Standing

operation = Table()
LONGEST = 10 * 366 * 86400.0


@operation("GET", "/limits", "List the limits, and what is used of them", role=Role.VIEWER)
async def list_limits(parts: Parts) -> LimitList:
    """The default, then users, groups and tokens by name."""
    keeper = parts.limits
    await keeper.refresh()
    return LimitList(items=[_owner(parts, *found) for found in _owners(keeper)])


@operation("GET", "/limits/{kind}/{name}", "Show the limits of a user, group or token", role=Role.VIEWER)
async def show_limits(parts: Parts, kind: OwnerKind, name: OwnerName) -> LimitSet:
    """Only its own: the default and those of its groups hold in addition."""
    keeper = parts.limits
    await keeper.refresh()
    _listed(parts, kind, name)
    found = {(owner.kind, owner.name): allowances for owner, allowances, _ in _owners(keeper)}
    return _told(found.get((kind, name), Allowances()))


@operation("GET", "/limits/{kind}/{name}/usage", "Show what a user, group or token may use", role=Role.VIEWER)
async def show_limits_used(parts: Parts, kind: OwnerKind, name: OwnerName) -> OwnLimits:
    """Every limit that holds, whoever set it, and how much of it is used. For a group: what its members share."""
    await parts.limits.refresh()
    _listed(parts, kind, name)
    owner = Owner(kind, name)
    limits, who = parts.limits.limits, _as_caller(parts, owner)
    now = time.time()
    found = limits.standings(who, now)
    return OwnLimits(
        items=[_used(one, limits, who) for one in found if kind == "user" or one.owner.name == name],
        forbidden=[
            one
            for one in restrictions(parts, owner, who, now)
            if kind == "user" or one.set_by.partition(":")[2] == name
        ],
    )


@operation("PUT", "/limits/{kind}/{name}", "Set the limits of a user, group or token", errors=(404, 409))
async def set_limits(parts: Parts, kind: OwnerKind, name: OwnerName, body: LimitSet, caller: Principal) -> LimitSet:
    """Replaces all of them: what is not named has no limit any more. They hold from the next request on."""
    keeper = parts.limits
    _known(parts, kind, name)
    _changeable(keeper, kind, name)
    _served(parts, body)
    allowances = _allowances(kind, body)
    await stored.put(keeper.database, caller.actor, Owner(kind, name), allowances)
    await keeper.refresh()
    return _told(allowances)


@operation("PATCH", "/limits/{kind}/{name}", "Change some limits of a user, group or token", errors=(404, 409))
async def change_limits(
    parts: Parts, kind: OwnerKind, name: OwnerName, body: LimitChanges, caller: Principal
) -> LimitSet:
    """Changes those that are named; null removes one, and the others stay. They hold from the next request on."""
    keeper = parts.limits
    _known(parts, kind, name)
    _changeable(keeper, kind, name)
    _served(parts, body)
    allowances = await stored.change(
        keeper.database, caller.actor, Owner(kind, name), lambda held: _allowances(kind, body.of(held))
    )
    await keeper.refresh()
    return _told(allowances)


@operation("DELETE", "/limits/{kind}/{name}", "Remove the limits of a user, group or token", status=204, errors=(409,))
async def remove_limits(parts: Parts, kind: OwnerKind, name: OwnerName, caller: Principal) -> None:
    """The default and those of its groups hold from then on. Grants stay until they end."""
    keeper = parts.limits
    _changeable(keeper, kind, name)
    if not await stored.remove(keeper.database, caller.actor, Owner(kind, name)):
        raise Refused(404, "not-found", f"The {kind} {name!r} has no limits of its own.")
    await keeper.refresh()


@operation("GET", "/limits/{kind}/{name}/grants", "List what was granted to a user, group or token", role=Role.VIEWER)
async def list_grants(parts: Parts, kind: OwnerKind, name: OwnerName) -> GrantList:
    keeper = parts.limits
    await keeper.refresh()
    _listed(parts, kind, name)
    mine = [given for given in keeper.stored.given if given.grant.owner == Owner(kind, name)]
    return GrantList(items=[_grant(given.grant, given.by, keeper.limits.zone) for given in mine])


@operation("POST", "/limits/{kind}/{name}/grants", "Grant more of a limit for a while", status=201, errors=(404, 409))
async def give_grant(parts: Parts, kind: OwnerKind, name: OwnerName, body: NewGrant, caller: Principal) -> Grant:
    """Added to the limit of that name, which has to exist, and to other grants."""
    keeper = parts.limits
    await keeper.refresh()
    _known(parts, kind, name)
    try:
        until = moment(body.until, time.time(), keeper.limits.zone)
    except ValueError as error:
        raise Refused(422, "invalid", f"until: {error}.") from None
    if not time.time() < until < time.time() + LONGEST:
        raise Refused(422, "invalid", "A grant ends in the future, within ten years.")
    if not _has_limit(parts, kind, name, body.limit):
        raise Refused(
            409,
            "no-limit",
            f"The {kind} {name!r} has no total limit {body.limit}, so that there is nothing to add to.",
            remedy=f"aimux limits set {kind}:{name} {body.limit}=AMOUNT",
        )
    amount = _granted(body.limit, body.amount)
    grant = await stored.give(keeper.database, caller.actor, Owner(kind, name), body.limit, amount, until)
    await keeper.refresh()
    return _grant(grant, caller.name, keeper.limits.zone)


def _granted(limit: str, value: float) -> int:
    """The granted amount as it is counted. Raises Refused for an amount that could not be the limit itself."""
    if limit.startswith("cost"):
        if value > MOST_DOLLARS:
            raise Refused(422, "invalid", f"A grant of {limit} is at most {MOST_DOLLARS:,} dollars.")
    elif not value.is_integer():
        raise Refused(422, "invalid", f"A grant of {limit} is a whole number.")
    amount = amount_of(limit, value)
    if not amount:
        raise Refused(422, "invalid", f"A grant of {limit} is at least a billionth of a dollar (0.000000001).")
    return amount


@operation("GET", "/me/limits", "Show what I may use, and have used", role=Role.MEMBER)
async def show_own_limits(parts: Parts, caller: Principal) -> OwnLimits:
    """Limits of the caller's own, of their groups and of everybody."""
    user = caller.user
    if user is None:
        return OwnLimits(items=[], forbidden=[])
    who = Who(user.name, "", tuple(user.groups))
    limits, now = parts.limits.limits, time.time()
    return OwnLimits(
        items=[_used(standing, limits, who) for standing in limits.standings(who, now)],
        forbidden=restrictions(parts, Owner("user", user.name), who, now),
    )


async def nearest_limits(parts: Parts, users: Collection[str]) -> dict[str, Used]:
    """Of the limits that hold for each of them the one of which the largest part is used. Raises StorageError."""
    await parts.limits.refresh()
    limits, now, nearest = parts.limits.limits, time.time(), {}
    for name in users:
        who = _as_caller(parts, Owner("user", name))
        if standings := limits.standings(who, now):
            nearest[name] = _used(max(standings, key=lambda standing: standing.part), limits, who)
    return nearest


# --- what they share -------------------------------------------------------------------------------------------------


def _owners(keeper: LimitKeeper) -> Iterator[tuple[Owner, Allowances, bool]]:
    """Everybody with limits of their own, and whether the configuration has them."""
    section, rows = keeper.section, keeper.stored
    yield Owner("default"), section.default, True
    for kind, configured, held in (
        ("user", section.users, rows.users),
        ("group", section.groups, rows.groups),
        ("token", {}, rows.tokens),
    ):
        together: dict[str, Allowances] = {**held, **configured}
        for name in sorted(together):
            yield Owner(kind, name), together[name], name in configured


def _owner(parts: Parts, owner: Owner, allowances: Allowances, configured: bool) -> LimitOwner:
    limits, who = parts.limits.limits, _as_caller(parts, owner)
    standings = limits.standings(who, time.time())
    usage = [standing for standing in standings if standing.owner == owner]
    return LimitOwner(
        kind=cast("Any", owner.kind),
        name=owner.name,
        configured=configured,
        limits=_told(allowances),
        usage=[_used(standing, limits, who) for standing in usage],
    )


def _told(allowances: Allowances) -> LimitSet:
    return LimitSet.model_validate(allowances.model_dump(exclude_defaults=True))


def _allowances(kind: str, body: LimitSet) -> Allowances:
    """Refused for settings that only other kinds of owners have."""
    section: type[Allowances] = {"user": UserAllowances, "group": GroupAllowances}.get(kind, Allowances)
    given = body.model_dump()
    for name in given:
        if name not in section.model_fields:
            raise Refused(422, "invalid", f"A {kind} has no `{name}`.")
    return section.model_validate(given)


def _known(parts: Parts, kind: str, name: str) -> None:
    """Refused for an owner who does not exist: a limit for a misspelt name would hold for nobody."""
    directory = parts.people.directory
    if kind == "token":
        configured = {token.id for token in directory.configured.hashes.values()}
        there = name in directory.stored.tokens or name in configured
    else:
        there = name in (directory.users if kind == "user" else directory.known_groups())
    if not there:
        raise Refused(404, "not-found", f"There is no {kind} {name!r}.")


def _served(parts: Parts, body: LimitSet | LimitChanges) -> None:
    """Refused if it limits a provider that does not exist; what is left of a former one can be removed."""
    for name, amounts in body.providers.items():
        given = amounts is not None and any(
            amount not in (None, "allow") for amount in amounts.model_dump(exclude_unset=True).values()
        )
        if given and name not in parts.pools:
            known = ", ".join(sorted(parts.pools)) or "none"
            raise Refused(422, "invalid", f"There is no provider {name!r}; there are: {known}.")


def _configured(keeper: LimitKeeper, kind: str, name: str) -> bool:
    return name in {"user": keeper.section.users, "group": keeper.section.groups}.get(kind, {})


def _listed(parts: Parts, kind: str, name: str) -> None:
    """The same, but also accepts an owner who has limits and is unknown, maybe by now: the list has these, too."""
    rows = parts.limits.stored
    held: Mapping[str, Allowances] = {"user": rows.users, "group": rows.groups, "token": rows.tokens}[kind]
    if name not in held and not _configured(parts.limits, kind, name):
        _known(parts, kind, name)


def _changeable(keeper: LimitKeeper, kind: str, name: str) -> None:
    if _configured(keeper, kind, name):
        raise Refused(
            409,
            "configured",
            f"The limits of the {kind} {name!r} stand in the configuration.",
            remedy=f"change limits.{kind}s.{name} there, and reload; a grant can be given without that",
        )


def _has_limit(parts: Parts, kind: str, name: str, limit: str) -> bool:
    policy, owner = parts.limits.limits.policy, Owner(kind, name)
    holdings = policy.holdings(_as_caller(parts, owner))
    return Key(owner, limit, ANYTHING) in {held.key for held in holdings}


def _as_caller(parts: Parts, owner: Owner) -> Who:
    """Somebody for whom the limits of an owner hold."""
    if owner.kind == "user":
        user = parts.people.directory.users.get(owner.name)
        return Who(owner.name, "", tuple(user.groups) if user is not None else ())
    return Who("", owner.name) if owner.kind == "token" else Who("", "", (owner.name,))


def _grant(grant: Any, by: str, zone: tzinfo) -> Grant:
    return Grant(
        id=grant.id,
        kind=grant.owner.kind,
        name=grant.owner.name,
        limit=grant.limit,
        amount=value_of(grant.limit, grant.amount),
        since=datetime.fromtimestamp(grant.since, UTC),
        until=datetime.fromtimestamp(grant.until, zone),
        given_by=by,
    )


def _used(standing: Standing, limits: Limits, who: Who) -> Used:
    policy, now = limits.policy, time.time()
    # What is for a part alone is never granted.
    grants = () if standing.scope else policy.grants_for(Key(standing.owner, standing.limit, ANYTHING))
    return Used(
        limit=cast("Any", standing.limit),
        owner=str(standing.owner),
        set_by=str(policy.set_by(who, standing.owner, standing.limit, standing.scope)),
        scope=standing.scope,
        amount=standing.amount,
        granted=[
            Granted(
                amount=value_of(standing.limit, grant.amount), until=datetime.fromtimestamp(grant.until, limits.zone)
            )
            for grant in sorted(grants, key=lambda grant: grant.until)
            if grant.since <= now < grant.until
        ],
        used=standing.used,
        resets_at=datetime.fromtimestamp(standing.resets_at, UTC) if standing.resets_at is not None else None,
    )
