"""From a method, a path and a body to an answer. No sockets and no keys here: door.py has them."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from aimux.accounts.login import PAGE_HEADERS
from aimux.accounts.vault import Conflict, Missing, VaultError
from aimux.control.api import accounts, logins, requests
from aimux.control.api.openapi import document
from aimux.control.api.operations import Operation, Page, Router
from aimux.control.api.problems import CONTENT_TYPE, Fault, Refused, invalid
from aimux.front.answer import Answer
from aimux.plugin import CredentialError, LoginError, RefreshRejected, RefreshUnavailable

if TYPE_CHECKING:
    from aimux.control.api.desk import Desk

log = logging.getLogger("aimux.admin")

OPERATIONS = (*accounts.operation.operations, *logins.operation.operations, *requests.operation.operations)
MAX_BODY = 1024 * 1024
JSON = {"content-type": "application/json", "cache-control": "no-store"}


class Api:
    """Runs operations on a desk. `close` waits for those under way."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._router = Router(OPERATIONS)
        self._running: set[asyncio.Task[Answer]] = set()
        self._document: bytes | None = None

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]]:
        """`path` is below `/api/v1`. Raises Refused."""
        return self._router.find(method, path)

    async def run(self, operation: Operation, parameters: dict[str, str], query: str, raw: bytes) -> Answer:
        """Never raises, but for a cancellation; the operation then goes on, for a half-done one would be worse."""
        task = asyncio.get_running_loop().create_task(self._run(operation, parameters, query, raw))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        while self._running:
            await asyncio.wait(self._running)

    def document(self) -> Answer:
        """The OpenAPI document."""
        if self._document is None:
            self._document = json.dumps(document(OPERATIONS)).encode()
        return Answer(200, JSON, self._document)

    async def _run(self, operation: Operation, parameters: dict[str, str], query: str, raw: bytes) -> Answer:
        try:
            arguments: dict[str, Any] = dict(parameters)
            if operation.query is not None:
                arguments["query"] = _query(operation.query, query)
            if operation.body is not None:
                arguments["body"] = _body(operation.body, raw)
            result = await operation.handler(self.desk, **arguments)
        except Exception as error:  # whatever it is, the caller gets a problem document
            return problem(_refusal(error))
        finally:
            if operation.method != "GET" or operation.open:
                await self.desk.keep()  # an operation that failed may have parked an account
        if result is None:
            return Answer(operation.status)
        if isinstance(result, Page):
            return Answer(result.status, PAGE_HEADERS, result.html)
        return Answer(operation.status, JSON, result.model_dump_json().encode())


def problem(refused: Refused) -> Answer:
    """A refusal as the client gets it."""
    body = refused.problem.model_dump_json(exclude_none=True).encode()
    headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store", **refused.headers}
    return Answer(refused.problem.status, headers, body)


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


def _body(model: type[BaseModel], raw: bytes) -> BaseModel:
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise invalid(error, "body") from None


def _refusal(error: Exception) -> Refused:
    """What an operation raised, as a problem."""
    match error:
        case Refused():
            return error
        case LoginError():
            return Refused(400, "login-failed", _sentence(str(error)))
        case CredentialError():
            return Refused(422, "credential", f"The credential can't be used: it {error}.")
        case RefreshRejected():
            return Refused(409, "refresh-rejected", _sentence(error.reason), remedy=error.remedy)
        case RefreshUnavailable():
            return Refused(502, "refresh-unavailable", _sentence(error.reason), remedy=error.remedy)
        case Missing():
            return Refused(404, "not-found", _sentence(error.reason), remedy=error.remedy)
        case Conflict():
            return Refused(409, "conflict", _sentence(error.reason), remedy=error.remedy)
        case VaultError():
            return Refused(500, "vault", _sentence(error.reason), remedy=error.remedy)
        case _:
            log.error("admin: a fault in aimux itself", exc_info=error)
            return Refused(500, "internal", "aimux failed; its log has the details.")


def _sentence(text: str) -> str:
    """A name that begins it (a host's, an account's) stays as it is."""
    word = text.partition(" ")[0]
    return f"{text}." if "." in word or "/" in word else f"{text[:1].upper()}{text[1:]}."
