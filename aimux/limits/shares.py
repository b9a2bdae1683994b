"""How nodes that share a database share a budget: each takes a piece in advance, and returns what it won't need.

A node admits requests against its piece alone and never waits for the database; so a budget is overrun by at most one
request of a user on each node (counters.py says which). What a node knows of the others is a second old (exchange.py).

A piece is what is gone of the budget here and a third of what is left, divided by the nodes. All nodes may take that at
once, and what they took a round ago may be gone meanwhile: together that is two thirds, and the last one is for a node
that has just come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.limits.counters import Budget

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


class Claims:
    """What one node knows of everybody's pieces. `round` counts the exchanges with the database."""

    def __init__(self) -> None:
        self.nodes = 1
        self.round = 0
        self.touched: set[Budget] = set()
        """What was asked for since the last round."""
        self._others: dict[Place, dict[str, Piece]] = {}

    def heard(self, place: Place, node: str, piece: Piece) -> None:
        """Another node's piece."""
        self._others.setdefault(place, {})[node] = piece

    def forget(self, before: int) -> None:
        """Windows that began before then are over."""
        for place in [place for place in self._others if place.start < before]:
            del self._others[place]

    def gone(self, place: Place) -> int:
        """What the others have used or reserved."""
        return sum(piece.gone for piece in self._others.get(place, {}).values())

    def share(self, place: Place, whole: int, gone: int, now: float) -> int:
        return next_share(whole, gone, self._others.get(place, {}).values(), now, nodes=self.nodes)
