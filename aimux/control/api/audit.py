"""Operations on the audit log."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

from datetime import UTC, datetime

from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.people_models import AuditEntry, AuditPage, AuditQuery, AuditVerdict
from aimux.control.principal import Role
from aimux.people import audit

operation = Table()


@operation("GET", "/audit", "List who changed what", role=Role.VIEWER)
async def list_audit(parts: Parts, query: AuditQuery) -> AuditPage:
    """The newest first."""
    before = int(query.after) if query.after is not None else None
    found = await audit.page(parts.people.database, limit=query.limit + 1, before=before, target=query.target)
    page = found[: query.limit]
    items = [
        AuditEntry(
            id=entry.id,
            at=datetime.fromtimestamp(entry.at / 1000, UTC),
            actor=entry.actor,
            address=entry.address,
            action=entry.action,
            target=entry.target,
            before=dict(entry.before) if entry.before is not None else None,
            after=dict(entry.after) if entry.after is not None else None,
            hash=entry.hash.hex(),
        )
        for entry in page
    ]
    return AuditPage(items=items, next=str(page[-1].id) if len(found) > len(page) else None)


@operation("GET", "/audit/verdict", "Check the whole audit log", role=Role.VIEWER)
async def verify_audit(parts: Parts) -> AuditVerdict:
    """Each entry holds the hash of the one before it."""
    verdict = await audit.verify(parts.people.database)
    return AuditVerdict(
        whole=not verdict.broken, problem=verdict.broken, entries=verdict.entries, hash=verdict.hash.hex()
    )
