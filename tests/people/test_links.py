"""Links that sign a browser in, on a database of either kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aimux.people import links
from aimux.storage import Database, times


@pytest.fixture
async def nodes(database_url: str | None, tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            opened.append(await Database.open(database_url, tmp_path / "state"))
            stack.push_async_callback(opened[-1].close)
        yield opened[0], opened[1]


async def test_a_link_made_at_one_node_is_good_once_at_another(nodes: tuple[Database, Database]) -> None:
    one, other = nodes
    code = await links.make(one, "ann", "tok_1")
    assert [await links.user_of(node, code) for node in nodes] == ["ann", "ann"]
    assert await links.use(other, code) == ("ann", "tok_1")
    assert [await links.use(node, code) for node in nodes] == [None, None]
    assert await links.user_of(one, code) is None
    assert await links.use(one, "never-made") is None


async def test_of_two_that_use_it_at_once_one_is_signed_in(nodes: tuple[Database, Database]) -> None:
    code = await links.make(nodes[0], "", "")
    used = await asyncio.gather(*(links.use(node, code) for node in nodes * 3))
    assert [one for one in used if one is not None] == [("", "")]


async def test_it_ends_after_five_minutes(nodes: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch) -> None:
    code = await links.make(nodes[0], "ann", "")
    later = times.now() + links.LIFETIME * 1000
    monkeypatch.setattr(links, "now", lambda: later)
    assert await links.user_of(nodes[1], code) is None
    assert await links.use(nodes[1], code) is None


async def test_no_code_is_kept(nodes: tuple[Database, Database]) -> None:
    from aimux.storage.schema.people import sign_in_links

    code = await links.make(nodes[0], "ann", "tok_1")
    async with nodes[0].read() as connection:
        (row,) = (await connection.execute(sign_in_links.select())).all()
    assert code not in repr(row)


async def test_a_link_that_a_wrong_clock_made_does_not_live_on(
    nodes: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = times.now
    with monkeypatch.context() as ahead:
        ahead.setattr(links, "now", lambda: now() + 86_400_000)
        code = await links.make(nodes[0], "ann", "tok_1")
        assert await links.user_of(nodes[0], code) == "ann"
    assert await links.user_of(nodes[0], code) is None
    assert await links.use(nodes[0], code) is None
