"""Accounts that the configuration names and that do not exist: otherwise a typing error there goes unnoticed."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from aimux.config.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from aimux.config import Config


def unknown_accounts(config: Config, accounts: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    """`accounts`: the names that exist, by provider."""
    for instance, entry in (config.providers or {}).items():
        for name in entry.settings.accounts:
            if name not in accounts.get(instance, ()):
                yield _unknown(f"providers.{instance}.accounts.{name}", instance, name, accounts)
    for pattern, targets in config.models.items():
        for index, target in enumerate(targets):
            one = target.account_name
            if one is not None and one not in accounts.get(target.instance, ()):
                yield _unknown(f"models.{pattern}[{index}].account", target.instance, one, accounts)


def _unknown(where: str, instance: str, name: str, accounts: Mapping[str, Collection[str]]) -> Problem:
    there = sorted(accounts.get(instance, ()))
    near = get_close_matches(name, there, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    remedy = f"{meant}There are: {', '.join(there)}" if there else f"there is none yet: aimux login {instance}"
    return Problem(where, None, f"there is no account {instance}/{name}", remedy)
