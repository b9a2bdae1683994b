"""What a request costs, worked out by hand."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aimux.config.ledger import Price
from aimux.metering.price_list import Wanted, look_up
from aimux.metering.prices import Prices, configured
from aimux.metering.tariff import KINDS, Tariff, complete
from aimux.plugin.usage import Usage

from .support import NOON, record

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
    counts = data.draw(st.tuples(*[st.integers(0, 10**9)] * 7))
    usage = Usage("m", *counts)
    seconds, characters = data.draw(st.tuples(*[st.integers(0, 10**9)] * 2))
    rates = complete({kind: price for kind, price in priced.items() if kind not in missing})
    assert min(rates) >= 0
    assert rates.cost(usage) >= 0
    assert rates.cost(dataclasses.replace(usage, seconds=seconds, characters=characters)) >= rates.cost(usage)
    without_cache = rates.cost(Usage("m", counts[0], counts[1]))
    assert rates.cost(Usage("m", counts[0], counts[1], counts[2], counts[3])) >= without_cache


def test_what_is_read_from_a_cache_is_never_free_because_the_list_forgot_it() -> None:
    assert complete({"input": 5, "output": 7}) == (5, 7, 5, 5, 5, 7, 0, 0, 0)
    assert complete({"input": 5, "output": 7, "cache_write": 6})[3:5] == (6, 6)


def test_a_price_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        Tariff.of_json([[0, {"": [[0, {"input": -1}]]}]])


@pytest.mark.parametrize(
    "stored",
    [
        *([], {}, 7, [7], [[0]], [[0, []]], [[0, {}]], [[0, {"": []}]], [[0, {"fast": [[0, {"input": 1}]]}]]),
        *([["later", {"": [[0, {"input": 1}]]}]], [[0, {"": [[0, {"input": 1}]]}, "new"]], [[0, {"": [[0]]}]]),
        *([[0, {"": [[0, {"input": value}]]}]] for value in (1.5, "3", None, True, {"base": 3})),
    ],
    ids=repr,
)
def test_what_another_version_stored_in_a_shape_of_its_own_is_refused(stored: Any) -> None:
    with pytest.raises(ValueError):
        Tariff.of_json(stored)


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


def test_a_region_costs_a_tenth_more_but_for_tools() -> None:
    tools = Tariff.of_json([[0, {"": [[0, {"input": 2 * MILLION, "output": 9 * MILLION, "server_tools": 10**10}]]}]])
    one = prices(m=TARIFF, tools=tools)
    assert cost(one, input_tokens=1000, output_tokens=100, tier="standard+region") == 3_300_000 + 1_650_000
    assert cost(one, input_tokens=1000, tier="priority+region") == 33_000_000
    assert cost(one, input_tokens=1000, tier="batch+region") == 1_650_000
    assert cost(one, "tools", input_tokens=1000, server_tools=2, tier="+region") == 2_200_000 + 20_000_000
    assert cost(one, "unknown", input_tokens=1000, tier="+region") is None
    one.configure(configured({"m": Price(input=8)}), {})
    assert cost(one, input_tokens=1000, tier="+region") == 8_800_000


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


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        ("whisper-1", Usage(seconds=90), 0.009),
        ("whisper-1", Usage(input_tokens=90), None),
        ("whisper-1", Usage(), 0),
        ("tts-1-hd", Usage(characters=1_000), 0.03),
        ("tts-1-hd", Usage(seconds=90), None),
        ("gpt-4o-transcribe", Usage(seconds=90), None),
        ("gpt-4o-transcribe", Usage(unknown=True), None),
        ("gpt-4o-transcribe", Usage(input_tokens=1_000_000, output_tokens=1, unknown=True), None),
        (
            "gpt-4o-transcribe",
            Usage("", 1_000_000, 1_000_000, beside=(Usage(input_tokens=900_000, tier="audio"),)),
            0.1 * 2.5 + 0.9 * 6 + 10,
        ),
        (
            "gpt-audio",
            Usage("", 1_000_000, 1_000_000, beside=(Usage("", 1_000_000, 1_000_000, tier="audio"),)),
            32 + 64,
        ),
        ("gpt-5", Usage("", 1_000_000, server_tools=3, beside=(Usage(server_tools=2, tier="file_search"),)), 1.265),
        (
            "gpt-5",
            Usage("", 1_000_000, tier="priority", beside=(Usage(input_tokens=500_000, tier="audio"),)),
            2.5,
        ),
    ],
)
def test_what_is_sold_otherwise_than_by_the_token(model: str, usage: Usage, dollars: float | None) -> None:
    """By the minute or the letter, in sound and pictures, apiece: as the list of openai has it."""
    one = prices(**{model: Tariff.of_json(look_up(Wanted("openai", "", model)))})
    made = record(NOON, model=model)
    made.usage = usage
    expected = None if dollars is None else round(dollars * DOLLAR)
    assert one.of_record(made) == expected
    assert usage.anything == (usage != Usage())


def test_the_configuration_prices_what_is_sold_otherwise() -> None:
    one = prices(sora=None)
    one.configure(
        configured({"sora": Price(minutes=6), "ours": Price(input=0, output=0), "s": Price(characters=9)}), {}
    )
    assert cost(one, "sora", seconds=8) == 800_000_000
    assert cost(one, "sora", characters=8) is None
    assert cost(one, "s", characters=1_000) == 9_000_000
    one.tariffs = {("claude", "ours"): None}
    assert cost(one, "ours", seconds=8) == cost(one, "ours", unknown=True) == 0, "a server of one's own"


def test_a_higher_speed_has_its_prices() -> None:
    data = look_up(Wanted("anthropic", "", "claude-opus-5"))
    assert data is not None
    at = int(datetime(2026, 9, 1, tzinfo=UTC).timestamp() * 1000)
    usual, fast = (Tariff.of_json(data).rates(at, tier) for tier in ("standard", "fast"))
    assert tuple(price / MILLION for price in fast[:2]) == (10, 50)
    assert fast.cache_read > usual.cache_read


def test_a_higher_speed_without_a_price_has_none() -> None:
    """It costs several times as much, and nobody knows how many."""
    one = prices(m=TARIFF)
    for tier in ("fast", "fast+region"):
        assert cost(one, input_tokens=1000, tier=tier) is None
        made = record(NOON, model="m")
        made.usage = Usage("", 1000, 10, tier=tier)
        assert one.of_record(made) is None
    one.configure(configured({"m": Price(input=30, output=150)}), {})
    assert cost(one, input_tokens=1000, tier="fast") == 30_000_000


def test_openrouter_has_variants_of_a_model() -> None:
    """They are part of its name, and the list does not have them."""
    at = "https://openrouter.ai/api/v1"
    plain = look_up(Wanted("", at, "anthropic/claude-sonnet-4.5"))
    assert plain is not None
    assert look_up(Wanted("", at, "anthropic/claude-sonnet-4.5:nitro")) == plain
    assert look_up(Wanted("", at, "anthropic/claude-sonnet-4.5:online")) is None
    free = look_up(Wanted("", at, "qwen/qwen3-coder:free"))
    assert cost(prices(m=Tariff.of_json(free)), input_tokens=1000, output_tokens=1000) == 0
    assert look_up(Wanted("", "http://127.0.0.1:11434", "llama3.2:free")) is None


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


@given(
    kinds=st.tuples(*[st.sampled_from([0, 1, 700, 199_999, 200_000, 200_001])] * 4),
    tools=st.integers(0, 2),
    tier=st.sampled_from(["", "priority", "flex", "batch", "flex+region", "batch+region"]),
    since=st.sampled_from([-1.0, -0.001, 0.0, 1.0]),
    known=st.sampled_from(["m", "one", "unknown"]),
    own=st.sampled_from(["", "m", "factor"]),
    many=st.integers(1, 3),
)
@example(kinds=(0, 0, 0, 0), tools=1, tier="", since=0.0, known="one", own="", many=1)
@example(kinds=(1, 1, 1, 1), tools=0, tier="", since=-0.001, known="m", own="", many=1)
@example(kinds=(200_001, 1, 0, 0), tools=0, tier="", since=0.0, known="m", own="", many=1)
@example(kinds=(200_000, 1, 0, 0), tools=0, tier="priority", since=0.0, known="m", own="", many=1)
def test_a_record_costs_what_its_usage_does(
    kinds: tuple[int, int, int, int], tools: int, tier: str, since: float, known: str, own: str, many: int
) -> None:
    """Nearly all are worked out on a shorter way, and once."""
    rates = {"input": 2 * MILLION, "server_tools": 10**10}
    one = prices(m=TARIFF, one=Tariff.of_json([[0, {"": [[0, rates]]}]]))
    one.configure(configured({"m": Price(input=7)} if own == "m" else {}), {("claude", "default"): 3.0} if own else {})
    usage = Usage("", *kinds, server_tools=tools, tier=tier, requests=many)
    made = record(NOON + since, model=known)
    made.usage = usage
    expected = one.cost("claude", "default", known, usage, int(made.time * 1000))
    if not (any(kinds) or tools):
        expected = 0
    assert one.of_record(made) == expected
    one.tariffs.clear()
    assert one.of_record(made) == expected or expected is None


def test_a_long_context_begins_where_the_list_of_that_time_says() -> None:
    one = prices(m=TARIFF, none=None)
    assert one.long_context("claude", "m", NOON) == 200_000
    assert one.long_context("claude", "m", NOON - 1) is None
    assert one.long_context("claude", "new", NOON) == 200_000, "nobody knows, but others begin there"
    steps = [[0, {"": [[above, {"input": above}] for above in (500_000, 100_000, 0)]}]]
    one.tariffs["claude", "steps"] = Tariff.of_json(steps)
    assert one.long_context("claude", "steps", NOON) == 100_000


def test_the_nearest_pattern_of_the_configuration_counts() -> None:
    """An exact name, then the longest beginning, then an expression that is the whole name."""
    one = prices()
    patterns = ["/.*us-5/", "o*", "opus-*", "opus-4", "/", "//"]
    every = dict.fromkeys(KINDS, 0)
    one.configure(
        configured({name: Price.model_validate(every | {"input": at}) for at, name in enumerate(patterns, 1)}), {}
    )
    found = {name: cost(one, name, input_tokens=1000) for name in ("opus-4", "opus-5", "o5", "plus-5", "plus-50", "/")}
    by_hand = {"opus-4": 4, "opus-5": 3, "o5": 2, "plus-5": 1, "plus-50": None, "/": 5}
    assert found == {name: price and price * 1_000_000 for name, price in by_hand.items()}
