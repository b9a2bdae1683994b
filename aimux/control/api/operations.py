"""One table of operations, from which the routes, the OpenAPI document and the CLI's own use of them are made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints
from urllib.parse import unquote

from pydantic import BaseModel, TypeAdapter

from aimux.control.principal import Role

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
    models, `caller` is who asks (a Principal), every other parameter is one of the path's."""

    method: str
    path: str
    summary: str
    handler: Callable[..., Awaitable[Answered]]
    status: int
    errors: tuple[int, ...]
    role: Role | None
    """The role that the caller has to have at least. None: anybody, because what authorizes it is in the request
    itself."""
    wants_caller: bool
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    answer: type[Answered]
    parameters: Mapping[str, TypeAdapter[str]]

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def body_required(self) -> bool:
        """Also where all of it has defaults: what PUT does not name is gone, which nobody says with an empty body."""
        if self.body is None:
            return False
        return self.method == "PUT" or any(field.is_required() for field in self.body.model_fields.values())


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
        role: Role | None = Role.ADMIN,
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
                    role,
                    "caller" in hints,
                    hints.get("body"),
                    hints.get("query"),
                    hints["return"],
                    {name: TypeAdapter(hints[name]) for name in _PARAMETER.findall(path)},
                )
            )
            return handler

        return register


def find(operations: Iterable[Operation], method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """For callers without a server: the operation for a path below `/api/v1`, and the path's parameters.

    Raises LookupError.
    """
    segments = path.split("/")
    for operation in operations:
        template = operation.path.split("/")
        if operation.method == method and len(template) == len(segments):
            pairs = [*zip(template, segments, strict=True)]
            if all(expected == given or expected.startswith("{") for expected, given in pairs):
                return operation, {name[1:-1]: unquote(given) for name, given in pairs if name.startswith("{")}
    raise LookupError(f"{method} {path}")


def title(status: int) -> str:
    """For the document."""
    return HTTPStatus(status).phrase


def is_model(answer: Any) -> bool:
    """Whether an operation answers with JSON."""
    return isinstance(answer, type) and issubclass(answer, BaseModel)
