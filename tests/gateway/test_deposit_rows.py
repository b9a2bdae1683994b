"""What users keep with the vendors, in the database: for the next start and for other nodes, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from aimux.gateway import deposit_rows
from aimux.gateway.deferred_usage import due
from aimux.gateway.deposit_rows import DepositRows
from aimux.gateway.deposits import Deposit, Deposits
from aimux.metering.record import RequestRecord, Sender
from aimux.plugin import Over, Usage
from aimux.storage import Database, StorageError
from aimux.storage.engine import Connection
from tests.waiting import until

Node = Callable[[], Awaitable[DepositRows]]
OF_ANN = Deposit("default", "ann")


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop() -> None:
    """Here databases are opened in the middle of it."""


@pytest.fixture
async def node(database_url: str | None, tmp_path: Path) -> AsyncIterator[Node]:
    """Starts a node on the test's database, as often as it is called."""
    async with AsyncExitStack() as stack:

        async def start() -> DepositRows:
            database = await Database.open(database_url, tmp_path / "state")
            stack.push_async_callback(database.close)
            rows = DepositRows(database, shared=True)
            stack.push_async_callback(rows.close)
            await rows.start()
            return rows

        yield start


@pytest.fixture
def _nothing_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes write when a test says so."""
    monkeypatch.setattr(deposit_rows, "FLUSH_SECONDS", 1e6)


async def test_the_next_start_knows_it(node: Node) -> None:
    rows = await node()
    rows.deposits.keep("plain", "default", ["file-1", "file-2"], "ann")
    rows.deposits.keep("plain", "two", ["resp_1"], "", lasts=False)
    rows.deposits.keep("plain", "default", ["file-3"], None)
    await rows.flush()
    assert not rows.deposits.fresh
    known = (await node()).deposits
    assert [known.find("plain", [one]) for one in ("file-1", "resp_1", "file-3")] == [OF_ANN, Deposit("two", ""), None]
    assert not known.fresh


async def test_a_renamed_account_has_what_it_had(node: Node) -> None:
    one, other = await node(), await node()
    one.deposits.keep("plain", "default", ["file-1"], "ann")
    one.deposits.keep("other", "default", ["file-1"], "ann")
    await one.flush()
    one.deposits.keep("plain", "default", ["file-2"], "ann")
    await one.rename("plain", "default", "team")
    of_the_team = Deposit("team", "ann")
    assert [one.deposits.find("plain", [named]) for named in ("file-1", "file-2")] == [of_the_team] * 2
    assert one.deposits.find("other", ["file-1"]) == OF_ANN
    await until(lambda: {other.deposits.find("plain", [named]) for named in ("file-1", "file-2")} == {of_the_team}, 30)
    assert (await node()).deposits.find("plain", ["file-1"]) == of_the_team
    assert other.deposits.find("other", ["file-1"]) == OF_ANN


async def test_another_node_hears_of_it(node: Node) -> None:
    one, other = await node(), await node()
    one.deposits.keep("plain", "default", ["file-1"], "ann")
    await until(lambda: other.deposits.find("plain", ["file-1"]) == OF_ANN, 30)


async def test_what_is_not_in_memory_is_looked_up(node: Node) -> None:
    one = await node()
    one.deposits.keep("plain", "default", [f"file-{number}" for number in range(250)], "ann")
    await one.flush()
    other = await node()
    other.deposits = Deposits(most=1000, each=1000)
    await other.look_up([("plain", f"file-{number}") for number in range(300)])
    assert len(other.deposits) == 250
    assert other.deposits.owned("ann", "plain") == {"default": {f"file-{number}" for number in range(250)}}


async def test_whose_it_is_stays_as_it_was_first_told_on_every_node(node: Node) -> None:
    one, other = await node(), await node()
    one.deposits.keep("plain", "default", ["file-1"], "ann")
    await one.flush()
    other.deposits = Deposits()
    other.deposits.keep("plain", "two", ["file-1"], "bob")
    await other.flush()
    assert (await node()).deposits.find("plain", ["file-1"]) == Deposit("two", "ann")


async def test_what_is_old_is_forgotten(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deposit_rows, "PASSING_DAYS", -1)
    rows = await node()
    rows.deposits.keep("plain", "default", ["file-1"], "ann")
    rows.deposits.keep("plain", "default", ["resp_1"], "ann", lasts=False)
    await rows.flush()
    await rows.prune()
    known = (await node()).deposits
    assert known.find("plain", ["file-1"]) == OF_ANN
    assert known.find("plain", ["resp_1"]) is None


async def test_what_can_not_be_written_is_written_later(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await node()
    rows.deposits.keep("plain", "default", ["file-1"], "ann")
    with monkeypatch.context() as patch:

        def away(_self: Database, *_topics: str) -> None:
            raise StorageError("away")

        patch.setattr(Database, "write", away)
        with pytest.raises(StorageError):
            await rows.flush()
        rows.deposits.keep("plain", "default", ["file-2"], "ann")
    await rows.flush()
    assert len((await node()).deposits) == 2


async def test_what_waits_to_be_written_is_bounded() -> None:
    deposits = Deposits(most=10, each=10)
    for number in range(50):
        deposits.keep("plain", "default", [f"file-{number}"], f"user{number}")
    assert len(deposits.fresh) == 10


@pytest.mark.usefixtures("_nothing_by_itself")
@pytest.mark.parametrize(("how", "said"), [("silent", "the database takes too long"), ("away", "it is away")])
async def test_no_request_waits_for_a_database_that_does_not_answer(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str, said: str
) -> None:
    monkeypatch.setattr(deposit_rows, "LOOK_SECONDS", 0.05)
    rows, asked = await node(), 0
    rows.deposits.keep("plain", "default", ["file-1"], "ann")
    await rows.flush()

    @asynccontextmanager
    async def without_answer(_self: Database) -> AsyncIterator[None]:
        nonlocal asked
        asked += 1
        if how == "away":
            raise StorageError(said)
        await asyncio.Event().wait()
        yield

    with monkeypatch.context() as patch:
        patch.setattr(Database, "read", without_answer)
        async with asyncio.timeout(10):
            await rows.look_up([("plain", "file-2")])
            await rows.look_up([("plain", "file-3")])
    assert asked == 1, "and the next ones don't even ask"
    assert f"the owners of what users have stored can't be read now: {said}" in caplog.text


@pytest.mark.usefixtures("_nothing_by_itself")
async def test_what_nobody_knows_is_not_asked_for_again_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, other = await node(), await node()
    rows.deposits.keep("plain", "default", ["file-1"], "ann")
    await rows.flush()
    async with asyncio.timeout(30):
        while other.deposits.find("plain", ["file-1"]) is None:  # it has heard that there is something
            await other.look_up([("plain", "file-1")])
            await asyncio.sleep(0.05)
    asked, real = 0, Database.read

    def counted(self: Database) -> object:
        nonlocal asked
        asked += 1
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "read", counted)
        for _ in range(2):
            await other.look_up([("plain", "file-2")])
        assert asked == 1
        await other.look_up([("plain", "file-2"), ("plain", "file-3")])
        assert asked == 2, "another one is"


@pytest.mark.usefixtures("_nothing_by_itself")
async def test_an_end_without_the_database_says_what_is_lost(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = await node()
    rows.deposits.keep("plain", "default", ["file-1"], "ann")

    def away(_self: Database, *_topics: str) -> None:
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", away)
        await rows.close()
    assert "what users have stored could not be written down: away" in caplog.text


# --- what is used behind an answer --------------------------------------------------------------------------------


def over(tokens: int = 5) -> Over:
    return Over("batch_1", (Usage("m", output_tokens=tokens),))


async def begun(node: Node) -> list[RequestRecord]:
    """A batch of ann's; what is counted of it will be in the list."""
    rows = await node()
    rows.deposits.keep("plain", "default", ["batch_1"], "ann", due=due(Sender("/plain", "t1", ("team",)), "talk"))
    await rows.flush()
    return []


async def test_one_of_two_nodes_counts_what_both_are_told(node: Node) -> None:
    counted = await begun(node)
    one, other = await node(), await node()
    for each in (one, other):
        each.on_counted = counted.append
        each.deposits.count("plain", [over()], "/")
    await asyncio.gather(one.flush(), other.flush())
    third = await node()
    for each in (one, other, third):
        each.deposits.count("plain", [over(7)], "/")
        assert not each.deposits.claims
    assert [(record.user, record.sender.groups, record.conversation) for record in counted] == [
        ("ann", ("team",), "talk")
    ]


@pytest.mark.usefixtures("_nothing_by_itself")
async def test_who_was_not_first_knows_what_is_left(node: Node) -> None:
    counted = await begun(node)
    one, other = await node(), await node()
    for each in (one, other):
        each.on_counted = counted.append
        each.deposits.on_claim = lambda: None
    one.deposits.count("plain", [over(5)._replace(whole=False)], "/")
    other.deposits.count("plain", [over(6)], "/")
    await one.flush()
    await other.flush()
    other.deposits.count("plain", [over(6)], "/")
    await other.flush()
    assert [record.usage.output_tokens for record in counted if record.usage] == [5, 1]


async def test_what_is_used_is_counted_when_the_database_is_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, whether it had taken the change or not."""
    counted = await begun(node)
    rows = await node()
    rows.on_counted = counted.append
    real = Database.write

    @asynccontextmanager
    async def in_doubt(self: Database, *topics: str) -> AsyncIterator[Connection]:
        async with real(self, *topics) as connection:
            yield connection
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", in_doubt)
        rows.deposits.count("plain", [over()], "/")
        with pytest.raises(StorageError):
            await rows.flush()
        assert not counted
    await rows.flush()
    assert len(counted) == 1


@pytest.mark.usefixtures("_nothing_by_itself")
async def test_a_database_that_is_away_is_not_asked_again_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await begun(node)
    rows, asked = await node(), asyncio.Event()
    tries = 0

    def away(_self: Database, *_topics: str) -> None:
        nonlocal tries
        tries += 1
        asked.set()
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", away)
        rows.deposits.count("plain", [over()], "/")
        await asked.wait()
        for _ in range(20):
            await asyncio.to_thread(int)
        assert tries == 1
