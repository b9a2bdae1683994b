"""What requests add to sums, and what of them a spill file keeps."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from aimux.metering import rows as places
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.rows import TOTAL, Key, Row, decode, encode, part_of, sums, sums_of_parts
from aimux.plugin.usage import Usage
from aimux.storage.schema.ledger import MEASURES, requests

from .support import NOON, Cheap, record


def some(rng: random.Random, count: int, hours: float) -> list[Row]:
    """Requests of every kind; few batches have all the same of anything."""
    kinds: dict[str, list[Any]] = {
        "status": rng.choice([[200], [200, 399, 400, 503, 0]]),
        "error": rng.choice([[""], ["", "client_gone", "timeout"]]),
        "model": rng.choice([["sonnet"], ["sonnet", "unknown"], ["unknown"]]),
        "estimated": rng.choice([[False], [False, True]]),
    }
    made = []
    for _ in range(count):
        status, error, model, estimated = (rng.choice(kind) for kind in kinds.values())
        counts = dict.fromkeys(field.name for field in fields(Usage)[1:8])
        usage = {name: rng.randrange(1000) for name in counts} | {"model": model, "estimated": estimated}
        talk, user = rng.choice(["talk", ""]), rng.choice(["ann", "bob"])
        at = NOON + rng.random() * hours * 3600
        made.append(record(at, user=user, conversation=talk, status=status, error=error, usage=usage))
    return [Row(row) for row in Flattener("node", Cheap()).rows(made)]


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_adds_what_its_requests_do(seed: int) -> None:
    rng, calendar = random.Random(seed), Calendar(ZoneInfo("Asia/Kolkata"))
    rows = some(rng, rng.choice([1, 2, 60]), rng.choice([0.01, 5]))
    times = [row.at for row in rows]
    found = sums(rows, min(times), max(times), calendar)
    assert found == sums_of_parts([part_of(row) for row in rows], calendar)
    named = [dict(zip(MEASURES, measures, strict=True)) for _, key, *measures in found if key == TOTAL]
    kept = [dict(zip(requests.c.keys(), row, strict=False)) for row in rows]
    for name in ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "server_tools"):
        assert sum(one[name] for one in named) == sum(one[name] for one in kept)
    assert sum(one["cost"] for one in named) == sum(one["cost"] or 0 for one in kept)
    assert sum(one["unpriced"] for one in named) == [one["cost"] for one in kept].count(None)
    assert sum(one["duration"] for one in named) == 1500 * len(rows)
    assert sum(one["estimated"] for one in named) == sum(one["estimated"] for one in kept)
    failed = [one for one in kept if one["status"] >= 400 or one["error"] == "timeout"]
    assert sum(one["errors"] for one in named) == len(failed)
    for row, one in zip(rows, kept, strict=True):
        assert row.tokens == one["input"] + one["output"] + one["cache_read"] + one["cache_write"]
        assert (row.output, row.cost, row.id) == (one["output"], one["cost"], one["id"])
        again = decode(encode(row))
        assert again == row
        assert isinstance(again[-1], Key)


def test_a_key_s_number_is_the_same_for_ever() -> None:
    """It is in every database: with what `asked` has added, and without it."""
    key = Key("ann", "t1", ("team",), "claude", "default", "/claude", "sonnet", "main", "claude-cli/2")
    numbers = [one.hash() for one in (key, key._replace(asked="opus"), key.served())]
    assert numbers == [2_670_864_787_501_407_879, 2_770_581_536_687_702_373, 2_497_998_474_919_713_670]


def test_a_row_s_places_are_those_of_its_columns() -> None:
    names = ["NUMBER" if column.name == "key" else column.name.upper() for column in requests.c]
    assert [getattr(places, name) for name in names] == [*range(places.KEY)]
