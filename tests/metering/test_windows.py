"""Vendors' windows beside what was metered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC

import pytest
from sqlalchemy import select

from aimux.metering.calendar import Calendar
from aimux.metering.reports import Reports
from aimux.metering.spans import Span
from aimux.metering.windows import SAMPLE_EVERY, Sampler, compare
from aimux.plugin.types import Credential, LimitWindow
from aimux.storage import Database
from aimux.storage.schema.ledger import account_windows, requests, usage_conversations

from .conftest import Make
from .support import HOUR, NOON, record, settled

AT = int(NOON * 1000)


@dataclass
class State:
    status: str = "healthy"


@dataclass
class Account:
    provider: str = "claude"
    name: str = "default"
    in_flight: int = 0
    credential: Credential | None = None
    limits: dict[str, LimitWindow] = field(default_factory=dict)

    def state(self, now: float) -> State:
        return State()


async def sampled(database: Database, told: Sequence[tuple[float, float, float | None]]) -> Sampler:
    """`told`: hours since NOON, used, and when it resets in hours since NOON."""
    account = Account()
    sampler = Sampler(database, lambda: [account])
    for hours, used, resets in told:
        resets_at = None if resets is None else NOON + resets * HOUR
        account.limits = {"5h": LimitWindow("5h", used, resets_at), "untold": LimitWindow("untold")}
        await sampler.sample(AT + int(hours * HOUR * 1000))
    return sampler


@pytest.fixture
def reports(database: Database, monkeypatch: pytest.MonkeyPatch) -> Reports:
    for module in ("reports", "windows"):
        monkeypatch.setattr(f"aimux.metering.{module}.now", lambda: AT + int(12 * HOUR * 1000))
    return Reports(database, Calendar(UTC), lambda: 1e9)


async def test_use_outside_aimux_becomes_visible(database: Database, make: Make, reports: Reports) -> None:
    ledger = make()
    ledger.record(record(NOON + 0.4 * HOUR, usage={"input_tokens": 900, "output_tokens": 100}))
    await settled(ledger)
    # The first hour is ours; in the fourth nobody came through aimux, and the window moved all the same.
    await sampled(database, [(0.1, 0.1, 5), (0.5, 0.2, 5), (3.5, 0.5, 5), (3.7, 0.6, 5.01)])
    (found,) = await compare(database, reports, Span(0))
    assert (found.account, found.window, found.used) == ("default", "5h", 0.6)
    assert found.moved == pytest.approx(0.5)
    assert found.unexplained == pytest.approx(0.4)
    assert found.metered is not None
    assert found.metered.tokens == 1000
    await ledger.close()


@pytest.mark.parametrize(
    ("asked", "step", "unexplained"),
    [(0.9, 0.1, 0.0), (2.1, 0.1, 0.1), (5.0, 0.001, 0.0)],
    ids=["an hour before", "an hour later", "less than vendors tell"],
)
async def test_what_a_request_took_shows_within_an_hour(
    database: Database, make: Make, reports: Reports, asked: float, step: float, unexplained: float
) -> None:
    ledger = make()
    ledger.record(record(NOON + asked * HOUR))
    await settled(ledger)
    await sampled(database, [(0.2, 0.1, 5), (1.5, 0.1 + step, 5)])
    (found,) = await compare(database, reports, Span(0))
    assert found.unexplained == pytest.approx(unexplained)
    await ledger.close()


async def test_a_window_that_began_again_goes_on_being_counted(
    database: Database, make: Make, reports: Reports
) -> None:
    ledger = make()
    for hours in range(9):
        ledger.record(record(NOON + hours * HOUR))
    await settled(ledger)
    await sampled(database, [(0, 0.5, 2), (1, 0.9, 2), (2.5, 0.3, 7), (3, 0.2, 7), (8, 0.1, None), (8.5, 0.4, None)])
    (found,) = await compare(database, reports, Span(0))
    assert found.moved == pytest.approx(0.4 + 0.3 + 0.1 + 0.3)
    assert found.unexplained == 0
    await ledger.close()


async def test_a_clock_that_was_a_day_ahead_does_not_end_the_samples(database: Database, reports: Reports) -> None:
    await sampled(database, [(0, 0.1, 5), (24, 0.1, 4.9), (1, 0.4, 5), (2, 0.5, 5)])
    (found,) = await compare(database, reports, Span(0))
    assert (found.used, found.moved) == (0.5, pytest.approx(0.4))


@pytest.mark.parametrize("resets", [5.0, None])
async def test_two_nodes_that_hear_of_a_window_one_after_the_other_have_not_moved_it_twice(
    database: Database, reports: Reports, resets: float | None
) -> None:
    await sampled(database, [(0, 0.1, resets), (1, 0.2, resets), (2, 0.3, resets), (3, 0.1, resets), (4, 0.3, resets)])
    await sampled(database, [(0.01, 0.09, resets), (1.01, 0.18, resets), (2.01, 0.26, resets)])
    (found,) = await compare(database, reports, Span(0))
    assert found.moved == pytest.approx(0.2 + 0.2 + (0 if resets else 0.1)), "what was given back and used again counts"


async def test_windows_that_stand_still_are_sampled_once(database: Database) -> None:
    account = Account(limits={"7d": LimitWindow("7d", 0.5, NOON + HOUR)})
    sampler = Sampler(database, lambda: [account])
    assert await sampler.sample(AT) == 1
    assert await sampler.sample(AT + 10 * SAMPLE_EVERY) == 0
    account.limits = {"7d": LimitWindow("7d", 0.6, NOON + HOUR)}
    assert await sampler.sample(AT + 10) == 0, "not so often"
    assert await sampler.sample(AT + 11 * SAMPLE_EVERY) == 1


async def test_samples_and_sums_of_conversations_are_kept_as_long_as_requests(database: Database, make: Make) -> None:
    ledger = make(keep=5 * HOUR)
    for hours in (-9, -2):
        ledger.record(record(NOON + hours * HOUR, conversation=f"begun {hours}"))
    await settled(ledger)
    await sampled(database, [(-9, 0.1, None), (-2, 0.2, None)])
    await ledger.upkeep(AT)
    async with database.read() as connection:
        for column in (requests.c.conversation, usage_conversations.c.conversation, account_windows.c.used):
            left = (await connection.execute(select(column))).scalars().all()
            assert left in (["begun -2"], [0.2]), column
    await ledger.close()
