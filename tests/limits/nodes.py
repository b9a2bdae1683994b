"""What nodes on one PostgreSQL do, asked by alice."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from zoneinfo import ZoneInfo

from aimux.limits import Lease, Refusal, Who
from aimux.limits.keeper import LimitKeeper
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.prices import Prices
from aimux.metering.rows import Row
from aimux.metering.store import LedgerStore
from tests.limits.support import ALICE, record

UTC = ZoneInfo("UTC")
SIZE, TOKENS = 2000, 700
HOUR = 3600.0
Node = Callable[..., Awaitable[LimitKeeper]]


class Time:
    """What passes, whatever clocks say: what a test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def reserve(keeper: LimitKeeper, who: Who = ALICE, now: float | None = None) -> Lease | Refusal:
    limits, now = keeper.limits, time.time() if now is None else now
    return limits.reserve(limits.plan(limits.terms(who), "claude", "m", now), SIZE, now)


def ask(keeper: LimitKeeper, who: Who = ALICE) -> bool:
    """One request from its beginning to its end; False: refused."""
    lease = reserve(keeper, who)
    if isinstance(lease, Refusal):
        return False
    keeper.limits.settle(lease, TOKENS - 200, 200, 0)
    return True


async def exchange(*nodes: LimitKeeper, now: float | None = None) -> None:
    for keeper in nodes:
        assert keeper.exchange is not None
        await keeper.exchange.round(time.time() if now is None else now)


def used(*nodes: LimitKeeper) -> list[float]:
    return [one.used for keeper in nodes for one in keeper.limits.standings(ALICE, time.time())]


def requests(count: int) -> list[Row]:
    """As `ask` makes them."""
    records = (record(time.time(), TOKENS // 4) for _ in range(count))
    return [*map(Row, Flattener("node", Prices()).rows(records))]


async def write(keeper: LimitKeeper, rows: Sequence[Row], *, counted: bool = True) -> None:
    """A node's ledger writes them; not `counted`: before anybody had a limit."""
    store = LedgerStore(keeper.database, Calendar(UTC))
    store.beside = keeper.wrote if counted else None
    await store.write(rows, int(time.time() * 1000))
