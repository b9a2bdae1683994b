"""Changes to people, on both engines: what they do here, on another node, and in the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aimux.people import (
    Access,
    Actor,
    Configured,
    Denied,
    Group,
    People,
    Role,
    Token,
    User,
    audit,
    groups,
    invitations,
    issuing,
    users,
)
from aimux.people.audit import page, verify
from aimux.people.errors import Fixed, Invalid, Taken, Unknown
from aimux.people.tokens import SHOWN, digest, form
from aimux.storage import StorageError
from aimux.storage.times import now
from tests.people.conftest import ADMIN, Node
from tests.waiting import until

SHA = digest("a-token-that-somebody-has")


def may(people: People, secret: str, *, later: float = 0) -> Access | Denied:
    """`later`: in so many seconds."""
    return people.directory.find(digest(secret), now() + round(later * 1000))


async def test_a_user_gets_a_token_and_may_call(people: People) -> None:
    await groups.add(people, ADMIN, Group("dev"))
    ann = await users.add(people, ADMIN, User("ann", email="ann@example.com", role=Role.VIEWER, groups=("dev",)))
    issued = await issuing.issue(people, ADMIN, "ann", label="laptop", ttl=3600, scopes=["provider:claude"])
    assert form(issued.secret) == "whole"
    assert issued.secret not in repr(issued)
    assert issued.secret.startswith(issued.token.shown)
    access = may(people, issued.secret)
    assert isinstance(access, Access)
    assert (access.user, access.token_id) == (ann, issued.token.id)
    assert issued.token.expires_at is not None
    assert issued.token.expires_at - now() == pytest.approx(3_600_000, abs=5000)


async def test_another_node_and_the_next_start_know_it_too(node: Node) -> None:
    one, other = await node(), await node()
    await users.add(one, ADMIN, User("ann"))
    issued = await issuing.issue(one, ADMIN, "ann")
    await until(lambda: isinstance(may(other, issued.secret), Access), 1)
    await issuing.revoke(other, ADMIN, issued.token.id)
    assert may(other, issued.secret) is Denied.REVOKED
    await until(lambda: may(one, issued.secret) is Denied.REVOKED, 1)
    third = await node()
    assert may(third, issued.secret) is Denied.REVOKED
    assert third.directory.users == other.directory.users


async def test_a_group_is_known_at_every_node_as_soon_as_it_is_there_and_no_longer(node: Node) -> None:
    one, other = await node(), await node()
    await groups.add(one, ADMIN, Group("dev"))
    await users.add(other, ADMIN, User("ann", groups=("dev",)))
    await groups.add(one, ADMIN, Group("ops"))
    await users.change_user(other, ADMIN, "ann", {"groups": ("ops",)})
    await groups.remove(one, ADMIN, "dev")
    with pytest.raises(Unknown, match="there is no group 'dev'; there are: ops"):
        await users.change_user(other, ADMIN, "ann", {"groups": ("dev",)})
    with pytest.raises(Unknown):
        await users.add(other, ADMIN, User("bob", groups=("dev",)))
    assert "bob" not in other.directory.users


async def test_whoever_holds_the_snapshot_hears_of_each_change(node: Node) -> None:
    one, other = await node(), await node()
    heard: list[str] = []
    one.on_change = lambda: heard.append("one")
    other.on_change = lambda: heard.append("other")
    await users.add(one, ADMIN, User("ann"))
    assert "one" in heard
    await until(lambda: "other" in heard, 1)


async def test_an_expiry_is_heard_of_when_it_comes(people: People) -> None:
    await users.add(people, ADMIN, User("ann"))
    issued = await issuing.issue(people, ADMIN, "ann", ttl=0.3)
    heard = asyncio.Event()
    people.on_change = heard.set
    async with asyncio.timeout(3):
        await heard.wait()
    assert may(people, issued.secret) is Denied.EXPIRED


async def test_a_disabled_user_may_not_call_until_enabled(people: People) -> None:
    await users.add(people, ADMIN, User("ann"))
    issued = await issuing.issue(people, ADMIN, "ann")
    await users.change_user(people, ADMIN, "ann", {"enabled": False})
    assert may(people, issued.secret) is Denied.DISABLED
    await users.change_user(people, ADMIN, "ann", {"enabled": True})
    assert isinstance(may(people, issued.secret), Access)


async def test_a_removed_users_tokens_stay_dead_whoever_has_the_name_next(node: Node) -> None:
    one, other = await node(), await node()
    await users.add(one, ADMIN, User("ann", role=Role.ADMIN))
    issued = await issuing.issue(one, ADMIN, "ann")
    await users.remove(one, ADMIN, "ann")
    assert may(one, issued.secret) is Denied.REVOKED
    await users.add(one, ADMIN, User("ann"))
    assert may(one, issued.secret) is Denied.REVOKED
    await until(lambda: other.directory.stored.revision == one.directory.stored.revision, 1)
    assert other.directory.users["ann"].role is Role.MEMBER
    assert may(other, issued.secret) is Denied.REVOKED


async def test_tokens_of_a_user_who_left_the_configuration_are_not_the_next_ones(node: Node) -> None:
    one = await node(Configured({"ann": User("ann", configured=True)}))
    issued = await issuing.issue(one, ADMIN, "ann")
    assert isinstance(may(one, issued.secret), Access)
    one.reconfigure(Configured())
    assert may(one, issued.secret) is Denied.REVOKED
    await users.add(one, ADMIN, User("ann"))
    assert may(one, issued.secret) is Denied.REVOKED


async def test_rotation_leaves_the_old_token_for_the_overlap(people: People) -> None:
    await users.add(people, ADMIN, User("ann"))
    first = await issuing.issue(people, ADMIN, "ann", label="ci", ttl=1000, scopes=["model:a*"])
    second = await issuing.rotate(people, ADMIN, first.token.id, overlap=60)
    assert (second.token.label, second.token.scopes, second.token.user) == ("ci", ("model:a*",), "ann")
    assert second.token.expires_at is not None
    assert second.token.expires_at - now() == pytest.approx(1_000_000, abs=5000)
    assert isinstance(may(people, first.secret), Access)
    assert may(people, first.secret, later=61) is Denied.EXPIRED
    third = await issuing.rotate(people, ADMIN, second.token.id, ttl=120)
    assert may(people, second.secret) is Denied.REVOKED
    assert isinstance(may(people, third.secret, later=110), Access)
    assert may(people, third.secret, later=121) is Denied.EXPIRED
    with pytest.raises(Taken, match="is revoked"):
        await issuing.rotate(people, ADMIN, second.token.id)


async def test_an_overlap_does_not_prolong_a_life(people: People) -> None:
    await users.add(people, ADMIN, User("ann"))
    first = await issuing.issue(people, ADMIN, "ann", ttl=10)
    await issuing.rotate(people, ADMIN, first.token.id, overlap=1000)
    assert people.directory.stored.tokens[first.token.id].expires_at == first.token.expires_at


async def test_what_has_ended_takes_no_place_and_has_no_successor(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that issues a token for an hour each time can do so for ever."""
    monkeypatch.setattr(issuing, "MAX_TOKENS", 2)
    await users.add(people, ADMIN, User("ann"))
    revoked = await issuing.issue(people, ADMIN, "ann")
    await issuing.revoke(people, ADMIN, revoked.token.id)
    ended = [(await issuing.issue(people, ADMIN, "ann", ttl=0.001)).token.id for _ in range(2)]
    await asyncio.sleep(0.01)
    for _ in range(2):
        await issuing.issue(people, ADMIN, "ann", ttl=3600)
    with pytest.raises(Taken, match="has 2 tokens"):
        await issuing.issue(people, ADMIN, "ann")
    with pytest.raises(Taken, match="is expired"):
        await issuing.rotate(people, ADMIN, ended[0])


async def test_imported_tokens_are_good_and_come_once(people: People) -> None:
    await users.add(people, ADMIN, User("ann"))
    await users.add(people, ADMIN, User("bob"))
    wanted = [issuing.Import(SHA, "ann", "old"), issuing.Import(SHA, "ann"), issuing.Import(digest("b" * 20), "bob")]
    added = await issuing.import_tokens(people, ADMIN, wanted)
    assert [(token.user, token.label) for token in added] == [("ann", "old"), ("bob", "")]
    assert isinstance(people.directory.find(SHA, now()), Access)
    assert await issuing.import_tokens(people, ADMIN, wanted) == []
    with pytest.raises(Taken):
        await issuing.import_tokens(
            people, ADMIN, [issuing.Import(digest("c" * 20), "bob"), issuing.Import(SHA, "bob")]
        )
    assert people.directory.find(digest("c" * 20), now()) is Denied.UNKNOWN
    with pytest.raises(Unknown):
        await issuing.import_tokens(people, ADMIN, [issuing.Import(digest("d" * 20), "nobody")])


async def test_a_subject_is_revoked_and_restored(node: Node) -> None:
    one, other = await node(), await node()
    await issuing.revoke_subject(one, ADMIN, "s-1", reason="left")
    await until(lambda: ("", "s-1") in other.directory.stored.subjects, 1)
    await issuing.restore_subject(other, ADMIN, "s-1")
    assert not other.directory.stored.subjects
    with pytest.raises(Unknown):
        await issuing.restore_subject(other, ADMIN, "s-1")
    await issuing.revoke_subject(other, ADMIN, "s-1")
    assert ("", "s-1") in other.directory.stored.subjects


CONFIGURED = Configured(
    {"ann": User("ann", groups=("ci",), configured=True)},
    {"ci": Group("ci", configured=True)},
    {SHA: Token("cfg_1", "ann", SHA, configured=True)},
)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda p: users.add(p, ADMIN, User("ann")), Fixed),
        (lambda p: users.change_user(p, ADMIN, "ann", {"enabled": False}), Fixed),
        (lambda p: users.remove(p, ADMIN, "ann"), Fixed),
        (lambda p: groups.add(p, ADMIN, Group("ci")), Fixed),
        (lambda p: groups.change_group(p, ADMIN, "ci", {"reserved": True}), Fixed),
        (lambda p: groups.remove(p, ADMIN, "ci"), Fixed),
        (lambda p: issuing.revoke(p, ADMIN, "cfg_1"), Fixed),
        (lambda p: users.add(p, ADMIN, User("bob")), Taken),
        (lambda p: users.add(p, ADMIN, User("eve", groups=("nosuch",))), Unknown),
        (lambda p: users.change_user(p, ADMIN, "bob", {"groups": ("nosuch",)}), Unknown),
        (lambda p: users.change_user(p, ADMIN, "nobody", {"enabled": False}), Unknown),
        (lambda p: users.remove(p, ADMIN, "nobody"), Unknown),
        (lambda p: groups.add(p, ADMIN, Group("dev")), Taken),
        (lambda p: groups.remove(p, ADMIN, "nosuch"), Unknown),
        (lambda p: groups.remove(p, ADMIN, "dev"), Taken),
        (lambda p: issuing.issue(p, ADMIN, "nobody"), Unknown),
        (lambda p: issuing.issue(p, ADMIN, "bob", ttl=0), Invalid),
        (lambda p: issuing.revoke(p, ADMIN, "tok_nosuch"), Unknown),
        (lambda p: issuing.rotate(p, ADMIN, "tok_nosuch"), Unknown),
    ],
)
async def test_what_can_not_be_done_changes_nothing(
    node: Node, change: Callable[[People], Awaitable[Any]], error: type[Exception]
) -> None:
    people = await node(CONFIGURED)
    await groups.add(people, ADMIN, Group("dev"))
    await users.add(people, ADMIN, User("bob", groups=("dev",)))
    before, logged = people.directory.stored, (await verify(people.database)).entries
    with pytest.raises(error):
        await change(people)
    await people.refresh()
    assert people.directory.stored is before
    assert (await verify(people.database)).entries == logged


async def test_an_invitation_ends_with_its_user(node: Node) -> None:
    """Else whoever was invited once would be another one of the same name."""
    people = await node()
    await users.add(people, ADMIN, User("bob"))
    _, stored = await invitations.invite(people, ADMIN, "bob")
    await users.remove(people, ADMIN, "bob")
    people.reconfigure(CONFIGURED)
    _, configured = await invitations.invite(people, ADMIN, "ann")
    people.reconfigure(Configured())
    for name, code in (("bob", stored), ("ann", configured)):
        await users.add(people, ADMIN, User(name))
        with pytest.raises(Unknown):
            await invitations.accept(people, ADMIN, code)


async def test_an_invitation_ends_with_the_admin_who_made_it(node: Node) -> None:
    """Else whoever leaves could take tokens of others along."""
    people = await node()
    for name in ("bob", "dan"):
        await users.add(people, ADMIN, User(name))
    await users.add(people, ADMIN, User("eve", role=Role.ADMIN))
    _, code = await invitations.invite(people, Actor("eve", ""), "bob")
    for change in ({"enabled": False}, {"enabled": True, "role": Role.MEMBER}):
        await users.change_user(people, ADMIN, "eve", change)
        with pytest.raises(Unknown, match="no admin any more"):
            await invitations.accept(people, ADMIN, code)
    await users.change_user(people, ADMIN, "eve", {"role": Role.ADMIN})
    assert (await invitations.accept(people, ADMIN, code)).token.user == "bob"
    _, code = await invitations.invite(people, Actor("eve", ""), "dan")
    await users.remove(people, ADMIN, "eve")
    with pytest.raises(Unknown):
        await invitations.accept(people, ADMIN, code)


async def test_a_token_that_stands_in_the_configuration_too_is_not_revoked_in_vain(node: Node) -> None:
    people = await node()
    await users.add(people, ADMIN, User("bob"))
    [token] = await issuing.import_tokens(people, ADMIN, [issuing.Import(SHA, "bob")])
    people.reconfigure(CONFIGURED)
    with pytest.raises(Fixed):
        await issuing.revoke(people, ADMIN, token.id)


async def test_the_owner_is_checked(people: People) -> None:
    await users.add(people, ADMIN, User("ann"))
    issued = await issuing.issue(people, ADMIN, "ann")
    for change in (issuing.revoke, issuing.rotate):
        with pytest.raises(Unknown):
            await change(people, ADMIN, issued.token.id, owner="eve")
    assert isinstance(may(people, issued.secret), Access)
    people.reconfigure(CONFIGURED)
    (configured,) = CONFIGURED.hashes.values()
    with pytest.raises(Unknown):  # not whose it is, either
        await issuing.revoke(people, ADMIN, configured.id, owner="eve")


async def test_every_change_has_its_entry_and_no_entry_a_secret(people: People) -> None:
    await groups.add(people, ADMIN, Group("dev"))
    await users.add(people, ADMIN, User("ann", groups=("dev",)))
    await users.change_user(people, ADMIN, "ann", {"role": Role.ADMIN, "groups": ()})
    issued = await issuing.issue(people, ADMIN, "ann", label="x")
    rotated = await issuing.rotate(people, ADMIN, issued.token.id)
    await issuing.revoke(people, ADMIN, rotated.token.id)
    await groups.change_group(people, ADMIN, "dev", {"reserved": True})
    await groups.remove(people, ADMIN, "dev")
    await users.remove(people, ADMIN, "ann")
    await issuing.revoke_subject(people, ADMIN, "s-1")
    await issuing.restore_subject(people, ADMIN, "s-1")
    entries = await page(people.database, limit=100, after=0)
    assert [entry.action for entry in entries] == [
        "group.add",
        "user.add",
        "user.change",
        "token.issue",
        "token.issue",
        "token.rotate",
        "token.revoke",
        "group.change",
        "group.remove",
        "user.remove",
        "subject.revoke",
        "subject.restore",
    ]
    assert {(entry.actor, entry.address) for entry in entries} == {ADMIN}
    assert entries[2].before is not None
    assert entries[2].after is not None
    assert (entries[2].before["role"], entries[2].after["role"]) == ("member", "admin")
    told = repr(entries)
    for secret in (issued.secret, rotated.secret):
        assert secret[SHOWN:] not in told
        assert digest(secret).hex() not in told
    verdict = await verify(people.database)
    assert (verdict.entries, verdict.broken) == (len(entries), "")


async def test_a_log_that_grows_while_it_is_checked_is_whole(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    await users.add(people, ADMIN, User("ann"))

    async def growing(*args: Any, **options: Any) -> list[audit.Entry]:
        found = await page(*args, **options)
        await groups.add(people, ADMIN, Group(f"after-{found[-1].id}"))
        return found

    monkeypatch.setattr(audit, "page", growing)
    assert (await verify(people.database)).broken == ""


async def test_nothing_changes_nothing(people: People) -> None:
    await users.add(people, ADMIN, User("ann"))
    issued = await issuing.issue(people, ADMIN, "ann")
    await issuing.revoke(people, ADMIN, issued.token.id)
    count = (await verify(people.database)).entries
    first = people.directory.stored.tokens[issued.token.id]
    assert await issuing.revoke(people, ADMIN, issued.token.id) == first
    await users.change_user(people, ADMIN, "ann", {"enabled": True})
    assert (await verify(people.database)).entries == count


async def test_changes_at_once_from_many_nodes_are_in_one_order(node: Node) -> None:
    nodes = [await node() for _ in range(3)]
    await asyncio.gather(*(users.add(nodes[i % 3], ADMIN, User(f"user-{i}")) for i in range(12)))
    verdict = await verify(nodes[0].database)
    assert (verdict.entries, verdict.broken) == (12, "")
    for one in nodes:
        await until(lambda one=one: len(one.directory.users) == 12, 3)  # type: ignore[misc]


async def test_a_database_that_is_away_is_told_of_once(
    people: People, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked again each second."""
    await users.add(people, ADMIN, User("ann"))

    async def fail() -> None:
        raise StorageError("it is away")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(people, "refresh", fail)
            assert not any([await people.catch_up() for _ in range(3)])
        assert await people.catch_up()
    assert caplog.text.count("people can't be read again") == 2
