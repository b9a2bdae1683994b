"""Limits and grants in the database, and changes to them: each in one transaction with its entry in the audit log."""

from __future__ import annotations

import copy
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from aimux.config.limits import Allowances, GroupAllowances, UserAllowances
from aimux.limits.rules import LIMITS, Grant, Owner, value_of
from aimux.people import audit
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimux.people.audit import Actor
    from aimux.storage import Database

TOPIC = "limits"
SUCCESSOR = "successor"
"""In place of a token's limits: the id of the one that took its place, whose limits both use together."""


class Given(NamedTuple):
    """A grant, and who gave it."""

    grant: Grant
    by: str


@dataclass(frozen=True)
class Stored:
    """All of it. Grants are those that have not ended. `unread`: the limits that only another version can read, which
    do not hold here. `successors`: the tokens that took others' places, by the others' ids."""

    users: Mapping[str, UserAllowances]
    groups: Mapping[str, GroupAllowances]
    tokens: Mapping[str, Allowances]
    given: tuple[Given, ...] = ()
    unread: tuple[str, ...] = ()
    successors: Mapping[str, str] = field(default_factory=dict)


NOTHING = Stored({}, {}, {})
_SECTIONS: dict[str, type[Allowances]] = {"user": UserAllowances, "group": GroupAllowances, "token": Allowances}


async def read(database: Database, now: float) -> Stored:
    """Raises StorageError."""
    from aimux.storage.schema.limits import grants, limits

    async with database.read() as connection:
        rows = (await connection.execute(limits.select())).all()
        alive = grants.select().where(grants.c.until > int(now * 1000)).order_by(grants.c.since, grants.c.id)
        given = (await connection.execute(alive)).all()
    found: dict[str, dict[str, Any]] = {kind: {} for kind in _SECTIONS}
    unread = [f"{Owner(row.kind, row.name)} {row.limit}" for row in given if row.limit not in LIMITS]
    successors = {row.name: row.allowances[SUCCESSOR] for row in rows if SUCCESSOR in row.allowances}
    for row in rows:
        if SUCCESSOR in row.allowances:
            continue
        found[row.kind][row.name], rest = _readable(_SECTIONS[row.kind], row.allowances)
        unread += [f"{Owner(row.kind, row.name)} {name}" for name in rest]
    return Stored(
        found["user"],
        found["group"],
        found["token"],
        tuple(
            Given(
                Grant(row.id, Owner(row.kind, row.name), row.limit, row.amount, row.since / 1000, row.until / 1000),
                row.given_by,
            )
            for row in given
            if row.limit in LIMITS
        ),
        tuple(unread),
        {name: _last(successors, name) for name in successors},
    )


def _last(successors: Mapping[str, str], name: str) -> str:
    """The token that took the place of the one that took the place … of this one."""
    passed = {name}
    while (name := successors[name]) in successors and name not in passed:
        passed.add(name)
    return name


def _readable(section: type[Allowances], told: Mapping[str, Any]) -> tuple[Allowances, list[str]]:
    """What of an owner's limits can be read, and the names of the others. Of two nodes the newer one may know more."""
    rest, unread = copy.deepcopy(dict(told)), list[str]()
    while True:
        try:
            return section.model_validate(rest), unread
        except ValidationError as error:
            place = error.errors(include_url=False, include_input=False)[0]["loc"]
        if not place or place[0] not in rest:
            return section(), [*told]
        within, name = rest, str(place[0])
        for part in map(str, place[1:]):
            if not isinstance(within[name], dict) or part not in within[name]:
                break
            within, name = within[name], part
        del within[name]
        unread.append(".".join(map(str, place)))


async def put(database: Database, actor: Actor, owner: Owner, allowances: Allowances) -> None:
    """Have these be an owner's limits, all of them. Raises StorageError."""
    await change(database, actor, owner, lambda _held: allowances)


async def change(
    database: Database, actor: Actor, owner: Owner, decide: Callable[[Mapping[str, Any]], Allowances]
) -> Allowances:
    """Have an owner's limits be what `decide` makes of those that lie here, with no other change in between. Raises
    StorageError, and what `decide` does."""
    from aimux.storage.schema.limits import limits

    mine = (limits.c.kind == owner.kind) & (limits.c.name == owner.name)
    async with database.write(TOPIC) as connection:
        await audit.lock(connection)
        before = (await connection.execute(limits.select().where(mine))).first()
        held = before.allowances if before is not None and SUCCESSOR not in before.allowances else None
        allowances = decide(held or {})
        told = allowances.model_dump(mode="json", exclude_defaults=True)
        await audit.append(connection, actor, "limits.set", str(owner), before=held, after=told)
        values = {"allowances": told, "updated_at": now()}
        if before is None:
            await connection.execute(limits.insert().values(kind=owner.kind, name=owner.name, **values))
        else:
            await connection.execute(limits.update().where(mine).values(values))
    return allowances


async def remove(database: Database, actor: Actor, owner: Owner) -> bool:
    """Have an owner have no limits here. False: there were none. Raises StorageError."""
    from aimux.storage.schema.limits import limits

    mine = (limits.c.kind == owner.kind) & (limits.c.name == owner.name)
    async with database.write(TOPIC) as connection:
        await audit.lock(connection)
        before = (await connection.execute(limits.select().where(mine))).first()
        if before is None or SUCCESSOR in before.allowances:
            return False
        await audit.append(connection, actor, "limits.remove", str(owner), before=before.allowances)
        await connection.execute(limits.delete().where(mine))
    return True


async def pass_on(database: Database, actor: Actor, old: Owner, new: Owner) -> bool:
    """Have the token that takes another's place have its limits, which both use together from now on, and its grants
    that have not ended. False: there were none. Raises StorageError."""
    from aimux.storage.schema.limits import grants, limits

    async with database.write(TOPIC) as connection:
        await audit.lock(connection)
        mine = (limits.c.kind == old.kind) & (limits.c.name == old.name)
        held = (await connection.execute(limits.select().where(mine))).first()
        alive = grants.select().where(grants.c.kind == old.kind, grants.c.name == old.name, grants.c.until > now())
        given = (await connection.execute(alive)).mappings().all()
        if held is None and not given:
            return False
        told = held.allowances if held is not None else {}
        await audit.append(connection, actor, "limits.set", str(new), after=told)
        if held is not None:
            row = {"kind": new.kind, "name": new.name, "allowances": told, "updated_at": now()}
            await connection.execute(limits.insert().values(row))
            instead = {"allowances": {SUCCESSOR: new.name}, "updated_at": now()}
            await connection.execute(limits.update().where(mine).values(instead))
        for grant in given:
            row = {**grant, "id": f"grant_{secrets.token_hex(8)}", "kind": new.kind, "name": new.name}
            await connection.execute(grants.insert().values(row))
    return True


async def give(database: Database, actor: Actor, owner: Owner, limit: str, amount: int, until: float) -> Grant:
    """More of a limit from now on. Raises StorageError."""
    from aimux.storage.schema.limits import grants

    since = now()
    grant = Grant(f"grant_{secrets.token_hex(8)}", owner, limit, amount, since / 1000, int(until * 1000) / 1000)
    async with database.write(TOPIC) as connection:
        await audit.lock(connection)
        end = datetime.fromtimestamp(grant.until, UTC).isoformat(timespec="seconds")
        told = {"id": grant.id, "limit": limit, "amount": value_of(limit, amount), "until": end}
        await audit.append(connection, actor, "limits.grant", str(owner), after=told)
        await connection.execute(
            grants.insert().values(
                id=grant.id,
                kind=owner.kind,
                name=owner.name,
                limit=limit,
                amount=amount,
                since=since,
                until=int(until * 1000),
                given_by=actor.name,
            )
        )
    return grant
