"""Operations on tokens that are signed, and not stored (`auth.jwt`)."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field

from aimux.control.api.body import Body
from aimux.control.api.models import Given
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.people_models import Label, Span
from aimux.control.api.problems import Refused
from aimux.control.api.views import moment
from aimux.control.principal import Principal, Role
from aimux.people import issuing

operation = Table()

Subject = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$", description="The claim `sub`.")]
Issuer = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$", description="The claim `iss`; empty: whichever.")]


class NewRevocation(Given):
    """Whose tokens, signed elsewhere, are no longer accepted."""

    subject: Subject
    issuer: Issuer = ""
    reason: Label = ""


class RevocationQuery(Given):
    """Whose tokens, signed elsewhere, are accepted again."""

    subject: Subject
    issuer: Issuer = ""


class Revocation(Body):
    """Whose tokens, signed elsewhere, are no longer accepted."""

    subject: str
    issuer: str
    reason: str
    revoked_at: datetime | None


class RevocationPage(Body):
    """All of them, by subject."""

    items: list[Revocation]
    next: str | None = Field(description="null: this is all.")


class NewSignedToken(Given):
    """A token that is signed and not stored."""

    label: Label = Field(default="", description="What it is for; the claim `label`.")
    ttl: Span = Field(description="How long it lasts.")


class SignedToken(Body):
    """A signed token. It is shown only this once; it can be revoked by its `subject`."""

    token: str
    subject: str
    label: str
    expires_at: datetime


@operation("GET", "/revocations", "List the subjects whose signed tokens are no longer accepted", role=Role.VIEWER)
async def list_revocations(parts: Parts) -> RevocationPage:
    from aimux.storage.schema.people import revoked_subjects as table

    query = table.select().where(table.c.revoked_at.is_not(None)).order_by(table.c.subject, table.c.issuer)
    if not parts.people.directory.stored.revision:  # nothing was ever stored
        return RevocationPage(items=[], next=None)
    async with parts.people.database.read() as connection:
        rows = (await connection.execute(query)).all()
    items = [
        Revocation(subject=row.subject, issuer=row.issuer, reason=row.reason, revoked_at=moment(row.revoked_at / 1000))
        for row in rows
    ]
    return RevocationPage(items=items, next=None)


@operation("POST", "/revocations", "Stop accepting a subject's signed tokens", status=201)
async def revoke_subject(parts: Parts, body: NewRevocation, caller: Principal) -> Revocation:
    """They get a 403 from then on, and their open requests end."""
    await issuing.revoke_subject(parts.people, caller.actor, body.subject, issuer=body.issuer, reason=body.reason)
    return Revocation(
        subject=body.subject,
        issuer=body.issuer,
        reason=body.reason,
        revoked_at=datetime.now(UTC).replace(microsecond=0),
    )


@operation("DELETE", "/revocations", "Accept a subject's signed tokens again", status=204, errors=(404,))
async def restore_subject(parts: Parts, query: RevocationQuery, caller: Principal) -> None:
    await issuing.restore_subject(parts.people, caller.actor, query.subject, issuer=query.issuer)


@operation("POST", "/tokens/signed", "Issue a signed token that is not stored", status=201, errors=(409,))
async def issue_signed_token(parts: Parts, body: NewSignedToken, caller: Principal) -> SignedToken:
    """Needs a secret in `auth.jwt`. For clients of gateways that issued such tokens; others are better off with `POST
    /tokens`, whose tokens can be listed."""
    trust = parts.trust.signed if parts.trust is not None else None
    now = datetime.now(UTC).replace(microsecond=0)
    ends, subject = now + timedelta(seconds=body.ttl), str(uuid.uuid4())
    token = trust.issue(subject, body.label, int(now.timestamp()), int(ends.timestamp())) if trust is not None else None
    if token is None:
        remedy = "issue one by POST /tokens"
        raise Refused(409, "no-secret", "The configuration has no `auth.jwt.secret` to sign with.", remedy=remedy)
    after = {"label": body.label, "expires_at": ends.isoformat()}
    await parts.note(caller, "token.sign", f"subject:{subject}", after=after)
    return SignedToken(token=token, subject=subject, label=body.label, expires_at=ends)
