"""Nodes of one database see the same things, and one of them sends the notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from aimux.config.notices import Notices
from aimux.notices import Notice, Teller
from aimux.notices import nodes as module
from aimux.notices import teller as teller_module
from aimux.notices.nodes import Nodes
from aimux.storage import Database, StorageError
from tests.notices.receiver import Receiver, receiver

__all__ = ["receiver"]

pytestmark = pytest.mark.long

Node = tuple[Teller, Database]
NOTICE = Notice("account_parked", "claude/default", "claude/default is parked: it was revoked", 1_795_700_000.0)


@pytest.fixture
async def node(
    postgresql_url: str, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[], Awaitable[Node]]]:
    """Starts another one; it hears of the others, and they of it, when this is over."""
    monkeypatch.setattr(module, "AGAIN", 0.05)
    monkeypatch.setattr(teller_module, "PAUSES", (600.0,))
    made: list[Node] = []

    async def start() -> Node:
        database = await Database.open(postgresql_url, tmp_path)
        teller = Teller(Notices.model_validate({"webhooks": [{"url": receiver.url}]}), Nodes(database))
        made.append((teller, database))
        async with asyncio.timeout(10):
            await asyncio.gather(*(hears(one, other) for one in made for other in made if one is not other))
        return made[-1]

    yield start
    for teller, database in made:
        await teller.close()
        await database.close()


def hearing(node: Node, beginning: str) -> asyncio.Event:
    """That it hears something that begins so."""
    heard = asyncio.Event()
    node[1].hear(lambda _node, text: heard.set() if text.startswith(beginning) else None)
    return heard


async def within(heard: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await heard.wait()


async def hears(one: Node, other: Node) -> None:
    heard = hearing(one, f"hello from {id(other)}")
    while not heard.is_set():
        await other[1].tell(f"hello from {id(other)}")
        await asyncio.sleep(0.01)


async def settled(*nodes: Node) -> None:
    """Nobody asks any longer who sends it."""
    async with asyncio.timeout(10):
        await asyncio.gather(*(task for teller, _ in nodes for task in teller._asking.values()))


async def test_what_all_see_at_once_one_sends(node: Callable[[], Awaitable[Node]], receiver: Receiver) -> None:
    nodes = [await node() for _ in range(3)]
    for teller, _ in nodes:
        teller.tell(NOTICE)
    await settled(*nodes)
    assert len(receiver.got) == 1
    assert all([*teller.recent] == [NOTICE] for teller, _ in nodes)


@pytest.mark.parametrize("words", [("a", "b"), ("b", "a")])
async def test_nor_do_two_send_of_which_one_asks_a_moment_later(
    node: Callable[[], Awaitable[Node]], receiver: Receiver, words: tuple[str, str]
) -> None:
    first, second = await node(), await node()
    for (teller, _), word in zip((first, second), words, strict=True):
        assert teller._nodes is not None
        teller._nodes._word = word
    asked = hearing(second, module.ASKS)
    first[0].tell(NOTICE)
    await within(asked)
    second[0].tell(NOTICE)
    await settled(first, second)
    assert len(receiver.got) == 1


async def test_what_has_arrived_is_sent_by_none_that_sees_it_later(
    node: Callable[[], Awaitable[Node]], receiver: Receiver
) -> None:
    first, second = await node(), await node()
    first[0].tell(NOTICE)
    await settled(first)
    second[0].tell(NOTICE)
    await settled(second)
    await first[0].close()
    third = await node()
    third[0].tell(NOTICE)
    await settled(third)
    assert len(receiver.got) == 1


async def test_what_is_over_and_comes_again_is_sent_again(
    node: Callable[[], Awaitable[Node]], receiver: Receiver
) -> None:
    nodes = [await node(), await node()]
    for _ in range(2):
        for teller, _database in nodes:
            teller.tell(NOTICE)
        await settled(*nodes)
        for teller, _database in nodes:
            teller.forget(NOTICE)
    assert len(receiver.got) == 2


async def test_a_node_that_ends_before_it_has_arrived_is_replaced(
    node: Callable[[], Awaitable[Node]], receiver: Receiver
) -> None:
    first, second = await node(), await node()
    receiver.answers = [503]
    told = hearing(second, module.SENDS)
    first[0].tell(NOTICE)
    await receiver.until(1)
    second[0].tell(NOTICE)
    await within(told)
    await first[0].close()
    await settled(second)
    assert len(receiver.got) == 2


async def test_what_is_over_while_another_one_sends_it_is_waited_for_no_longer(
    node: Callable[[], Awaitable[Node]], receiver: Receiver
) -> None:
    first, second = await node(), await node()
    receiver.answers = [503]
    first[0].tell(NOTICE)
    await receiver.until(1)
    second[0].tell(NOTICE)
    [waiting] = second[0]._asking.values()
    second[0].forget(NOTICE)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(receiver.got) == 1


async def test_while_nobody_can_be_asked_each_sends(
    node: Callable[[], Awaitable[Node]], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice is better than never."""
    nodes = [await node(), await node()]

    async def away(*_: object) -> None:
        raise StorageError("the database is away")

    monkeypatch.setattr(Database, "tell", away)
    for teller, _ in nodes:
        teller.tell(NOTICE)
    await settled(*nodes)
    assert len(receiver.got) == 2
