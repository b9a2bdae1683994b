"""The file vault: credentials that are links to a login elsewhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aimux.accounts import Conflict, FileVault, Missing, VaultError
from tests.accounts.disks import failing
from tests.accounts.support import FILE, mode


@pytest.fixture
def vendor(state_dir: Path, tmp_path: Path) -> Path:
    """A login of the vendor's CLI, linked as the account `linked`."""
    path = tmp_path / "vendor" / "auth.json"
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(b"theirs")
    folder = state_dir / "demo" / "linked"
    folder.mkdir(parents=True, mode=0o700)
    (folder / FILE).symlink_to(path)
    return path


async def test_a_linked_credential_is_written_where_it_is(vault: FileVault, state_dir: Path, vendor: Path) -> None:
    inode = vendor.stat().st_ino
    await vault.write("demo", "linked", FILE, b"renewed", expect=b"theirs")
    assert vendor.read_bytes() == b"renewed"
    assert vendor.stat().st_ino != inode, "replaced atomically, in its own folder"
    assert not vendor.is_symlink()
    assert (state_dir / "demo" / "linked" / FILE).is_symlink()
    assert mode(vendor) == 0o600


async def test_removing_or_renaming_a_link_leaves_the_login(vault: FileVault, state_dir: Path, vendor: Path) -> None:
    await vault.rename("demo", "linked", "other", FILE)
    assert await vault.read("demo", "other", FILE) == b"theirs"
    assert (state_dir / "demo" / "other" / FILE).is_symlink()
    await vault.delete("demo", "other", FILE)
    assert vendor.read_bytes() == b"theirs"


async def test_a_link_whose_folder_is_gone_can_be_replaced_renamed_and_removed(
    vault: FileVault, state_dir: Path, vendor: Path
) -> None:
    """The vendor's CLI was uninstalled: the account says that one has to log in again, so that has to work."""
    vendor.unlink()
    vendor.parent.rmdir()
    await vault.rename("demo", "linked", "other", FILE)
    with pytest.raises(Missing, match="leads to a file that isn't there"):
        await vault.read("demo", "other", FILE)
    await vault.write("demo", "other", FILE, b"login", expect=None, detach=True)
    assert await vault.read("demo", "other", FILE) == b"login"
    assert not vendor.parent.exists()
    (state_dir / "demo" / "other" / FILE).unlink()
    (state_dir / "demo" / "other" / FILE).symlink_to(vendor)
    await vault.delete("demo", "other", FILE)
    assert await vault.list("demo", FILE) == []


async def test_a_link_replaces_an_account_only_when_it_leads_somewhere(vault: FileVault, vendor: Path) -> None:
    await vault.write("demo", "own", FILE, b"ours", expect=None)
    for target, error in ((vendor.parent / "missing", Missing), (vendor.parent, VaultError)):
        with pytest.raises(error):
            await vault.link("demo", "own", FILE, target, replace=True)
        assert await vault.read("demo", "own", FILE) == b"ours"
    with pytest.raises(Conflict):
        await vault.link("demo", "own", FILE, vendor)
    await vault.link("demo", "own", FILE, vendor, replace=True)
    assert await vault.read("demo", "own", FILE) == b"theirs"
    assert "own" in await vault.links("demo", FILE)


async def test_a_link_that_can_not_be_made_costs_nothing(
    vault: FileVault, state_dir: Path, vendor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await vault.write("demo", "own", FILE, b"ours", expect=None)
    with monkeypatch.context() as full:
        full.setattr(os, "symlink", failing(errno.ENOSPC))
        with pytest.raises(VaultError, match="free some space"):
            await vault.link("demo", "own", FILE, vendor, replace=True)
    assert await vault.read("demo", "own", FILE) == b"ours"
    assert sorted(path.name for path in (state_dir / "demo" / "own").iterdir()) == [".aimux.lock", FILE]


async def test_a_login_of_its_own_takes_a_links_place_when_it_is_written(
    vault: FileVault, state_dir: Path, vendor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = state_dir / "demo" / "linked" / FILE
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", failing(errno.ENOSPC))
        with pytest.raises(VaultError, match="free some space"):
            await vault.write("demo", "linked", FILE, b"ours", expect=b"theirs", detach=True)
    assert path.is_symlink()
    assert not [left for left in path.parent.iterdir() if left.suffix == ".tmp"]
    await vault.write("demo", "linked", FILE, b"ours", expect=b"theirs", detach=True)
    assert not path.is_symlink()
    assert (path.read_bytes(), mode(path)) == (b"ours", 0o600)
    assert vendor.read_bytes() == b"theirs"


async def test_a_link_to_nowhere_says_so_and_stays_an_account(vault: FileVault, vendor: Path) -> None:
    vendor.unlink()
    assert await vault.list("demo", FILE) == ["linked"]
    with pytest.raises(Missing, match="leads to a file that isn't there"):
        await vault.read("demo", "linked", FILE)


async def test_two_state_folders_that_link_one_login_share_its_lock(
    vault: FileVault, tmp_path: Path, vendor: Path
) -> None:
    folder = tmp_path / "second" / "demo"
    folder.mkdir(parents=True, mode=0o700)
    (folder / FILE).symlink_to(vendor)
    second = FileVault(tmp_path / "second", lock_timeout=0.02)
    async with vault.lock("demo", "linked", FILE):
        with pytest.raises(VaultError, match="in use by another process"):
            async with second.lock("demo", "default", FILE):
                pass
    async with second.lock("demo", "default", FILE):
        pass
