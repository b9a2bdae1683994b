"""Which accounts are one login under several names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aimux.accounts.account import Account
    from aimux.plugin.types import Credential


def same_login(one: Credential, other: Credential) -> bool:
    """The same secret, or the same person's login at the same organization."""
    return not set(_marks(one)).isdisjoint(_marks(other))


def twins(accounts: Mapping[str, Account]) -> dict[str, list[str]]:
    """By name: the other accounts that have the very same login. Accounts without any are left out."""
    owners: dict[tuple[str | None, ...], list[str]] = {}
    for name, account in accounts.items():
        for mark in _marks(account.credential) if account.credential is not None else ():
            owners.setdefault(mark, []).append(name)
    found: dict[str, list[str]] = {}
    for names in owners.values():
        for name in names if len(names) > 1 else ():
            found[name] = sorted({*found.get(name, []), *names} - {name})
    return found


def _marks(credential: Credential) -> Iterator[tuple[str | None, ...]]:
    """What identifies whose login it is: two accounts that have one of these in common are the same."""
    yield ("secret", credential.secret)
    if credential.account_id is not None:
        yield (credential.kind, credential.account_id, credential.organization)
