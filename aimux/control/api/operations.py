"""One table of operations, from which both the routing and the OpenAPI document are made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints
from urllib.parse import unquote

from pydantic import BaseModel, TypeAdapter, ValidationError

from aimux.control.api.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Page:
    """An answer for a browser."""

    status: int
    html: bytes


Answered = BaseModel | Page | None
F = TypeVar("F", bound="Callable[..., Awaitable[Answered]]")


@dataclass(frozen=True, slots=True)
class Operation:
    """`path` is below `/api/v1`. What goes in and out comes from the handler's annotations: `body` and `query` are
    models, every other parameter is one of the path's."""

    method: str
    path: str
    summary: str
    handler: Callable[..., Awaitable[Answered]]
    status: int
    errors: tuple[int, ...]
    open: bool
    """Needs no key: what authorizes it is in the request itself."""
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    answer: type[Answered]
    parameters: Mapping[str, TypeAdapter[str]]

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def body_required(self) -> bool:
        return self.body is not None and any(field.is_required() for field in self.body.model_fields.values())


class Table:
    """Operations, in the order in which they are documented."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def __call__(
        self,
        method: str,
        path: str,
        summary: str,
        *,
        status: int = 200,
        errors: tuple[int, ...] = (),
        open: bool = False,  # noqa: A002
    ) -> Callable[[F], F]:
        """Register a handler. `errors`: the statuses of its own refusals, beside those that all operations have."""

        def register(handler: F) -> F:
            hints = get_type_hints(handler, include_extras=True)
            self.operations.append(
                Operation(
                    method,
                    path,
                    summary,
                    handler,
                    status,
                    errors,
                    open,
                    hints.get("body"),
                    hints.get("query"),
                    hints["return"],
                    {name: TypeAdapter(hints[name]) for name in _PARAMETER.findall(path)},
                )
            )
            return handler

        return register


class Router:
    """Finds the operation of a request."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._operations = [(operation.path.split("/")[1:], operation) for operation in operations]

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]]:
        """The operation, and the path's parameters. Refused: 404, or 405 with what the path allows."""
        segments = path.split("/")[1:]
        allowed = []
        for template, operation in self._operations:
            found = _match(template, segments)
            if found is None:
                continue
            if operation.method == method:
                return operation, _checked(operation, found)
            allowed.append(operation.method)
        if allowed:
            methods = ", ".join(allowed)
            raise Refused(405, "method", f"This path answers {methods}.", headers={"allow": methods})
        raise Refused(404, "no-path", "There is no such path.", remedy="see /api/v1/openapi.json")


def _match(template: list[str], segments: list[str]) -> dict[str, str] | None:
    if len(template) != len(segments):
        return None
    found = {}
    for expected, given in zip(template, segments, strict=True):
        if expected.startswith("{"):
            found[expected[1:-1]] = unquote(given)
        elif expected != given:
            return None
    return found


def _checked(operation: Operation, found: dict[str, str]) -> dict[str, str]:
    try:
        return {name: operation.parameters[name].validate_python(value) for name, value in found.items()}
    except ValidationError:
        raise Refused(404, "not-found", "Nothing can have such a name.") from None


def title(status: int) -> str:
    """For the document."""
    return HTTPStatus(status).phrase


def is_model(answer: Any) -> bool:
    """Whether an operation answers with JSON."""
    return isinstance(answer, type) and issubclass(answer, BaseModel)
