"""Renewal: single flight, what is read again and when, what a refusal and a failure do, what is never lost."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aimux.accounts import AccountPool, FileVault, Missing, PoolOptions, Selection, VaultError
from aimux.plugin import Action, HttpUnavailable, RefreshRejected, RefreshUnavailable, Verdict
from tests.accounts.support import HOUR, START, Clock, Demo, TokenServer, credential_file, provider, put

if TYPE_CHECKING:
    from aimux.accounts import Account

SOON = START + 100
"""Within `refresh_before_expiry`, and not yet over."""


def on_disk(state_dir: Path, account: str = "default") -> dict[str, Any]:
    folder = state_dir / "demo" if account == "default" else state_dir / "demo" / account
    data: dict[str, Any] = json.loads((folder / Demo.credential_file).read_bytes())
    return data


async def load(pool: AccountPool, name: str = "default") -> Account:
    await pool.load()
    return pool.accounts[name]


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


async def test_lesson_1_fifty_tasks_renew_with_one_call(
    pool: AccountPool, state_dir: Path, server: TokenServer
) -> None:
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


# --- 401 ------------------------------------------------------------------------------------------------------------


async def test_lesson_4_a_rejected_token_is_refreshed_though_it_is_not_expired(
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
    await pool.reconfigure(provider(api_key="sk-second"))
    assert account.state(clock()).status == "healthy"
    await pool.reconfigure(provider())
    assert pool.accounts["api-key"].credential.secret == "sk-hidden"


# --- refused --------------------------------------------------------------------------------------------------------


async def test_lesson_3_a_refused_refresh_token_parks_and_is_not_tried_again(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    path = put(state_dir, credential_file(refresh="used", expires_at=SOON))
    before = path.read_bytes()
    account = await load(pool)
    with pytest.raises(RefreshRejected):
        await account.renew()
    assert account.state(clock()).status == "parked"
    assert "invalid_grant" in account.state(clock()).reason
    assert pool.select(Selection(), clock()) is None
    assert pool.last_resort(Selection(), clock()) is None
    assert account.renewer is not None
    account.apply(Verdict(Action.PARK, "401"), clock())  # as the gateway says once more
    clock.pass_(10 * HOUR)
    assert not account.renewer.due(clock(), HOUR)
    assert path.read_bytes() == before, "nothing is ever erased"
    assert len(server.calls) == 1


async def test_a_new_login_revives_a_parked_account(pool: AccountPool, state_dir: Path, clock: Clock) -> None:
    put(state_dir, credential_file(refresh="used", expires_at=SOON))
    account = await load(pool)
    with pytest.raises(RefreshRejected):
        await account.renew()
    put(state_dir, credential_file("access-new", "refresh-0"))
    await pool.load()
    assert account.state(clock()).status == "healthy"
    assert pool.select(Selection(), clock()) is account


async def test_before_parking_the_file_is_read_again(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(refresh="used", expires_at=SOON))
    account = await load(pool)

    class Racing(TokenServer):
        async def request(self, *args: Any, **named: Any) -> Any:
            put(state_dir, credential_file("access-vendor", "refresh-vendor"))  # the vendor's CLI was faster
            return await super().request(*args, **named)

    pool._shop.http = Racing(clock)
    assert (await account.renew()).secret == "access-vendor"
    assert account.state(clock()).status == "healthy"


async def test_what_upstream_has_against_an_account_is_not_cured_by_a_renewal_but_by_a_login(
    pool: AccountPool, state_dir: Path, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    account.apply(Verdict(Action.PARK, "the organization is disabled", remedy="ask its owner"), clock())
    assert account.renewer is not None
    assert account.renewer.due(clock(), 300)
    await account.renewer.keep(300)
    await pool.load()
    assert on_disk(state_dir)["refresh"] == "refresh-1", "kept fresh all the same"
    assert account.state(clock()).reason == "the organization is disabled"
    put(state_dir, credential_file("access-other", "refresh-other"))
    await pool.load()
    assert account.state(clock()).status == "healthy"


# --- unavailable ----------------------------------------------------------------------------------------------------

FAULTS = [500, 503, 404, 429, HttpUnavailable("auth.example can't be reached")]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_failing_network_leaves_the_old_token_in_use(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, fault: int | Exception
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    server.faults = [fault]
    credential = await account.renew()
    assert credential.secret == "access-0"
    assert account.usable(clock()) is credential, "and the next request doesn't wait for another failure"
    assert account.state(clock()).status == "healthy"
    clock.pass_(7)  # the pause of 5 s, give or take a fifth
    assert account.usable(clock()) is None
    assert (await account.renew()).secret == "access-2"


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_when_the_token_is_over_a_failing_network_cools_the_account_and_keeps_the_cause(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, fault: int | Exception
) -> None:
    put(state_dir, credential_file(expires_at=START - 1))
    account = await load(pool)
    server.faults = [fault]
    with pytest.raises(RefreshUnavailable):
        await account.renew()
    state = account.state(clock())
    assert state.status == "cooling"
    assert state.reason.startswith("it can't be renewed for now: ")
    assert pool.select(Selection(), clock()) is None
    assert pool.last_resort(Selection(), clock()) is account
    with pytest.raises(RefreshUnavailable):
        await account.renew()
    assert len(server.calls) == 1, "not asked again before the pause is over"
    clock.pass_(7)
    assert pool.select(Selection(), clock()) is account
    assert (await account.renew()).secret == "access-2"
    assert account.state(clock()).status == "healthy"


async def test_lesson_2_a_moved_token_endpoint_is_an_alarm_and_not_a_dead_account(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    put(state_dir, credential_file(expires_at=START - 1))
    account = await load(pool)
    server.faults = [404]
    with pytest.raises(RefreshUnavailable):
        await account.renew()
    assert account.state(clock()).status == "cooling"
    assert [r.levelno for r in caplog.records if "set providers.demo.token_url" in r.getMessage()] == [logging.ERROR]


async def test_the_pause_between_tries_grows_to_five_minutes(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=START - 1))
    account = await load(pool)
    server.faults = [500] * 20
    for _ in range(20):
        with pytest.raises(RefreshUnavailable):
            await account.renew()
        until = account.state(clock()).until
        assert until is not None
        pause = until - clock()
        clock.now = until
    assert len(server.calls) == 20
    assert 240 <= pause <= 360


async def test_a_401_while_renewal_is_unavailable_does_not_hand_out_the_rejected_token(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file())
    account = await load(pool)
    server.faults = [500]
    with pytest.raises(RefreshUnavailable):
        await account.renew(account.usable(clock()))
    assert account.state(clock()).status == "cooling"


async def test_a_plugin_that_breaks_is_a_failure_for_now_and_its_words_are_not_repeated(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    put(state_dir, credential_file(expires_at=START - 1))
    account = await load(pool)
    server.faults = [ValueError("refresh-0 is not what I expected")]
    with pytest.raises(RefreshUnavailable, match=r"broke \(ValueError\)"):
        await account.renew()
    assert "refresh-0" not in caplog.text


async def test_a_token_that_lives_for_less_than_the_margin_is_not_renewed_at_every_request(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=START - 1))
    account = await load(pool)
    server.lifetime = 60
    await account.renew()
    assert account.usable(clock()) is not None
    clock.pass_(29)
    assert account.usable(clock()) is not None
    clock.pass_(2)
    assert account.usable(clock()) is None


# --- other programs -------------------------------------------------------------------------------------------------


async def test_lesson_6_an_edit_during_the_renewal_is_kept_and_so_is_the_rotated_token(
    pool: AccountPool, state_dir: Path, server: TokenServer
) -> None:
    put(state_dir, credential_file(expires_at=SOON, note="old"))
    account = await load(pool)
    server.meanwhile = [lambda: put(state_dir, credential_file(expires_at=SOON, note="new", more=1))]
    assert (await account.renew()).secret == "access-1"
    saved = on_disk(state_dir)
    assert (saved["refresh"], saved["note"], saved["more"]) == ("refresh-1", "new", 1)
    assert server.calls == ["refresh-0"], "the same answer was merged again, nothing was asked again"


async def test_a_login_during_the_renewal_wins_and_the_rotated_token_is_kept_beside_it(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    server.meanwhile = [lambda: put(state_dir, credential_file("access-login", "refresh-login"))]
    assert (await account.renew()).secret == "access-login"
    assert on_disk(state_dir)["refresh"] == "refresh-login"
    spare = state_dir / "demo" / "demo.json.spare"
    assert json.loads(spare.read_bytes())["refresh"] == "refresh-1"
    assert spare.stat().st_mode & 0o777 == 0o600
    # The login turns out to be no good: the token that was kept is the one that lives.
    assert (await account.renew(account.usable(clock()))).secret == "access-1"
    assert on_disk(state_dir)["refresh"] == "refresh-1"
    assert not spare.exists()
    assert account.state(clock()).status == "healthy"


async def test_a_file_broken_during_the_renewal_is_left_alone_and_the_token_lives_on(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    path = put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    server.meanwhile = [lambda: put(state_dir, b'{"half')]
    assert (await account.renew()).secret == "access-1"
    assert path.read_bytes() == b'{"half'
    assert json.loads((state_dir / "demo" / "demo.json.spare").read_bytes())["refresh"] == "refresh-1"
    await pool.load()
    assert account.state(clock()).status == "healthy"


async def test_an_account_removed_during_its_renewal_is_not_brought_back(
    pool: AccountPool, state_dir: Path, server: TokenServer
) -> None:
    path = put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    server.meanwhile = [path.unlink]
    await account.renew()
    assert not path.exists()
    await pool.load()
    assert pool.accounts == {}


# --- disks ----------------------------------------------------------------------------------------------------------


async def test_a_full_disk_costs_nothing_but_a_complaint(
    pool: AccountPool,
    state_dir: Path,
    server: TokenServer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = put(state_dir, credential_file(expires_at=SOON))
    old = path.read_bytes()
    account = await load(pool)
    assert account.renewer is not None

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert (await account.renew()).secret == "access-1", "served from memory"
        assert "free some space" in caplog.text
        assert path.read_bytes() == old
        clock.pass_(7)
        await account.renewer.keep(300)
        assert (account.credential.secret if account.credential else "") == "access-1"
        for _ in range(9):
            clock.pass_(36)
            assert account.renewer.due(clock(), 0), "saving it is tried again before long"
            await account.renewer.keep(300)
        clock.pass_(8 * HOUR)
        assert (await account.renew()).secret == "access-2", "and renewed again from what is in memory"
        assert path.read_bytes() == old
    await pool.load()
    assert (account.credential.secret if account.credential else "") == "access-2", "the old file is not taken for news"
    clock.pass_(HOUR)
    assert account.renewer.due(clock(), 0)
    await account.renewer.keep(300)
    assert on_disk(state_dir)["refresh"] == "refresh-2"
    assert server.calls == ["refresh-0", "refresh-1"]
    assert not account.renewer.due(clock(), 0)


async def test_what_a_full_disk_did_not_take_is_saved_before_the_process_ends(
    pool: AccountPool, state_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert (await account.renew()).secret == "access-1"
        await pool.close()
        assert "lost with this process: log in again" in caplog.text
    await pool.close()
    assert on_disk(state_dir)["refresh"] == "refresh-1"


async def test_where_nothing_can_be_saved_nothing_is_rotated(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    real_open = os.open

    def read_only(target: str, flags: int, *more: int, **named: int) -> int:
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real_open(target, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        assert (await account.renew()).secret == "access-0"
        clock.pass_(101)
        with pytest.raises(RefreshUnavailable, match="Read-only"):
            await account.renew()
    assert server.calls == []
    assert account.state(clock()).status == "cooling"


async def test_a_read_only_credential_that_somebody_else_renews_is_adopted(
    pool: AccountPool, state_dir: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    put(state_dir, credential_file("access-vendor", "refresh-vendor"))

    def no_lock(*_: object) -> bool:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("aimux.accounts.files.Grip.take", no_lock)
    assert (await account.renew()).secret == "access-vendor"


# --- files that can't be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"\xff\xfe", b'{"access": 1}', b"[" * 100_000])
async def test_garbage_parks_with_the_reason_and_mends_itself(
    pool: AccountPool, state_dir: Path, clock: Clock, garbage: bytes
) -> None:
    put(state_dir, garbage)
    account = await load(pool)
    state = account.state(clock())
    assert state.status == "parked"
    assert "demo/default: demo.json" in state.reason
    assert account.usable(clock()) is None
    with pytest.raises(RefreshUnavailable):
        await account.renew()
    account.enable()
    assert account.state(clock()).status == "parked", "there is nothing to serve with"
    put(state_dir, credential_file())
    await pool.load()
    assert account.state(clock()).status == "healthy"


async def test_a_half_written_file_does_not_take_a_working_account_out(
    pool: AccountPool, state_dir: Path, clock: Clock
) -> None:
    put(state_dir, credential_file())
    account = await load(pool)
    put(state_dir, credential_file("access-new", "refresh-new")[:20])
    await pool.load()
    assert account.state(clock()).status == "healthy"
    credential = account.usable(clock())
    assert credential is not None
    assert credential.secret == "access-0"
    put(state_dir, credential_file("access-new", "refresh-new"))
    await pool.load()
    credential = account.usable(clock())
    assert credential is not None
    assert credential.secret == "access-new"


async def test_garbage_at_the_moment_of_renewal(pool: AccountPool, state_dir: Path, clock: Clock) -> None:
    path = put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    put(state_dir, b"{")
    assert (await account.renew()).secret == "access-0", "while it lasts"
    clock.pass_(101)
    with pytest.raises(RefreshUnavailable):
        await account.renew()
    assert account.state(clock()).status == "parked"
    assert path.read_bytes() == b"{"


async def test_a_file_opened_to_others_outside_parks_until_it_is_closed(
    pool: AccountPool, state_dir: Path, tmp_path: Path, clock: Clock
) -> None:
    vendor = tmp_path / "auth.json"
    vendor.touch(mode=0o600)
    vendor.write_bytes(credential_file())
    (state_dir / "demo").mkdir(parents=True, mode=0o700)
    (state_dir / "demo" / "demo.json").symlink_to(vendor)
    account = await load(pool)
    assert account.state(clock()).status == "healthy"
    vendor.chmod(0o644)
    await pool.load()
    assert account.state(clock()).status == "parked"
    assert account.state(clock()).remedy == f"run: chmod 600 {vendor}"
    vendor.chmod(0o600)
    await pool.load()
    assert account.state(clock()).status == "healthy"


async def test_a_vault_that_fails_while_it_is_looked_through_changes_nothing(
    pool: AccountPool, state_dir: Path, vault: FileVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state_dir, credential_file())
    account = await load(pool)

    async def broken(*_: object) -> dict[str, str]:
        raise VaultError("can't read /state (Input/output error)")

    monkeypatch.setattr(vault, "scan", broken)
    with pytest.raises(VaultError):
        await pool.load()
    assert pool.accounts == {"default": account}


async def test_no_secret_in_any_repr_or_error(pool: AccountPool, state_dir: Path, clock: Clock) -> None:
    put(state_dir, credential_file("access-secret", "refresh-secret", expires_at=START - 1))
    account = await load(pool)
    with pytest.raises(RefreshRejected) as caught:
        await account.renew()
    shown = f"{account.credential!r} {account.state(clock())!r} {account.parked!r} {caught.value!r} {Missing('x')!r}"
    assert "secret" not in shown
