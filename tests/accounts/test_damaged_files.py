"""Credential files that can't be used, and accounts that mend as soon as they can."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimux.accounts import AccountPool, FileVault, VaultError
from aimux.plugin import RefreshUnavailable
from tests.accounts.support import SOON, Clock, credential_file, load, put


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
    account.enable(clock())
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
