"""Who calls, once that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimux.people import Access, User
    from aimux.plugin.types import Credential


class Caller:
    """Who calls. `access` None: an anonymous caller, which was allowed. `token` is what must not go upstream.

    `own`: a credential of the vendor's that the caller may use in place of an account's.
    """

    __slots__ = ("access", "name", "own", "token", "user")

    def __init__(self, access: Access | None, token: bytes, own: Credential | None = None) -> None:
        self.access = access
        self.token = token
        self.own = own
        self.user: User | None = access.user if access is not None else None
        self.name = self.user.name if self.user is not None else ""

    def __repr__(self) -> str:
        return f"Caller({self.name!r})"

    @property
    def token_id(self) -> str:
        """Names the token for the ledger. "" for an anonymous caller."""
        return self.access.token_id if self.access is not None else ""

    def may_use(self, provider: str, model: str | None) -> bool:
        """`model` "": none is named; None: whichever."""
        access = self.access
        return access is None or access.allowance is None or access.allowance.allows(provider, model)
