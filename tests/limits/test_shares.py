"""Nodes that share a budget: in any order of requests and exchanges with the database, it holds."""

from __future__ import annotations

import itertools
from datetime import UTC

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aimux.limits.history import History, Told, Use
from aimux.limits.leases import Limits, Refusal
from aimux.limits.rules import ANYTHING, EVERYBODY, Key, Owner, Policy, Rule, Who
from aimux.limits.shares import LATELY_SECONDS, LOST_SECONDS, Claims, Piece, Place, next_share
from aimux.limits.sums import Lease, place_of
from aimux.limits.windows import bounds

NOW = 1_792_000_000.0
ALICE = Who("alice")
PLACE_START = int(bounds("month", NOW, UTC)[0] * 1000)
IDS = itertools.count()
NODES = 3


class Nodes(RuleBasedStateMachine):
    @initialize(whole=st.integers(0, 100_000))
    def begin(self, whole: int) -> None:
        self.whole = whole
        policy = Policy((Rule(EVERYBODY, "tokens_per_month", whole),))
        self.claims = [Claims() for _ in range(NODES)]
        for claims in self.claims:
            claims.nodes = NODES
        self.nodes = [Limits(policy, UTC, claims=claims) for claims in self.claims]
        self.open: list[tuple[Limits, Lease]] = []
        self.pieces: dict[int, tuple[Place, Piece]] = {}
        self.largest = 0
        """Tokens of a request."""

    @rule(at=st.integers(0, NODES - 1), size=st.integers(0, 2000), times=st.sampled_from([1, 1, 5, 50]))
    def reserve(self, at: int, size: int, times: int) -> None:
        for _ in range(times):
            answer = self.nodes[at].reserve(self.nodes[at].plan(self.nodes[at].terms(ALICE), "p", "m", NOW), size, NOW)
            if not isinstance(answer, Refusal):
                self.open.append((self.nodes[at], answer))
                self.largest = max(self.largest, answer.tokens)

    @rule(data=st.data(), part=st.floats(0, 1))
    def settle(self, data: st.DataObject, part: float) -> None:
        if self.open:
            node, lease = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            node.settle(lease, int(lease.size * part / 4), int((lease.tokens - lease.size / 4) * part), 0)

    @rule(order=st.permutations(range(NODES)), idle=st.sets(st.integers(0, NODES - 1)))
    def exchange(self, order: list[int], idle: set[int]) -> None:
        """A round: one node after another hears of the others, and takes or returns a piece."""
        for at in order:
            for other, (place, piece) in self.pieces.items():
                if other != at:
                    self.claims[at].heard(place, str(other), piece)
            for budget in self.nodes[at].budgets():
                stamp, heard = next(IDS), self.claims[at].clock()
                if at in idle:
                    budget.release()
                    self.pieces[at] = budget.place, Piece(budget.ceiling, 0, budget.gone, stamp, heard)
                else:
                    share = budget.offer(NOW)
                    self.pieces[at] = budget.place, Piece(share, 0, budget.gone, stamp, heard)
                    budget.take_piece(budget.place, share, NOW)
            self.claims[at].round += 1

    @invariant()
    def the_budget_holds(self) -> None:
        if hasattr(self, "nodes"):
            spent = sum(b.used + b.reserved for node in self.nodes for b in node.budgets())
            assert spent <= self.whole + NODES * self.largest


TestNodes = Nodes.TestCase
TestNodes.settings = settings(max_examples=100, stateful_step_count=60)


def test_a_single_node_gets_to_the_last_token() -> None:
    gone, share = 0, 0
    for _ in range(64):
        share = next_share(1000, gone, [], NOW, nodes=1)
        if share <= gone:
            break
        gone = share
    assert gone >= 998


def test_of_a_node_that_is_dead_the_ledger_counts_and_later_the_rest_goes_back() -> None:
    dead = Piece(share=900, used=60, told=100, stamp=1, heard=NOW)
    assert next_share(1000, 0, [dead], NOW, nodes=1) == 100
    assert (dead.gone(NOW), dead.gone(NOW + LATELY_SECONDS + 1)) == (100, 60)
    assert dead.held(NOW + LATELY_SECONDS + 1) == 900, "it may serve, and have lost only the database"
    assert dead.held(NOW + LOST_SECONDS + 1) == 60
    assert next_share(1000, 0, [dead], NOW + LOST_SECONDS + 1, nodes=1) == 940 // 3


def test_a_node_is_as_old_as_what_it_said_last_however_often_that_is_read() -> None:
    place, clock = Place("x", 0), [0.0]
    claims = Claims(lambda: clock[0])
    for at, stamp, gone in ((0.0, 1, 7), (20.0, 1, 7), (40.0, 1, 0), (40.0, 2, 7)):
        clock[0] = at
        claims.heard(place, "other", Piece(0, 0, 7, stamp, at))
        assert claims.gone(place) == gone


def test_what_others_used_of_windows_that_are_long_over_is_forgotten() -> None:
    """By the period's length: of 2,000 people's days one month took 100 MB."""
    claims, piece = Claims(), Piece(0, 1, 1, 1, 0.0)
    places = {
        (period, days): place_of(Key(Owner("user", '\\"_per_day"'), f"cost_per_{period}", ANYTHING), NOW - days * 86400)
        for period, kept in (("day", 3), ("week", 10), ("month", 40))
        for days in (kept - 1, kept + 1)
    }
    places["open", 0] = place_of(Key(EVERYBODY, "concurrent_requests", ANYTHING), 0)
    places["of another version", 39] = Place("x", int((NOW - 39 * 86400) * 1000))
    for place in places.values():
        claims.heard(place, "other", piece)
    claims.forget(int(NOW * 1000))
    known = [name for name, place in places.items() if claims.gone(place)]
    assert known == [("day", 2), ("week", 9), ("month", 39), ("open", 0), ("of another version", 39)]


def test_what_was_used_before_counts_once_for_all() -> None:
    claims = Claims()
    claims.nodes = 2
    node = Limits(Policy(), UTC, claims=claims)
    place = Place('["user", "alice", "tokens_per_month", "", ""]', PLACE_START)
    claims.heard(place, "other", Piece(400, 300, 300, 1, claims.clock()))
    uses = {PLACE_START / 1000: [Use("alice", "", (), "p", "m", 800, 0)]}
    node.adopt(Policy((Rule(EVERYBODY, "tokens_per_month", 1000),)), UTC, NOW, History(uses, {place: Told(300)}))
    [standing] = node.standings(ALICE, NOW)
    assert standing.used == 800
    [budget] = node.budgets()
    assert budget.ceiling == min((1000 - 500 - 300) // 6, 1000 - 500 - 400)
