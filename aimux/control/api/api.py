"""Runs operations: from a call's parameters to its result. No sockets and no keys here: routes.py has them."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from aimux.accounts.vault import Away, Conflict, Missing, VaultError
from aimux.control.api import (
    accounts,
    audit,
    installation,
    invitations,
    limits,
    live,
    logins,
    notices,
    people,
    plan,
    prices,
    reload,
    requests,
    revocations,
    serving,
    tokens,
    usage,
)
from aimux.control.api.problems import Fault, Refused, invalid, sentence
from aimux.control.principal import Role
from aimux.people.errors import Fixed, PeopleError, Taken, Unknown
from aimux.plugin import CredentialError, LoginError, RefreshRejected, RefreshUnavailable
from aimux.redaction import mask_error
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.control.api.operations import Answered, Operation
    from aimux.control.api.parts import Parts
    from aimux.control.principal import Principal

log = logging.getLogger("aimux.admin")

ROOMS = (
    accounts,
    logins,
    people,
    tokens,
    revocations,
    invitations,
    limits,
    serving,
    usage,
    plan,
    prices,
    notices,
    audit,
    requests,
    live,
    installation,
    reload,
)
OPERATIONS = tuple(operation for room in ROOMS for operation in room.operation.operations)


class Api:
    """Runs operations on the parts of an aimux. `close` waits for those under way."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._running: set[asyncio.Task[Answered]] = set()

    async def run(
        self, operation: Operation, parameters: Mapping[str, str], query: str, raw: bytes, caller: Principal | None
    ) -> Answered:
        """Raises Refused, whatever went wrong. If it is cancelled, the operation goes on: half of it would be worse.

        `parameters` are the path's, `query` and `raw` as they were sent. `caller` has the role that it needs.
        """
        task = asyncio.get_running_loop().create_task(self._run(operation, parameters, query, raw, caller))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        while self._running:
            await asyncio.wait(self._running)

    async def _run(
        self, operation: Operation, parameters: Mapping[str, str], query: str, raw: bytes, caller: Principal | None
    ) -> Answered:
        try:
            arguments: dict[str, Any] = _path(operation, parameters)
            if operation.query is not None:
                arguments["query"] = _query(operation.query, query)
            if operation.body is not None:
                arguments["body"] = _body(operation, operation.body, raw)
            if operation.wants_caller:
                arguments["caller"] = caller
            return await operation.handler(self.parts, **arguments)
        except Exception as error:  # whatever it is, the caller gets a problem document
            mask_error(error)
            if isinstance(error, StorageError | Away) and (caller is None or not caller.role.includes(Role.VIEWER)):
                # Where it is, and what is wrong with it, is not for everybody: anybody may bring an invitation's code.
                detail = "The database does not work at present."
                raise Refused(
                    500, "storage", detail, remedy="try again later, or ask whoever runs this aimux"
                ) from None
            raise _refusal(error) from None
        finally:
            if operation.method != "GET" or operation.role is None:
                await self.parts.keep()  # an operation that failed may have parked an account


def _path(operation: Operation, given: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for name, adapter in operation.parameters.items():
        try:
            values[name] = adapter.validate_python(given[name])
        except ValidationError as error:
            words = error.errors(include_url=False, include_input=False)[0].get("ctx", {}).get("expected")
            detail = f"The {name} in this path can be {words}." if words else "Nothing can have such a name."
            raise Refused(404, "not-found", detail) from None
    return values


def _query(model: type[BaseModel], query: str) -> BaseModel:
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        fault = Fault(where="query", message="a parameter is there twice")
        raise Refused(422, "invalid", "The query has a parameter twice.", errors=[fault])
    try:
        return model.model_validate_strings(given)
    except ValidationError as error:
        raise invalid(error, "query") from None


def _body(operation: Operation, model: type[BaseModel], raw: bytes) -> BaseModel:
    if operation.method == "PUT" and not raw:
        fault = Fault(where="body", message="is missing")
        remedy = "send {} if nothing of it is to be left"
        raise Refused(422, "invalid", "The body is missing: it replaces all there is.", errors=[fault], remedy=remedy)
    try:
        body = model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise invalid(error, "body") from None
    if raw:
        json.loads(raw, object_pairs_hook=_named_once)  # pydantic takes the last of two
    return body


def _named_once(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        fault = Fault(where="body", message="a field is there twice")
        raise Refused(422, "invalid", "The body has a field twice.", errors=[fault])


def _refusal(error: Exception) -> Refused:
    """What an operation raised, as a problem."""
    match error:
        case Refused():
            return error
        case LoginError():
            return Refused(400, "login-failed", sentence(str(error)))
        case CredentialError():
            return Refused(422, "credential", f"The credential can't be used: it {error}.")
        case RefreshRejected():
            return Refused(409, "refresh-rejected", sentence(error.reason), remedy=error.remedy)
        case RefreshUnavailable():
            return Refused(502, "refresh-unavailable", sentence(error.reason), remedy=error.remedy)
        case Missing():
            return Refused(404, "not-found", sentence(error.reason), remedy=error.remedy)
        case Conflict():
            return Refused(409, "conflict", sentence(error.reason), remedy=error.remedy)
        case StorageError() | Away():
            return Refused(500, "storage", sentence(error.reason), remedy=error.remedy)
        case VaultError():
            return Refused(500, "vault", sentence(error.reason), remedy=error.remedy)
        case Unknown():
            return Refused(404, "not-found", sentence(error.reason), remedy=error.remedy)
        case Taken() | Fixed():
            word = "configured" if isinstance(error, Fixed) else "taken"
            return Refused(409, word, sentence(error.reason), remedy=error.remedy)
        case PeopleError():
            return Refused(422, "invalid", sentence(error.reason), remedy=error.remedy)
        case _:
            log.error("admin: a fault in aimux itself", exc_info=error)
            return Refused(500, "internal", "aimux failed; its log has the details.")
