"""What a request adds to a sum, as SQL: the same as `rows.measures`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, case, cast, func

from aimux.metering.rows import NOT_FAILED
from aimux.storage.schema.ledger import requests

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement


def failed() -> ColumnElement[bool]:
    """Whether a request counts as an error."""
    return (requests.c.status >= 400) | requests.c.error.not_in(sorted(NOT_FAILED))


def of_requests() -> list[ColumnElement[Any]]:
    """Sums over rows of `requests`, in the order of MEASURES."""
    columns = requests.c
    added: list[Any] = [
        func.count(),
        *[func.sum(case((one, 1), else_=0)) for one in (failed(), columns.cost.is_(None), columns.estimated)],
        *map(
            func.sum,
            (
                columns.input,
                columns.output,
                columns.cache_read,
                columns.cache_write,
                columns.cache_write_1h,
                columns.reasoning,
                columns.server_tools,
            ),
        ),
        func.sum(func.coalesce(columns.cost, 0)),
        func.sum(columns.duration),
    ]
    return [cast(one, BigInteger) for one in added]
