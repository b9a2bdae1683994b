"""What the bodies of the API have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """Built at its first use: sixty of them took a tenth of each start, and few gateways use them all."""

    model_config = ConfigDict(defer_build=True)
