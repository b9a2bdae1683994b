"""Why an account was chosen: what was known of each at that moment, and the same in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from aimux.accounts.account import Account
    from aimux.accounts.pool import AccountPool
    from aimux.accounts.selection import Selection

MOST = 8
"""Accounts that are listed; of further ones only the number is given."""


class Standing(NamedTuple):
    """An account at a choice. `status`: "" for one that could serve, else why it could not."""

    name: str
    status: str
    until: float | None
    """Unix seconds at which a cooling account is free again."""
    used: float
    in_flight: int
    rank: str
    """Priority and weight, where they are not the usual ones."""

    def words(self, at: float) -> str:
        """As a part of a sentence about the account; `at` is when the choice was made."""
        if not self.status:
            return f"{self.used:.0%} used, {self.in_flight} in flight{self.rank}"
        return self.status + (f" for {self.until - at:.0f} s" if self.until is not None else "")


class Choice(NamedTuple):
    """One choice of an account. `account` "": none could serve. `home`: where the conversation was before."""

    provider: str
    account: str
    why: str
    home: str
    standings: tuple[Standing, ...]
    more: int
    """Accounts that are not listed."""

    def words(self, at: float) -> str:
        """One line."""
        told = [f"{one.name} {one.words(at)}" for one in self.standings]
        if self.more:
            told.append(f"{self.more} more")
        listed = "; ".join(told) or "there is none"
        if not self.account:
            return f"no account of {self.provider} can serve ({listed})"
        return f"{self.provider}/{self.account} is chosen: {self.why} ({listed})"


def explain(pool: AccountPool, selection: Selection, home: str | None, chosen: Account | None, now: float) -> Choice:
    """`home` is the account that the conversation was on before the choice. Takes 2 µs, and 1 µs for each account
    listed."""
    accounts = list(pool.accounts.values())
    if chosen is not None and len(accounts) > MOST:
        accounts.remove(chosen)
        accounts.insert(0, chosen)
    standings = tuple(_standing(pool, account, selection, now) for account in accounts[:MOST])
    name, more = chosen.name if chosen is not None else "", max(0, len(accounts) - MOST)
    return Choice(pool.provider.instance, name, _why(pool, selection, home, name), home or "", standings, more)


def at_home(pool: AccountPool, account: Account) -> Choice:
    """The usual choice of a conversation that goes on: nothing was weighed."""
    return Choice(pool.provider.instance, account.name, "the conversation is on it", account.name, (), 0)


def _why(pool: AccountPool, selection: Selection, home: str | None, chosen: str) -> str:
    if not chosen:
        return ""
    if selection.pinned is not None:
        return "it is asked for by name"
    if len(pool.accounts) == 1:
        return "it is the only one"
    if home == chosen:
        return "the conversation is on it"
    why = f"by strategy {pool.provider.settings.strategy}"
    return why if home is None else f"{why}, as {home}, which the conversation was on, can't serve"


def _standing(pool: AccountPool, account: Account, selection: Selection, now: float) -> Standing:
    settings, until = account.settings, None
    rank = f", priority {settings.priority}" * bool(settings.priority) + f", weight {settings.weight:g}" * (
        settings.weight != 1
    )
    if account.name in pool.lacking.names(selection.model, now):
        status = f"does not have {selection.model}"
    elif account.name in selection.exclude:
        spared = account.free_at(selection.model) <= now and account.quota.spent_until(selection.model, now)
        failed = "failed when it was last asked" if account in pool.faltering else "was tried"
        status = "has paid extra usage alone left" if spared else failed
    elif selection.pinned not in {None, account.name}:
        status = "is not asked for"
    elif not pool.admits(selection, account):
        status = "is for other groups"
    elif account.disabled:
        status = "is disabled"
    elif account.parked is not None:
        status = "is parked"
    elif account.free_at("") > now:
        status, until = "is cooling", account.free_at("")
    elif account.free_at(selection.model) > now:
        status = f"is limited for {selection.model}"
    else:
        status = ""
    return Standing(account.name, status, until, account.quota.used, account.in_flight, rank)
