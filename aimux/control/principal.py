"""Who asks the control plane for something.

A middleware finds out and puts it on the request (`aimux.control.middlewares.callers`); operations state the role that
they need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimux.control.api.problems import Refused
from aimux.people import Actor, Role
from aimux.people.signed import SIGNED

if TYPE_CHECKING:
    from aimux.people import User

__all__ = ["ADMIN_KEY", "Principal", "Role", "refuse_signed", "require"]

ADMIN_KEY = "admin-key"
"""The name of whoever has the machine's own key."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has shown who they are. `address` is where they are ("" for this machine's own sockets).

    `user` None: whoever has the admin key, or the files. `expires_at`: when what was shown ends (milliseconds).
    `narrow`: it was a token with scopes, which is for nothing else. `token_id` names it ("": it was none).
    """

    name: str
    role: Role
    address: str = ""
    user: User | None = None
    expires_at: int | None = None
    narrow: bool = False
    token_id: str = ""

    @property
    def actor(self) -> Actor:
        """For the audit log."""
        return Actor(self.name, self.address)


def refuse_signed(token_id: str) -> None:
    """Refused 403 for tokens signed elsewhere: what a session would outlive (their end, their role, a subject that is
    barred) is known of the token itself alone."""
    if token_id.startswith(SIGNED):
        detail = "A token that was signed elsewhere opens no session."
        raise Refused(403, "signed", detail, remedy="sign in with a token that this aimux has issued")


def require(principal: Principal, role: Role) -> None:
    """Refused 403 for a role that does not include `role`."""
    if not principal.role.includes(role):
        raise Refused(
            403,
            "role",
            f"This takes the role {role}; {principal.name} has the role {principal.role} here.",
            remedy="use a token without scopes" if principal.narrow else "ask an administrator of this aimux",
        )
