"""Nodes that share a budget: in any order of requests and exchanges with the database, it holds."""

from __future__ import annotations

import itertools
from datetime import UTC

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aimux.limits.leases import Lease, Limits, Refusal
from aimux.limits.rules import EVERYBODY, Policy, Rule, Who
from aimux.limits.shares import LOST_SECONDS, Piece, next_share

NOW = 1_792_000_000.0
ALICE = Who("alice")
IDS = itertools.count()
NODES = 3
LARGEST = 500 + 10_000 // 4
"""Tokens of the largest request here."""


class Nodes(RuleBasedStateMachine):
    @initialize(whole=st.integers(0, 60_000))
    def begin(self, whole: int) -> None:
        self.now = NOW
        self.whole = whole
        policy = Policy((Rule(EVERYBODY, "tokens_per_month", whole),))
        self.nodes = [Limits(policy, UTC) for _ in range(NODES)]
        self.open: list[tuple[Limits, Lease]] = []
        self.rows: dict[int, Piece] = {}
        for node in self.nodes:
            node.standings(ALICE, self.now)
            for budget in node.budgets():
                budget.take_share(0)

    @rule(at=st.integers(0, NODES - 1), size=st.integers(0, 10_000))
    def reserve(self, at: int, size: int) -> None:
        answer = self.nodes[at].reserve(f"r-{next(IDS)}", ALICE, "p", "m", size, self.now)
        if not isinstance(answer, Refusal):
            self.open.append((self.nodes[at], answer))

    @rule(data=st.data(), part=st.floats(0, 1))
    def settle(self, data: st.DataObject, part: float) -> None:
        if self.open:
            node, lease = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            node.settle(lease, int(lease.size * part / 4), int((lease.amounts[1] - lease.size / 4) * part), 0)

    @rule(at=st.integers(0, NODES - 1))
    def exchange(self, at: int) -> None:
        [budget] = self.nodes[at].budgets()
        used = budget.used + budget.reserved
        others = [piece for node, piece in self.rows.items() if node != at]
        share = next_share(self.whole, used, others, self.now, nodes=NODES)
        budget.take_share(share)
        self.rows[at] = Piece(share, used, self.now)

    @invariant()
    def the_budget_holds(self) -> None:
        if hasattr(self, "nodes"):
            spent = sum(b.used + b.reserved for node in self.nodes for b in node.budgets())
            assert spent <= self.whole + NODES * LARGEST


TestNodes = Nodes.TestCase
TestNodes.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_a_single_node_gets_to_the_last_token() -> None:
    used, share = 0, 0
    for _ in range(64):
        share = next_share(1000, used, [], NOW, nodes=1)
        if share <= used:
            break
        used = share
    assert used >= 999


def test_what_a_lost_node_had_left_goes_back() -> None:
    lost = Piece(share=900, used=100, heard=NOW)
    assert next_share(1000, 0, [lost], NOW, nodes=1) == 100
    assert next_share(1000, 0, [lost], NOW + LOST_SECONDS + 1, nodes=1) == 450
