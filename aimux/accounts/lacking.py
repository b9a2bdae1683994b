"""Models that some accounts don't have: their plan or key leaves them out, and they said so when they were asked."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from aimux.accounts.selection import NO_NAMES

if TYPE_CHECKING:
    from aimux.accounts.account import Account

SECONDS = 600.0
"""How long an account is asked last for a model that it did not have: a plan may be upgraded, and nobody tells."""
MOST = 256
LONGEST = 256
"""Models, and characters of a model's name: clients choose them."""


class Lacking:
    """By model."""

    def __init__(self) -> None:
        self.models: OrderedDict[str, dict[Account, float]] = OrderedDict()
        """Until when each account is asked last (unix seconds)."""

    def note(self, account: Account, model: str, now: float) -> None:
        """It does not have the model."""
        if len(model) <= LONGEST:
            self.models.setdefault(model, {})[account] = now + SECONDS
            self.models.move_to_end(model)
            if len(self.models) > MOST:
                self.models.popitem(last=False)

    def names(self, model: str, now: float) -> frozenset[str]:
        """The accounts that don't have it."""
        accounts = self.models.get(model)
        if accounts is None:
            return NO_NAMES
        found = frozenset(account.name for account, until in accounts.items() if until > now)
        if not found:
            del self.models[model]
        return found

    def forget(self, account: Account) -> None:
        """It is gone, or has another login."""
        for accounts in self.models.values():
            accounts.pop(account, None)
