"""How nodes that share a database share a budget: each takes a piece in advance, and returns what it won't need.

A node admits requests against its piece alone and never waits for the database; so a budget is overrun by at most one
request of a user on each node (counters.py says which).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

LOST_SECONDS = 3600.0
"""A node that has not been heard of for so long gets nothing more: what it had left goes back."""


class Piece(NamedTuple):
    """One node's part of a budget as the database has it, as of `heard` (unix seconds)."""

    share: int
    used: int
    """Settled, and held by requests that are under way."""
    heard: float

    def held(self, now: float) -> int:
        """What nobody else may use."""
        return self.used if now - self.heard > LOST_SECONDS else max(self.share, self.used)


def next_share(whole: int, used: int, others: Iterable[Piece], now: float, *, nodes: int) -> int:
    """This node's new piece of `whole`, with `used` of it gone here.

    Half of what is left over is divided among the nodes in advance: much while there is much, so that hardly anything
    has to be asked for, and little towards the end, so that no node sits on what another one could use.
    """
    others = list(others)
    spent = used + sum(piece.used for piece in others)
    ahead = max(0, whole - spent) // (2 * max(1, nodes))
    free = whole - sum(piece.held(now) for piece in others)
    return max(0, min(used + ahead, free))
