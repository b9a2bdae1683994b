"""Operations on invitations: links that give a user a token, which nobody else sees."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from aimux.control.api import people_views as views
from aimux.control.api.body import Body
from aimux.control.api.models import Given
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.people_models import IssuedToken, UserName
from aimux.control.principal import Principal
from aimux.people import Actor, invitations
from aimux.plugin.parts import DASHBOARD

operation = Table()

Code = Annotated[str, Field(min_length=1, max_length=200, description="As the link has it.")]


class NewInvitation(Given):
    """For an existing user."""

    user: UserName


class Invitation(Body):
    """A link that works once. It is only in this answer."""

    user: str
    path: str = Field(description="To be put behind aimux's address.")
    expires_at: datetime


class ShownCode(Given):
    """What the person who was invited brings."""

    code: Code


class Invited(Body):
    """Whom an invitation is for."""

    user: str
    expires_at: datetime


@operation("POST", "/invitations", "Invite a user to fetch a token", status=201, errors=(404,))
async def invite(parts: Parts, body: NewInvitation, caller: Principal) -> Invitation:
    """An older invitation of the same user no longer works."""
    made, code = await invitations.invite(parts.people, caller.actor, body.user)
    return Invitation(user=made.user, path=f"{DASHBOARD}/join?code={code}", expires_at=_time(made.expires_at))


@operation("POST", "/invitations/look", "Show whom an invitation is for", errors=(404,), role=None)
async def look(parts: Parts, body: ShownCode) -> Invited:
    """The code authorizes this, and stays valid."""
    found = await invitations.look(parts.people, body.code)
    return Invited(user=found.user, expires_at=_time(found.expires_at))


@operation("POST", "/invitations/accept", "Fetch the token of an invitation", status=201, errors=(404,), role=None)
async def accept(parts: Parts, body: ShownCode) -> IssuedToken:
    """The code authorizes this, once."""
    return views.issued(await invitations.accept(parts.people, Actor("invitation"), body.code))


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
