"""What outlives a restart, and what a broken file does."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from aimux.accounts import AccountPool, FileVault, PoolOptions, Selection, StateFile
from aimux.plugin import AccountSettings, Action, LimitWindow, RefreshRejected, Verdict
from tests.accounts.disks import failing
from tests.accounts.support import HOUR, START, Clock, TokenServer, credential_file, provider, put


class Restarts:
    """A gateway that can be restarted on its state folder."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self.state_dir, self.clock = state_dir, clock
        self.server = TokenServer(clock)

    async def start(self) -> AccountPool:
        state = StateFile(self.state_dir / "accounts.json", clock=self.clock)
        options = PoolOptions(clock=self.clock, state=state)
        pool = AccountPool(provider(), FileVault(self.state_dir), self.server, options=options)
        await pool.load()
        return pool


@pytest.fixture
def gateway(state_dir: Path, clock: Clock) -> Restarts:
    for name in ("a", "b", "c"):
        put(state_dir, credential_file(f"access-{name}"), name)
    return Restarts(state_dir, clock)


async def test_cooldowns_windows_parked_and_disabled_accounts_survive(gateway: Restarts, clock: Clock) -> None:
    pool = await gateway.start()
    a, b, c = pool.accounts.values()
    full = LimitWindow("5h", 1.0, START + HOUR, status="rejected")
    a.observe([full, LimitWindow("7d", 0.3, START + 90 * HOUR)], START)
    a.apply(Verdict(Action.COOL_DOWN, "five hours used up", until=START + HOUR), START)
    a.apply(Verdict(Action.COOL_DOWN, "big used up", until=START + 2 * HOUR, model="big"), START)
    b.park("the organization is disabled", "ask its owner")
    c.disable()
    used = pool.select(Selection(), START)
    assert used is None
    await pool.close()

    clock.pass_(60)
    pool = await gateway.start()
    a, b, c = pool.accounts.values()
    assert (a.state(clock()).status, a.state(clock()).reason) == ("cooling", "five hours used up")
    assert a.state(clock()).until == START + HOUR
    assert a.limits["5h"] == full
    assert b.state(clock()).reason == "the organization is disabled"
    assert b.state(clock()).remedy == "ask its owner"
    assert c.state(clock()).status == "disabled"
    assert pool.select(Selection(), clock()) is None

    clock.pass_(HOUR)
    assert pool.select(Selection(), clock()) is a
    assert pool.select(Selection(model="big"), clock()) is None
    await pool.close()

    clock.pass_(2 * HOUR)
    pool = await gateway.start()
    assert pool.accounts["a"].state(clock()).status == "healthy"
    assert "5h" not in pool.accounts["a"].limits
    assert pool.accounts["a"].last_used == START + 60 + HOUR


async def test_what_was_done_by_hand_is_written_without_waiting_for_a_request(gateway: Restarts) -> None:
    pool = await gateway.start()
    state = pool.options.state
    assert state is not None
    pool.accounts["a"].disable()
    pool.accounts["c"].disable()
    await state.flush(now=True)
    for change in ("rename", "assign", "remove"):
        if change == "rename":
            await pool.rename("a", "renamed")
        elif change == "assign":
            pool.assign("b", AccountSettings(priority=3))
        else:
            await pool.remove("c")
        await state.flush(now=True)

        killed = await gateway.start()
        accounts = killed.accounts
        assert accounts["renamed"].disabled
        assert accounts["b"].settings.priority == (0 if change == "rename" else 3)
    put(gateway.state_dir, credential_file("access-new"), "c")
    assert not (await gateway.start()).accounts["c"].disabled


async def test_they_are_re_validated_early_by_fresh_headers(gateway: Restarts, clock: Clock) -> None:
    pool = await gateway.start()
    a = pool.accounts["a"]
    a.observe([LimitWindow("5h", 1.0, START + HOUR, status="rejected")], START)
    a.apply(Verdict(Action.COOL_DOWN, until=START + HOUR), START)
    await pool.close()
    clock.pass_(5)
    pool = await gateway.start()
    a = pool.accounts["a"]
    a.observe([LimitWindow("5h", 0.1, START + 5 * HOUR)], clock())
    assert a.state(clock()).status == "healthy"


async def test_a_login_while_the_gateway_was_down_ends_parking(
    gateway: Restarts, state_dir: Path, clock: Clock
) -> None:
    put(state_dir, credential_file(refresh="used", expires_at=START - 1), "a")
    pool = await gateway.start()
    with pytest.raises(RefreshRejected):
        await pool.accounts["a"].renew()
    await pool.close()
    pool = await gateway.start()
    account = pool.accounts["a"]
    assert account.state(clock()).status == "parked"
    assert account.renewer is not None
    assert not account.renewer.due(clock(), HOUR), "a dead token stays dead over a restart"
    await pool.close()
    put(state_dir, credential_file("access-new", "refresh-new"), "a")
    pool = await gateway.start()
    assert pool.accounts["a"].state(clock()).status == "healthy"


UNREADABLE: list[Any] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"accounts": 3}',
    b'{"version": 1}',
    b"\xff\xfe\x00",
    b"[" * 100_000,
]


@pytest.mark.parametrize("raw", UNREADABLE, ids=range(len(UNREADABLE)))
async def test_of_a_file_that_cannot_be_read_nobody_knows_who_was_switched_off(
    gateway: Restarts, state_dir: Path, clock: Clock, raw: bytes
) -> None:
    path = state_dir / "accounts.json"
    path.write_bytes(raw)
    pool = await gateway.start()
    states = [account.state(clock()) for account in pool.accounts.values()]
    assert [state.status for state in states] == ["parked"] * 3
    assert states[0].remedy == "aimux accounts enable demo/a"
    pool.accounts["a"].enable()
    put(state_dir, credential_file("access-d"), "d")
    await pool.load()
    assert pool.accounts["d"].state(clock()).status == "healthy", "it was not there to be switched off"
    await pool.close()
    assert path.with_name("accounts.json.unreadable").read_bytes() == raw
    assert path.stat().st_mode & 0o777 == 0o600
    pool = await gateway.start()
    assert [a.state(clock()).status for a in pool.accounts.values()] == ["healthy", "parked", "parked", "healthy"]


BROKEN: list[tuple[Any, str]] = [
    ([], "parked"),
    (1, "parked"),
    ({"disabled": []}, "parked"),
    ({"parked": {"reason": 1}}, "parked"),
    ({"disabled": True, "parked": {"reason": 1}}, "disabled"),
    ({"disabled": True, "limits": [{"used": 1}]}, "disabled"),
    ({"cooldowns": {"": {"until": "x"}}}, "healthy"),
    ({"cooldowns": {"": {"until": math.inf, "since": 0, "reason": ""}}}, "healthy"),
    ({"cooldowns": {"": {"until": 1e18, "since": 0, "reason": ""}}}, "healthy"),
    ({"limits": [{"used": 1}]}, "healthy"),
    ({"settings": {"groups": "ci"}}, "parked"),
    ({"settings": {"groups": ["ci"], "from_a_newer_version": True}}, "parked"),
]


@pytest.mark.parametrize(("entry", "status"), BROKEN, ids=range(len(BROKEN)))
async def test_of_a_broken_entry_the_rest_counts(
    gateway: Restarts, state_dir: Path, clock: Clock, entry: Any, status: str
) -> None:
    path = state_dir / "accounts.json"
    raw = json.dumps({"version": 1, "accounts": {"demo": {"a": entry, "b": {"disabled": True}}}})
    path.write_text(raw)
    pool = await gateway.start()
    states = [account.state(clock()).status for account in pool.accounts.values()]
    assert states == [status, "disabled", "healthy"]
    pool.accounts["c"].disable()
    await pool.close()
    aside = path.with_name("accounts.json.unreadable")
    assert not aside.exists() or aside.read_text() == raw
    assert json.loads(path.read_bytes())["accounts"]["demo"]["b"] == {"disabled": True}


async def test_an_instance_whose_accounts_cannot_be_read(gateway: Restarts, state_dir: Path, clock: Clock) -> None:
    (state_dir / "accounts.json").write_text('{"accounts": {"demo": []}}')
    pool = await gateway.start()
    assert {account.state(clock()).status for account in pool.accounts.values()} == {"parked"}


async def test_what_only_a_newer_version_knows_is_kept(gateway: Restarts, state_dir: Path, clock: Clock) -> None:
    demo = {"a": {"disabled": True, "mood": "good"}, "b": {"mood": "bad"}}
    accounts = {"demo": demo, "other": {"x": {"disabled": True}}}
    path = state_dir / "accounts.json"
    path.write_text(json.dumps({"version": 7, "accounts": accounts, "people": [1, 2]}))
    raw = path.read_bytes()
    pool = await gateway.start()
    assert pool.accounts["a"].state(clock()).status == "disabled"
    pool.accounts["c"].disable()
    await pool.close()
    data = json.loads(path.read_bytes())
    assert data["people"] == [1, 2]
    assert data["accounts"] == accounts | {"demo": {**demo, "c": {"disabled": True}}}
    assert path.with_name("accounts.json.other-version").read_bytes() == raw


async def test_it_is_written_at_most_every_ten_seconds_and_not_without_need(
    gateway: Restarts, state_dir: Path, clock: Clock
) -> None:
    path = state_dir / "accounts.json"
    pool = await gateway.start()
    state = pool.options.state
    assert state is not None
    pool.accounts["b"].disable()
    await state.flush()
    path.unlink()
    pool.accounts["a"].disable()
    clock.pass_(9)
    await state.flush()
    assert not path.exists()
    clock.pass_(1)
    await state.flush()
    assert json.loads(path.read_bytes())["accounts"]["demo"]["a"]["disabled"]
    path.unlink()
    clock.pass_(100)
    await state.flush()
    assert not path.exists()


async def test_looking_at_the_accounts_writes_nothing(gateway: Restarts, state_dir: Path) -> None:
    pool = await gateway.start()
    await pool.close()
    assert not (state_dir / "accounts.json").exists()
    pool.accounts["a"].disable()
    await pool.close()
    (state_dir / "accounts.json").unlink()
    pool = await gateway.start()
    await pool.close()
    assert not (state_dir / "accounts.json").exists()


async def test_a_full_disk_is_a_complaint_and_tried_again(
    gateway: Restarts, state_dir: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = await gateway.start()
    state = pool.options.state
    assert state is not None
    pool.accounts["a"].disable()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.ENOSPC))
        await state.flush()
        clock.pass_(10)
        await state.flush()
    assert caplog.text.count("No space left") == 1
    assert "No space left" in state.trouble
    clock.pass_(10)
    await state.flush()
    assert state.trouble == ""
    assert json.loads((state_dir / "accounts.json").read_bytes())["accounts"]["demo"]["a"]["disabled"]


async def test_no_secret_is_in_it(gateway: Restarts, state_dir: Path) -> None:
    pool = await gateway.start()
    for account in pool.accounts.values():
        account.park("broken")
    await pool.close()
    raw = (state_dir / "accounts.json").read_text()
    assert "access-" not in raw
    assert "refresh-" not in raw


async def test_a_cooldown_from_a_time_yet_to_come_is_not_taken_over(gateway: Restarts, clock: Clock) -> None:
    """The clock was wrong when it began, and was set before the restart."""
    pool = await gateway.start()
    clock.pass_(HOUR)
    pool.accounts["a"].apply(Verdict(Action.COOL_DOWN, "rate limited", until=clock() + 5), clock())
    await pool.close()
    clock.pass_(-HOUR)
    again = await gateway.start()
    assert again.accounts["a"].state(clock()).status == "healthy"
