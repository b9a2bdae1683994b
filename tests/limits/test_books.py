"""Limits and the ledger together, on both engines: requests, reloads and crashes in any order, against a plain list."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aimux.config.limits import Limits as Section
from aimux.limits import Lease, Limits, Policy, Refusal, Settlement, Who
from aimux.limits.keeper import LimitKeeper
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.ledger import Ledger
from aimux.metering.record import RequestRecord, Sender, new_id
from aimux.plugin import Usage
from aimux.storage import Database, StorageError
from aimux.storage.engine import Connection
from tests.metering.support import Cheap

UTC = ZoneInfo("UTC")
USERS = itertools.count()
amounts = st.fixed_dictionaries({"tokens_per_month": st.integers(0, 30_000), "cost_per_month": st.integers(0, 100)})


@dataclass
class Entry:
    lease: Lease
    record: RequestRecord
    tokens: int
    """As reserved, and then as it took."""
    open: bool = True
    written: bool = False


class Away:
    """A database that takes nothing more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.away = False
        self.read = database.read

    @asynccontextmanager
    async def write(self, *topics: str) -> AsyncIterator[Connection]:
        if self.away:
            raise StorageError("it is away")
        async with self._database.write(*topics) as connection:
            yield connection


class Books(RuleBasedStateMachine):
    runner: ClassVar[asyncio.Runner]
    database: ClassVar[Database]
    folder: ClassVar[Path]

    @initialize(amounts=amounts)
    def begin(self, amounts: dict[str, int]) -> None:
        self.who = Who(f"user-{next(USERS)}", "laptop", ("team",))
        self.section = Section.model_validate({"default": amounts})
        self.entries: list[Entry] = []
        self.start()

    def start(self) -> None:
        """What a process has in memory, with what the database knows and the one before has left on the disk."""
        prices = Cheap()
        flattener, folder = Flattener("node", prices), self.folder / "ledger"
        self.way = Away(self.database)
        way = cast("Database", self.way)
        self.ledger = Ledger(way, flattener, Calendar(UTC), folder, spill_limit=1 << 24, keep=1e9)
        self.limits = Limits(Policy(), UTC)
        self.settlement = Settlement(self.limits, prices.of_record)
        self.keeper = LimitKeeper(self.database, self.limits, self.section, self.ledger)
        self.ledger.on_left = self.keeper.left
        self.runner.run(self.keeper.refresh())
        self.runner.run(self.ledger.adopt())
        self.runner.run(self.ledger.catch_up(30))

    @rule(size=st.integers(0, 20_000))
    def reserve(self, size: int) -> None:
        now = time.time()
        lease = self.limits.reserve(self.limits.plan(self.limits.terms(self.who), "claude", "sonnet", now), size, now)
        if isinstance(lease, Refusal):
            return
        sender = Sender(token=self.who.token, groups=self.who.groups)
        record = RequestRecord(new_id(now), now, "POST", "/x", user=self.who.user, provider="claude", sender=sender)
        record.lease = lease
        self.entries.append(Entry(lease, record, lease.tokens))

    @precondition(lambda self: any(entry.open for entry in self.entries))
    @rule(data=st.data(), tokens=st.integers(1, 10_000), end=st.sampled_from(["settled", "cancelled", "unknown"]))
    def end(self, data: st.DataObject, tokens: int, end: str) -> None:
        entry = data.draw(st.sampled_from([entry for entry in self.entries if entry.open]))
        record = entry.record
        record.status, record.attempts = 200, int(end != "cancelled")
        if end == "unknown":  # an upstream that tells nothing: what was reserved counts, and its record says so
            record.usage = Usage("sonnet", entry.tokens, estimated=True)
        else:
            record.usage = Usage("sonnet", tokens // 2, tokens - tokens // 2) if end == "settled" else None
            entry.tokens = tokens if end == "settled" else 0
        self.settlement(record)
        self.ledger.record(record)
        entry.open = False

    @rule()
    def write(self) -> None:
        self.runner.run(self.ledger.catch_up(30))
        for entry in self.entries:
            entry.written = not entry.open

    @rule(amounts=amounts)
    def reload(self, amounts: dict[str, int]) -> None:
        self.section = Section.model_validate({"default": amounts})
        self.runner.run(self.keeper.reconfigure(self.section))
        self.write()

    @rule()
    def crash(self) -> None:
        self.entries = [entry for entry in self.entries if entry.written]
        self.start()

    @rule()
    def end_without_a_database(self) -> None:
        """What is over lies on the disk then."""
        self.way.away = True
        self.runner.run(self.ledger.close())
        self.entries = [entry for entry in self.entries if entry.written or not entry.open]
        for entry in self.entries:
            entry.written = True
        self.start()

    @invariant()
    def figures_agree(self) -> None:
        if not hasattr(self, "limits"):
            return
        used = {one.limit: one.used for one in self.limits.standings(self.who, time.time())}
        assert used["tokens_per_month"] == sum(entry.tokens for entry in self.entries)
        assert len(self.limits) == sum(entry.open for entry in self.entries)


def test_what_is_used_is_what_was_used(database_url: str | None, tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        database = runner.run(Database.open(database_url, tmp_path))
        machine = type("Machine", (Books,), {"runner": runner, "database": database, "folder": tmp_path})
        few = settings(
            max_examples=15,
            stateful_step_count=20,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        try:
            run_state_machine_as_test(machine, settings=few)
        finally:
            runner.run(database.close())
