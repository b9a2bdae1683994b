"""Fair share, in virtual time: people with their own appetites on one account's window of five hours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.limits.fair import Person, SharedWindow, divide

HOURS = 3600.0
RESET = 5 * HOURS
STEP = 20.0
CAPACITY = 1000.0
"""Units that fill the window."""


@dataclass
class Member:
    """Asks for `units` every `every` seconds while `times` say so, and takes what is allowed."""

    name: str
    times: tuple[tuple[float, float], ...]
    units: float = 2.0
    every: float = 20.0
    weight: float = 1.0
    got: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def wants(self, now: float) -> bool:
        return any(start <= now < end for start, end in self.times) and now % self.every < STEP

    def total(self, since: float = 0.0) -> float:
        return sum(units for at, units in self.got if at >= since)


def run(*members: Member) -> SharedWindow:
    """Five hours. Requests last one step; the vendor tells of hundredths."""
    window, used, under_way = SharedWindow(), 0.0, list[tuple[Member, float]]()
    window.observe(0.0, RESET, 0.0)
    now = 0.0
    while now < RESET:
        for member, units in under_way:
            used += units
            window.metered(member.name, units, now)
            member.got.append((now, units))
        under_way.clear()
        window.observe(math.floor(used / CAPACITY * 100) / 100, RESET, now)
        for member in members:
            if member.wants(now):
                window.asked(member.name, member.weight, now)
                if window.room(member.name, member.weight, now) > 0:
                    under_way.append((member, member.units))
                else:
                    member.refused.append(now)
        now += STEP
    return window


ALWAYS = ((0.0, RESET),)


def test_who_is_alone_has_everything() -> None:
    alice = Member("alice", ALWAYS)
    run(alice)
    assert alice.total() == pytest.approx(CAPACITY, abs=12)


def test_equals_have_equal_shares() -> None:
    members = [Member(name, ALWAYS) for name in ("alice", "bob", "carol")]
    run(*members)
    assert sum(m.total() for m in members) == pytest.approx(CAPACITY, abs=12)
    for member in members:
        assert member.total() == pytest.approx(CAPACITY / 3, rel=0.03)


def test_shares_go_by_weight() -> None:
    alice, bob = Member("alice", ALWAYS, weight=3.0), Member("bob", ALWAYS)
    run(alice, bob)
    assert alice.total() == pytest.approx(750, rel=0.03)
    assert bob.total() == pytest.approx(250, rel=0.06)


def test_what_a_modest_one_leaves_is_lent_and_nothing_is_left_in_the_end() -> None:
    """Bob asks every five minutes: he gets all that he asks for, and alice the rest, not half of it."""
    alice, bob = Member("alice", ALWAYS), Member("bob", ALWAYS, every=300.0)
    run(alice, bob)
    assert not bob.refused
    assert bob.total() == pytest.approx(2.0 * RESET / 300, abs=3)
    assert alice.total() + bob.total() == pytest.approx(CAPACITY, abs=12)


def test_a_returning_owner_has_his_share_of_what_is_left_at_once() -> None:
    """Alice has used the most of it alone; from bob's first request on she waits, but for what is under way."""
    alice, bob = Member("alice", ALWAYS), Member("bob", ((2 * HOURS, RESET),))
    run(alice, bob)
    before = sum(units for at, units in alice.got if at < 2 * HOURS)
    assert before == pytest.approx(720, abs=10)
    assert not bob.refused or bob.refused[0] > 2 * HOURS + 130 * 20, "until nothing is left for anybody"
    late = [at for at, _ in alice.got if at > 2 * HOURS + STEP]
    assert not late, "one request's length after his return, she borrows nothing"
    assert bob.total() == pytest.approx(CAPACITY - before, abs=12)


def test_an_owner_who_comes_back_finds_a_share_that_was_lent_meanwhile() -> None:
    """Bob works in the first and the last hour: in between alice may have his part, but not what he can still use."""
    alice = Member("alice", ALWAYS, units=0.9)
    bob = Member("bob", ((0.0, HOURS), (3 * HOURS, RESET)), units=1.0)
    run(alice, bob)
    assert not [at for at in bob.refused if bob.total() < CAPACITY / 2 and at < RESET - HOURS]
    assert bob.total() >= 0.98 * min(CAPACITY / 2, HOURS / 20 + 2 * HOURS / 20)


def test_a_new_window_begins_with_nothing_used() -> None:
    window = SharedWindow()
    window.observe(0.9, 100.0, 0.0)
    window.asked("alice", 1.0, 0.0)
    window.metered("alice", 5.0, 1.0)
    window.observe(1.0, 100.0, 2.0)
    assert window.room("alice", 1.0, 3.0) == 0
    assert window.room("alice", 1.0, 101.0) > 0, "the reset is over, though nobody has told the new figure yet"
    window.observe(0.0, 18100.0, 102.0)
    assert window.used_by("alice") == 0
    assert window.room("alice", 1.0, 102.0) == pytest.approx(1.0)


@pytest.mark.parametrize("resets_at", [RESET, None])
def test_who_is_active_has_his_share_kept_from_his_first_request_on(resets_at: float | None) -> None:
    """As long as he asks, or as what he has asked for ends; without a known reset nobody knows what he will want."""
    window = SharedWindow()
    window.observe(0.0, resets_at, 0.0)
    window.asked("alice", 1.0, 0.0)
    assert window.room("alice", 1.0, 0.0) == 1.0
    window.asked("bob", 3.0, 0.0)
    assert window.room("alice", 1.0, 0.0) == pytest.approx(0.25), "at once"
    window.metered("bob", 1.0, 500.0)
    window.metered("nobody", 1.0, 500.0)
    assert window.room("alice", 1.0, 599.0) == pytest.approx(0.25)
    later = window.room("alice", 1.0, 1000.0)
    assert later == pytest.approx(0.25) if resets_at is None else later == 1.0, "he is known to want nothing"
    window.metered("bob", 1.0, 1050.0)
    assert window.room("alice", 1.0, 1601.0) == pytest.approx(0.25 if resets_at is None else 1.0)
    assert window.room("alice", 1.0, 1651.0) == 1.0, "he has left"
    window.asked("bob", 3.0, 1651.0)
    assert window.room("alice", 1.0, 1651.0) == pytest.approx(0.25), "he is back, and wants what he can get"


def test_who_asked_while_the_clock_was_a_day_ahead_is_gone_as_soon_as_others() -> None:
    window, day = SharedWindow(), 86400.0
    window.observe(0.0, 3 * day, 0.0)
    for name in ("ann", "bob"):
        window.asked(name, 1.0, day)
        assert window.room(name, 1.0, day) == pytest.approx(0.5 if name == "bob" else 1.0)
    window.asked("bob", 1.0, 10.0)
    assert window.room("bob", 1.0, 10.0) == pytest.approx(0.5), "ann may be there"
    window.asked("bob", 1.0, 700.0)
    assert window.room("bob", 1.0, 700.0) == 1.0


def test_use_past_aimux_is_nobodys() -> None:
    window = SharedWindow()
    window.observe(0.0, RESET, 0.0)
    for name in ("alice", "bob"):
        window.asked(name, 1.0, 0.0)
    window.observe(0.6, RESET, 1.0)
    assert window.used_by("alice") == 0
    assert window.room("alice", 1.0, 1.0) == pytest.approx(0.2)


people = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.builds(
        Person,
        st.floats(0, 1),
        st.floats(0.1, 10),
        st.one_of(st.just(math.inf), st.floats(0, 1)),
    ),
    max_size=8,
)


@given(people, st.floats(0, 1))
def test_a_division_is_fair(people: dict[str, Person], left: float) -> None:
    parts = divide(left, people)
    wanted = sum(person.wants for person in people.values())
    assert sum(parts.values()) == pytest.approx(min(left, wanted), abs=1e-6), "all of it, if somebody wants it"
    levels = {name: (person.used + parts[name]) / person.weight for name, person in people.items()}
    for name, person in people.items():
        assert -1e-9 <= parts[name] <= person.wants + 1e-9
        if parts[name] < person.wants - 1e-6:  # wants more: then nobody who was given anything stands higher
            for other in people:
                if parts[other] > 1e-6:
                    assert levels[other] <= levels[name] + 1e-4
