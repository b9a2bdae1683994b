"""The REST API for callers within aimux: its own pages and plugins', so that there is no second way in."""

from __future__ import annotations

import json
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from aimux.control.api.api import OPERATIONS
from aimux.control.api.operations import Page, find
from aimux.control.api.problems import Refused
from aimux.control.principal import Principal, Role, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from aimux.control.api.api import Api

_PLUGIN = Principal("plugin", Role.ADMIN)
_CALLER: ContextVar[Principal] = ContextVar("caller", default=_PLUGIN)
"""In whose name a plugin asks: the caller who asked the plugin, if known."""


@contextmanager
def acting_for(caller: Principal) -> Iterator[None]:
    """What plugins ask within this context they ask in this name, for the audit log."""
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)


async def run(api: Api, caller: Principal, method: str, path: str, body: Any = None) -> BaseModel | None:
    """Run one operation as `caller`. `path` is below `/api/v1`, with its query.

    Raises Refused, as a client would be told.
    """
    place, _, query = path.partition("?")
    try:
        operation, parameters = find(OPERATIONS, method, place)
    except LookupError:
        raise Refused(404, "no-path", f"There is no {method} {place}.", remedy="see /api/v1/openapi.json") from None
    if operation.role is not None:
        require(caller, operation.role)
    raw = b"" if body is None else json.dumps(body).encode()
    answer = await api.run(operation, parameters, query, raw, caller)
    return None if isinstance(answer, Page) else answer


async def call(api: Api, caller: Principal, method: str, path: str, body: Any = None) -> Any:
    """The same: what its JSON says, or None."""
    answer = await run(api, caller, method, path, body)
    return None if answer is None else answer.model_dump(mode="json", by_alias=True)


async def call_of_plugin(api: Api, method: str, path: str, body: Any) -> tuple[int, Any]:
    """The same in the form for plugins: status and JSON, of the answer or of the problem."""
    try:
        answer = await call(api, _CALLER.get(), method, path, body)
    except Refused as refused:
        return refused.problem.status, refused.problem.model_dump(mode="json", exclude_none=True)
    return (200 if answer is not None else 204), answer
