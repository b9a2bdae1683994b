"""Reads genai-prices, pydantic's list of what vendors charge, into tariffs as they are stored.

Importing it takes 0.4 s and 15 MB, for a few numbers that are then kept in the database. So a server does it in a
process of its own (`python -m aimux.metering.price_list`), once for each model that it has not met before.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "web_searches_kcount": "server_tools",
    "audio_hours": "minutes",
    "input_mchars": "characters",
}
APART = {
    "audio": {"input_audio_mtok": "input", "output_audio_mtok": "output", "cache_audio_read_mtok": "cache_read"},
    "image": {"input_image_mtok": "input", "output_image_mtok": "output", "cache_image_read_mtok": "cache_read"},
    "file_search": {"storage_searches_kcount": "server_tools"},
}
"""Tiers of parts of a usage (`Usage.beside`), and the prices in which they differ from the rest."""
TIERS = ("service_tier", "speed")
"""What of a request makes its tier."""
MOST_MEMORY = 1 << 29
"""Bytes of this process where a list is fetched, which takes a third. A body without an end would have all that the
service may use, and end it."""
PER = {"server_tools": Decimal(10) ** 9, "minutes": Decimal(10) ** 12 / 3600}
"""Dollars for a thousand requests, or an hour, in picodollars for one, or a second; the other prices are for a million
tokens or characters."""


OPENROUTER = "https://openrouter.ai/"
FREE = [[0, {"": [[0, {"input": 0, "output": 0}]]}]]
ROUTED = frozenset({"nitro", "floor", "exacto"})
"""Variants of its models that differ in who serves them. The list has none."""


class Wanted(NamedTuple):
    """A model whose prices are wanted. `vendor`: as genai-prices names it ("": the one whose address `base_url` is)."""

    vendor: str
    base_url: str
    model: str


def source() -> str:
    """The name of the list."""
    return f"genai-prices {version('genai-prices')}"


def fetch(url: str = "") -> None:
    """Use the newest list instead of the installed one. Raises OSError with what went wrong."""
    from genai_prices import UpdatePrices
    from genai_prices.data_snapshot import set_custom_snapshot

    updater = UpdatePrices(url=url) if url else UpdatePrices()
    try:
        snapshot = updater.fetch()
    except Exception as error:  # its HTTP client's, or those of checking the list
        reason = "it is too large" if isinstance(error, MemoryError) else str(error).partition("\n")[0]
        raise OSError(f"the list of prices can't be fetched from {updater.url}: {reason}") from error
    set_custom_snapshot(snapshot)


def look_up(wanted: Wanted) -> list[Any] | None:
    """The model's tariff, as `Tariff.of_json` takes it; None if the list does not have it."""
    if wanted.base_url.startswith(OPENROUTER):
        name, _, variant = wanted.model.rpartition(":")
        if name and variant == "free":
            return FREE
        if name and variant in ROUTED:
            wanted = wanted._replace(model=name)
    model = _find(wanted)
    if model is None:
        return None
    starts = {datetime(1970, 1, 1, tzinfo=UTC)}
    conditional = model.prices if isinstance(model.prices, list) else []
    for dated in [*conditional, *(getattr(model, "price_variants", None) or ())]:
        if (start := getattr(dated.constraint, "start_date", None)) is not None:
            starts.add(datetime.combine(start, time(), UTC))
    contexts = {"": {}} | {
        value: {key: value}
        for variant in getattr(model, "price_variants", None) or ()
        for key, value in variant.when.items()
        if key in TIERS and len(variant.when) == 1
    }
    steps: list[Any] = []
    for start in sorted(starts):
        tiers = {name: _tier(_prices(model, start, context)) for name, context in contexts.items()}
        tiers |= {name: _tier(_prices(model, start, {}), own) for name, own in APART.items()}
        tiers = {name: tier for name, tier in tiers.items() if name == "" or (tier and tier != tiers[""])}
        if tiers[""] and (not steps or steps[-1][1] != tiers):
            steps.append([int(start.timestamp() * 1000), tiers])
    return steps or None


def _find(wanted: Wanted) -> Any:
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    for vendor, url in ((wanted.vendor, ""), ("", wanted.base_url), ("", "")):
        if wanted.vendor and not vendor:
            return None  # another vendor's model of this name may cost something else
        try:
            return snapshot.find_provider_model(wanted.model, None, vendor or None, url or None)[1]
        except LookupError:
            continue
    return None


def _prices(model: Any, at: datetime, context: dict[str, str]) -> Any:
    """Prices that change with the time of day count at their highest."""
    prices = model.prices
    if isinstance(prices, list) and any(hasattr(one.constraint, "start_time") for one in prices):
        return max((one.prices for one in prices), key=lambda one: _flat(getattr(one, "input_mtok", None)))
    return model.get_prices(at, context) if context else model.get_prices(at)


def _flat(price: Any) -> Decimal:
    return getattr(price, "base", price) or Decimal(0)


def _tier(prices: Any, own: Mapping[str, str] = MappingProxyType({})) -> list[Any]:
    """`[[above, {kind: price}]]`, the longest context first; [] if nothing has a price. `own`: keys of the kinds that
    have a price of their own here."""
    found = {kind: price for key, kind in {**KEYS, **own}.items() if (price := vars(prices).get(key)) is not None}
    if not {"input", "output", "minutes", "characters"} & set(found):
        return []
    above = {0} | {step.start for price in found.values() for step in getattr(price, "tiers", ())}
    return [
        [start, {kind: int(_at(price, start) * PER.get(kind, 10**6)) for kind, price in found.items()}]
        for start in sorted(above, reverse=True)
    ]


def _at(price: Any, start: int) -> Decimal:
    """The price for a request of more than `start` input tokens."""
    value = _flat(price)
    for step in getattr(price, "tiers", ()):
        if step.start <= start:
            value = step.price
    return Decimal(value)


def main() -> None:
    """Tariffs for the models on stdin, as JSON; from the newest list if `fetch` is not null."""
    asked = json.load(sys.stdin)
    name = source()
    if asked["fetch"] is not None:
        with contextlib.suppress(OSError, ValueError):  # a lower one holds already, or the system knows none
            resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        try:
            fetch(asked["fetch"])
        except OSError as error:
            sys.exit(str(error))
        name = f"genai-prices of {datetime.now(UTC).date()}"
    wanted = [Wanted(*one) for one in asked["wanted"]]
    json.dump({"source": name, "tariffs": [look_up(one) for one in wanted]}, sys.stdout)


if __name__ == "__main__":
    main()
