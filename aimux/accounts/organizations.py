"""Which accounts share their limits: those whose logins are of one organization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.accounts.quota import Quota

if TYPE_CHECKING:
    from aimux.accounts.account import Account
    from aimux.plugin.types import Credential


class Organizations:
    """The organizations of a pool's accounts."""

    def __init__(self) -> None:
        self.quotas: dict[str, tuple[Quota, set[Account]]] = {}
        """By organization, with the accounts that share each. It goes with the last of them."""

    def place(self, account: Account, before: Credential | None, now: float) -> bool:
        """Give the account the quota of its organization, and a fresh one when somebody else logged in. False: it is
        still the same one's."""
        old, new = before and (before.organization, before.account_id), account.credential
        if new is None or old == (new.organization, new.account_id):
            return False
        organization = new.organization
        shared = self.quotas.get(organization) if organization is not None else None
        quota = shared[0] if shared is not None else Quota(organization)
        if before is not None and before.organization is None and before.account_id in {None, new.account_id}:
            quota.absorb(account.quota, now)  # the same login, that now says whose it is
        self.leave(account)
        account.quota = quota
        if organization is not None:
            self.quotas.setdefault(organization, (quota, set()))[1].add(account)
        return True

    def leave(self, account: Account) -> None:
        """It is no longer among its organization's accounts."""
        organization = account.quota.organization
        if organization is not None and organization in self.quotas:
            accounts = self.quotas[organization][1]
            accounts.discard(account)
            if not accounts:
                del self.quotas[organization]
