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
from aimux.control.api.usage_models import OwnRequestQuery, RequestPage, RequestQuery
from aimux.control.principal import Principal, Role
from aimux.metering.metering import Metering
from aimux.metering.usage import Filter, Picked

operation = Table()


@operation("GET", "/requests", "List requests that are over, the latest first", role=Role.VIEWER)
async def list_requests(parts: Parts, query: RequestQuery) -> RequestPage:
    """Requests in the ledger, which is half a second behind. As CSV for callers who accept `text/csv`."""
    metering = parts.metering
    await metering.ledger.catch_up()
    picked = Picked(span_of(metering, query), query.after, query.conversation, query.status, query.failed)
    rows = await metering.reports.requests(filter_of(query), picked, query.limit + 1)
    page = rows[: query.limit]
    return RequestPage(items=[of_row(row) for row in page], next=page[-1]["id"] if len(rows) > len(page) else None)


@operation("GET", "/requests/{id}", "Explain how a request was routed", role=Role.VIEWER)
async def explain_request(parts: Parts, id: RequestId) -> Request:  # noqa: A002 - the path's name for it
    """By the `x-request-id` of its answer, or the vendor's id (the ledger has that of the last attempt)."""
    metering = parts.metering
    record = parts.journal.get(id)
    if record is not None:
        return of_record(record, socket.gethostname(), metering.prices.of_record(record))
    row = await metering.reports.request(id)
    if row is None:
        raise _not_found(metering, id)
    return of_row(row)


@operation("GET", "/me/requests", "List one's own requests that are over, the latest first", role=Role.MEMBER)
async def list_own_requests(parts: Parts, query: OwnRequestQuery, caller: Principal) -> RequestPage:
    """With whichever token. The accounts that served them are not shown."""
    metering = parts.metering
    picked = Picked(span_of(metering, query), query.after, failed=query.failed)
    if caller.user is None:
        return RequestPage(items=[], next=None)
    await metering.ledger.catch_up()
    only = Filter(user=caller.user.name, provider=query.provider, model=query.model)
    rows = await metering.reports.requests(only, picked, query.limit + 1)
    page = rows[: query.limit]
    following = page[-1]["id"] if len(rows) > len(page) else None
    return RequestPage(items=[_own(of_row(row)) for row in page], next=following)


@operation("GET", "/me/requests/{id}", "Explain a request of one's own", role=Role.MEMBER)
async def explain_own_request(parts: Parts, id: RequestId, caller: Principal) -> Request:  # noqa: A002
    """What it took, and which limit refused it. The account that served it is not shown."""
    found = await explain_request(parts, id)
    if caller.user is None or found.user != caller.user.name:
        raise _not_found(parts.metering, id)
    return _own(found)


def _own(request: Request) -> Request:
    """Without what only admins may see: accounts and their state."""
    return request.model_copy(update={"node": "", "account": "", "steps": [], "choices": []})


def _not_found(metering: Metering, request_id: str) -> Refused:
    days = metering.ledger.keep / 86400
    detail = f"Request {request_id!r} is not in the ledger, which keeps requests for {days:g} days."
    return Refused(404, "not-found", detail)
