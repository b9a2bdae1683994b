"""Operations on notices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from aimux.control.api.body import Body
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts  # noqa: TC001 - the table reads the annotations
from aimux.control.principal import Role

operation = Table()


class Notice(Body):
    """Something that an administrator wants to know."""

    event: str = Field(description="A word of docs/notices.md.")
    about: str = Field(description="Who or what it is about.")
    message: str
    time: datetime
    details: dict[str, Any]


class NoticeList(Body):
    """The last 200 since the start, newest first."""

    items: list[Notice]


@operation("GET", "/notices", "List what an administrator wants to know", role=Role.VIEWER)
async def list_notices(parts: Parts) -> NoticeList:
    """Of this node. Without a running server there are none."""
    return NoticeList(
        items=[
            Notice(
                event=one.event,
                about=one.about,
                message=one.message,
                time=datetime.fromtimestamp(one.time, UTC),
                details=dict(one.details),
            )
            for one in reversed(parts.notices)
        ]
    )
