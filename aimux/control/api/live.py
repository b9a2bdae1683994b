"""What runs at this moment."""

from __future__ import annotations

import socket
import time
from itertools import takewhile
from typing import TYPE_CHECKING

from pydantic import Field

from aimux.control.api.body import Body
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts  # noqa: TC001 - the table reads the annotations
from aimux.control.principal import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.metering.record import RequestRecord

operation = Table()

RECENT = 30.0
"""Seconds over which tokens are counted."""


class Running(Body):
    """A request under way."""

    id: str = Field(description="Its `x-request-id`.")
    user: str
    model: str = Field(description="As the client asked for it.")
    provider: str
    account: str = Field(description="Empty until one is chosen.")
    client: str = Field(description="The first word of its user agent.")
    seconds: float = Field(description="Since its head was in.")
    streaming: bool = Field(description="Its answer has begun.")


class Live(Body):
    """At this node."""

    node: str = Field(description="Its host.")
    shared: bool = Field(description="Other nodes may share its database; what runs at them, they tell.")
    items: list[Running] = Field(description="The longest first.")
    tokens_per_second: float = Field(description="Output of the requests that ended in the last 30 s.")
    requests_per_minute: float = Field(description="That ended in the last 30 s.")


@operation("GET", "/live", "Show what runs now", role=Role.VIEWER)
async def show_live(parts: Parts) -> Live:
    """On the node that answers."""
    now = time.time()
    ended = list(takewhile(lambda record: _end(record) > now - RECENT, parts.journal.latest()))
    tokens = sum(record.usage.output_tokens for record in ended if record.usage is not None)
    return Live(
        node=socket.gethostname(),
        shared=parts.running.config().database.url is not None,
        items=_items(parts.running.requests(), now),
        tokens_per_second=round(tokens / RECENT, 1),
        requests_per_minute=round(len(ended) * 60 / RECENT, 1),
    )


def _end(record: RequestRecord) -> float:
    return record.time + record.duration


def _items(records: Iterable[RequestRecord], now: float) -> list[Running]:
    return [
        Running(
            id=record.request_id,
            user=record.user,
            model=record.model,
            provider=record.provider,
            account=record.account,
            client=record.sender.client,
            seconds=round(max(0.0, now - record.time), 3),
            streaming=record.ttfb is not None,
        )
        for record in sorted(records, key=lambda record: record.time)
    ]
