"""Other programs that write back a login which was renewed since: the tokens that live are not given up for it."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aimux.accounts import AccountPool, FileVault, VaultError
from aimux.accounts.rotations import KEPT, Rotations
from aimux.accounts.vault import ROTATED
from tests.accounts.support import FILE, HOUR, SOON, Clock, TokenServer, credential_file, load, mode, on_disk, put

Make = Callable[..., AccountPool]


async def settled(pool: AccountPool) -> None:
    """The keeper has looked, and saved what there was to save."""
    await pool.load()
    for account in pool.accounts.values():
        assert account.renewer is not None
        if account.renewer.due(0, 0):
            await account.renewer.keep(300)


async def test_a_stale_copy_gets_the_living_tokens(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(state_dir, credential_file(expires_at=SOON, note="old"))
    account = await load(pool)
    assert (await account.renew()).secret == "access-1"
    put(state_dir, json.dumps(json.loads(credential_file(expires_at=SOON, note="new", more=[1])), indent=2).encode())
    await pool.load()
    assert account.usable(clock()) is not None
    assert account.credential is not None
    assert account.credential.secret == "access-1", "the stale one was never used"
    await settled(pool)
    saved = on_disk(state_dir)
    assert (saved["refresh"], saved["access"], saved["note"], saved["more"]) == ("refresh-1", "access-1", "new", [1])
    assert saved["expires_at"] == clock() + 8 * HOUR
    assert path.read_text().count("\n") > 3, "in the form it was written"
    assert caplog.text.count("wrote an old login back") == 1
    clock.pass_(8 * HOUR)
    assert (await account.renew()).secret == "access-2"
    assert server.calls == ["refresh-0", "refresh-1"]


@pytest.mark.parametrize("generation", [0, 1, 2])
async def test_so_does_one_that_is_found_at_the_start(
    make_pool: Make, state_dir: Path, server: TokenServer, clock: Clock, generation: int
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(make_pool())
    for _ in range(3):
        await account.renew()
        clock.pass_(8 * HOUR)
    put(state_dir, credential_file(f"access-{generation}", f"refresh-{generation}", clock() - 1, note="kept"))
    restarted = make_pool()
    account = await load(restarted)
    assert (await account.renew()).secret == "access-4"
    assert (on_disk(state_dir)["refresh"], on_disk(state_dir)["note"]) == ("refresh-4", "kept")
    assert server.calls[3:] == ["refresh-3"]


async def test_what_another_program_renewed_itself_is_the_newest(
    pool: AccountPool, state_dir: Path, server: TokenServer
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    await account.renew()
    put(state_dir, credential_file("access-vendor", "refresh-vendor"))
    await settled(pool)
    put(state_dir, credential_file(expires_at=SOON, note="late"))
    await settled(pool)
    saved = on_disk(state_dir)
    assert (saved["access"], saved["refresh"], saved["note"]) == ("access-vendor", "refresh-vendor", "late")
    assert server.calls == ["refresh-0"]


async def test_an_old_login_of_another_account_gets_the_tokens_of_its_own(
    pool: AccountPool, state_dir: Path, server: TokenServer
) -> None:
    put(state_dir, credential_file(expires_at=SOON, account="first"))
    account = await load(pool)
    await account.renew()
    put(state_dir, credential_file("access-other", "refresh-other", account="second"))
    await settled(pool)
    put(state_dir, credential_file(expires_at=SOON, account="first"))
    await settled(pool)
    saved = on_disk(state_dir)
    assert (saved["account"], saved["access"], saved["refresh"]) == ("first", "access-1", "refresh-1")


async def test_a_new_login_is_taken_as_it_is(pool: AccountPool, state_dir: Path, server: TokenServer) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    await account.renew()
    put(state_dir, credential_file("access-login", "refresh-login"))
    await settled(pool)
    assert account.credential is not None
    assert account.credential.secret == "access-login"
    assert on_disk(state_dir)["refresh"] == "refresh-login"


async def test_a_stale_copy_in_the_middle_of_a_renewal_costs_nothing(
    pool: AccountPool, state_dir: Path, server: TokenServer, clock: Clock
) -> None:
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(pool)
    await account.renew()
    clock.pass_(8 * HOUR)
    server.meanwhile = [lambda: put(state_dir, credential_file(expires_at=SOON, note="late"))]
    assert (await account.renew()).secret == "access-2"
    assert (on_disk(state_dir)["refresh"], on_disk(state_dir)["note"]) == ("refresh-2", "late")
    await settled(pool)
    assert server.calls == ["refresh-0", "refresh-1"]


async def test_a_process_that_dies_before_the_credential_is_written_has_lost_nothing(
    make_pool: Make, state_dir: Path, server: TokenServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of the rotation is written first."""
    put(state_dir, credential_file(expires_at=SOON, note="kept"))
    account = await load(make_pool())
    write = FileVault.write

    async def dying(
        self: FileVault, instance: str, name: str, file_name: str, raw: bytes, **more: bytes | None
    ) -> None:
        if file_name == FILE:
            raise VaultError("this is where it dies")
        await write(self, instance, name, file_name, raw, expect=more["expect"])

    with monkeypatch.context() as patch:
        patch.setattr(FileVault, "write", dying)
        await account.renew()
    assert on_disk(state_dir)["refresh"] == "refresh-0"
    restarted = make_pool()
    account = await load(restarted)
    assert account.credential is not None
    assert account.credential.secret == "access-1"
    await settled(restarted)
    assert (on_disk(state_dir)["refresh"], on_disk(state_dir)["note"]) == ("refresh-1", "kept")
    assert server.calls == ["refresh-0"]


async def test_what_is_remembered_is_as_secret_as_the_credential_and_goes_where_it_goes(
    pool: AccountPool, state_dir: Path
) -> None:
    path = put(state_dir, credential_file(expires_at=SOON), "work")
    account = await load(pool, "work")
    await account.renew()
    remembered = path.with_name(FILE + ROTATED)
    assert mode(remembered) == 0o600
    assert "refresh-0" not in remembered.read_text(), "dead tokens are hashed"
    await pool.rename("work", "home")
    moved = state_dir / "demo" / "home" / (FILE + ROTATED)
    assert moved.exists()
    assert not remembered.exists()
    await pool.remove("home")
    assert not moved.parent.exists()


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"[]", b'{"retired": 1, "change": []}', b'{"retired": [1, null]}'])
async def test_what_cannot_be_read_of_it_counts_as_nothing(
    pool: AccountPool, state_dir: Path, server: TokenServer, raw: bytes
) -> None:
    path = put(state_dir, credential_file(expires_at=SOON))
    path.with_name(FILE + ROTATED).touch(mode=0o600)
    path.with_name(FILE + ROTATED).write_bytes(raw)
    account = await load(pool)
    assert (await account.renew()).secret == "access-1"
    assert Rotations.read(path.with_name(FILE + ROTATED).read_bytes()).covers("refresh-0")


def test_so_many_are_remembered() -> None:
    rotations = Rotations()
    for number in range(3 * KEPT):
        rotations = rotations.after(f"token-{number}", b"{}", b'{"a":1}')
    assert len(Rotations.read(rotations.written()).retired) == KEPT
    assert rotations.covers(f"token-{3 * KEPT - 1}")
    assert not rotations.covers("token-0")
    assert not rotations.covers(None)
    assert not {word for word in ("token", "'a'") if word in repr(rotations)}


async def test_a_full_disk_is_noticed_before_the_server_is_asked(
    make_pool: Make, state_dir: Path, server: TokenServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a restart loses nothing."""
    put(state_dir, credential_file(expires_at=SOON))
    account = await load(make_pool())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        assert (await account.renew()).secret == "access-0", "it serves as long as it lasts"
        await asyncio.sleep(0)
        restarted = make_pool()
        account = await load(restarted)
        assert (await account.renew()).secret == "access-0"
        await restarted.close()
    assert server.calls == []
    assert not [*(state_dir / "demo").glob(".aimux-*")]
    clock.pass_(400)
    account = await load(make_pool())
    assert (await account.renew()).secret == "access-1"
    assert on_disk(state_dir)["refresh"] == "refresh-1"
