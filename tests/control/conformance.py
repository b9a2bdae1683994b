"""Holds an answer of the API against its own OpenAPI document."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from aimux.control.api.api import OPERATIONS
from aimux.control.api.openapi import document
from aimux.control.api.operations import find
from aimux.plugin.parts import API

DOCUMENT = document(OPERATIONS)


def conforms(method: str, path: str, status: int, content_type: str, body: Any) -> None:
    """The status is documented for that operation, and the body fits its schema. `path` is below `/api/v1`."""
    try:
        operation, _ = find(OPERATIONS, method, path.partition("?")[0])
    except LookupError:
        assert content_type == "application/problem+json"
        Draft202012Validator({"$ref": "#/components/schemas/Problem", **DOCUMENT}).validate(body)
        return
    described = DOCUMENT["paths"][API + operation.path][method.lower()]["responses"]
    assert str(status) in described, f"{method} {operation.path} may not answer {status}"
    content = described[str(status)].get("content")
    if content is None:
        assert not body
        return
    assert content_type in content, f"{method} {operation.path} may not answer {status} as {content_type}"
    schema = content[content_type]["schema"]
    Draft202012Validator({"components": DOCUMENT["components"], **schema}).validate(body)
