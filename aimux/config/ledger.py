"""The sections `ledger`, `prices` and `metrics`: what is kept of requests, what they cost, what is counted of them."""

from __future__ import annotations

from pydantic import Field

from aimux.config.limits import Dollars  # noqa: TC001 - pydantic evaluates the annotations
from aimux.config.scalars import Duration, Size  # noqa: TC001
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


class Price(Section):
    """What a model costs. A price that is not given follows the price list, or what it is a part of: `cache_read` costs
    as much as `input`, `reasoning` as much as `output`."""

    input: Dollars | None = Field(default=None, description="US dollars for a million tokens of input.")
    output: Dollars | None = Field(default=None, description="US dollars for a million tokens of output.")
    cache_read: Dollars | None = Field(
        default=None, description="US dollars for a million tokens that are read from a cache."
    )
    cache_write: Dollars | None = Field(
        default=None, description="US dollars for a million tokens that are written to a cache."
    )
    cache_write_1h: Dollars | None = Field(
        default=None,
        description="US dollars for a million tokens that are written to a cache for the "
        "longer time that there is (an hour at Anthropic, twelve at OpenAI).",
    )
    reasoning: Dollars | None = Field(
        default=None, description="US dollars for a million tokens of output that are reasoning."
    )
    server_tools: Dollars | None = Field(
        default=None, description="US dollars for a thousand searches (or other tools that the vendor runs itself)."
    )
    minutes: Dollars | None = Field(
        default=None, description="US dollars for a minute of sound or film, where it is sold by its length."
    )
    characters: Dollars | None = Field(
        default=None, description="US dollars for a million characters of text to be spoken, where it is sold by them."
    )


class MetricsOptions(Section):
    """How much `/metrics` tells."""

    per_user: bool = Field(
        default=False, description="Whether the metrics tell users apart, and the models that each of them uses."
    )
