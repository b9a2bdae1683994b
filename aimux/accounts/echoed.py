"""What answers gave clients to send back in a header (`Provider.echoed_header`), and which account gave it."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

MOST = 10_000
"""Values; the oldest goes first. Each lasts for one turn of an agent."""


class Echoed:
    """By value."""

    def __init__(self) -> None:
        self._givers: OrderedDict[bytes, str] = OrderedDict()

    def note(self, value: str, account: str) -> None:
        """An answer of this account gave it."""
        givers, key = self._givers, _key(value)
        givers[key] = account
        givers.move_to_end(key)
        if len(givers) > MOST:
            givers.popitem(last=False)

    def is_anothers(self, value: str, account: str) -> bool:
        """Whether it is known to come from another account."""
        return self._givers.get(_key(value), account) != account

    def rename(self, account: str, new: str) -> None:
        """An account has another name now."""
        for key, giver in self._givers.items():
            if giver == account:
                self._givers[key] = new


def _key(value: str) -> bytes:
    return blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16).digest()
