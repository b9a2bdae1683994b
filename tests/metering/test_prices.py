"""What a request costs, worked out by hand, and where prices come from."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from aimux.config.ledger import Price
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.price_book import PriceBook, store
from aimux.metering.price_list import Wanted, look_up
from aimux.metering.prices import Prices, configured
from aimux.metering.repricing import reprice
from aimux.metering.rows import COST
from aimux.metering.tariff import KINDS, Tariff, complete
from aimux.plugin.usage import Usage
from aimux.storage import Database, StorageError
from aimux.storage.schema import ledger as schema

from .conftest import Make
from .support import DAY, NOON, record, rows, settled, total

AT = int(NOON * 1000)
MILLION = 1_000_000
DOLLAR = 10**9
TARIFF = Tariff.of_json(
    [
        [0, {"": [[0, {"input": 2 * MILLION, "output": 9 * MILLION}]]}],
        [
            AT,
            {
                "": [
                    [200_000, {"input": 6 * MILLION, "output": 20 * MILLION, "cache_read": 600_000}],
                    [0, {"input": 3 * MILLION, "output": 15 * MILLION, "cache_read": 300_000}],
                ],
                "priority": [[0, {"input": 30 * MILLION, "output": 150 * MILLION}]],
            },
        ],
    ]
)


def prices(**tariffs: Tariff | None) -> Prices:
    made = Prices()
    made.tariffs = {("claude", model): tariff for model, tariff in tariffs.items()}
    return made


def cost(of: Prices, model: str = "m", account: str = "default", at: int = AT, **usage: Any) -> int | None:
    return of.cost("claude", account, model, Usage(model, **usage), at)


def test_each_kind_costs_its_own_price() -> None:
    rates = complete(
        {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000, "cache_write": 3_750_000}
        | {"cache_write_1h": 6_000_000, "reasoning": 20_000_000, "server_tools": 10**10}
    )
    usage = Usage("m", 100, 50, cache_read_tokens=1000, cache_write_tokens=200, cache_write_1h_tokens=150)
    usage.reasoning_tokens, usage.server_tools = 20, 2
    by_hand = 100 * 3000 + 30 * 15000 + 20 * 20000 + 1000 * 300 + 50 * 3750 + 150 * 6000 + 2 * 10_000_000
    assert rates.cost(usage) == by_hand


@given(st.builds(dict, **{kind: st.integers(0, 10**9) for kind in KINDS}), st.sets(st.sampled_from(KINDS)), st.data())
def test_no_cost_is_negative_and_none_is_taken_off_twice(
    priced: dict[str, int], missing: set[str], data: st.DataObject
) -> None:
    """Whatever an upstream reports, and however much of the list is missing."""
    counts = data.draw(st.lists(st.integers(0, 10**9), min_size=7, max_size=7))
    rates = complete({kind: price for kind, price in priced.items() if kind not in missing})
    assert min(rates) >= 0
    assert rates.cost(Usage("m", *counts)) >= 0
    without_cache = rates.cost(Usage("m", counts[0], counts[1]))
    assert rates.cost(Usage("m", counts[0], counts[1], counts[2], counts[3])) >= without_cache


def test_what_is_read_from_a_cache_is_never_free_because_the_list_forgot_it() -> None:
    assert complete({"input": 5, "output": 7}) == (5, 7, 5, 5, 5, 7, 0)
    assert complete({"input": 5, "output": 7, "cache_write": 6})[3:5] == (6, 6)


def test_a_price_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        Tariff.of_json([[0, {"": [[0, {"input": -1}]]}]])


@pytest.mark.parametrize(
    ("total_input", "per_token"), [(199_999, 3000), (200_000, 3000), (200_001, 6000)], ids=["below", "at", "above"]
)
def test_a_long_context_costs_more_for_all_of_it(total_input: int, per_token: int) -> None:
    cached = 100_000
    price = 300 if per_token == 3000 else 600
    expected = (total_input - cached) * per_token + cached * price
    assert cost(prices(m=TARIFF), input_tokens=total_input - cached, cache_read_tokens=cached) == expected


def test_prices_are_those_of_the_day_and_of_the_service_tier() -> None:
    one = prices(m=TARIFF)
    assert cost(one, input_tokens=1000, at=AT - 1) == 2_000_000
    assert cost(one, input_tokens=1000, at=AT) == 3_000_000
    assert cost(one, input_tokens=1000, tier="priority") == 30_000_000
    assert cost(one, input_tokens=1000, tier="of-tomorrow") == 3_000_000


def test_what_was_sampled_beside_the_answer_is_priced_by_itself() -> None:
    """180,000 tokens were summed up and 30,000 asked: neither is a long context. The advisor is another model."""
    other = Tariff.of_json([[0, {"": [[0, {"input": 10 * MILLION, "output": 50 * MILLION}]]}]])
    used = Usage("m", input_tokens=30_000, output_tokens=1_000)
    compaction, advice = Usage(input_tokens=180_000, output_tokens=2_000), Usage("big", 800, 1_600)
    used.put_beside((compaction, advice))
    assert (used.input_tokens, used.output_tokens) == (210_800, 4_600)
    of = prices(m=TARIFF, big=other)
    alone = 30_000 * 3 + 1_000 * 15 + 180_000 * 3 + 2_000 * 15
    assert of.cost("claude", "default", "m", used, AT) == (alone + 800 * 10 + 1_600 * 50) * 1000
    unknown = prices(m=TARIFF)
    assert unknown.cost("claude", "default", "m", used, AT) == (alone + 800 * 3 + 1_600 * 15) * 1000
    assert used.beside == (compaction, advice)
    one = record()
    one.usage = used
    assert of.of_record(one) == (alone + 88_000) * 1000


def test_a_batch_is_half_the_price_but_for_tools() -> None:
    tools = Tariff.of_json([[0, {"": [[0, {"input": 2 * MILLION, "output": 9 * MILLION, "server_tools": 10**10}]]}]])
    one = prices(m=TARIFF, tools=tools)
    assert cost(one, input_tokens=1000, output_tokens=100, tier="batch") == 1_500_000 + 750_000
    assert cost(one, "tools", input_tokens=1000, server_tools=2, tier="batch") == 1_000_000 + 20_000_000
    assert cost(one, "unknown", input_tokens=1000, tier="batch") is None
    only = record(usage={"model": "tools", "input_tokens": 1000, "output_tokens": 0, "tier": "batch"})
    assert one.of_record(only) == 1_000_000
    one.configure(configured({"m": Price(input=8)}), {})
    assert cost(one, input_tokens=1000, tier="batch") == 4_000_000


def test_many_short_requests_are_no_long_one() -> None:
    one = prices(m=TARIFF)
    assert cost(one, input_tokens=400_000, requests=4) == 400_000 * 3000
    assert cost(one, input_tokens=1_000_000, requests=4) == 1_000_000 * 6000


def test_sums_of_small_costs_are_exact() -> None:
    embedding = prices(m=Tariff.of_json([[0, {"": [[0, {"input": 20_000}]]}]]))
    assert sum(cost(embedding, input_tokens=8) or 0 for _ in range(1_000_000 // 8)) == 20_000_000  # 2 cents


def test_the_configuration_comes_before_the_list_kind_by_kind() -> None:
    one = prices(m=TARIFF, mini=None)
    overrides = configured({"m*": Price(input=1), "m": Price(output=2.5, server_tools=10), "/mi.*/": Price(input=7)})
    one.configure(overrides, {("claude", "cheap"): 0.5})
    assert cost(one, input_tokens=1000, output_tokens=1000, server_tools=1) == 3_000_000 + 2_500_000 + 10_000_000
    assert cost(one, "mini", input_tokens=1000, cache_read_tokens=1000) == 2_000_000
    assert cost(one, "mini", "cheap", input_tokens=1000) == 500_000
    assert cost(one, "other", input_tokens=1000) is None


def test_what_the_configuration_leaves_out_has_no_price_before_the_list_was_asked() -> None:
    one, asked = prices(), list[str]()
    one.on_unknown = lambda _provider, model, _at: asked.append(model)
    one.configure(configured({"m": Price(output=20)}), {})
    assert cost(one, input_tokens=1000, output_tokens=10) is None
    assert asked == ["m"]
    one.tariffs = {("claude", "m"): Tariff.of_json([[0, {"": [[0, {"input": 3_000_000}]]}]])}
    assert cost(one, input_tokens=1000, output_tokens=10) == 3_200_000
    every = Price(input=1, output=1, cache_read=1, cache_write=1, cache_write_1h=1, reasoning=1, server_tools=1)
    one.configure(configured({"new": every}), {})
    assert cost(one, "new", input_tokens=1000) == 1_000_000


def test_a_part_costs_what_its_whole_does_also_where_the_configuration_says_it() -> None:
    listed = {"input": 2_000_000, "output": 8_000_000, "cache_read": 200_000}
    one = prices(m=Tariff.of_json([[0, {"": [[0, listed]]}]]))
    one.configure(configured({"m": Price(input=4, output=20)}), {})
    assert cost(one, output_tokens=1000, reasoning_tokens=400) == 20_000_000
    assert cost(one, cache_write_tokens=1000, cache_write_1h_tokens=500) == 4_000_000
    assert cost(one, cache_read_tokens=1000) == 200_000, "the list says so"
    one.configure(configured({"m": Price(output=20, reasoning=1)}), {})
    assert cost(one, output_tokens=1000, reasoning_tokens=1000) == 1_000_000


def test_a_model_that_nobody_knows_is_asked_for_and_has_no_price() -> None:
    one, asked = prices(known=None), list[tuple[str, str]]()
    one.on_unknown = lambda provider, model, _at: asked.append((provider, model))
    assert cost(one, "new", input_tokens=1) is None
    assert cost(one, "known", input_tokens=1) is None
    assert asked == [("claude", "new")]
    assert one.of_record(record(usage={"input_tokens": 0, "output_tokens": 0})) == 0, "nothing was used"


# --- the list ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "prices", "above_200k"),
    [
        (Wanted("anthropic", "", "claude-sonnet-4-5-20250929"), (3, 15, 0.3, 3.75, 6), (6, 22.5, 0.6, 7.5, 12)),
        (Wanted("anthropic", "", "claude-opus-4-5"), (5, 25, 0.5, 6.25, 10), (5, 25, 0.5, 6.25, 10)),
        (Wanted("openai", "", "gpt-5"), (1.25, 10, 0.125, 1.25, 1.25), (1.25, 10, 0.125, 1.25, 1.25)),
    ],
)
def test_the_list_is_read_as_its_vendor_means_it(
    wanted: Wanted, prices: tuple[float, ...], above_200k: tuple[float, ...]
) -> None:
    """Dollars a million tokens: input, output, cache read, written for five minutes, for an hour."""
    data = look_up(wanted)
    assert data is not None
    tariff = Tariff.of_json(data)
    at = int(datetime(2026, 9, 1, tzinfo=UTC).timestamp() * 1000)
    assert tuple(price / MILLION for price in tariff.rates(at)[:5]) == prices
    assert tuple(price / MILLION for price in tariff.rates(at, total_input=200_001)[:5]) == above_200k


def test_another_vendors_model_of_the_same_name_has_no_price_of_his() -> None:
    assert look_up(Wanted("anthropic", "", "gpt-5")) is None
    assert look_up(Wanted("", "http://127.0.0.1:11434", "our-llama")) is None
    assert look_up(Wanted("", "https://api.openai.com", "gpt-5")) is not None


def test_the_list_is_not_loaded_by_what_works_with_prices() -> None:
    """It takes 0.4 s and 15 MB."""
    code = "import sys, aimux.app, aimux.metering.price_list; print('genai_prices' in sys.modules)"

    async def run() -> str:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        return out.decode().strip()

    assert asyncio.run(run()) == "False"


# --- the book ---------------------------------------------------------------------------------------------------------


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
    async with asyncio.timeout(30):
        while ("claude", "of-tomorrow") not in one.tariffs:
            await asyncio.sleep(0.02)
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
    database: Database, monkeypatch: pytest.MonkeyPatch
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


# --- pricing later ----------------------------------------------------------------------------------------------------


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
    async with asyncio.timeout(10):
        while cost(one, input_tokens=1) is None:
            await asyncio.sleep(0.02)
    assert cost(one, input_tokens=1) == 7
    await book.close()


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
