"""What the bodies of the API have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """Built at its first use: sixty of them took a tenth of each start, and few gateways use them all."""

    model_config = ConfigDict(defer_build=True)


def whole(value: Any) -> Any:
    """For a validator before the others: 5.0 is an integer in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
