"""The vocabulary of questions to the ledger and of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from aimux.metering.spans import Span

By = Literal["user", "group", "token", "model", "account", "provider", "conversation", "class", "client", "day", "hour"]
BY: tuple[By, ...] = get_args(By)
SERVED: frozenset[By] = frozenset({"model", "account", "provider", "class", "client"})
"""Groupings that do not depend on the sender: they have few names, and daily sums of their own."""
Bucket = Literal["hour", "day", "month"]
Points = dict[tuple[int, str], list[int]]
"""Sums by the start of an hour, day or month, and by name."""


class Filter(NamedTuple):
    """Which requests count; "" means those without a value, None all."""

    user: str | None = None
    group: str | None = None
    token: str | None = None
    provider: str | None = None
    account: str | None = None
    """`provider/name`."""
    model: str | None = None
    request_class: str | None = None
    client: str | None = None


EVERYTHING = Filter()


class Picked(NamedTuple):
    """Which single requests, besides a filter. `before`: only those before this id, in the order of time."""

    span: Span
    before: str | None = None
    conversation: str | None = None
    status: int | None = None
    failed: bool | None = None


class Item(NamedTuple):
    """A sum under a name. Tokens as in `plugin.usage.Usage`; `cost` in nanodollars, `duration` in milliseconds."""

    name: str
    requests: int = 0
    errors: int = 0
    unpriced: int = 0
    estimated: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    server_tools: int = 0
    cost: int = 0
    duration: int = 0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.input + self.output + self.cache_read + self.cache_write


class Report(NamedTuple):
    """`items` by cost, days and hours by time. `total` has each request once, even if groups share it."""

    items: list[Item]
    total: Item


class Lines(NamedTuple):
    """A plot. `named`: points by start, of the most expensive names in order; `rest`: of all others together."""

    named: dict[str, dict[int, Item]]
    rest: dict[int, Item]
