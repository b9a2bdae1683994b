"""What an upstream can do to a request, and what a client may see of it."""

from __future__ import annotations

import random
from collections.abc import Collection

MASKED = (
    "429:1",
    "429:2:5h",
    "429:2:7d",
    "500",
    "502",
    "503",
    "503:1",
    "504",
    "529",
    "401",
    "403:revoked",
    "drop",
    "drop:rst",
    "early,500",
    "overload",
    "overload-error",
    "slow-start:0.3",
    "interim:3",
    "stale",
)
"""Failures of one account that no client has to notice."""
REFUSED = {"401": "401", "403:revoked": "401:revoked"}
"""Those that are about the access token, and what OpenAI says in their place."""
SEEN: dict[str, tuple[tuple[str, ...], int | None]] = {
    # The upstream dies when the client has bytes already. Of a message that is no stream no event can tell.
    "reset:2": (("told", "broken"), 200),
    "end:2": (("told", "torn"), 200),
    "cut:2": (("broken",), 200),
    "stall:4": (("told",), 200),
    "overload:2": (("failed",), 200),
    "overload-error:2": (("failed",), 200),
    # It says no, and another account would say the same; or it says nothing.
    **{str(status): (("failed",), status) for status in (400, 403, 404, 405, 413, 422, 426, 501)},
    "429": (("failed",), 429),
    "429:extra-usage": (("failed",), 429),
    "307": (("failed",), None),
    "hang": (("failed",), None),  # 504, or what another account had answered before
}
"""Those that a client notices: how, and with which status."""
REFUSALS = ("500", "502", "503", "404", "429", "drop", "drop:rst")
"""Of a token endpoint, for now."""


class Turns:
    """One after the other, in any order, before any comes again."""

    def __init__(self, kinds: Collection[str], dice: random.Random) -> None:
        self._kinds = list(kinds)
        self._dice = dice
        self._left: list[str] = []

    def draw(self) -> str:
        if not self._left:
            self._left = self._dice.sample(self._kinds, len(self._kinds))
        return self._left.pop()

    def put_back(self, kind: str) -> None:
        """It did not come about: later, then."""
        self._left.insert(0, kind)
