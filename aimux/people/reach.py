"""Who can reach which account: what groups, reservations and scopes amount to, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.accounts.selection import admits

if TYPE_CHECKING:
    from aimux.people.directory import Directory
    from aimux.plugin.settings import AccountSettings


def serves(directory: Directory, settings: AccountSettings) -> str:
    """Whom an account serves, as far as groups decide: `everybody`, `ci alone`, `dev, and users in no group`."""
    reserved = [group for group in settings.groups if group in directory.reserved]
    if reserved:
        return f"{_either(reserved)} alone"
    return f"{_either(settings.groups)}, and users in no group" if settings.groups else "everybody"


def users_of(directory: Directory, provider: str, settings: AccountSettings) -> list[str]:
    """The names of those who are enabled and may use an account of this provider with these settings."""
    found = []
    for user in directory.users.values():
        access = directory.access(user, "", None, ())
        allowed = access.allowance is None or access.allowance.allows(provider, None)
        if user.enabled and allowed and admits(access.groups, settings, directory.reserved):
            found.append(user.name)
    return sorted(found)


def _either(groups: list[str] | tuple[str, ...]) -> str:
    return " or ".join(groups)
