"""What the API takes and gives about usage. Times are RFC 3339; in queries also `7d`, so long ago."""

# ruff: noqa: TC003 - pydantic evaluates the annotations

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from aimux.control.api.body import Body
from aimux.control.api.models import Given, Request
from aimux.control.api.tables import Tabular

When = Annotated[
    str,
    Field(max_length=40),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,5}[mhdw]$"},
                {"type": "string", "format": "date"},
                {"type": "string", "format": "date-time"},
            ]
        }
    ),
]


MOST_AFTER = 1300
"""Characters of the name of a page of conversations."""
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$", max_length=500)]


Name = Annotated[str, Field(max_length=256, pattern=r"^[^\x00]*$")]
"""PostgreSQL takes no null character, and would look out of order."""
Cursor = Annotated[str, Field(max_length=MOST_AFTER)]
RequestCursor = Annotated[str, Field(pattern=r"^req_[0-9A-Za-z]{1,60}$", max_length=64)]


class SpanQuery(Given):
    """Which time."""

    model_config = ConfigDict(populate_by_name=True)

    since: When = Field(default="7d", description="From when: RFC 3339, a date, or `7d` (m, h, d, w).")
    until: When | None = Field(default=None, description="Until when, written alike; default: now.")


class _Usage(SpanQuery):
    provider: Name | None = Field(default=None, description="Only this provider's.")
    model: Name | None = Field(default=None, description="That was served.")
    request_class: Name | None = Field(
        default=None, alias="class", description="What it was for, in the client's own word."
    )
    limit: int = Field(default=1000, ge=1, le=10_000, description="At most so many.")


class OwnUsageQuery(_Usage):
    """What of one's own usage."""

    by: Literal["model", "provider", "token", "conversation", "class", "client", "day", "hour"] = Field(
        default="model", description="What the sums are of."
    )
    after: Cursor | None = Field(default=None, description="`next` of the page before.")


class _EverybodysUsage(_Usage):
    user: Name | None = Field(default=None, description="Only this user's.")
    group: Name | None = Field(default=None, description="Only those of this group's members.")
    token: Name | None = Field(default=None, description="A token's id.")
    account: Name | None = Field(default=None, description="`provider/account`.")
    client: Name | None = Field(default=None, description="The first word of its user agent.")


class UsageQuery(_EverybodysUsage):
    """What of everybody's usage."""

    by: Literal[
        "user", "group", "token", "model", "account", "provider", "conversation", "class", "client", "day", "hour"
    ] = Field(default="user", description="What the sums are of.")
    after: Cursor | None = Field(default=None, description="`next` of the page before.")
    bucket: Literal["hour", "day", "month"] | None = Field(
        default=None, description="How long each point of `series` is; without it there are none."
    )
    rank: Literal["cost", "tokens", "requests"] = Field(
        default="cost", description="By what the largest are chosen for `series`."
    )
    kinds: bool = Field(default=False, description="Whether to split the cost by kind of tokens.")


class SeriesQuery(_EverybodysUsage):
    """What of everybody's usage, over time."""

    by: Literal["user", "group", "token", "model", "account", "provider", "class", "client"] | None = Field(
        default=None, description="What each series is of; without it there is one, of everything."
    )
    bucket: Literal["hour", "day", "month"] | None = Field(
        default=None, description="How long each point is; default: by the length of the span."
    )
    limit: int = Field(default=10, ge=1, le=100, description="At most so many series, those with the highest cost.")


class Sums(Body):
    """Tokens do not overlap: input is what was in no cache; reasoning is a part of the output."""

    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_usd: float = Field(description="Without that of unpriced requests.")
    unpriced_requests: int = Field(description="Requests of models whose price is not known.")


class Series(Body):
    """One line of a plot: a value for each of `times`."""

    name: str = Field(description='What it is of; "" for everything, "other" for what is left beside the largest.')
    requests: list[int]
    errors: list[int]
    input_tokens: list[int]
    output_tokens: list[int]
    cache_read_tokens: list[int]
    cache_write_tokens: list[int]
    reasoning_tokens: list[int]
    cost_usd: list[float]
    seconds: list[float] = Field(description="That requests took, in sum.")


class UsageSeries(Tabular):
    """Usage over time, without gaps."""

    bucket: Literal["hour", "day", "month"]
    times: list[datetime] = Field(description="When each point begins; days and months in `limits.time_zone`.")
    series: list[Series]

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        names = [name for name in Series.model_fields if name != "name"]
        return ["time", "name", *names], [
            [time, one.name, *[getattr(one, name)[number] for name in names]]
            for one in self.series
            for number, time in enumerate(self.times)
        ]


class Kinds(Body):
    """What each kind of tokens costs, and what the prompt cache saves: US dollars at today's list prices."""

    input: float
    output: float
    cache_read: float
    cache_write: float
    saved: float = Field(
        description="What cached tokens would cost as plain input, less what they do cost, written ones included."
    )


class Usage(Tabular):
    """Sums by name."""

    by: str = Field(description="What the sums are of.")
    items: list[dict[str, str | int | float]] = Field(
        description="Each has its name under what was asked for by `by` (a conversation its user, too, and a token "
        "its user and label, as long as it is known), and the fields of `total`. By cost, days and hours by time, "
        "conversations by when they were last active."
    )
    total: Sums = Field(description="Of all items, on whichever page; each request once.")
    series: UsageSeries | None = Field(
        default=None, description="The seven largest over time and all others as one, where `bucket` was asked for."
    )
    kinds: Kinds | None = Field(default=None, description="Where they were asked for.")
    unread: int | None = Field(
        default=None,
        description="How many batches, films, fine-tuning jobs and answers in the background were begun in this time "
        "of which nobody has read yet what they took: that is not in the sums. Null where only a part of a user's or a "
        "provider's requests was asked for.",
    )
    next: str | None = Field(description="`after` of the next page.")

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        beside = {"conversation": ["user"], "token": ["user", "label"]}
        named = [self.by, *beside.get(self.by, [])]
        return [*named, *Sums.model_fields], [list(item.values()) for item in self.items]


class AccountWindow(Body):
    """One of a vendor's windows, and what was metered while it moved. Fractions: 1 is a whole window."""

    account: str = Field(description="`provider/account`.")
    window: str = Field(description="As the vendor has it: `5h`, `7d`, …")
    used: float = Field(description="As it was told last.")
    resets_at: datetime | None
    moved: float = Field(description="By how much in sum: a window that began again goes on being counted.")
    unexplained: float = Field(description="The part of `moved` in hours in which nothing went through aimux.")
    requests: int
    tokens: int = Field(description="Of every kind, by this account.")
    cost_usd: float
    tokens_per_percent: float | None = Field(description="Of what is explained; null: nothing is.")


class AccountWindows(Tabular):
    """By account and window."""

    items: list[AccountWindow]

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        names = list(AccountWindow.model_fields)
        return names, [[getattr(one, name) for name in names] for one in self.items]


class RequestQuery(SpanQuery):
    """Which requests."""

    user: Name | None = Field(default=None, description="Only this user's.")
    group: Name | None = Field(default=None, description="Only those of this group's members.")
    token: Name | None = Field(default=None, description="A token's id.")
    provider: Name | None = Field(default=None, description="Only this provider's.")
    account: Name | None = Field(default=None, description="`provider/account`.")
    model: Name | None = Field(default=None, description="That was served.")
    client: Name | None = Field(default=None, description="The first word of its user agent.")
    request_class: Name | None = Field(
        default=None, alias="class", description="What it was for, in the client's own word."
    )
    conversation: Name | None = Field(default=None, description="As the client names it, or its hash.")
    status: int | None = Field(default=None, ge=0, le=599, description="That the client got; 0: it left before.")
    failed: bool | None = Field(default=None, description="Only those that failed, or only the others.")
    limit: int = Field(default=100, ge=1, le=1000, description="At most so many.")
    after: RequestCursor | None = Field(default=None, description="`next` of the page before.")


class OwnRequestQuery(SpanQuery):
    """Which of one's own requests."""

    provider: Name | None = Field(default=None, description="Only this provider's.")
    model: Name | None = Field(default=None, description="That was served.")
    failed: bool | None = Field(default=None, description="Only those that failed, or only the others.")
    limit: int = Field(default=100, ge=1, le=1000, description="At most so many.")
    after: RequestCursor | None = Field(default=None, description="`next` of the page before.")


class RequestPage(Tabular):
    """Requests that are over, the latest first."""

    items: list[Request]
    next: str | None = Field(description="`after` of the next page.")

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        names = [name for name in Request.model_fields if name not in {"limit", "steps", "choices", "tokens"}]
        kinds = ["input", "output", "cache_read", "cache_write", "reasoning"]
        return [*names, *[f"{kind}_tokens" for kind in kinds]], [
            [
                *[getattr(one, name) for name in names],
                *[getattr(one.tokens, kind) if one.tokens else 0 for kind in kinds],
            ]
            for one in self.items
        ]


class Price(Body):
    """What a model costs: US dollars for a million tokens. Null: no price is known."""

    provider: str
    model: str
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    reasoning: float | None = None
    server_tools: float | None = Field(default=None, description="For a thousand requests to the vendor's own tools.")
    minutes: float | None = Field(default=None, description="For a minute of sound or film; 0: not sold by that.")
    characters: float | None = Field(default=None, description="For a million of them; 0: not sold by that.")
    source: str = Field(description="The list that it is from; empty: none has it.")
    configured: list[str] = Field(description="Kinds whose price is the configuration's.")


class PriceList(Body):
    """Prices of models."""

    items: list[Price]


class PriceUpdate(Given):
    """Where the newest list is."""

    url: HttpUrl | None = Field(default=None, description="Default: where genai-prices publishes it.")


class UpdatedPrices(Body):
    """What came of it."""

    models: int = Field(description="How many were looked up.")
    priced: int = Field(description="How many of them have a price.")
    source: str


class Repricing(Given):
    """From when on."""

    since: When = Field(default="90d", description="RFC 3339, a date, or `7d` (m, h, d, w).")


class Priced(Body):
    """What came of it."""

    requests: int = Field(description="How many have a price now.")
