"""The OpenAPI 3.1 document, made from the table of operations and their pydantic models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from aimux import __version__
from aimux.control.api.operations import Operation, Page, is_model, title
from aimux.control.api.problems import CONTENT_TYPE, Problem
from aimux.control.api.tables import CSV, Tabular
from aimux.plugin.parts import API

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaMode

ALWAYS = (400, 401, 403, 429, 500)
"""What any operation may answer: to an address with a token or the like in it, to no key, to a caller from elsewhere,
to too many wrong keys, and if a disk fails."""


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document."""
    operations = list(operations)
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "validation")]
    for operation in operations:
        modes += [(model, "validation") for model in (operation.body, operation.query) if model is not None]
        if is_model(operation.answer):
            modes.append((operation.answer, "serialization"))  # type: ignore[arg-type]
    references, schemas = models_json_schema(
        list(dict.fromkeys(modes)), ref_template="#/components/schemas/{model}", by_alias=True
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(API + operation.path, {})[operation.method.lower()] = _operation(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "aimux admin API",
            "version": __version__,
            "description": "Errors are RFC 9457 problem details. Times are RFC 3339 in UTC.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas.get("$defs", {}),
        },
    }


def _operation(operation: Operation, references: Any) -> dict[str, Any]:
    errors = set(ALWAYS) | set(operation.errors)
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
    }
    if about := operation.handler.__doc__:
        described["description"] = " ".join(about.split())
    if operation.role is None:
        described["security"] = []
        errors.discard(401)
    if operation.parameters:
        errors.add(404)
    if operation.query is not None:
        errors.add(422)
    if operation.body is not None:
        errors |= {413, 415, 422}
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": references[operation.body, "validation"]}},
        }
    described["responses"] = {str(operation.status): _answer(operation, references)} | {
        str(status): {
            "description": title(status),
            "content": _html(operation) | {CONTENT_TYPE: {"schema": references[Problem, "validation"]}},
        }
        for status in sorted(errors)
    }
    return described


def _answer(operation: Operation, references: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"description": title(operation.status)}
    if content := _html(operation):
        described["content"] = content
    elif is_model(operation.answer):
        described["content"] = {"application/json": {"schema": references[operation.answer, "serialization"]}}
        if issubclass(operation.answer, Tabular):
            described["content"] |= {CSV: {"schema": {"type": "string"}}}
    return described


def _html(operation: Operation) -> dict[str, Any]:
    return {"text/html": {"schema": {"type": "string"}}} if operation.answer is Page else {}


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters = []
    for name, adapter in operation.parameters.items():
        schema = adapter.json_schema()
        about = schema.pop("description", "")
        parameters.append({"name": name, "in": "path", "required": True, "description": about, "schema": schema})
    return parameters


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    model = operation.query.model_json_schema()
    parameters = []
    for name, schema in model["properties"].items():
        about = schema.pop("description", "")
        required = name in model.get("required", ())
        # Optional parameters have no null: a query leaves them out.
        given = next((one for one in schema.get("anyOf", ()) if one.get("type") != "null"), schema)
        given = {key: value for key, value in given.items() if key != "title"}
        parameters.append({"name": name, "in": "query", "required": required, "description": about, "schema": given})
    return parameters
