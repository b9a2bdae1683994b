"""The snapshot: who may call."""

from __future__ import annotations

from typing import Any

import pytest

from aimux.people.directory import Access, Configured, Denied, Directory, Stored
from aimux.people.models import Group, Role, Token, User
from aimux.people.tokens import digest

NOW = 1_000_000


def token(name: str, user: str, **values: Any) -> Token:
    return Token(name, user, digest(name), **values)


def stored(*users: User, tokens: tuple[Token, ...] = (), groups: tuple[Group, ...] = ()) -> Stored:
    return Stored().changed(
        1,
        users={user.name: user for user in users},
        groups={group.name: group for group in groups},
        tokens=tokens,
        subjects={},
    )


def test_what_a_token_gives() -> None:
    ann = User("ann", groups=("ci",), scopes=("provider:claude",))
    directory = Directory(Configured(), stored(ann, tokens=(token("t1", "ann", scopes=("model:a*",)),)))
    access = directory.find(digest("t1"), NOW)
    assert isinstance(access, Access)
    assert (access.user, access.token_id, access.groups) == (ann, "t1", {"ci"})
    assert access.allowance is not None
    assert access.allowance.allows("claude", "abc")
    assert not access.allowance.allows("claude", "b")
    assert directory.find(digest("t1"), NOW) is access


def test_a_group_that_is_named_twice_counts_once() -> None:
    assert User("ann", groups=("ci", "eu", "ci")).groups == ("ci", "eu")


@pytest.mark.parametrize(
    ("user", "given", "denied"),
    [
        (User("ann"), token("t", "ann", revoked_at=NOW - 1), Denied.REVOKED),
        (User("ann"), token("t", "ann", expires_at=NOW), Denied.EXPIRED),
        (User("ann", enabled=False), token("t", "ann"), Denied.DISABLED),
        (User("bob"), token("t", "ann"), Denied.REVOKED),
        (User("ann"), token("other", "ann"), Denied.UNKNOWN),
    ],
)
def test_what_gives_nothing(user: User, given: Token, denied: Denied) -> None:
    assert Directory(Configured(), stored(user, tokens=(given,))).find(digest("t"), NOW) is denied


def test_a_token_that_was_good_expires_without_anybody_doing_anything() -> None:
    directory = Directory(Configured(), stored(User("ann"), tokens=(token("t", "ann", expires_at=NOW + 5),)))
    assert isinstance(directory.find(digest("t"), NOW), Access)
    assert directory.find(digest("t"), NOW + 5) is Denied.EXPIRED


def test_the_configurations_user_counts() -> None:
    configured = Configured(
        {"ann": User("ann", role=Role.ADMIN, configured=True)}, {}, {digest("c"): token("c", "ann")}
    )
    directory = Directory(configured, stored(User("ann"), User("bob"), tokens=(token("t", "ann"),)))
    for name in ("c", "t"):
        access = directory.find(digest(name), NOW)
        assert isinstance(access, Access)
        assert access.user.role is Role.ADMIN
    assert directory.users.keys() == {"ann", "bob"}


def test_reserved_groups_and_members() -> None:
    configured = Configured(
        {"ci-bot": User("ci-bot", groups=("ci",))}, {"ci": Group("ci", reserved=True)}, {}, frozenset({"eu"})
    )
    directory = Directory(configured, stored(User("ann", groups=("eu", "ci")), groups=(Group("paid"),)))
    assert directory.reserved == {"ci"}
    assert directory.known_groups() == {"ci", "eu", "paid"}
    assert directory.members("ci") == ["ann", "ci-bot"]


def test_changes_leave_the_older_copy_as_it_was() -> None:
    first = stored(User("ann"), User("bob"), tokens=(token("t", "ann"),))
    second = first.changed(
        2,
        users={"bob": None, "eve": User("eve")},
        groups={"g": Group("g")},
        tokens=[token("t", "ann", revoked_at=NOW)],
        subjects={("", "s1"): True, ("", "s2"): True},
    )
    third = second.changed(3, users={}, groups={"g": None}, tokens=[], subjects={("", "s1"): False})
    assert first.users.keys() == {"ann", "bob"}
    assert second.users.keys() == {"ann", "eve"}
    assert Directory(Configured(), first).find(digest("t"), NOW) is not Denied.REVOKED
    assert Directory(Configured(), second).find(digest("t"), NOW) is Denied.REVOKED
    assert (second.groups.keys(), third.groups.keys()) == ({"g"}, set())
    assert (second.subjects, third.subjects) == ({("", "s1"), ("", "s2")}, {("", "s2")})


def test_empty_means_that_nobody_was_ever_given_access() -> None:
    assert Directory(Configured(), Stored()).empty
    assert not Directory(Configured(), stored(User("ann"))).empty
    assert not Directory(Configured(), stored(tokens=(token("t", "ann", revoked_at=1),))).empty
