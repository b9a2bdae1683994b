"""How nodes that share a database share limits. Of a budget each takes a piece in advance, and returns what it does not
need.

A node admits requests against its piece alone and never waits for the database; so a budget is overrun by at most one
request of a user on each node (counters.py says which). What a node knows of the others is a second old (exchange.py).

A piece is what is gone of the budget here and a third of what is left, divided by the nodes, or as much as a request
wants that had no room in the piece before. They are taken one after
another (the database has a lock for that), each by what those before it have, and used when that is committed: together
they are never more than the whole. But a node's first piece, for somebody who has not been there lately, is taken at
once, by what was so a second ago. All nodes may do that at the same moment: a third of what is left, and in that second
the others have taken less than the rest.

What is open at once and what is asked a minute is too little to be divided (four requests among three nodes): each node
counts its own and what the others had a second ago.

What a node has used and what it tells to be gone are two things. The first is written in the transaction in which the
ledger takes the node's requests, and is all that counts of one that is dead: so a request that the ledger got from it,
or gets from whoever finds its spill file, counts once.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aimux.limits.rules import Key

LATELY_SECONDS = 30.0
"""What a node that has not been heard of for so long had open, or asked for, counts no more: but for what the ledger
has of it."""
LOST_SECONDS = 3600.0
"""A node that has not been heard of for so long gets nothing more: what it had left goes back."""
DAY = 86_400_000
KEPT = {"day": 3 * DAY, "week": 10 * DAY, "month": 40 * DAY}
"""Milliseconds after its start for which what is known of a window is kept: some days longer than it lasts, for clocks
that are wrong and for what the ledger gets late."""
PERIOD = r'^\["[a-z]*", "(?:[^"\\]|\\.)*", "[a-z]+_per_([a-z]+)"'
"""Finds it in a counter's name (sums.py), in the database too: an owner's or a model's name may hold anything."""


class Place(NamedTuple):
    """A window of a budget: what is counted together, and when it began (milliseconds)."""

    counter: str
    start: int


class Piece(NamedTuple):
    """One node's part of a budget, or what it has of what has no window, as the database says."""

    share: int
    used: int
    """In the ledger."""
    told: int
    """Used or reserved, as the node said last."""
    stamp: int
    """The database's, another one each time that the node is heard of."""
    heard: float
    """When it was, by `Claims.clock`."""

    def gone(self, now: float) -> int:
        """What counts of it. Of a node that is dead, nothing that is not in the ledger."""
        return max(self.told, self.used) if now - self.heard <= LATELY_SECONDS else self.used

    def held(self, now: float) -> int:
        """What nobody else may use."""
        gone = self.gone(now)
        return gone if now - self.heard > LOST_SECONDS else max(self.share, gone)


def next_share(whole: int, gone: int, others: Iterable[Piece], now: float, *, nodes: int, wanted: int = 0) -> int:
    """This node's new piece of `whole`, with `gone` of it used or reserved here; `wanted`, if there is so
    much."""
    others = list(others)
    left = whole - gone - sum(piece.gone(now) for piece in others)
    ahead = max(0, left) // (3 * max(1, nodes))
    free = whole - sum(piece.held(now) for piece in others)
    return max(0, min(max(gone + ahead, wanted if wanted <= free else 0), free))


class Shared(Protocol):
    """A budget of which this node has a piece (`budget.Budget`)."""

    key: Key

    @property
    def ceiling(self) -> int:
        """What it may use."""

    @property
    def gone(self) -> int:
        """What is used or reserved here."""

    @property
    def reserved(self) -> int: ...

    @property
    def place(self) -> Place: ...

    def offer(self, now: float) -> int:
        """What this node's next piece would be. If that is less than the one it has, the rest is returned now."""

    def take_piece(self, place: Place, piece: int, now: float) -> None:
        """It is this node's, for everybody to see."""

    def release(self) -> None:
        """Return what is not gone."""


class Told(Protocol):
    """What has no window, and is told to the other nodes (`counters.Rolling`)."""

    place: Place

    def own(self, now: float) -> int:
        """What counts of this node."""


class Claims:
    """What one node knows of everybody's pieces. `round` counts the exchanges with the database, those that failed
    too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds. How long ago a node was heard of is nothing that a clock which is set may change."""
        self.clock = clock
        self.nodes = 1
        self.round = 0
        self.touched: set[Shared] = set()
        """What was asked for since the last round."""
        self.on_low: Callable[[], None] = lambda: None
        """Told that a budget's next piece is needed soon."""
        self.rolling: set[Told] = set()
        """What is open here, or was asked for within a minute."""
        self._others: dict[Place, dict[str, Piece]] = {}

    def ask(self, budget: Shared) -> None:
        """Have the exchange bring another piece, soon."""
        self.touched.add(budget)
        self.on_low()

    def heard(self, place: Place, node: str, piece: Piece) -> None:
        """Another node's piece. One with the same stamp is known already, but for what its requests cost whose price
        was not known before."""
        known = self._others.setdefault(place, {})
        if node not in known or known[node].stamp != piece.stamp:
            known[node] = piece
        else:
            known[node] = known[node]._replace(used=piece.used)

    def forget(self, at: int) -> None:
        """What has been over for long at that time (milliseconds)."""
        for place in [place for place in self._others if 0 < place.start < at - _kept(place)]:
            del self._others[place]

    def gone(self, place: Place) -> int:
        """What the others have used or reserved; of what has no window, what they have open or asked for lately."""
        pieces = self._others.get(place)
        if not pieces:
            return 0
        now = self.clock()
        for node in [node for node, piece in pieces.items() if not piece.held(now)]:
            del pieces[node]
        return sum(piece.gone(now) for piece in pieces.values())

    def share(self, place: Place, whole: int, gone: int, wanted: int = 0) -> int:
        others = self._others.get(place, {}).values()
        return next_share(whole, gone, others, self.clock(), nodes=self.nodes, wanted=wanted)


def _kept(place: Place) -> int:
    found = re.match(PERIOD, place.counter)
    return KEPT.get(found[1] if found is not None else "", KEPT["month"])
