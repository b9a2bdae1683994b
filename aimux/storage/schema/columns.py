"""Kinds of columns, so that a time is the same thing in every table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column

Json = JSON(none_as_null=True)
"""A list or a mapping. None is SQL's NULL, and not the JSON value null."""


def moment(name: str, **options: Any) -> Column[int]:
    """A time: whole milliseconds since 1970 in UTC. Not null unless said otherwise."""
    return Column(name, BigInteger, **{"nullable": False, **options})
