"""What every vault does, on files and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from aimux.accounts import Conflict, FileVault, Missing, Vault, VaultError
from aimux.accounts.database_vault import DatabaseVault
from aimux.accounts.vault import ROTATED, SPARE
from aimux.storage import Database

FILE = "demo.json"
KEY = bytes(range(32))
Another = Callable[[], Vault]


@pytest.fixture(params=["files", "postgresql"])
async def another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Another]:
    """Makes one more vault on the same place, as another process has it."""
    if request.param == "files":
        yield lambda: FileVault(tmp_path / "state", lock_timeout=10)
        return
    url = request.getfixturevalue("tables_url")
    nodes = [await Database.open(url, tmp_path) for _ in range(2)]
    free = iter(nodes)
    yield lambda: DatabaseVault(next(free), [KEY], lock_timeout=10)
    for node in nodes:
        await node.close()


@pytest.fixture
def vault(another: Another) -> Vault:
    return another()


async def test_what_is_written_is_read_to_the_byte(vault: Vault) -> None:
    for raw in (b"one", b"\0\xff" * 5000, b""):
        before = await vault.read("demo", "a", FILE) if await vault.list("demo", FILE) else None
        await vault.write("demo", "a", FILE, raw, expect=before)
        assert await vault.read("demo", "a", FILE) == raw


async def test_accounts_are_listed_by_instance_and_file(vault: Vault) -> None:
    await vault.write("demo", "work", FILE, b"1", expect=None)
    await vault.write("demo", "default", FILE, b"2", expect=None)
    await vault.write("demo", "default", FILE + SPARE, b"3", expect=None)
    await vault.write("lab", "x", FILE, b"4", expect=None)
    assert await vault.list("demo", FILE) == ["default", "work"]
    assert set(await vault.scan("demo", FILE)) == {"default", "work"}
    assert await vault.list("demo", "other.json") == await vault.list("other", FILE) == []
    assert await vault.links("demo", FILE) == {}


async def test_compare_and_swap(vault: Vault) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    for wrong in (None, b"", b"two"):
        with pytest.raises(Conflict):
            await vault.write("demo", "a", FILE, b"new", expect=wrong)
    assert await vault.read("demo", "a", FILE) == b"one"
    await vault.write("demo", "a", FILE, b"two", expect=b"one")
    assert await vault.read("demo", "a", FILE) == b"two"


async def test_of_many_that_swap_the_same_one_comes_through(another: Another) -> None:
    vaults = [another(), another()]
    await vaults[0].write("demo", "a", FILE, b"old", expect=None)
    swaps = [vaults[n % 2].write("demo", "a", FILE, b"new-%d" % n, expect=b"old") for n in range(8)]
    results = await asyncio.gather(*swaps, return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert all(result is None or isinstance(result, Conflict) for result in results)
    winner = results.index(None)
    assert await vaults[1].read("demo", "a", FILE) == b"new-%d" % winner


async def test_missing(vault: Vault) -> None:
    with pytest.raises(Missing, match="import a login"):
        await vault.read("demo", "a", FILE)
    with pytest.raises(Missing):
        await vault.delete("demo", "a", FILE)
    with pytest.raises(Missing):
        await vault.rename("demo", "a", "b", FILE)
    with pytest.raises(Conflict):
        await vault.write("demo", "a", FILE, b"new", expect=b"old")


async def test_delete_takes_the_spare_along(vault: Vault) -> None:
    await vault.write("demo", "a", FILE, b"two", expect=None)
    await vault.write("demo", "a", FILE + SPARE, b"three", expect=None)
    await vault.write("demo", "b", FILE, b"four", expect=None)
    await vault.delete("demo", "a", FILE)
    with pytest.raises(Missing):
        await vault.read("demo", "a", FILE + SPARE)
    assert await vault.list("demo", FILE) == ["b"]


async def test_a_new_login_ends_the_spare_of_the_one_before(vault: Vault) -> None:
    """Were it refused, the former person's login would serve again."""
    await vault.write("demo", "a", FILE, b"two", expect=None)
    await vault.write("demo", "a", FILE + SPARE, b"three", expect=None)
    await vault.write("demo", "a", FILE, b"four", expect=b"two")
    assert await vault.read("demo", "a", FILE + SPARE) == b"three"
    await vault.write("demo", "a", FILE, b"five", expect=b"four", detach=True)
    assert await vault.read("demo", "a", FILE) == b"five"
    with pytest.raises(Missing):
        await vault.read("demo", "a", FILE + SPARE)


async def test_rename(vault: Vault) -> None:
    await vault.write("demo", "default", FILE, b"one", expect=None)
    await vault.write("demo", "default", FILE + SPARE, b"kept", expect=None)
    await vault.write("demo", "b", FILE, b"two", expect=None)
    with pytest.raises(Conflict, match="already exists"):
        await vault.rename("demo", "default", "b", FILE)
    with pytest.raises(Conflict):
        await vault.rename("demo", "b", "b", FILE)
    await vault.rename("demo", "default", "c", FILE)
    await vault.rename("demo", "b", "default", FILE)
    assert await vault.list("demo", FILE) == ["c", "default"]
    assert await vault.read("demo", "c", FILE) == b"one"
    assert await vault.read("demo", "c", FILE + SPARE) == b"kept"
    assert await vault.read("demo", "default", FILE) == b"two"


@pytest.mark.parametrize("name", [FILE, FILE + SPARE])
async def test_no_account_lies_where_a_file_of_the_default_one_goes(vault: Vault, name: str) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    for work in (vault.write("demo", name, FILE, b"two", expect=None), vault.rename("demo", "a", name, FILE)):
        with pytest.raises(Conflict, match="can't be an account's name: a file is named so"):
            await work
    assert await vault.list("demo", FILE) == ["a"]
    await vault.write("demo", "default", FILE, b"two", expect=None)
    await vault.write("demo", "default", FILE + SPARE, b"three", expect=None)


async def test_two_renames_in_opposite_directions_do_not_wait_for_each_other(vault: Vault) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    await vault.write("demo", "b", FILE, b"two", expect=None)
    results = await asyncio.gather(
        vault.rename("demo", "a", "b", FILE), vault.rename("demo", "b", "a", FILE), return_exceptions=True
    )
    assert all(isinstance(result, Conflict) for result in results)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\n", "x" * 65, "a b", "\0"])
async def test_bad_names_are_refused(vault: Vault, name: str) -> None:
    with pytest.raises(VaultError, match="can't be a name"):
        await vault.read("demo", name, FILE)
    with pytest.raises(VaultError, match="can't be a name"):
        await vault.write("demo", name, FILE, b"x", expect=None)


async def test_a_change_changes_the_tag_of_that_account(another: Another) -> None:
    one, other = another(), another()
    await one.write("demo", "a", FILE, b"one", expect=None)
    await one.write("demo", "b", FILE, b"one", expect=None)
    async with asyncio.timeout(10):
        before = await other.scan("demo", FILE)
        while (again := await other.scan("demo", FILE)) != before:  # files come to rest
            before = again
    await one.write("demo", "a", FILE, b"two", expect=b"one")
    after = await other.scan("demo", FILE)
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]
    await one.delete("demo", "a", FILE)
    await one.write("demo", "a", FILE, b"one", expect=None)
    assert (await other.scan("demo", FILE))["a"] not in {before["a"], after["a"]}


# --- locks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2])
async def test_the_lock_excludes_others_and_is_taken_by_writes(another: Another, nodes: int) -> None:
    vault = another()
    other = another() if nodes == 2 else vault
    order: list[str] = []
    locked = asyncio.Event()

    async def holder() -> None:
        async with vault.lock("demo", "a", FILE):
            locked.set()
            for _ in range(5):
                await asyncio.sleep(0.01)
            await vault.write("demo", "a", FILE, b"first", expect=None)  # the task has the lock: no deadlock
            order.append("holder")

    async def writer() -> None:
        await locked.wait()
        await other.write("demo", "a", FILE, b"second", expect=b"first")
        order.append("writer")

    async with asyncio.timeout(10):
        await asyncio.gather(holder(), writer())
    assert order == ["holder", "writer"]


async def test_a_lock_is_one_account_s_and_reading_never_waits(another: Another) -> None:
    vault, other = another(), another()
    await vault.write("demo", "a", FILE, b"one", expect=None)
    async with asyncio.timeout(10), vault.lock("demo", "a", FILE):
        async with other.lock("demo", "b", FILE):
            assert await other.read("demo", "a", FILE) == b"one"
        await other.write("lab", "a", FILE, b"two", expect=None)


async def test_a_cancelled_wait_and_a_cancelled_holder_leave_no_lock(another: Another) -> None:
    vault, other = another(), another()

    async def hold(vault: Vault, event: asyncio.Event) -> None:
        async with vault.lock("demo", "a", FILE):
            event.set()
            await asyncio.Event().wait()

    first, second = asyncio.Event(), asyncio.Event()
    holder = asyncio.create_task(hold(vault, first))
    await first.wait()
    waiters = [asyncio.create_task(hold(vault, second)), asyncio.create_task(hold(other, second))]
    await asyncio.sleep(0.02)
    for task in (*waiters, holder):
        task.cancel()
    await asyncio.gather(holder, *waiters, return_exceptions=True)
    assert not second.is_set()
    async with asyncio.timeout(10), other.lock("demo", "a", FILE):
        pass


async def test_cancelling_at_every_step_of_a_write_leaves_old_or_new_and_no_lock(another: Another) -> None:
    vault, other = another(), another()
    current = b"0"
    await vault.write("demo", "a", FILE, current, expect=None)
    for steps in range(1, 60):
        fresh = str(steps).encode()
        task = asyncio.create_task(vault.write("demo", "a", FILE, fresh, expect=current))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(10), other.lock("demo", "a", FILE):
            found = await other.read("demo", "a", FILE)
        assert found in {current, fresh}
        current = found


async def test_room_can_be_had_in_advance_and_is_given_up_with_the_lock(vault: Vault, tmp_path: Path) -> None:
    await vault.write("demo", "a", FILE, b"old", expect=None)
    async with vault.lock("demo", "a", FILE):
        await vault.reserve("demo", "a", FILE, 5000)
        await vault.reserve("demo", "a", FILE + ROTATED, 5000)
        await vault.write("demo", "a", FILE, b"new" * 1000, expect=b"old")
    assert await vault.read("demo", "a", FILE) == b"new" * 1000
    assert await vault.list("demo", FILE) == ["a"]
    assert not [*tmp_path.rglob("*.tmp")]


async def test_what_is_known_of_rotations_goes_where_the_credential_goes(vault: Vault) -> None:
    await vault.write("demo", "a", FILE, b"1", expect=None)
    await vault.write("demo", "a", FILE + ROTATED, b"2", expect=None)
    await vault.rename("demo", "a", "b", FILE)
    assert await vault.read("demo", "b", FILE + ROTATED) == b"2"
    await vault.delete("demo", "b", FILE)
    with pytest.raises(Missing):
        await vault.read("demo", "b", FILE + ROTATED)
