"""Renewal: single flight, who adopts what another has renewed, what a 401 does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aimux.accounts import AccountPool, FileVault, Missing, PoolOptions
from aimux.plugin import Credential, ProviderSettings, RefreshRejected
from tests.accounts.support import (
    HOUR,
    SOON,
    START,
    Clock,
    Demo,
    TokenServer,
    credential_file,
    load,
    on_disk,
    provider,
    put,
)

if TYPE_CHECKING:
    from aimux.accounts import Account


async def test_a_fresh_credential_is_usable_at_once(
    pool: AccountPool, state_dir: Path, clock: Clock, server: TokenServer
) -> None:
    put(state_dir, credential_file())
    account = await load(pool)
    credential = account.usable(clock())
    assert credential is not None
    assert credential.secret == "access-0"
    assert await account.renew() is credential
    assert server.calls == []


async def test_close_to_expiry_it_is_renewed_and_on_disk_before_it_is_used(
    pool: AccountPool, state_dir: Path, clock: Clock, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state_dir, credential_file(expires_at=SOON, note="kept"))
    account = await load(pool)
    assert account.usable(clock()) is None
    seen: list[str] = []
    publish = type(account).publish

    def watched(self: Account, credential: Any, now: float, **more: Any) -> None:
        seen.append(on_disk(state_dir)["refresh"])
        assert seen[-1] == credential.refresh_token
        publish(self, credential, now, **more)

    monkeypatch.setattr(type(account), "publish", watched)
    credential = await account.renew()
    assert seen == ["refresh-1"]
    assert credential.secret == "access-1"
    assert account.usable(clock()) is credential
    assert on_disk(state_dir)["note"] == "kept"
    assert server.calls == ["refresh-0"]


async def test_fifty_tasks_renew_with_one_call(pool: AccountPool, state_dir: Path, server: TokenServer) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    server.gate = asyncio.Event()
    tasks = [asyncio.create_task(account.renew()) for _ in range(50)]
    await server.asked.wait()
    server.gate.set()
    credentials = await asyncio.gather(*tasks)
    assert {c.secret for c in credentials} == {"access-1"}
    assert server.calls == ["refresh-0"]


async def test_two_pools_on_one_folder_rotate_once_and_the_loser_adopts(
    pool: AccountPool, state_dir: Path, vault: FileVault, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    told: list[str] = []
    options = PoolOptions(clock=clock, on_renewal=lambda account, outcome: told.append(outcome))
    other = AccountPool(provider(), FileVault(state_dir), server, options=options)
    first, second = await load(pool), await load(other)
    server.gate = asyncio.Event()
    winner = asyncio.create_task(first.renew())
    await server.asked.wait()
    loser = asyncio.create_task(second.renew())
    await asyncio.sleep(0)
    server.gate.set()
    assert (await winner).secret == (await loser).secret == "access-1"
    assert server.calls == ["refresh-0"]
    assert told == ["adopted"]


async def test_the_loser_adopts_a_token_that_lives_for_less_than_the_margin_as_well(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    other = AccountPool(provider(), FileVault(state_dir), server, options=PoolOptions(clock=clock))
    first, second = await load(pool), await load(other)
    server.lifetime = 120
    assert (await first.renew()).secret == (await second.renew()).secret == "access-1"
    assert len(server.calls) == 1


async def test_a_client_that_leaves_does_not_stop_the_renewal(
    pool: AccountPool, state_dir: Path, server: TokenServer
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    server.gate = asyncio.Event()
    task = asyncio.create_task(account.renew())
    await server.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.gate.set()
    await pool.close()
    assert on_disk(state_dir)["refresh"] == "refresh-1"
    assert account.credential is not None
    assert account.credential.secret == "access-1"


async def test_a_rejected_token_is_refreshed_though_it_is_not_expired(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file())
    account = await load(pool)
    rejected = account.usable(clock())
    assert rejected is not None
    fresh = await account.renew(rejected)
    assert fresh.secret == "access-1"
    assert await account.renew(rejected) is fresh, "a second request that got the same 401 needs no second call"
    assert server.calls == ["refresh-0"]


async def test_a_rejected_token_that_was_replaced_on_disk_is_not_refreshed_but_the_new_one_adopted(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file())
    account = await load(pool)
    rejected = account.usable(clock())
    put(state_dir, credential_file("access-new", "refresh-new"))
    assert (await account.renew(rejected)).secret == "access-new"
    assert server.calls == []


async def test_a_401_during_a_renewal_waits_for_it(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    held = account.credential
    server.gate = asyncio.Event()
    first = asyncio.create_task(account.renew())
    await server.asked.wait()
    second = asyncio.create_task(account.renew(held))
    await asyncio.sleep(0)
    server.gate.set()
    assert (await first).secret == (await second).secret == "access-1"
    assert len(server.calls) == 1


async def test_many_401s_ask_once_where_the_same_token_is_given_again(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    """Each of them asked, one after the other."""
    put(state_dir, credential_file("access-1"))
    account = await load(pool)
    tasks = [asyncio.create_task(account.renew(account.credential)) for _ in range(20)]
    assert {credential.secret for credential in await asyncio.gather(*tasks)} == {"access-1"}
    assert server.calls == ["refresh-0"]


async def test_what_cannot_be_renewed_is_parked_when_it_is_not_accepted(
    pool: AccountPool, state_dir: Path, clock: Clock
) -> None:
    put(state_dir, credential_file(refresh=None))
    account = await load(pool)
    with pytest.raises(RefreshRejected):
        await account.renew(account.usable(clock()))
    state = account.state(clock())
    assert (state.status, state.reason) == ("parked", "its token was not accepted, and can't be renewed")
    assert state.remedy == "log in again: aimux login demo --account default"


async def test_what_cannot_be_renewed_is_parked_when_it_expires(
    pool: AccountPool, state_dir: Path, clock: Clock
) -> None:
    put(state_dir, credential_file(refresh=None, expires_at=START + 50))
    account = await load(pool)
    assert account.usable(clock()), "to the last second: nothing better will come"
    clock.pass_(51)
    assert account.usable(clock()) is None
    with pytest.raises(RefreshRejected, match="has expired"):
        await account.renew()
    assert account.state(clock()).status == "parked"


async def test_the_configured_api_key(make_pool: Any, clock: Clock, state_dir: Path) -> None:
    pool = make_pool(api_key="sk-configured")
    put(state_dir, b'{"api_key": "sk-hidden"}', "api-key")
    account = await load(pool, "api-key")
    assert list(pool.accounts) == ["api-key"]
    held = account.usable(clock())
    assert held is not None
    assert held.secret == "sk-configured"
    assert await account.renew() is held
    with pytest.raises(RefreshRejected):
        await account.renew(held)
    assert account.state(clock()).remedy == "set providers.demo.api_key"
    pool.reconfigure(provider(api_key="sk-second"))
    await pool.load()
    assert account.state(clock()).status == "healthy"
    pool.reconfigure(provider())
    await pool.load()
    assert pool.accounts["api-key"].credential.secret == "sk-hidden"


async def test_no_secret_in_any_repr_or_error(pool: AccountPool, state_dir: Path, clock: Clock) -> None:
    put(state_dir, credential_file("access-secret", "refresh-secret", expires_at=START - 1))
    account = await load(pool)
    with pytest.raises(RefreshRejected) as caught:
        await account.renew()
    shown = f"{account.credential!r} {account.state(clock())!r} {account.parked!r} {caught.value!r} {Missing('x')!r}"
    assert "secret" not in shown


async def test_a_login_that_does_not_say_when_it_ends_is_renewed_once(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=None))
    account = await load(pool)
    assert account.usable(clock()) is not None, "no request waits for that"
    assert account.renewer is not None
    assert not account.renewer.due(clock(), 0), "a round in between looks after failures only"
    assert account.renewer.due(clock(), 300)
    await account.renewer.keep(300)
    assert on_disk(state_dir)["expires_at"] == START + 8 * HOUR
    assert not account.renewer.due(clock(), 300)
    assert len(server.calls) == 1


async def test_where_no_login_says_when_it_ends_one_renewal_is_enough(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=None))
    account = await load(pool)

    class Silent(Demo):
        def parse_credential(self, raw: bytes) -> Credential:
            return replace(super().parse_credential(raw), expires_at=None)

    pool._resources.provider = Silent(ProviderSettings())
    assert account.renewer is not None
    await account.renewer.keep(300)
    assert not account.renewer.due(clock(), 300)
    await account.renewer.keep(300)
    assert server.calls == ["refresh-0"]
