"""What a request cost: looked up in memory, and worked out in about a microsecond."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from aimux.compiling import mypyc_attr
from aimux.metering.tariff import KINDS, LOTS, STANDARD, Rates, Tariff, complete, overridden
from aimux.plugin.types import BATCH, FAST, REGIONAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimux.config.ledger import Price
    from aimux.metering.record import RequestRecord
    from aimux.plugin.usage import Usage

MAX_CACHED = 2000
_NO_TOKENS = {"server_tools": "server_tools", "minutes": "seconds", "characters": "characters"}
USED = {kind: _NO_TOKENS.get(kind) or f"{kind}_tokens" for kind in KINDS}
"""The attribute of a usage that says how much of each kind it is."""


class Override:
    """Prices of the configuration for models of a pattern: each kind in picodollars a token."""

    def __init__(self, pattern: str, prices: Mapping[str, int]) -> None:
        self.prices = prices
        if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
            self._matches: Callable[[str], object] = re.compile(pattern[1:-1]).fullmatch
            self.order = 1
        elif pattern.endswith("*"):
            self._matches = lambda model: model.startswith(pattern[:-1])
            self.order = 2 - len(pattern)
        else:
            self._matches = pattern.__eq__
            self.order = -1_000_000
        """An exact name comes before the longest prefix, and that before an expression, as in `models`."""

    def matches(self, model: str) -> bool:
        return bool(self._matches(model))


def configured(prices: Mapping[str, Price]) -> list[Override]:
    """The section `prices`, which is in dollars for `LOTS`."""
    return [
        Override(
            pattern,
            {
                kind: round(value * (10**12 / LOTS.get(kind, 10**6)))
                for kind in KINDS
                if (value := getattr(price, kind)) is not None
            },
        )
        for pattern, price in prices.items()
    ]


LONG_CONTEXT = 200_000
"""Tokens."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Prices:
    """The price lists of the moment. `tariffs` is by provider (an instance's name) and model; None: no list has it."""

    def __init__(self) -> None:
        self.tariffs: dict[tuple[str, str], Tariff | None] = {}
        self._overrides: list[Override] = []
        self._factors: Mapping[tuple[str, str], float] = {}
        self._adjusted = False
        """Whether the configuration has anything to say of what a request costs."""
        self.on_unknown: Callable[[str, str, int], None] = lambda _provider, _model, _at: None
        """Told of providers and models that nobody has looked up yet, and of when one was asked for (milliseconds)."""
        self._overridden: dict[str, Mapping[str, int] | None] = {}

    def configure(self, overrides: list[Override], factors: Mapping[tuple[str, str], float]) -> None:
        """Take the configuration's prices, and the factors of accounts (provider and name) that have one."""
        self._overrides = sorted(overrides, key=lambda override: override.order)
        self._factors = factors
        self._adjusted = bool(overrides or factors)
        self._overridden.clear()

    def of_record(self, record: RequestRecord) -> int | None:
        """Nanodollars; None where no price is known. 0 for a request that used nothing. Worked out once."""
        if record.cost is not None:
            return record.cost
        usage = record.usage
        if usage is None:
            return 0
        tokens = usage.total_input
        if not (tokens or usage.output_tokens or usage.anything):
            return 0
        model = usage.model or record.model
        tariff = self.tariffs.get((record.provider, model))
        if (
            tariff is None
            or self._adjusted
            or tokens > tariff.usual_input
            or record.time < tariff.usual_from
            or usage.tier in tariff.apart
            or REGIONAL in usage.tier
            or usage.beside
            or usage.seconds
            or usage.characters
            or usage.unknown
        ):
            cost = self.cost(record.provider, record.account, model, usage, int(record.time * 1000))
        else:
            cost = tariff.usual.cost(usage)
        record.cost = cost
        return cost

    def cost(self, provider: str, account: str, model: str, usage: Usage, at: int) -> int | None:
        """Nanodollars for a request of that time (milliseconds); None where no price is known."""
        beside, whole_input, tariff = usage.beside, usage.total_input, self.tariffs.get((provider, model))
        if beside:
            usage = replace(usage)
            usage.put_beside(())
        rates = self.rates(provider, model, at, usage.tier, usage.total_input // usage.requests)
        if rates is None or ((provider, model) not in self.tariffs and self._left_out(model, usage)):
            return None
        if not rates.covers(usage) or (usage.unknown and any(rates)):
            return None
        cost = rates.cost(usage)
        for one in beside:
            its: Rates | None = rates
            if one.model:
                its = self.rates(provider, one.model, at, one.tier, one.total_input)
            elif tariff is not None and one.tier != usage.tier and one.tier in tariff.tiers:
                its = self.rates(provider, model, at, one.tier, whole_input)
            cost += (its or rates).cost(one)
        factor = self._factors.get((provider, account))
        return cost if factor is None else round(cost * factor)

    def long_context(self, provider: str, model: str, at: float) -> int | None:
        """Above how many tokens of input a token costs more (`at`: unix seconds); None: it never does.

        Where no price is known, that is where the models begin that have such a price.
        """
        tariff = self.tariffs.get((provider, model))
        return LONG_CONTEXT if tariff is None else tariff.long_context(int(at * 1000))

    def costless(self, provider: str, model: str, at: float) -> bool:
        """Whether it is known that a token costs nothing (`at`: unix seconds), whatever its kind."""
        rates = self.rates(provider, model, int(at * 1000))
        listed = (provider, model) in self.tariffs or {"input", "output"} <= self.configured_kinds(model)
        return rates is not None and listed and not any(rates)

    def rates(self, provider: str, model: str, at: int, tier: str = "", total_input: int = 0) -> Rates | None:
        """What holds for such a request, the configuration's prices before the list's."""
        if tier.endswith(REGIONAL):
            whole = self.rates(provider, model, at, tier.removesuffix(REGIONAL), total_input)
            return None if whole is None else whole.regional()
        if tier == BATCH:
            whole = self.rates(provider, model, at, STANDARD, total_input)
            return None if whole is None else whole.halved()
        tariff = self.tariffs.get((provider, model))
        if tariff is None and (provider, model) not in self.tariffs:
            self.on_unknown(provider, model, at)
        own = self._own(model) if self._overrides else None
        if own is None:
            if tariff is None or (tier == FAST and FAST not in tariff.tiers):
                return None
            return tariff.rates(at, tier, total_input)
        if tariff is None:
            return complete(own)
        return overridden(tariff.rates(at, tier, total_input), own)

    def _left_out(self, model: str, usage: Usage) -> bool:
        """Whether a request used what the configuration has no price for: as long as nobody has looked into the list,
        it would count as free, for good."""
        own = self._own(model) or {}
        return any(getattr(usage, used) and kind not in own for kind, used in USED.items())

    def configured_kinds(self, model: str) -> set[str]:
        """The kinds of tokens whose price is the configuration's."""
        return set(self._own(model) or ())

    def _own(self, model: str) -> Mapping[str, int] | None:
        if model not in self._overridden:
            if len(self._overridden) >= MAX_CACHED:
                self._overridden.clear()
            self._overridden[model] = next((one.prices for one in self._overrides if one.matches(model)), None)
        return self._overridden[model]
