"""Other programs that change the file while it is renewed: their edit is kept, and so is the rotated token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aimux.accounts import AccountPool
from aimux.plugin import RefreshRejected, RefreshUnavailable
from tests.accounts.support import HOUR, SOON, Clock, TokenServer, credential_file, load, on_disk, put


async def test_an_edit_during_the_renewal_is_kept_and_so_is_the_rotated_token(
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
    assert json.loads(spare.read_bytes())["refresh"] == "refresh-login", "nothing that was ever there is lost"
    assert account.state(clock()).status == "healthy"


async def test_where_both_are_refused_each_stays_where_it_was(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    server.meanwhile = [lambda: put(state_dir, credential_file("access-login", "refresh-login", expires_at=SOON))]
    server.lifetime = 50
    await account.renew()
    clock.pass_(101)
    server.valid.clear()
    server.calls.clear()
    with pytest.raises(RefreshRejected):
        await account.renew(account.usable(clock()))
    assert server.calls == ["refresh-login", "refresh-1"]
    assert on_disk(state_dir)["refresh"] == "refresh-login"
    assert json.loads((state_dir / "demo" / "demo.json.spare").read_bytes())["refresh"] == "refresh-1"
    await pool.load()
    assert account.state(clock()).status == "parked"


async def test_another_persons_login_is_not_followed_by_the_one_before_it(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    """Its token is kept, as it may be the only one, and yet does not serve under the new person's account."""
    put(state_dir, credential_file(expires_at=SOON, account="ann"))
    account = await load(pool)
    server.meanwhile = [lambda: put(state_dir, credential_file("access-bob", "refresh-bob", account="bob"))]
    assert (await account.renew()).secret == "access-bob"
    with pytest.raises(RefreshRejected):
        await account.renew(account.usable(clock()))
    assert account.state(clock()).status == "parked"
    assert on_disk(state_dir)["refresh"] == "refresh-bob"
    assert json.loads((state_dir / "demo" / "demo.json.spare").read_bytes())["refresh"] == "refresh-1"


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


@pytest.mark.parametrize("left", [b"", b'{"access": "acc', b'{"access": null, "refresh": ""}'])
@pytest.mark.parametrize("stops", [False, True])
async def test_a_login_that_another_program_emptied_is_kept_beside_it(
    pool: AccountPool, state_dir: Path, clock: Clock, left: bytes, stops: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The vendors' CLIs write empty tokens where their own renewal fails. What served was alive."""
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    assert (await account.renew()).secret == "access-1"
    path = put(state_dir, left)
    await pool.load()
    assert account.state(clock()).status == "healthy", "it goes on from memory"
    with pytest.raises(RefreshUnavailable):
        await account.renew(account.credential)
    assert caplog.text.count("goes on from memory") == 1
    spare = path.with_name("demo.json.spare")
    assert not spare.exists()
    if stops:
        await pool.close()
    else:
        clock.pass_(9 * HOUR)
        with pytest.raises(RefreshUnavailable):
            await account.renew()
        assert "kept beside it, as demo.json.spare" in account.state(clock()).reason
        assert account.state(clock()).status == "parked"
    assert json.loads(spare.read_bytes())["refresh"] == "refresh-1"
    assert spare.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == left, "somebody may have logged out on purpose"


@pytest.mark.parametrize("stopped", [False, True])
async def test_what_is_kept_beside_it_is_put_back_when_somebody_says_so(
    make_pool: Any, state_dir: Path, clock: Clock, stopped: bool
) -> None:
    path = put(state_dir, credential_file())
    pool: AccountPool = make_pool()
    account = await load(pool)
    put(state_dir, b"emptied")
    await pool.load()
    if stopped:
        await pool.close()
        pool = make_pool()
        account = await load(pool)
    else:
        clock.pass_(9 * HOUR)
        with pytest.raises(RefreshUnavailable):
            await account.renew()
    state = account.state(clock())
    assert state.reason.endswith("; a login is kept beside it, as demo.json.spare")
    assert state.remedy.startswith("aimux accounts enable demo/default puts it back; or log in again: ")
    assert account.renewer is not None
    assert await account.renewer.put_back()
    await pool.load()
    account.enable()
    assert account.state(clock()).status == "healthy"
    assert json.loads(path.read_bytes())["refresh"] == "refresh-0"
    assert path.with_name("demo.json.spare").read_bytes() == b"emptied"
    assert not await account.renewer.put_back(), "once"
    assert (await account.renew()).secret == ("access-0" if stopped else "access-1")


async def test_nothing_is_put_back_over_a_login_or_from_nothing(pool: AccountPool, state_dir: Path) -> None:
    path = put(state_dir, credential_file())
    account = await load(pool)
    assert account.renewer is not None
    spare = path.with_name("demo.json.spare")
    spare.write_bytes(credential_file("another"))
    assert not await account.renewer.put_back()
    path.write_bytes(b"")
    spare.write_bytes(b"no login either")
    assert not await account.renewer.put_back()
    path.unlink()
    assert not await account.renewer.put_back()


async def test_a_file_that_is_being_written_in_place_is_waited_for(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor's CLI has renewed the shared login, and empties the file before it writes it."""
    path = put(state_dir, credential_file())
    account = await load(pool)
    used = account.usable(clock())
    path.write_bytes(b"")
    read = pool._resources.vault.read

    async def reading(*where: str) -> bytes:
        found = await read(*where)
        if not found:
            put(state_dir, credential_file("access-vendor", "refresh-vendor"))
        return found

    monkeypatch.setattr(pool._resources.vault, "read", reading)
    assert (await account.renew(used)).secret == "access-vendor"
    assert server.calls == []
