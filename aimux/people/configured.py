"""The people of the configuration, as the directory has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.people.directory import Configured
from aimux.people.models import Group, Role, Token, User

if TYPE_CHECKING:
    from aimux.config import Config


def from_config(config: Config) -> Configured:
    """Users, groups and tokens, marked as the configuration's."""
    users, hashes = {}, {}
    for one in config.users:
        users[one.name] = User(
            one.name,
            one.email,
            Role(one.role),
            one.groups,
            one.scopes,
            pin_accounts=one.pin_accounts,
            own_login=one.own_login,
            configured=True,
        )
        if one.sha256:
            hashes[one.sha256] = Token(f"cfg_{one.sha256.hex()[:8]}", one.name, one.sha256, configured=True)
    groups = {
        name: Group(name, group.reserved, group.scopes, group.own_login, configured=True)
        for name, group in config.groups.items()
    }
    named = {group for one in config.users for group in one.groups}
    for entry in (config.providers or {}).values():
        named |= {group for account in entry.settings.accounts.values() for group in account.groups}
    return Configured(users, groups, hashes, frozenset(named), config.self_service)
