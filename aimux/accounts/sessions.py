"""Which account a conversation is on, so that its prompt cache lives. Soft: whoever can't use it starts afresh."""

from __future__ import annotations

import hashlib
from collections import OrderedDict


class Sessions:
    """At most `most` sessions, the least recently used goes first; each is forgotten `lifetime` seconds after its
    last use."""

    def __init__(self, lifetime: float, most: int) -> None:
        self._lifetime = lifetime
        self._most = most
        self._entries: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, session: str, now: float) -> str | None:
        """The account's name."""
        entry = self._entries.get(_short(session))
        return entry[0] if entry is not None and now - entry[1] <= self._lifetime else None

    def put(self, session: str, account: str, now: float) -> None:
        """It was used, or moved."""
        entries, session = self._entries, _short(session)
        entries[session] = (account, now)
        entries.move_to_end(session)
        while entries:
            oldest = next(iter(entries))
            if len(entries) <= self._most and now - entries[oldest][1] <= self._lifetime:
                break
            del entries[oldest]

    def rename(self, account: str, new: str) -> None:
        """An account has another name now; its conversations stay with it."""
        for session, (name, used) in self._entries.items():
            if name == account:
                self._entries[session] = (new, used)


def _short(session: str) -> str:
    """Clients choose the keys; a long one must not cost long memory."""
    return session if len(session) <= 64 else hashlib.blake2b(session.encode(), digest_size=16).hexdigest()
