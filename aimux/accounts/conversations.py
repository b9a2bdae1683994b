"""Which account a conversation is on, to keep its prompt cache. Not binding: without that account it starts afresh."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import NamedTuple

MOST, LIFETIME = 20_000, 3600.0
"""How many conversations are known, the least recently used goes first; and seconds after their last use for which."""


class Stay(NamedTuple):
    """The account that is a conversation's home, and the one that serves it while its home can't."""

    home: str
    used: float
    served: bool = False
    """The home has answered it: there may be a cache to go back to."""
    host: str = ""


class Conversations:
    """By the client's key."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._entries: OrderedDict[str, Stay] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, conversation: str, now: float) -> Stay | None:
        stay = self._entries.get(_short(conversation))
        return stay if stay is not None and now - stay.used <= LIFETIME else None

    def put(self, conversation: str, stay: Stay) -> None:
        """It was used at `stay.used`, or moved."""
        entries, conversation, now = self._entries, _short(conversation), stay.used
        entries[conversation] = stay
        entries.move_to_end(conversation)
        while entries:
            oldest = next(iter(entries))
            if len(entries) <= self._most and now - entries[oldest].used <= LIFETIME:
                break
            del entries[oldest]

    def served(self, conversation: str, account: str) -> None:
        """An account has answered it: that is its home, unless another one has answered it before."""
        conversation = _short(conversation)
        stay = self._entries.get(conversation)
        if stay is not None and not stay.served:
            self._entries[conversation] = Stay(account, stay.used, served=True)

    def rename(self, account: str, new: str) -> None:
        """An account has another name now; its conversations stay with it."""
        for conversation, (home, used, served, host) in self._entries.items():
            if account in {home, host}:
                moved = (new if name == account else name for name in (home, host))
                self._entries[conversation] = Stay(next(moved), used, served, next(moved))


def _short(conversation: str) -> str:
    """Clients choose the keys; a long one must not cost long memory."""
    return (
        conversation if len(conversation) <= 64 else hashlib.blake2b(conversation.encode(), digest_size=16).hexdigest()
    )
