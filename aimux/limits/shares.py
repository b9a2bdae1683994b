"""How nodes that share a database share limits. Of a budget each takes a piece in advance, and returns what it does not
need.

A node admits requests against its piece alone and never waits for the database; so a budget is overrun by at most one
request of a user on each node (counters.py says which). What a node knows of the others is a second old (exchange.py).

A piece is what is gone of the budget here and a third of what is left, divided by the nodes. They are taken one after
another (the database has a lock for that), each by what those before it have, and used when that is committed: together
they are never more than the whole. But a node's first piece, for somebody who has not been there lately, is taken at
once, by what was so a second ago. All nodes may do that at the same moment: a third of what is left, and in that second
the others have taken less than the rest.

What is open at once and what is asked a minute is too little to be divided (four requests among three nodes): each node
counts its own and what the others had a second ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LATELY_SECONDS = 30.0
"""What a node that has not been heard of for so long had open, or asked for, counts no more."""
LOST_SECONDS = 3600.0
"""A node that has not been heard of for so long gets nothing more: what it had left goes back."""


class Place(NamedTuple):
    """A window of a budget: what is counted together, and when it began (milliseconds)."""

    counter: str
    start: int


class Piece(NamedTuple):
    """One node's part of a budget as the database has it, as of `heard` (unix seconds)."""

    share: int
    used: int
    """Settled."""
    reserved: int
    heard: float

    @property
    def gone(self) -> int:
        return self.used + self.reserved

    def held(self, now: float) -> int:
        """What nobody else may use."""
        return self.gone if now - self.heard > LOST_SECONDS else max(self.share, self.gone)


def next_share(whole: int, gone: int, others: Iterable[Piece], now: float, *, nodes: int) -> int:
    """This node's new piece of `whole`, with `gone` of it used or reserved here."""
    others = list(others)
    left = whole - gone - sum(piece.gone for piece in others)
    ahead = max(0, left) // (3 * max(1, nodes))
    free = whole - sum(piece.held(now) for piece in others)
    return max(0, min(gone + ahead, free))


class Shared(Protocol):
    """A budget of which this node has a piece (`counters.Budget`)."""

    @property
    def ceiling(self) -> int:
        """What it may use."""

    @property
    def used(self) -> int: ...

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
    """What one node knows of everybody's pieces. `round` counts the exchanges with the database."""

    def __init__(self) -> None:
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
        """Another node's piece."""
        self._others.setdefault(place, {})[node] = piece

    def forget(self, before: int) -> None:
        """Windows that began before then are over."""
        for place in [place for place in self._others if 0 < place.start < before]:
            del self._others[place]

    def lately(self, place: Place, now: float) -> int:
        """What the others have open, or asked for within a minute, as far as they have told lately."""
        pieces = self._others.get(place)
        if not pieces:
            return 0
        for node in [node for node, piece in pieces.items() if now - piece.heard > LATELY_SECONDS or not piece.used]:
            del pieces[node]
        return sum(piece.used for piece in pieces.values())

    def gone(self, place: Place) -> int:
        """What the others have used or reserved."""
        return sum(piece.gone for piece in self._others.get(place, {}).values())

    def share(self, place: Place, whole: int, gone: int, now: float) -> int:
        return next_share(whole, gone, self._others.get(place, {}).values(), now, nodes=self.nodes)
