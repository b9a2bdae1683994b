"""Who asks the control plane for something.

A middleware finds out and puts it on the request (`aimux.control.middlewares.admin_key`); operations state the role
that they need.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aimux.control.api.problems import Refused


class Role(StrEnum):
    """What somebody may do; each role may do what those before it may."""

    MEMBER = "member"
    """See and change what is their own."""
    VIEWER = "viewer"
    """See what is everybody's."""
    ADMIN = "admin"
    """Change it."""

    def includes(self, other: Role) -> bool:
        roles = list(Role)
        return roles.index(self) >= roles.index(other)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has shown who they are. `address` is where they are ("" for this machine's own sockets)."""

    name: str
    role: Role
    address: str = ""


def require(principal: Principal, role: Role) -> None:
    """Refused 403 for a role that does not include `role`."""
    if not principal.role.includes(role):
        raise Refused(
            403,
            "role",
            f"This takes the role {role}; {principal.name} has the role {principal.role}.",
            remedy="ask an administrator of this aimux",
        )
