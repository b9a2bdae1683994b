"""Operations on the audit log."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from aimux.control.api.body import Body
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.usage import span_of
from aimux.control.api.usage_models import Name, SpanQuery, When
from aimux.control.principal import Role
from aimux.people import audit

if TYPE_CHECKING:
    from collections.abc import Mapping

operation = Table()


class AuditEntry(Body):
    """One change."""

    id: int
    at: datetime
    actor: str
    address: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: str = Field(description="Of this entry and the hash of the one before it.")


class AuditPage(Body):
    """A part of the audit log, the newest first."""

    items: list[AuditEntry]
    next: str | None = Field(description="`after` of the next page; null: this is the last one.")


class AuditQuery(SpanQuery):
    """Which entries."""

    since: When = Field(default="1970-01-01", description="From when: RFC 3339, a date, or `7d` (m, h, d, w).")
    limit: int = Field(default=100, ge=1, le=1000, description="At most so many.")
    after: Annotated[str, Field(pattern="^[0-9]{1,18}$")] | None = Field(
        default=None, description="`next` of the page before."
    )
    target: Name | None = Field(default=None, description="Only what was done to it, as `user:NAME`.")
    actor: Name | None = Field(
        default=None, description="Only what was done by them: a user's name, `admin-key`, `cli:root`, …."
    )


class AuditVerdict(Body):
    """What a check of the whole audit log found."""

    whole: bool
    problem: str = Field(description="What is wrong; empty where nothing is.")
    entries: int
    hash: str = Field(description="Of the last entry: noted down elsewhere, it shows later that nothing was changed.")


@operation("GET", "/audit", "List who changed what", role=Role.VIEWER)
async def list_audit(parts: Parts, query: AuditQuery) -> AuditPage:
    """The newest first."""
    before = int(query.after) if query.after is not None else None
    since, until = span_of(parts.metering, query)
    only = audit.Picked(since, until, query.actor, query.target)
    found = await audit.page(parts.people.database, limit=query.limit + 1, before=before, only=only)
    page = found[: query.limit]
    items = [
        AuditEntry(
            id=entry.id,
            at=datetime.fromtimestamp(entry.at / 1000, UTC),
            actor=entry.actor,
            address=entry.address,
            action=entry.action,
            target=entry.target,
            before=_told(entry.before),
            after=_told(entry.after),
            hash=entry.hash.hex(),
        )
        for entry in page
    ]
    return AuditPage(items=items, next=str(page[-1].id) if len(found) > len(page) else None)


def _told(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """As the other operations give it: times as text, not in milliseconds."""
    if values is None:
        return None
    return {
        name: datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        if name.endswith("_at") and isinstance(value, int)
        else value
        for name, value in values.items()
    }


@operation("GET", "/audit/verdict", "Check the whole audit log", role=Role.VIEWER)
async def verify_audit(parts: Parts) -> AuditVerdict:
    """Each entry holds the hash of the one before it."""
    verdict = await audit.verify(parts.people.database)
    return AuditVerdict(
        whole=not verdict.broken, problem=verdict.broken, entries=verdict.entries, hash=verdict.hash.hex()
    )
