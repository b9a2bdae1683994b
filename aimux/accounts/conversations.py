"""Which account a conversation is on, so that its prompt cache lives. Soft: whoever can't use it starts afresh."""

from __future__ import annotations

import hashlib
from collections import OrderedDict


class Conversations:
    """At most `most` conversations, the least recently used goes first; each is forgotten `lifetime` seconds after its
    last use."""

    def __init__(self, lifetime: float, most: int) -> None:
        self._lifetime = lifetime
        self._most = most
        self._entries: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, conversation: str, now: float) -> str | None:
        """The account's name."""
        entry = self._entries.get(_short(conversation))
        return entry[0] if entry is not None and now - entry[1] <= self._lifetime else None

    def put(self, conversation: str, account: str, now: float) -> None:
        """It was used, or moved."""
        entries, conversation = self._entries, _short(conversation)
        entries[conversation] = (account, now)
        entries.move_to_end(conversation)
        while entries:
            oldest = next(iter(entries))
            if len(entries) <= self._most and now - entries[oldest][1] <= self._lifetime:
                break
            del entries[oldest]

    def rename(self, account: str, new: str) -> None:
        """An account has another name now; its conversations stay with it."""
        for conversation, (name, used) in self._entries.items():
            if name == account:
                self._entries[conversation] = (new, used)


def _short(conversation: str) -> str:
    """Clients choose the keys; a long one must not cost long memory."""
    return (
        conversation if len(conversation) <= 64 else hashlib.blake2b(conversation.encode(), digest_size=16).hexdigest()
    )
