"""The sections `ledger` and `metrics`: what is kept of requests, and what is counted of them."""

from __future__ import annotations

from pydantic import Field

from aimux.config.scalars import Duration, Size  # noqa: TC001 - pydantic evaluates the annotations
from aimux.config.sections import Section


class Ledger(Section):
    """How long requests are kept, and where they wait for the database."""

    keep_requests: Duration = Field(
        default=90 * 86400.0, ge=86400, description="How long single requests are kept. Their sums stay for ever."
    )
    spill_limit: Size = Field(
        default=256 * 1024 * 1024,
        ge=1024 * 1024,
        le=1024**4,
        description="How much may wait in state_dir while the database is away: a MiB holds about 3,000 requests.",
    )


class MetricsOptions(Section):
    """How much `/metrics` tells."""

    per_user: bool = Field(
        default=False, description="Whether the metrics tell users apart, and the models that each of them uses."
    )
