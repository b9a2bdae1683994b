"""Another name for an account, and its removal, while everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from aimux.accounts import AccountPool, FileVault, Selection
from aimux.accounts.vault import Conflict, Missing, VaultError
from aimux.plugin import AccountSettings
from tests.accounts.support import HOUR, Clock, TokenServer, credential_file, on_disk, put


@pytest.fixture
async def loaded(pool: AccountPool, state_dir: Path) -> AccountPool:
    put(state_dir, credential_file())
    put(state_dir, credential_file("access-b", None, None), "b")
    await pool.load()
    return pool


async def test_a_conversation_stays_on_its_account(loaded: AccountPool, clock: Clock) -> None:
    conversation = Selection(conversation="conversation")
    first = loaded.select(conversation, clock())
    assert first is not None
    await loaded.rename(first.name, "renamed")
    for _ in range(5):
        assert loaded.select(conversation, clock()) is first
    assert first.name == "renamed"


async def test_requests_under_way_end_on_the_same_account(loaded: AccountPool, clock: Clock) -> None:
    account = loaded.accounts["default"]
    account.load(1)
    await loaded.rename("default", "renamed")
    account.load(-1)
    assert loaded.accounts["renamed"] is account
    assert account.in_flight == 0
    assert await account.renew() == account.credential


async def test_a_renewal_that_waits_for_the_lock_goes_on_under_the_new_name(
    loaded: AccountPool,
    vault: FileVault,
    server: TokenServer,
    clock: Clock,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account, lock, at_the_lock = loaded.accounts["default"], vault.lock, asyncio.Event()

    def told(*where: str) -> AbstractAsyncContextManager[None]:
        at_the_lock.set()
        return lock(*where)

    monkeypatch.setattr(vault, "lock", told)
    clock.pass_(8 * HOUR)
    async with lock("demo", "default", "demo.json"):
        renewal = asyncio.create_task(account.renew())
        await at_the_lock.wait()
        await loaded.rename("default", "renamed")
    credential = await renewal
    assert credential.secret == "access-1"
    assert on_disk(state_dir, "renamed")["refresh"] == "refresh-1"
    assert not (state_dir / "demo" / "demo.json").exists()
    assert server.calls == ["refresh-0"]


async def test_a_renewed_credential_that_is_not_saved_yet_moves_along(
    loaded: AccountPool, clock: Clock, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = loaded.accounts["default"]
    clock.pass_(8 * HOUR)
    with monkeypatch.context() as disk:

        async def full(*_: object, **__: object) -> None:
            raise VaultError("the disk is full")

        disk.setattr(FileVault, "write", full)
        assert (await account.renew()).secret == "access-1"
    await loaded.rename("default", "renamed")
    assert account.renewer is not None
    await account.renewer.keep(0)
    assert on_disk(state_dir, "renamed")["refresh"] == "refresh-1"


async def test_what_cannot_be_renamed_stays_as_it_is(loaded: AccountPool) -> None:
    with pytest.raises(Conflict):
        await loaded.rename("default", "b")
    with pytest.raises(Missing):
        await loaded.rename("nobody", "c")
    with pytest.raises(VaultError):
        await loaded.rename("default", "../c")
    assert set(loaded.accounts) == {"default", "b"}
    assert loaded.accounts["default"].name == "default"


async def test_the_configurations_own_account_is_left_alone(make_pool: Callable[..., AccountPool]) -> None:
    pool = make_pool(api_key="key-of-the-configuration")
    await pool.load()
    for change in (pool.rename("api-key", "x"), pool.remove("api-key")):
        with pytest.raises(VaultError, match="comes from the configuration"):
            await change
    assert set(pool.accounts) == {"api-key"}


async def test_a_new_account_of_the_old_name_is_another_one(loaded: AccountPool, state_dir: Path, clock: Clock) -> None:
    loaded.accounts["default"].disable()
    await loaded.rename("default", "renamed")
    put(state_dir, credential_file("access-new", None, None))
    await loaded.load()
    assert loaded.accounts["default"].state(clock()).status == "healthy"
    assert loaded.accounts["renamed"].state(clock()).status == "disabled"


async def test_a_removal_leaves_no_trace(loaded: AccountPool, state_dir: Path, clock: Clock) -> None:
    await loaded.remove("b")
    assert not (state_dir / "demo" / "b").exists()
    await loaded.remove("default")
    assert not (state_dir / "demo" / "demo.json").exists()
    assert loaded.select(Selection(), clock()) is None
    with pytest.raises(Missing):
        await loaded.remove("default")


async def test_a_new_account_of_a_removed_ones_name_inherits_nothing(
    loaded: AccountPool, state_dir: Path, clock: Clock
) -> None:
    loaded.lacking.note(loaded.accounts["b"], "large", clock())
    loaded.faltering.add(loaded.accounts["b"])
    await loaded.remove("b")
    put(state_dir, credential_file("access-new", None, None), "b")
    await loaded.load()
    assert loaded.lacking.names("large", clock()) == frozenset()
    assert loaded.faltering == set()


async def test_what_an_account_gave_to_be_sent_back_is_still_its_own(loaded: AccountPool) -> None:
    loaded.echoed.note("sent with an answer", "default")
    await loaded.rename("default", "renamed")
    assert not loaded.echoed.is_anothers("sent with an answer", "renamed")
    assert loaded.echoed.is_anothers("sent with an answer", "b")


async def test_the_configuration_may_know_the_new_name(make_pool: Callable[..., AccountPool], state_dir: Path) -> None:
    pool = make_pool(accounts={"renamed": AccountSettings(priority=5)})
    put(state_dir, credential_file())
    await pool.load()
    await pool.rename("default", "renamed")
    assert pool.accounts["renamed"].settings.priority == 5
