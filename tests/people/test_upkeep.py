"""When tokens were last used, and what is past keeping."""

from __future__ import annotations

from sqlalchemy import Table

from aimux.people import Denied, Group, People, Token, User, groups, issuing, listing, users
from aimux.people.directory import Configured
from aimux.people.tokens import digest
from aimux.people.upkeep import DAY, KEPT_DAYS, Uses, prune
from aimux.storage.schema import people as tables
from aimux.storage.times import now
from tests.people.conftest import ADMIN, Node


async def used(people: People, token: str) -> tuple[int | None, str | None]:
    async with people.database.read() as connection:
        row = (await connection.execute(tables.tokens.select().where(tables.tokens.c.id == token))).one()
    return row.used_at, row.used_from


async def test_the_last_use_is_written_to_the_minute_and_once(people: People) -> None:
    await users.add(people, ADMIN, User("ann"))
    token = (await issuing.issue(people, ADMIN, "ann")).token.id
    uses = Uses(people.database)
    at = 1_800_000_059.5
    uses.note(token, at - 30, "192.0.2.1")
    uses.note(token, at, "192.0.2.2")
    uses.note("", at, "192.0.2.3")
    uses.note("cfg_12345678", at, "192.0.2.4")
    uses.note("jwt:somebody", at, "192.0.2.5")
    before = people.directory
    await uses.flush()
    assert await used(people, token) == (1_800_000_000_000, "192.0.2.2")
    assert uses.last().keys() == {token, "cfg_12345678"}
    await people.refresh()
    assert people.directory is before, "it is no change that anybody has to hear of"


async def test_of_two_nodes_the_later_use_counts(node: Node) -> None:
    one, other = await node(), await node()
    await users.add(one, ADMIN, User("ann"))
    token = (await issuing.issue(one, ADMIN, "ann")).token.id
    ones, others = Uses(one.database), Uses(other.database)
    ones.note(token, 1_800_000_300, "192.0.2.1")
    others.note(token, 1_800_000_120, "192.0.2.2")
    await ones.flush()
    await others.flush()
    assert await used(one, token) == (1_800_000_300_000, "192.0.2.1")


async def test_the_last_use_of_a_configured_token_outlives_a_restart(node: Node) -> None:
    sha = digest("a-token-in-the-configuration")
    configured = Configured(
        {"ann": User("ann", configured=True)}, {}, {sha: Token("cfg_12345678", "ann", sha, configured=True)}
    )
    one, other = [await node(configured) for _ in range(2)]
    ((token, use),) = (await listing.list_page(one, Uses(one.database), listing.TokenFilter(), 10, None))[0]
    assert use is None
    for people, at, address in ((one, 1_800_000_300, "192.0.2.1"), (other, 1_800_000_120, "192.0.2.2")):
        uses = Uses(people.database)
        uses.note(token.id, at, address)
        await uses.flush()
    again = Uses(other.database)
    ((_, use),) = (await listing.list_page(other, again, listing.TokenFilter(), 10, None))[0]
    assert use == (1_800_000_300_000, "192.0.2.1")
    assert await listing.in_use(other, again, ["ann"]) == {"ann": (1, 1_800_000_300_000)}
    again.note(token.id, 1_800_000_360, "192.0.2.3")
    ((_, use),) = (await listing.list_page(other, again, listing.TokenFilter(), 10, None))[0]
    assert use == (1_800_000_360_000, "192.0.2.3")


async def test_what_ended_long_ago_is_deleted_and_nothing_else(people: People) -> None:
    await groups.add(people, ADMIN, Group("old"))
    for name in ("ann", "gone"):
        await users.add(people, ADMIN, User(name))
    live = await issuing.issue(people, ADMIN, "ann")
    revoked = await issuing.issue(people, ADMIN, "ann")
    expired = await issuing.issue(people, ADMIN, "ann", ttl=1)
    lately = await issuing.issue(people, ADMIN, "ann")
    for token in (revoked, lately):
        await issuing.revoke(people, ADMIN, token.token.id)
    await users.remove(people, ADMIN, "gone")
    await groups.remove(people, ADMIN, "old")
    long_ago = now() - int((KEPT_DAYS + 1) * DAY * 1000)

    async def age(table: Table, key: str, name: str, **values: int) -> None:
        async with people.database.write() as connection:
            await connection.execute(table.update().where(table.c[key] == name).values(**values))

    await age(tables.tokens, "id", revoked.token.id, revoked_at=long_ago)
    await age(tables.tokens, "id", expired.token.id, expires_at=long_ago)
    await age(tables.users, "name", "gone", removed_at=long_ago)
    await age(tables.groups, "name", "old", removed_at=long_ago)
    await prune(people.database)
    async with people.database.read() as connection:
        left = set((await connection.execute(tables.tokens.select().with_only_columns(tables.tokens.c.id))).scalars())
        names = list((await connection.execute(tables.users.select().with_only_columns(tables.users.c.name))).scalars())
        assert (await connection.execute(tables.groups.select())).first() is None
    assert left == {live.token.id, lately.token.id}
    assert names == ["ann"]
    assert people.directory.find(digest(revoked.secret), now()) is Denied.REVOKED
