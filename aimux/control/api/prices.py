"""Operations on prices: what models cost, and the list that says so."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.problems import Refused, sentence
from aimux.control.api.usage import time_of
from aimux.control.api.usage_models import (
    Price,
    Priced,
    PriceList,
    PriceUpdate,
    Repricing,
    UpdatedPrices,
)
from aimux.control.principal import Principal, Role
from aimux.metering.tariff import LOTS
from aimux.storage.times import now

if TYPE_CHECKING:
    from aimux.metering.tariff import Rates

operation = Table()

_OFFLINE = "aimux goes on with the list that it has; try again when this machine reaches that address"


@operation("GET", "/prices", "List what models cost", role=Role.VIEWER)
async def list_prices(parts: Parts) -> PriceList:
    """Models that were charged for, by provider and name, at today's standard prices."""
    metering = parts.metering
    await metering.book.read()
    prices, at = metering.prices, now()
    items = []
    for (provider, model), tariff in sorted(prices.tariffs.items()):
        rates = prices.rates(provider, model, at)
        items.append(
            Price(
                provider=provider,
                model=model,
                source=metering.book.sources.get((provider, model), "") if tariff is not None else "",
                configured=sorted(prices.configured_kinds(model)),
                **({} if rates is None else _dollars(rates)),
            )
        )
    return PriceList(items=items)


@operation("POST", "/prices/update", "Take the newest list of prices", errors=(502,))
async def update_prices(parts: Parts, body: PriceUpdate, caller: Principal) -> UpdatedPrices:
    """From the internet. Requests that were priced before keep their price."""
    try:
        models, priced, source = await parts.metering.book.update(body.url or "")
    except (OSError, ValueError) as error:
        raise Refused(502, "no-list", sentence(str(error)), remedy=_OFFLINE) from None
    await parts.note(caller, "prices.update", "prices", after={"source": source})
    return UpdatedPrices(models=models, priced=priced, source=source)


@operation("POST", "/prices/apply", "Price what had no price")
async def apply_prices(parts: Parts, body: Repricing, caller: Principal) -> Priced:
    """For requests that are still kept, and in every sum that they are a part of."""
    metering = parts.metering
    await metering.book.read()
    requests = await metering.reprice(time_of(metering, "since", body.since))
    await parts.limits.refresh(recount=True)  # what was used of costs counted at an assumed price
    await parts.note(caller, "prices.apply", "prices", after={"requests": requests})
    return Priced(requests=requests)


def _dollars(rates: Rates) -> dict[str, float]:
    return {kind: price * LOTS.get(kind, 10**6) / 10**12 for kind, price in rates._asdict().items()}
