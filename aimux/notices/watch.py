"""Checks a running aimux now and then for what is worth a notice. None of it is on a request's way."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aimux.limits.rules import LIMITS, Unit, dollars
from aimux.notices.notice import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimux.accounts import Account, AccountPool
    from aimux.limits.leases import Mark
    from aimux.metering.prices import Prices
    from aimux.notices.teller import Teller
    from aimux.plugin.types import LimitWindow

EVERY = 5.0
MARKS = (0.8, 0.95)
SAME_RESET = 600.0
"""Seconds by which a window's reset may waver, and is the same one."""
DAYS = (14, 3)
"""Days before the end of a certificate, or of a login that can't be renewed, or not beyond it."""
MOST_UNPRICED = 20
"""Models without a price that have a notice each: where an upstream takes any name, a client can make up thousands."""


class Watch:
    """`run` checks until it is cancelled; limits call `marked` by themselves."""

    def __init__(
        self,
        teller: Teller,
        pools: Mapping[str, AccountPool],
        prices: Prices,
        certificate_ends: Callable[[float], float | None],
    ) -> None:
        """`certificate_ends`: when the server's own certificate does, unix seconds; None: none does soon."""
        self._teller = teller
        self._pools = pools
        self._prices = prices
        self._certificate_ends = certificate_ends
        self._present: dict[str, Notice] = {}
        """What held at the last look."""
        self._resets: dict[tuple[str, str], float] = {}
        """When an account's window resets, as it was first told."""
        self._unpriced: dict[tuple[str, str], None] = {}
        """Models whose price is not known, and said so: provider and name."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self.look(time.time())

    def look(self, now: float) -> None:
        """Send what is new. What is over may come again."""
        found = {notice.key: notice for notice in self._notices(now)}
        for notice in found.values():
            self._teller.tell(notice)
        for key, notice in self._present.items():
            # A window's reset is in its key, and until then what vendors say of it wavers.
            if key not in found and not notice.details.get("resets_at"):
                self._teller.forget(notice)
        self._present = found

    def marked(self, mark: Mark) -> None:
        """A limit has reached one of its marks."""
        standing = mark.standing
        cost = LIMITS[standing.limit].unit is Unit.COST
        amount = dollars(standing.amount) if cost else f"{standing.amount:,.0f}"
        scope = f" for {standing.scope}" if standing.scope else ""
        self._teller.tell(
            Notice(
                "limit",
                str(standing.owner),
                f"{standing.owner} has used {standing.part:.0%} of {standing.limit}{scope} ({amount}).",
                time.time(),
                {"limit": standing.limit, "scope": standing.scope, "amount": standing.amount, "used": standing.used},
                (standing.limit, standing.scope, standing.resets_at, mark.part),
            )
        )

    def _notices(self, now: float) -> list[Notice]:
        found: list[Notice] = []
        for provider, pool in self._pools.items():
            accounts = list(pool.accounts.values())
            for account in accounts:
                found += self._of_account(account, now)
            free = [account.free_at("") for account in accounts]
            if accounts and min(free) > now and any(account.quota.cooling(now) for account in accounts):
                again = datetime.fromtimestamp(min(free), UTC) if min(free) < 4e9 else None
                when = f"the next one is free at {again:%Y-%m-%d %H:%M} UTC" if again else "none comes back by itself"
                found.append(Notice("accounts_limited", provider, f"No {provider} account has room: {when}.", now))
        ends = self._certificate_ends(now)
        if ends is not None:
            found += _ending("certificate", "certificate", "aimux's certificate", ends, now)
        return found + self._without_price(now)

    def _without_price(self, now: float) -> list[Notice]:
        unpriced = dict.fromkeys(
            (provider, model)
            for (provider, model), tariff in list(self._prices.tariffs.items())
            if model and tariff is None and self._prices.rates(provider, model, int(now * 1000)) is None
        )
        told = self._unpriced = {one: None for one in self._unpriced if one in unpriced}
        news = [one for one in unpriced if one not in told]
        told |= dict.fromkeys(news[: MOST_UNPRICED - len(told)])
        found = []
        for provider, model in told:
            name = model if model.isprintable() else ascii(model)  # a client chose it: no lines of its own in a chat
            message = f"The price of {name} ({provider}) is not known: set it under `prices`, or update the list."
            found.append(Notice("unknown_price", f"{provider}/{model}", message, now))
        if len(unpriced) > len(told):
            message = "The prices of more models are not known: `aimux prices` shows which."
            found.append(Notice("unknown_price", "others", message, now))
        return found

    def _of_account(self, account: Account, now: float) -> list[Notice]:
        name = f"{account.provider}/{account.name}"
        found = []
        state = account.state(now)
        if state.status == "parked":
            remedy = f" → {state.remedy}" if state.remedy else ""
            found.append(Notice("account_parked", name, f"{name} is parked: {state.reason}{remedy}", now))
        for window in account.quota.windows.values():
            over = window.resets_at is not None and window.resets_at <= now
            reached = [mark for mark in MARKS if (window.used or 0.0) >= mark]
            if window.scope is None and reached and not over:
                message = f"{name} has used {window.used:.0%} of its {window.name} window."
                details = {"window": window.name, "used": window.used, "resets_at": window.resets_at}
                once = (window.name, round(self._reset(name, window) / SAME_RESET), reached[-1])
                found.append(Notice("window", name, message, now, details, once))
        credential, renewer = account.credential, account.renewer
        lasts = credential is None or (credential.renewable and (renewer is None or not renewer.refused))
        if credential is not None and not lasts and credential.expires_at is not None:
            found += _ending("credential", name, f"{name}'s login, which can't be renewed,", credential.expires_at, now)
        elif credential is not None and credential.login_ends_at is not None:
            what = f"{name}'s login, after which somebody has to log in again,"
            found += _ending("credential", name, what, credential.login_ends_at, now)
        return found

    def _reset(self, account: str, window: LimitWindow) -> float:
        told, key = window.resets_at or 0.0, (account, window.name)
        if abs(told - self._resets.setdefault(key, told)) > SAME_RESET:
            self._resets[key] = told
        return self._resets[key]


def _ending(event: str, about: str, what: str, ends: float, now: float) -> list[Notice]:
    days = [day for day in DAYS if ends - now <= day * 86400]
    if not days:
        return []
    verb = "has ended" if ends <= now else "ends"
    message = f"{what} {verb} on {datetime.fromtimestamp(ends, UTC):%Y-%m-%d at %H:%M} UTC."
    return [Notice(event, about, message, now, {"ends": ends}, (round(ends), min(days), ends <= now))]
