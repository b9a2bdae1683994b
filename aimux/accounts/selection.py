"""Which account serves a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Selection:
    """What a request needs. `groups` None: the user may use every account; a set: those of one of these groups, and
    accounts without groups. `session` should name the user too, so that users don't share their conversations' keys."""

    model: str = ""
    session: str | None = None
    exclude: frozenset[str] = frozenset()
    groups: frozenset[str] | None = None
    pinned: str | None = None
