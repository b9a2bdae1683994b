"""What one model costs: prices by kind of token, for each length of context, service tier and date.

Prices are whole picodollars a token (3 $ a million tokens are 3,000,000), costs whole nanodollars: sums are exact.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.plugin.types import BATCH, FAST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.plugin.usage import Usage

NO_END = 1 << 60
"""More tokens than any request has."""
STANDARD = ""
"""The service tier that counts for every one that has no prices of its own."""
KINDS = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "server_tools",
    "minutes",
    "characters",
)
"""`server_tools`: a request to one of them; `minutes`: of sound or film; `characters`: of a text that is spoken."""
LOTS = {"server_tools": 1_000, "minutes": 60}
"""How many of a kind people name a price for, in dollars; of the others it is a million. Rates are for one: of minutes
for a second."""


_PARTS = (
    ("cache_read", "input"),
    ("cache_write", "input"),
    ("cache_write_1h", "cache_write"),
    ("reasoning", "output"),
)


class Rates(NamedTuple):
    """What each kind costs. The kinds do not overlap but for these: `reasoning` is a part of the output, and
    `cache_write_1h` of what is written to the cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    server_tools: int = 0
    minutes: int = 0
    characters: int = 0

    def cost(self, usage: Usage) -> int:
        """In nanodollars."""
        input_, output, read, written, written_1h, reasoning, tools, seconds, characters = self
        pico = (
            usage.input_tokens * input_
            + usage.output_tokens * output
            + usage.cache_read_tokens * read
            + usage.cache_write_tokens * written
        )
        if usage.cache_write_1h_tokens:
            pico += min(usage.cache_write_1h_tokens, usage.cache_write_tokens) * (written_1h - written)
        if usage.reasoning_tokens:
            pico += min(usage.reasoning_tokens, usage.output_tokens) * (reasoning - output)
        if usage.server_tools:
            pico += usage.server_tools * tools
        if usage.seconds:
            pico += usage.seconds * seconds
        if usage.characters:
            pico += usage.characters * characters
        return (pico + 500) // 1000

    def covers(self, usage: Usage) -> bool:
        """Whether there is a price for the way in which it is sold: by the token, by its length, by the character."""
        if not any(self):
            return True  # it is known to cost nothing
        if usage.seconds or usage.characters:
            return bool((self.minutes or not usage.seconds) and (self.characters or not usage.characters))
        return bool(self.input or self.output) or not (usage.total_input or usage.output_tokens)

    def halved(self) -> Rates:
        """What they are for a batch: half, but for the requests to tools."""
        return Rates._make(price // 2 for price in self)._replace(server_tools=self.server_tools)

    def regional(self) -> Rates:
        """What they are in a region of the customer's choice: a tenth more, but for the requests to tools."""
        return Rates._make(price * 11 // 10 for price in self)._replace(server_tools=self.server_tools)


Tier = list[tuple[int, Rates]]
"""Rates with the input tokens above which they hold for the whole request, the largest first; the last holds from 0."""


class Tariff:
    """A model's prices over time."""

    def __init__(self, steps: list[tuple[int, Mapping[str, Tier]]]) -> None:
        """`steps`: from when (milliseconds since 1970), and what each service tier costs then; in the order of time."""
        self._from = [at for at, _ in steps]
        self._tiers = [tiers for _, tiers in steps]
        latest = self._tiers[-1]
        self.usual = latest[STANDARD][-1][1]
        """What nearly every request costs: since `usual_from` (unix seconds), with `usual_input` tokens of input at
        most, in a tier that is none of `apart`."""
        self.usual_from = self._from[-1] / 1000 if len(self._from) > 1 else -math.inf
        self.usual_input = latest[STANDARD][-2][0] if len(latest[STANDARD]) > 1 else NO_END
        if not (self.usual.input or self.usual.output):
            self.usual_input = -1  # it is not sold by the token
        self.tiers = frozenset(latest)
        self.apart = (self.tiers - {STANDARD}) | {BATCH, FAST}

    def rates(self, at: int, tier: str = STANDARD, total_input: int = 0) -> Rates:
        """What holds for a request of that time. Before the first step, the first one holds."""
        tiers = self._tiers[bisect_right(self._from, at, 1) - 1]
        found = tiers.get(tier) or tiers[STANDARD]
        for above, rates in found:
            if total_input > above:
                return rates
        return found[-1][1]

    def long_context(self, at: int) -> int | None:
        """Above how many tokens of input a token costs more; None: it never does."""
        tiers = self._tiers[bisect_right(self._from, at, 1) - 1]
        return min((above for above, _ in tiers[STANDARD] if above), default=None)

    @classmethod
    def of_json(cls, data: Any) -> Tariff:
        """From what is stored: `[[from, {tier: [[above, {kind: price}]]}]]`. Raises ValueError, also for what another
        version may have written in a shape of its own."""
        try:
            return cls(
                [(int(at), {name: [_step(*one) for one in of] for name, of in tiers.items()}) for at, tiers in data]
            )
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"no tariff: {error!r}") from None


def complete(prices: Mapping[str, int]) -> Rates:
    """Rates of what a price list says. What it leaves out costs what it is a part of: no cache read is ever free
    because somebody forgot it, and none is negative."""
    input_price, output = prices.get("input", 0), prices.get("output", 0)
    written = prices.get("cache_write", input_price)
    return Rates(
        input_price,
        output,
        prices.get("cache_read", input_price),
        written,
        prices.get("cache_write_1h", written),
        prices.get("reasoning", output),
        prices.get("server_tools", 0),
        prices.get("minutes", 0),
        prices.get("characters", 0),
    )


def overridden(listed: Rates, own: Mapping[str, int]) -> Rates:
    """A list's rates with prices of the configuration's own. What the list sells at the price of the whole that it is a
    part of goes on costing what the whole does."""
    rates = listed._replace(**own)
    for part, whole in _PARTS:
        if part not in own and getattr(listed, part) == getattr(listed, whole):
            rates = rates._replace(**{part: getattr(rates, whole)})
    return rates


def _step(above: Any, prices: Any) -> tuple[int, Rates]:
    """Of any types: compiled code takes a boolean for a number where one is declared."""
    if any(type(value) is not int for value in prices.values()):
        raise ValueError("a price that is no whole number")
    if any(value < 0 for value in prices.values()):
        raise ValueError("a price below 0")
    return int(above), complete(prices)
