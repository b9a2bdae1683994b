"""The operations as docs/api.md lists them: `python -m tests.control.api_table` prints the table."""

from __future__ import annotations

import sys
from types import NoneType

from aimux.control.api.api import OPERATIONS
from aimux.control.api.operations import Operation, Page


def table() -> str:
    """In Markdown."""
    return "\n".join(
        ["| operation | what it does | takes | gives |", "| --- | --- | --- | --- |", *map(_row, OPERATIONS)]
    )


def _row(operation: Operation) -> str:
    models = [model for model in (operation.query, operation.body) if model is not None]
    takes = ", ".join(f"`{field.alias or name}`" for model in models for name, field in model.model_fields.items())
    gives = {NoneType: "–", Page: "a page"}.get(operation.answer, operation.answer.__name__)
    key = " (needs no key)" if operation.role is None else ""
    return f"| `{operation.method} {operation.path}` | {operation.summary}{key} | {takes or '–'} | {gives} |"


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
