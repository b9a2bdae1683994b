"""What is kept of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from aimux.metering.flattener import Flattener
from aimux.metering.record import Step
from aimux.storage import Database
from aimux.storage.schema import ledger as schema

from .conftest import Make
from .support import NOON, ONE, Cheap, record, rows, settled, total


async def test_a_request_is_a_row_and_a_part_of_its_hour(database: Database, make: Make) -> None:
    ledger = make()
    steps = [Step("claude", "two", 429, "cool_down", "limited", 0.1), Step("claude", "default", 200, "relay", "", 0.2)]
    one = record(
        attempts=2,
        steps=steps,
        model="sonnet-latest",
        sender={"request_class": "subagent", "client": "claude-cli/2", "agent": "a7"},
        usage={"cache_read_tokens": 3, "cache_write_tokens": 4, "cache_write_1h_tokens": 1, "tier": "priority"},
    )
    one.request_id = "clients-own"
    ledger.record(one)
    await settled(ledger)
    async with database.read() as connection:
        (row,) = (await connection.execute(select(schema.requests))).mappings()
        keys = {key["id"]: key for key in (await connection.execute(select(schema.usage_keys))).mappings()}
    key = keys[row["key"]]
    assert (row["id"], row["request_id"], row["at"], row["node"]) == (one.id, "clients-own", NOON * 1000, "node")
    assert (row["status"], row["duration"], row["ttfb"], row["conversation"]) == (200, 1500, 250, "talk")
    assert (row["input"], row["cache_read"], row["cache_write"], row["cache_write_1h"]) == (10, 3, 4, 1)
    assert (row["cost"], row["estimated"]) == (22, False)
    assert row["detail"] == {
        "asked": "sonnet-latest",
        "attempts": 2,
        "steps": [list(step) for step in steps],
        "tier": "priority",
        "agent": "a7",
    }
    served = keys[key["served"]]
    assert (served["user"], served["token"], served["groups"], served["mount"]) == ("", "", [], "")
    assert [served[name] for name in ("model", "class", "served")] == ["sonnet", "subagent", key["served"]]
    assert (key["user"], key["groups"], key["model"]) == ("ann", ["team"], "sonnet")
    assert (key["class"], key["client"], key["mount"]) == ("subagent", "claude-cli/2", "/claude")
    hours = {"cache_read": 3, "cache_write": 4, "cache_write_1h": 1, "cost": 22}
    assert await total(database) == ONE | hours
    await ledger.close()


async def test_a_large_batch_is_what_its_requests_are(database: Database, make: Make) -> None:
    """Many are written in one statement, those that say the usual in another one."""
    told: list[dict[str, Any]] = [
        {},
        {"steps": [Step("claude", "default", 200, "relay", "", 0.1, upstream_id="req_1")], "model": "sonnet-latest"},
        {"usage": {"reasoning_tokens": 2, "server_tools": 1, "estimated": True}},
        {"usage": {"model": "unknown-1"}, "conversation": "", "ttfb": None, "status": 502, "error": "upstream_lost"},
        {"bytes_in": 7, "usage": {"model": "", "input_tokens": 0, "output_tokens": 0}},
    ]
    mixed = [record(NOON + number % 7200, user=f"user{number % 70}", **told[number % 5]) for number in range(400)]
    usual = [record(NOON + 7200, user=f"user{number % 70}") for number in range(150)]
    mixed[3].request_id = "clients-own"
    mixed[4].method, mixed[4].path = "GET", "/claude/v1/modèles"
    ledger, flattener = make(), Flattener("node", Cheap())
    batch = [*mixed, *usual]
    for one in batch:
        ledger.record(one)
    await settled(ledger)
    assert await written(database) == expected(flattener.rows(batch))
    sums = {"requests": 550, "errors": 80, "unpriced": 80, "estimated": 80, "input": 4700, "output": 2350}
    sums |= {"reasoning": 160, "server_tools": 80, "duration": 825_000, "cost": 5850}
    assert await total(database) == sums
    await ledger.close()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"conversation": "", "ttfb": None, "usage": {"model": "unknown-1"}},
        {"status": 404, "error": "not_found", "attempts": 0},
        {"steps": [Step("claude", "default", 200, "relay", "", 0.1, upstream_id="req_1")], "model": "sonnet-latest"},
        {"usage": {"cache_write_1h_tokens": 3, "reasoning_tokens": 2, "server_tools": 1, "estimated": True}},
    ],
)
async def test_what_a_batch_says_alike_is_in_every_row(database: Database, make: Make, changes: dict[str, Any]) -> None:
    ledger, flattener = make(), Flattener("node", Cheap())
    batch = [record(NOON + number, **changes) for number in range(73)]
    for one in batch:
        ledger.record(one)
    await settled(ledger)
    assert await written(database) == expected(flattener.rows(batch))
    await ledger.close()


def expected(rows: list[tuple[Any, ...]]) -> dict[str, dict[str, Any]]:
    """The rows of `requests` that should be there, by id."""
    columns = [column.name for column in schema.requests.c]
    found = {row[0]: dict(zip(columns, row, strict=False)) for row in rows}
    for row in found.values():
        row["detail"] = json.loads(row["detail"]) if row["detail"] else None
    return found


async def written(database: Database) -> dict[str, dict[str, Any]]:
    """Those that are there."""
    async with database.read() as connection:
        found = (await connection.execute(select(schema.requests))).mappings()
        return {row["id"]: dict(row) for row in found}


async def test_who_has_no_token_leaves_no_row(database: Database, make: Make) -> None:
    ledger = make()
    ledger.record(record(user="", attempts=0, status=401))
    ledger.record(record(user="", attempts=1))  # anonymous, and allowed to be
    await settled(ledger)
    assert await rows(database, "status") == [(200,)]
    await ledger.close()


async def test_what_aimux_answers_by_itself_is_no_use_of_an_account(database: Database, make: Make) -> None:
    ledger = make()
    ledger.record(record(attempts=0, usage={}))  # how much of the limits is used
    ledger.record(record(attempts=0, usage={}, status=429, error="rate_limited"))
    await settled(ledger)
    assert await rows(database, "status") == [(429,)]
    await ledger.close()


async def test_foreign_texts_fit_either_database(database: Database, make: Make) -> None:
    ledger = make()
    odd = "nul \0 surrogate \ud800 " + "x" * 5000
    ledger.record(record(conversation=odd, model=odd, usage={"model": odd}, error=""))
    await settled(ledger)
    ((conversation, detail),) = await rows(database, "conversation", "detail")
    assert len(conversation) == 256
    assert json.dumps(detail).isascii()
    await ledger.close()


async def test_clients_can_not_fill_the_keys(database: Database, make: Make) -> None:
    ledger = make()
    for number in range(400):
        ledger.record(record(sender={"client": f"c{number}"}))
        ledger.record(record(status=404, model=f"made-up-{number}", usage={"output_tokens": 0, "input_tokens": 0}))
    await settled(ledger)
    async with database.read() as connection:
        keys = (await connection.execute(select(schema.usage_keys.c.client, schema.usage_keys.c.model))).all()
    assert len(keys) < 420, "and the key of each without its sender"
    assert ("other", "sonnet") in [tuple(key) for key in keys]
    await ledger.close()
