"""Who asks the control plane for something.

A middleware finds that out and puts it on the request (`aimux.control.middlewares.callers`); operations state the role
that they need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimux.config.people import ADMIN_KEY
from aimux.control.api.problems import Refused
from aimux.people import Actor, Role
from aimux.people.signed import SIGNED

if TYPE_CHECKING:
    from aimux.people import User

__all__ = ["ADMIN_KEY", "Principal", "Role", "refuse_signed", "require"]


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `address` is where they are ("" for this machine's own sockets).

    `user` None: the holder of the admin key, or of the files. `expires_at`: when the token ends (milliseconds).
    `narrow`: it is a token with scopes, which is for nothing else. `token_id` names it ("": no token).
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
    """Refused 403 for tokens signed elsewhere: only the token itself shows what a session would outlive (its end, its
    role, a revoked subject)."""
    if token_id.startswith(SIGNED):
        detail = "A token that was signed elsewhere opens no session."
        raise Refused(403, "signed", detail, remedy="sign in with a token that this aimux has issued")


def require(principal: Principal, role: Role) -> None:
    """Refused 403 for a role that does not include `role`."""
    if not principal.role.includes(role):
        raise Refused(
            403,
            "role",
            f"This needs the role {role}; {principal.name} has the role {principal.role} here.",
            remedy="use a token without scopes" if principal.narrow else "ask an administrator of this aimux",
        )
