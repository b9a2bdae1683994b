"""Renewal on disks that are full or read-only: nothing that was rotated is lost, nothing is rotated in vain."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aimux import atomic
from aimux.accounts import AccountPool
from aimux.accounts.vault import SPARE
from aimux.plugin import RefreshUnavailable
from tests.accounts.disks import failing, read_only
from tests.accounts.support import HOUR, SOON, Clock, TokenServer, credential_file, load, on_disk, put


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
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.ENOSPC))
        assert (await account.renew()).secret == "access-1", "served from memory"
        assert "free some space" in caplog.text
        state = account.state(clock())
        assert (state.status, "in memory alone" in state.reason, "free some space" in state.remedy) == (
            "healthy",
            True,
            True,
        )
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
    assert account.state(clock()).reason == ""


async def test_what_a_full_disk_did_not_take_is_saved_before_the_process_ends(
    pool: AccountPool, state_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing(errno.ENOSPC))
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
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only())
        assert (await account.renew()).secret == "access-0"
        state = account.state(clock())
        assert (state.status, state.remedy) == ("healthy", "mount it read-write")
        assert "it can't be renewed for now: can't lock" in state.reason
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
    monkeypatch.setattr("aimux.accounts.files.Grip.take", failing(errno.EROFS))
    assert (await account.renew()).secret == "access-vendor"


async def test_what_was_written_although_the_disk_failed_is_not_another_programs(
    pool: AccountPool,
    state_dir: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The folder can't be brought to disk, after the file has its name."""
    path = put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    assert account.renewer is not None
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "sync_folder", failing(errno.EIO))
        assert (await account.renew()).secret == "access-1"
    assert on_disk(state_dir)["refresh"] == "refresh-1"
    clock.pass_(60)
    await account.renewer.keep(300)
    assert account.state(clock()).reason == ""
    assert not path.with_name(path.name + SPARE).exists()
    assert "another program" not in caplog.text
