"""Why an account was chosen, in words: for the log at level debug."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimux.accounts.account import Account
    from aimux.accounts.pool import AccountPool
    from aimux.accounts.selection import Selection

MOST = 10
"""Accounts that are told of; with more, only their number."""


def explain(pool: AccountPool, selection: Selection, home: str | None, chosen: Account | None, now: float) -> str:
    """One line. `home` is the account that the conversation was on before the choice."""
    instance = pool.provider.instance
    accounts = list(pool.accounts.values())
    open_to = {account.name for account in pool.candidates(selection)}
    told = [f"{account.name} {_standing(account, selection, open_to, now)}" for account in accounts[:MOST]]
    if len(accounts) > MOST:
        told.append(f"{len(accounts) - MOST} more")
    listed = "; ".join(told) or "there is none"
    if chosen is None:
        return f"no account of {instance} can serve ({listed})"
    if selection.pinned is not None:
        why = "it is asked for by name"
    elif len(accounts) == 1:
        why = "it is the only one"
    elif home == chosen.name:
        why = "the conversation is on it"
    else:
        why = f"by strategy {pool.provider.settings.strategy}"
        if home is not None:
            why += f", as {home}, which the conversation was on, can't serve"
    return f"{instance}/{chosen.name} is chosen: {why} ({listed})"


def _standing(account: Account, selection: Selection, open_to: set[str], now: float) -> str:
    """Why it can't serve this request, or what its rank comes from."""
    if account.name in selection.exclude:
        return "was tried"
    if selection.pinned not in {None, account.name}:
        return "is not asked for"
    if account.name not in open_to:
        return "is for other groups"
    state = account.state(now)
    if state.status != "healthy":
        return f"is {state.status}" + (f" for {state.until - now:.0f} s" if state.until is not None else "")
    if account.free_at(selection.model) > now:
        return f"is limited for {selection.model}"
    settings = account.settings
    more = f", priority {settings.priority}" * bool(settings.priority) + f", weight {settings.weight:g}" * (
        settings.weight != 1
    )
    return f"{account.quota.used:.0%} used, {account.in_flight} in flight{more}"
