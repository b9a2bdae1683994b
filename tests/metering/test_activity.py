"""What runs now, at all nodes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aimux.metering.activity import BELIEVED, Activity, Open
from aimux.metering.journal import Journal
from aimux.metering.record import RequestRecord
from aimux.storage import Database
from tests.waiting import until

from .support import record


class Clock:
    """Seconds, as a test wants them."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Node:
    """One that has its own connection to the database, and what it does."""

    def __init__(self, database: Database) -> None:
        self.database, self.journal, self.clock = database, Journal(), Clock()
        self.running: list[RequestRecord] = []
        self.activity = Activity(database, self.journal, lambda: self.running, clock=self.clock)

    async def until_others(self, count: int) -> None:
        await until(lambda: len(self.activity.others()) == count, 20)


@pytest.fixture
async def nodes(tables_url: str, tmp_path: Path) -> AsyncIterator[list[Node]]:
    made = [Node(await Database.open(tables_url, tmp_path)) for _ in range(2)]
    yield made
    for node in made:
        await node.database.close()


def under_way(name: str = "a", **changes: object) -> RequestRecord:
    made = record(time.time() - 5, duration=0.0, ttfb=None, **changes)
    made.request_id = name
    return made


async def test_nodes_know_what_runs_at_the_others(nodes: list[Node]) -> None:
    one, other = nodes
    one.running = [under_way("a-1", user="ada", model="opus", account="work")]
    one.journal.record(record(time.time() - 2, duration=1.0, usage={"output_tokens": 300}))
    one.journal.record(record(time.time() - 1, duration=0.5, usage={"output_tokens": 0}))
    await one.activity.tell()
    await other.until_others(1)
    (told,) = other.activity.others()
    assert told.node == socket.gethostname()
    assert (told.running, told.tokens_per_second, told.requests_per_minute) == (1, 10.0, 4.0)
    (item,) = told.items
    assert isinstance(item, Open)
    assert (item.id, item.user, item.model, item.provider, item.account) == ("a-1", "ada", "opus", "claude", "work")
    assert item.seconds >= 5
    assert not item.streaming
    assert one.activity.others() == [], "its own it does not count twice"


async def test_what_ended_while_the_clock_was_ahead_is_not_of_the_last_seconds(nodes: list[Node]) -> None:
    node, _ = nodes
    node.journal.record(record(time.time() + 3600, duration=1.0, usage={"output_tokens": 300}))
    node.journal.record(record(time.time() - 2, duration=1.0, usage={"output_tokens": 30}))
    assert (node.activity.own().tokens_per_second, node.activity.own().requests_per_minute) == (1.0, 2.0)


async def test_one_that_has_nothing_left_says_so_once_and_one_that_is_gone_is_forgotten(nodes: list[Node]) -> None:
    one, other = nodes
    heard: list[str] = []
    one.running = [under_way()]
    await one.activity.tell()
    await other.until_others(1)
    one.running = []
    await one.activity.tell()
    await other.until_others(0)
    other.database.hear(lambda _node, text: heard.append(text))
    await one.activity.tell()  # nothing to tell
    await one.database.tell("the end")
    await until(lambda: heard, 20)
    assert heard == ["the end"]

    other.running = [under_way()]
    await other.activity.tell()
    await one.until_others(1)
    one.clock.now += BELIEVED + 1
    assert one.activity.others() == []


async def test_more_than_a_notice_holds_is_counted_and_the_longest_are_named(nodes: list[Node]) -> None:
    one, other = nodes
    strange = "\N{PILE OF POO}" * 500  # which is what a client may call its model
    one.running = [under_way(f"r{number}", model=strange) for number in range(500)]
    await one.activity.tell()
    await other.until_others(1)
    (told,) = other.activity.others()
    assert told.running == 500
    assert 0 < len(told.items) < 100
    assert [item.id for item in told.items] == [f"r{number}" for number in range(len(told.items))]


async def test_what_a_node_of_another_version_tells_is_left_alone(nodes: list[Node]) -> None:
    one, other = nodes
    for text in ("nonsense", json.dumps(["host", 1]), json.dumps(["host", 1, 2, 3, [["too", "short"]]])):
        await other.database.tell(text)
    other.running = [under_way()]
    await other.activity.tell()
    await one.until_others(1)
    assert one.activity.others()[0].running == 1
