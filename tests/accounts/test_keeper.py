"""The keeper: every account is renewed in time, and what other programs do is noticed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aimux.accounts import AccountPool, FileVault, Keeper, PoolOptions, Selection, StateFile, VaultError
from aimux.plugin import Action, Verdict
from tests.accounts.support import HOUR, START, Clock, Demo, TokenServer, credential_file, provider, put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


class Turns:
    """Sleeps when the keeper does, and lets a test say when the next look is due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asleep = asyncio.Event()
        self._go = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self._asleep.set()
        await self._go.wait()
        self._go.clear()
        self._clock.pass_(seconds)

    async def next(self, times: int = 1) -> None:
        """Let it look; return when it sleeps again and what it started is done."""
        for _ in range(times):
            await self._asleep.wait()
            self._asleep.clear()
            self._go.set()
        await self.idle()

    async def idle(self) -> None:
        async with asyncio.timeout(10):
            await self._asleep.wait()
            while any("Keeper._one" in repr(task.get_coro()) for task in asyncio.all_tasks()):
                await asyncio.sleep(0)


@pytest.fixture
def turns(clock: Clock) -> Turns:
    return Turns(clock)


@pytest.fixture
async def keep(turns: Turns, clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    tasks: list[asyncio.Task[None]] = []

    async def start(*pools: AccountPool, **options: Any) -> None:
        keeper = Keeper(pools, 600, clock=clock, sleep=turns.sleep, **options)
        tasks.append(asyncio.create_task(keeper.run()))
        await turns.idle()

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set(), "it owns its tasks"


async def test_it_finds_and_renews_at_start(
    pool: AccountPool, state_dir: Path, keep: Any, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=START + 200))
    put(state_dir, credential_file(expires_at=None, refresh=None), "forever")
    await keep(pool)
    assert server.calls == ["refresh-0"]
    assert pool.select(Selection(), clock()) is not None
    assert set(pool.accounts) == {"default", "forever"}


async def test_idle_cooling_disabled_and_parked_accounts_are_renewed(
    pool: AccountPool, state_dir: Path, keep: Any, server: TokenServer, turns: Turns, clock: Clock
) -> None:
    names = ["cooling", "disabled", "idle", "parked"]
    server.valid = {f"refresh-{name}" for name in names}
    for name in names:
        put(state_dir, credential_file(f"access-{name}", f"refresh-{name}", expires_at=START + 1000), name)
    await pool.load()
    pool.accounts["cooling"].apply(Verdict(Action.COOL_DOWN, until=START + 10 * HOUR), START)
    pool.accounts["disabled"].disable()
    pool.accounts["parked"].park("the organization is disabled")
    await keep(pool)
    assert sorted(server.calls) == sorted(f"refresh-{name}" for name in names)
    assert [pool.accounts[name].state(clock()).status for name in names] == ["cooling", "disabled", "healthy", "parked"]


async def test_nothing_expires_between_two_rounds(
    pool: AccountPool, state_dir: Path, keep: Any, server: TokenServer, turns: Turns, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=START + 2000))
    await keep(pool)
    account = pool.accounts["default"]
    assert server.calls == []
    for _ in range(1000):
        await turns.next()
        assert account.usable(clock()) is not None, "no request ever has to wait for a renewal"
    assert len(server.calls) == 1


async def test_edits_additions_and_removals_by_other_programs(
    pool: AccountPool, state_dir: Path, keep: Any, turns: Turns, clock: Clock
) -> None:
    path = put(state_dir, credential_file("access-1"))
    await keep(pool)
    put(state_dir, credential_file("access-2"))
    put(state_dir, credential_file("access-3"), "second")
    await turns.next()
    credential = pool.accounts["default"].usable(clock())
    assert credential is not None
    assert credential.secret == "access-2"
    assert set(pool.accounts) == {"default", "second"}
    path.unlink()
    await turns.next()
    assert set(pool.accounts) == {"second"}


async def test_what_failed_is_tried_again_before_the_next_round(
    pool: AccountPool, state_dir: Path, keep: Any, server: TokenServer, turns: Turns, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=START - 1))
    server.faults = [500, 404]
    await keep(pool)
    account = pool.accounts["default"]
    assert account.state(clock()).status == "cooling"
    for _ in range(20):
        await turns.next()
    assert len(server.calls) == 3
    assert account.state(clock()).status == "healthy"


@pytest.mark.parametrize("wrong", [90.0, 400 * 24 * HOUR])
async def test_what_a_wrong_clock_brought_ends_when_it_is_set_back(
    pool: AccountPool, state_dir: Path, keep: Any, turns: Turns, server: TokenServer, clock: Clock, wrong: float
) -> None:
    put(state_dir, credential_file(expires_at=START + wrong + 8 * HOUR), "limited")
    put(state_dir, credential_file(expires_at=START + wrong - 1), "failed")
    await pool.load()
    clock.pass_(wrong)
    server.faults = [503]
    await keep(pool)
    limited, failed = pool.accounts["limited"], pool.accounts["failed"]
    limited.apply(Verdict(Action.COOL_DOWN, "rate limited", until=clock() + 5), clock())
    assert pool.select(Selection(), clock()) is None
    clock.pass_(-wrong)
    await turns.next()
    assert {account.state(clock()).status for account in (limited, failed)} == {"healthy"}
    assert failed.renewer is not None
    assert failed.renewer.due(clock(), 8 * HOUR + wrong), "it is tried again without a pause"
    assert {pool.select(Selection(), clock()) for _ in range(2)} == {limited, failed}


async def test_a_dead_token_is_asked_for_once(
    pool: AccountPool, state_dir: Path, keep: Any, server: TokenServer, turns: Turns, clock: Clock
) -> None:
    put(state_dir, credential_file(refresh="used", expires_at=START - 1))
    await keep(pool)
    for _ in range(700):
        await turns.next()
    assert server.calls == ["used"]
    put(state_dir, credential_file("new", "refresh-0", expires_at=clock() - 1))
    await turns.next()
    assert server.calls == ["used", "refresh-0"]
    assert pool.accounts["default"].state(clock()).status == "healthy"


async def test_a_setup_token_is_parked_when_it_expires(
    pool: AccountPool, state_dir: Path, keep: Any, turns: Turns, clock: Clock
) -> None:
    put(state_dir, credential_file(refresh=None, expires_at=START + 9))
    await keep(pool)
    assert pool.accounts["default"].state(clock()).status == "healthy"
    await turns.next(5)
    assert pool.accounts["default"].state(clock()).reason == "its token has expired, and can't be renewed"


async def test_renewals_run_at_most_so_many_at_once(
    pool: AccountPool, state_dir: Path, keep: Any, server: TokenServer, turns: Turns
) -> None:
    server.valid = {f"refresh-{number}" for number in range(10)}
    for number in range(10):
        put(state_dir, credential_file(f"access-{number}", f"refresh-{number}", expires_at=START), f"a{number}")
    under_way: list[int] = []
    most = 0
    full = asyncio.Event()

    class Counting(TokenServer):
        async def request(self, *args: Any, **named: Any) -> Any:
            nonlocal most
            under_way.append(1)
            most = max(most, len(under_way))
            if len(under_way) == 3:
                full.set()
            await full.wait()
            await asyncio.sleep(0)
            under_way.pop()
            return await server.request(*args, **named)

    pool._resources.http = Counting(server.clock)
    await keep(pool, parallel=3)
    assert len(server.calls) == 10
    assert most == 3


async def test_one_pool_at_fault_does_not_stop_the_others(
    pool: AccountPool,
    state_dir: Path,
    tmp_path: Path,
    keep: Any,
    server: TokenServer,
    turns: Turns,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken_vault = FileVault(tmp_path / "other")

    async def broken(*_: object) -> dict[str, str]:
        raise VaultError("can't read /other (Input/output error)")

    monkeypatch.setattr(broken_vault, "scan", broken)
    elsewhere = Demo(provider().settings, instance="elsewhere")
    other = AccountPool(elsewhere, broken_vault, server, options=PoolOptions(clock=server.clock))
    put(state_dir, credential_file(expires_at=START + 1))
    await keep(other, pool)
    await turns.next(3)
    assert server.calls == ["refresh-0"]
    assert caplog.text.count("can't look for accounts") == 1, "said once"


async def test_stopping_it_in_the_middle_of_a_renewal_loses_nothing(
    pool: AccountPool, state_dir: Path, server: TokenServer, turns: Turns, clock: Clock
) -> None:
    path = put(state_dir, credential_file(expires_at=START + 1))
    server.gate = asyncio.Event()
    task = asyncio.create_task(Keeper([pool], 600, clock=clock, sleep=turns.sleep).run())
    await server.asked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server.gate.set()
    await pool.close()
    assert b"refresh-1" in path.read_bytes()


async def test_it_writes_the_state(
    state_dir: Path, vault: FileVault, keep: Any, server: TokenServer, turns: Turns, clock: Clock
) -> None:
    put(state_dir, credential_file())
    options = PoolOptions(clock=clock, state=StateFile(state_dir / "accounts.json", clock=clock))
    pool = AccountPool(provider(), vault, server, options=options)
    await keep(pool)
    pool.accounts["default"].disable()
    await turns.next(6)
    assert (state_dir / "accounts.json").exists()
