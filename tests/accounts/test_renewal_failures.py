"""A renewal that is refused, and one that is impossible for now: what becomes of the account."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from aimux.accounts import Account, AccountPool, FileVault, PoolOptions, Selection
from aimux.plugin import Action, Http, HttpUnavailable, ProviderSettings, RefreshRejected, RefreshUnavailable, Verdict
from tests.accounts.support import HOUR, SOON, START, Clock, Demo, TokenServer, credential_file, load, on_disk, put


async def test_a_refused_refresh_token_parks_and_is_not_tried_again(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    path = put(state_dir, credential_file(refresh="used", expires_at=START))
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
    put(state_dir, credential_file(refresh="used", expires_at=START))
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

    pool._resources.http = Racing(clock)
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


async def test_a_moved_token_endpoint_is_an_alarm_and_not_a_dead_account(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    put(state_dir, credential_file(expires_at=START - 1))
    account = await load(pool)
    server.faults = [404]
    with pytest.raises(RefreshUnavailable):
        await account.renew()
    state = account.state(clock())
    assert (state.status, state.remedy) == ("cooling", "set providers.demo.token_url")
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


@pytest.mark.parametrize(("told", "kept"), [(900, 900), (10_000, 3600), (1, 4)])
async def test_the_pause_that_the_server_asks_for_is_kept(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, told: float, kept: float
) -> None:
    put(state_dir, credential_file(expires_at=START - 1))
    account = await load(pool)
    server.faults = [RefreshUnavailable("slow down", retry_after=told)]
    with pytest.raises(RefreshUnavailable):
        await account.renew()
    until = account.state(clock()).until
    assert until is not None
    assert kept <= until - clock() <= max(kept, 6)
    clock.pass_(kept - 1)
    assert account.renewer is not None
    assert not account.renewer.due(clock(), HOUR)
    assert len(server.calls) == 1


async def test_a_401_while_renewal_is_unavailable_does_not_hand_out_the_rejected_token(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file())
    account = await load(pool)
    server.faults = [500]
    with pytest.raises(RefreshUnavailable):
        await account.renew(account.usable(clock()))
    assert account.state(clock()).status == "cooling"


async def test_many_401s_while_renewal_is_unavailable_ask_the_server_no_more_often_than_one(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    """They come one after the other, from requests that were under way and from last resorts."""
    put(state_dir, credential_file())
    account = await load(pool)
    rejected = account.usable(clock())
    server.faults = [500] * 20
    for _ in range(20):
        with pytest.raises(RefreshUnavailable):
            await account.renew(rejected)
        await asyncio.sleep(0)
    assert len(server.calls) == 1
    until = account.state(clock()).until
    assert until is not None
    assert until - clock() <= 6, "the pause is still the first one"
    server.faults.clear()
    clock.pass_(7)
    assert (await account.renew(rejected)).secret == "access-2"
    assert account.state(clock()).status == "healthy"


async def test_a_401_in_the_pause_of_an_early_renewal_keeps_the_account_off(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    server.faults = [500]
    rejected = await account.renew()
    assert account.state(clock()).status == "healthy"
    with pytest.raises(RefreshUnavailable):
        await account.renew(rejected)
    assert len(server.calls) == 1
    assert pool.select(Selection(), clock()) is None
    clock.pass_(7)
    assert pool.select(Selection(), clock()) is account


async def test_a_pause_that_began_when_the_clock_was_wrong_is_none(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    """Nor does a 401 that comes before anybody noticed keep the account off until then."""
    put(state_dir, credential_file())
    account = await load(pool)
    rejected = account.usable(clock())
    clock.pass_(24 * HOUR)
    server.faults = [500]
    with pytest.raises(RefreshUnavailable):
        await account.renew(rejected)
    clock.pass_(-24 * HOUR)
    assert (await account.renew(rejected)).secret == "access-2"
    assert account.state(clock()).status == "healthy"


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


async def test_a_new_refresh_token_without_an_access_token_is_not_lost(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=SOON, kept="yes"))
    account = await load(pool)

    class Halved(Demo):
        async def refresh(self, raw: bytes, http: Http) -> bytes:
            fresh = json.loads(await super().refresh(raw, http))
            raise RefreshUnavailable("no access token", refresh_token=SecretStr(fresh["refresh"]))

    whole = pool._resources.provider
    pool._resources.provider = Halved(ProviderSettings())
    assert (await account.renew()).secret == "access-0", "it lasts a little longer"
    assert (on_disk(state_dir)["refresh"], on_disk(state_dir)["kept"]) == ("refresh-1", "yes")
    pool._resources.provider = whole
    clock.pass_(60)
    assert (await account.renew()).secret == "access-2"
    assert server.calls == ["refresh-0", "refresh-1"]
    assert account.state(clock()).status == "healthy"


@pytest.mark.parametrize("within", [math.inf, 1000], ids=["asked for", "by itself"])
async def test_a_refusal_before_its_time_leaves_it_serving_until_it_ends(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, within: float
) -> None:
    """The access token lives on where another program has used the refresh token up: for days, with some vendors."""
    put(state_dir, credential_file(refresh="used", expires_at=START + 900))
    account = await load(pool)
    assert account.renewer is not None
    with pytest.raises(RefreshRejected):
        await account.renewer.keep(within)
    state = account.state(clock())
    assert (state.status, state.remedy) == ("healthy", "log in again")
    assert "was refused" in state.reason
    assert account.renewable is False
    clock.pass_(899)
    assert not account.renewer.due(clock(), within), "once is enough"
    assert account.usable(clock()) is not None
    assert (await account.renew()).secret == "access-0"
    assert len(server.calls) == 1
    clock.pass_(1)
    assert account.renewer.due(clock(), 0)
    assert account.usable(clock()) is None
    with pytest.raises(RefreshRejected):
        await account.renewer.keep(300)
    assert account.state(clock()).status == "parked"
    assert account.renewable is False
    put(state_dir, credential_file("access-new", "refresh-0"))
    await pool.load()
    assert account.state(clock()).status == "healthy"


async def test_a_request_whose_renewal_is_refused_is_served_with_what_lasts(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(refresh="used", expires_at=SOON))
    account = await load(pool)
    assert account.usable(clock()) is None
    first, second = await asyncio.gather(account.renew(), account.renew())
    assert (first.secret, second.secret) == ("access-0", "access-0")
    assert account.usable(clock()) is first
    assert len(server.calls) == 1
    with pytest.raises(RefreshRejected):
        await account.renew(rejected=first)
    assert account.state(clock()).status == "parked", "its vendor has refused both"


async def test_a_refused_renewal_holds_nothing_of_who_asked_for_it(
    pool: AccountPool, state_dir: Path, clock: Clock
) -> None:
    put(state_dir, credential_file(refresh="used"))
    account = await load(pool)
    asked: list[weakref.ref[Clock]] = []

    async def ask() -> None:
        request = Clock()  # anything that a weak reference can follow
        asked.append(weakref.ref(request))
        await account.renew(rejected=account.usable(clock()))

    with contextlib.suppress(RefreshRejected):
        await ask()
    assert account.state(clock()).status == "parked"
    await asyncio.sleep(0)  # the loop's own step holds it, too
    gc.collect()
    assert [request() for request in asked] == [None]


async def test_where_nobody_told_its_end_a_refused_renewal_leaves_it_to_its_vendor(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(refresh="used", expires_at=None))
    account = await load(pool)
    assert account.renewer is not None
    assert account.renewer.due(clock(), 1000)
    with pytest.raises(RefreshRejected):
        await account.renewer.keep(1000)
    clock.pass_(10 * HOUR)
    assert not account.renewer.due(clock(), 1000)
    assert account.usable(clock()) is not None
    assert len(server.calls) == 1


async def test_a_new_login_ends_a_refusal_before_its_time(pool: AccountPool, state_dir: Path, clock: Clock) -> None:
    put(state_dir, credential_file(refresh="used"))
    account = await load(pool)
    assert account.renewer is not None
    with pytest.raises(RefreshRejected):
        await account.renewer.keep(math.inf)
    put(state_dir, credential_file("access-new", "refresh-0"))
    await pool.load()
    assert (account.state(clock()).reason, account.renewable) == ("", True)


async def test_a_401_in_the_moment_in_which_a_renewal_ends_does_not_join_it(
    vault: FileVault, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    """It is over and has left the old token in use, and who waits for it has not run yet."""
    refused: list[asyncio.Task[Any]] = []

    def ended(account: Account, outcome: str) -> None:
        assert outcome == "unavailable"
        refused.append(asyncio.get_running_loop().create_task(account.renew(account.credential)))

    put(state_dir, credential_file(expires_at=SOON))
    options = PoolOptions(clock=clock, on_renewal=ended)
    account = await load(AccountPool(Demo(ProviderSettings()), vault, server, options=options))
    server.faults = [500]
    assert (await account.renew()).secret == "access-0"
    with pytest.raises(RefreshUnavailable):
        await refused[0]
    assert len(server.calls) == len(refused) == 1
