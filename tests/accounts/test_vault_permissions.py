"""The file vault: whose files it reads, and which it takes from others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aimux.accounts import FileVault, Unsafe, VaultError
from tests.accounts.support import FILE, mode, put


async def test_open_files_and_folders_of_ours_are_fixed_and_said_once(
    vault: FileVault, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(state_dir, b"one", "a")
    path.chmod(0o644)
    path.parent.chmod(0o755)
    for _ in range(2):
        assert await vault.list("demo", FILE) == ["a"]
        assert await vault.read("demo", "a", FILE) == b"one"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert len([r for r in caplog.records if "could be read by others" in r.getMessage()]) == 1
    assert len([r for r in caplog.records if "was open to others" in r.getMessage()]) == 1


async def test_an_open_file_elsewhere_is_refused_with_the_command_to_run(
    vault: FileVault, state_dir: Path, tmp_path: Path
) -> None:
    vendor = tmp_path / "vendor" / "auth.json"
    vendor.parent.mkdir()
    vendor.write_bytes(b"theirs")
    vendor.chmod(0o640)
    link = state_dir / "demo" / FILE
    link.parent.mkdir(parents=True, mode=0o700)
    link.symlink_to(vendor)
    with pytest.raises(Unsafe, match=f"chmod 600 {vendor}"):
        await vault.read("demo", "default", FILE)
    assert mode(vendor) == 0o640
    vendor.chmod(0o600)
    assert await vault.read("demo", "default", FILE) == b"theirs"


async def test_the_state_folder_itself_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # somebody's `state_dir: /srv` must not become 0700
    vault = FileVault(tmp_path)
    await vault.write("demo", "default", FILE, b"one", expect=None)
    await vault.list("demo", FILE)
    assert mode(tmp_path) == 0o755


async def test_what_is_no_credential_file(vault: FileVault, state_dir: Path) -> None:
    folder = state_dir / "demo"
    folder.mkdir(parents=True, mode=0o700)
    os.mkfifo(folder / FILE, 0o600)
    with pytest.raises(VaultError, match="not a credential file"):  # and does not wait for a writer
        await vault.read("demo", "default", FILE)
    (folder / FILE).unlink()
    (folder / FILE).mkdir()
    with pytest.raises(VaultError):
        await vault.read("demo", "default", FILE)
    (folder / FILE).rmdir()
    put(state_dir, b"x" * (1024 * 1024 + 1))
    with pytest.raises(VaultError, match="not a credential file"):
        await vault.read("demo", "default", FILE)


async def test_a_folder_named_default_is_no_account(
    vault: FileVault, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state_dir / "demo" / "default").mkdir(parents=True)
    (state_dir / "demo" / "default" / FILE).write_bytes(b"x")
    (state_dir / "demo" / "two words").mkdir()
    (state_dir / "demo" / "two words" / FILE).write_bytes(b"x")
    put(state_dir, b"one", "a")
    assert await vault.list("demo", FILE) == ["a"]
    assert "default is not used: the default account's files are in the folder above it" in caplog.text
    assert "two words is not used: no account can have that name (1 to 64 of A-Z a-z 0-9" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_of_somebody_else(vault: FileVault, state_dir: Path) -> None:
    put(state_dir, b"x").chmod(0)
    with pytest.raises(VaultError, match="give the user that runs aimux access"):
        await vault.read("demo", "default", FILE)
