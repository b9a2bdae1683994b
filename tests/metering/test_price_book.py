"""Where prices come from: looked up once for all nodes, kept in the database, and applied to what had none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE
from datetime import UTC
from typing import Any

import pytest
from sqlalchemy import select

from aimux.config.ledger import Price
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.price_book import PriceBook, store
from aimux.metering.price_list import Wanted
from aimux.metering.prices import Prices, configured
from aimux.metering.record import Step
from aimux.metering.repricing import reprice
from aimux.metering.rows import COST
from aimux.metering.tariff import Tariff
from aimux.plugin.usage import Usage
from aimux.storage import Database, StorageError
from aimux.storage.schema import ledger as schema
from tests.tools import child_environ
from tests.waiting import until

from .conftest import Make
from .support import DAY, NOON, record, rows, settled, total
from .test_prices import AT, TARIFF, cost, prices


def wanted(provider: str, model: str) -> Wanted:
    return Wanted({"claude": "anthropic"}.get(provider, ""), "", model)


async def nothing(_models: list[tuple[str, str]], _since: int) -> None:
    """Nobody wants to hear of prices that were found."""


async def test_a_new_model_is_looked_up_once_for_all_nodes(database: Database) -> None:
    one, other = Prices(), Prices()
    priced: asyncio.Queue[list[tuple[str, str]]] = asyncio.Queue()

    async def found(models: list[tuple[str, str]], _since: int) -> None:
        await priced.put(models)

    book = PriceBook(database, one, wanted, found)
    follower = PriceBook(database, other, wanted, found)
    for each in (book, follower):
        await each.start()
    try:
        assert cost(one, "claude-opus-4-5", input_tokens=1000) is None
        async with asyncio.timeout(30):
            assert await priced.get() == [("claude", "claude-opus-4-5")]
            assert cost(one, "claude-opus-4-5", input_tokens=1000) == 5_000_000
            while ("claude", "claude-opus-4-5") not in other.tariffs:
                await asyncio.sleep(0.02)
        assert priced.empty()
    finally:
        await book.close()
        await follower.close()
    later = Prices()
    again = PriceBook(database, later, wanted, found)
    await again.start()
    assert cost(later, "claude-opus-4-5", input_tokens=1000) == 5_000_000
    await again.close()


async def test_a_model_that_the_list_has_not_is_told_of_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    one = Prices()
    book = PriceBook(database, one, wanted, nothing)
    await book.start()
    cost(one, "", input_tokens=1)  # nobody said which model, and there is nothing to look for
    cost(one, "of-tomorrow", input_tokens=1)
    await until(lambda: ("claude", "of-tomorrow") in one.tariffs, 30)
    assert cost(one, "of-tomorrow", input_tokens=1) is None
    await book.close()
    assert caplog.text.count("aimux prices update") == 1
    assert one.tariffs == {("claude", "of-tomorrow"): None}


async def test_a_model_that_the_configuration_alone_knows_is_priced_once_that_is_clear(database: Database) -> None:
    one, done = Prices(), asyncio.Event()
    one.configure(configured({"ours": Price(input=2)}), {})

    async def found(models: list[tuple[str, str]], _since: int) -> None:
        assert models == [("claude", "ours")]
        assert cost(one, "ours", input_tokens=1000, cache_read_tokens=1000) == 4_000_000
        done.set()

    book = PriceBook(database, one, wanted, found)
    await book.start()
    assert cost(one, "ours", input_tokens=1000, cache_read_tokens=1000) is None
    async with asyncio.timeout(30):
        await done.wait()
    await book.close()


async def test_whoever_prices_what_had_no_price_hears_again_where_that_failed(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aimux.metering.price_book.RETRY", 0.01)
    one, heard, done = Prices(), list[tuple[list[tuple[str, str]], int]](), asyncio.Event()

    async def found(models: list[tuple[str, str]], since: int) -> None:
        heard.append((models, since))
        if len(heard) < 3:
            raise StorageError("it is away")
        done.set()

    book = PriceBook(database, one, wanted, found)
    await book.start()
    for at in (2_000, 1_000, 3_000):  # one that has waited on the disk for long may come late
        one.cost("claude", "default", "claude-opus-4-5", Usage("claude-opus-4-5", 1), at)
    async with asyncio.timeout(30):
        await done.wait()
    await book.close()
    assert heard == [([("claude", "claude-opus-4-5")], 1_000)] * 3
    assert caplog.text.count("prices can't be looked up now: it is away") == 1


# --- pricing later ----------------------------------------------------------------------------------------------------


async def test_what_was_sampled_beside_is_priced_later_as_at_once(database: Database, make: Make) -> None:
    """By an advisor of another model, and in a compaction: neither is a part of a long context."""
    step = Step("claude", "default", 200, "relay", "", 0.1)
    ledger, one = make(), record(usage={"model": "unknown-1", "input_tokens": 1000}, steps=[step])
    assert one.usage is not None
    one.usage.put_beside((Usage("big", 800, 1_600, 10, 20, 5), Usage("", 250_000, tier="priority")))
    of = prices(
        **{"unknown-1": TARIFF, "big": Tariff.of_json([[0, {"": [[0, {"input": 10**7, "output": 5 * 10**7}]]}]])}
    )
    expected = of.cost("claude", "default", "unknown-1", one.usage, AT)
    ledger.record(one)
    await settled(ledger)
    flattener = Flattener("node", of)
    (row,) = Flattener("node", Prices()).rows([one])
    assert row[COST] is None
    assert flattener.priced(row)[COST] == expected, "one that has waited on the disk"
    assert await reprice(database, Calendar(UTC), of, 0) == 1
    assert await rows(database, "cost") == [(expected,)]
    await ledger.close()


async def test_what_many_requests_took_is_priced_later_as_at_once(database: Database, make: Make) -> None:
    used = {"model": "unknown-1", "input_tokens": 400_000, "output_tokens": 0, "tier": "batch", "requests": 4}
    ledger, one = make(), record(usage=used)
    ledger.record(one)
    await settled(ledger)
    assert await reprice(database, Calendar(UTC), prices(**{"unknown-1": TARIFF}), 0) == 1
    assert await rows(database, "cost") == [(400_000 * 1500,)]
    again = Flattener("node", prices(**{"unknown-1": TARIFF}))
    one.cost = None
    without = Flattener("node", prices()).rows([one])[0]
    assert again.priced(without)[COST] == 400_000 * 1500
    await ledger.close()


async def test_what_had_no_price_is_priced_later_wherever_it_is_counted(database: Database, make: Make) -> None:
    ledger = make()
    times = [NOON - 40 * DAY, NOON - 40 * DAY, NOON - 3 * DAY, NOON]
    for at in times:
        ledger.record(record(at, usage={"model": "unknown-1", "input_tokens": 1000, "output_tokens": 0}))
        ledger.record(record(at, usage={"model": "unknown-2"}))
        ledger.record(record(at))
    await settled(ledger)
    await ledger.upkeep(AT)
    before = await total(database)
    assert before["unpriced"] == 8
    one = prices(**{"unknown-1": TARIFF})
    tables = ("usage_hours", "usage_days", "usage_conversations")
    assert await reprice(database, Calendar(UTC), one, AT - 5 * int(DAY) * 1000) == 2
    # Two of the four, at the prices of their days.
    after = {"unpriced": 6, "cost": before["cost"] + 2_000_000 + 3_000_000}
    assert await total(database) == before | after
    assert await reprice(database, Calendar(UTC), one, 0) == 2
    assert await reprice(database, Calendar(UTC), one, 0) == 0
    for table in tables:
        found = await total(database, table)
        assert found["unpriced"] == (4 if table == "usage_hours" else 3), table
    assert sorted(await rows(database, "cost"), key=str).count((None,)) == 4
    async with database.read() as connection:
        (whole,) = (
            (await connection.execute(select(schema.usage_hours.c.unpriced).where(schema.usage_hours.c.key == 0)))
            .scalars()
            .all()[-1:]
        )
    assert whole == 1
    await ledger.close()


async def test_an_update_of_the_list_is_everybodys(database: Database) -> None:
    one = Prices()
    book = PriceBook(database, one, wanted, nothing)
    await store(database, [(("claude", "m"), None)], "old")
    await book.start()
    assert cost(one, input_tokens=1) is None
    await store(database, [(("claude", "m"), [[0, {"": [[0, {"input": 7000}]]}]])], "new")
    await until(lambda: cost(one, input_tokens=1) is not None)
    assert cost(one, input_tokens=1) == 7
    await book.close()


async def test_a_tariff_that_only_a_newer_version_can_read_takes_no_other_price_away(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """It has none, or the one that was known before."""
    one = Prices()
    book = PriceBook(database, one, wanted, nothing)
    newer = {"version": 2, "steps": []}
    await store(database, [(("claude", "m"), [[0, {"": [[0, {"input": 7000}]]}]]), (("claude", "new"), newer)], "list")
    await book.start()
    assert (cost(one, input_tokens=1), cost(one, "new", input_tokens=1)) == (7, None)
    await store(database, [(("claude", "m"), newer), (("claude", "n"), [[0, {"": [[0, {"input": 9000}]]}]])], "list")
    await until(lambda: ("claude", "n") in one.tariffs)
    assert (cost(one, input_tokens=1), cost(one, "n", input_tokens=1)) == (7, 9)
    assert cost(one, "claude-opus-4-5", input_tokens=1000) is None
    async with asyncio.timeout(30):  # others are looked up as before
        while cost(one, "claude-opus-4-5", input_tokens=1000) is None:
            await asyncio.sleep(0.02)
    await book.close()
    assert caplog.text.count("can't be read") == 2


async def test_a_list_without_a_model_does_not_make_it_free(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(wanted: list[Wanted], _fetch: str | None = None) -> tuple[str, list[Any]]:
        return "new", [None for _ in wanted]

    monkeypatch.setattr("aimux.metering.price_book._in_a_process", fetch)
    one = Prices()
    book = PriceBook(database, one, wanted, nothing)
    await store(database, [(("claude", "m"), [[0, {"": [[0, {"input": 7000}]]}]]), (("claude", "x"), None)], "old")
    assert await book.update() == (2, 0, "new")
    assert cost(one, input_tokens=1) == 7
    assert book.sources == {("claude", "m"): "old", ("claude", "x"): "new"}


async def test_a_look_at_the_packaged_list_writes_over_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, looking, updated = Prices(), asyncio.Event(), asyncio.Event()

    async def look(_wanted: list[Wanted], _fetch: str | None = None) -> tuple[str, list[Any]]:
        looking.set()
        await updated.wait()
        return "packaged", [None]

    monkeypatch.setattr("aimux.metering.price_book._in_a_process", look)
    heard = asyncio.Event()

    async def found(_models: list[tuple[str, str]], _since: int) -> None:
        heard.set()

    book = PriceBook(database, one, wanted, found)
    await book.start()
    assert cost(one, input_tokens=1) is None
    async with asyncio.timeout(10):
        await looking.wait()
        await store(database, [(("claude", "m"), [[0, {"": [[0, {"input": 7000}]]}]])], "of an update")
        updated.set()
        await heard.wait()
    assert cost(one, input_tokens=1) == 7
    assert book.sources == {("claude", "m"): "of an update"}
    await book.close()


SMALLER = "from aimux.metering import price_list; price_list.MOST_MEMORY = 256 << 20; price_list.main()"


async def test_a_list_without_an_end_does_not_take_the_machines_memory() -> None:
    """The service would be ended with the process that reads it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" " * 1_000_000)
                await writer.drain()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SMALLER), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=child_environ()
        )
        _, problem = await process.communicate(json.dumps({"fetch": url, "wanted": []}).encode())
    assert problem.decode() == f"the list of prices can't be fetched from {url}: it is too large\n"
