"""Operations on requests that are over."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

import socket

from aimux.control.api.models import Request, RequestId
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.problems import Refused
from aimux.control.api.request_views import of_record, of_row
from aimux.control.api.usage import filter_of, span_of
from aimux.control.api.usage_models import RequestPage, RequestQuery
from aimux.control.principal import Role
from aimux.metering.usage import Picked

operation = Table()


@operation("GET", "/requests", "List requests that are over, the latest first", role=Role.VIEWER)
async def list_requests(parts: Parts, query: RequestQuery) -> RequestPage:
    """Those of the ledger, half a second behind. As CSV for who accepts `text/csv`."""
    metering = parts.metering
    await metering.ledger.catch_up()
    picked = Picked(span_of(metering, query), query.after, query.conversation, query.status, query.failed)
    rows = await metering.reports.requests(filter_of(query), picked, query.limit + 1)
    page = rows[: query.limit]
    return RequestPage(items=[of_row(row) for row in page], next=page[-1]["id"] if len(rows) > len(page) else None)


@operation("GET", "/requests/{id}", "Explain how a request was routed", role=Role.VIEWER)
async def explain_request(parts: Parts, id: RequestId) -> Request:  # noqa: A002 - the path's name for it
    """By the `x-request-id` of its answer, or the id that the vendor gave it: from memory, or from the ledger."""
    metering = parts.metering
    record = parts.journal.get(id)
    if record is not None:
        return of_record(record, socket.gethostname(), metering.prices.of_record(record))
    row = await metering.reports.request(id)
    if row is None:
        days = metering.ledger.keep / 86400
        detail = f"Request {id!r} is not in the ledger, which keeps requests for {days:g} days."
        raise Refused(404, "not-found", detail)
    return of_row(row)
