"""The measures of sums, as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, case, cast, func

from aimux.metering.rows import NOT_FAILED
from aimux.storage.schema.ledger import MEASURES, requests

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement


def failed() -> ColumnElement[bool]:
    """Whether a request counts as an error."""
    return (requests.c.status >= 400) | requests.c.error.not_in(sorted(NOT_FAILED))


def measures_of(source: Any) -> list[ColumnElement[Any]]:
    """Sums of the measures of a table or subquery. PostgreSQL's sums have another type than their terms."""
    return [cast(func.sum(source.c[name]), BigInteger) for name in MEASURES]


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
