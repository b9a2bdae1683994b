"""The file vault: what goes wrong with disks."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from aimux.accounts import FileVault, VaultError
from tests.accounts.disks import failing, opening, read_only
from tests.accounts.support import FILE, put


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
async def test_a_failing_disk_loses_nothing(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    await vault.write("demo", "a", FILE, b"old", expect=None)
    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "rename" else os, call, failing(code))
        with pytest.raises(VaultError, match=os.strerror(code)):
            await vault.write("demo", "a", FILE, b"new", expect=b"old")
    assert await vault.read("demo", "a", FILE) == b"old"
    assert {p.name for p in (state_dir / "demo" / "a").iterdir()} == {FILE, ".aimux.lock"}, "no temporary file stays"


async def test_a_really_full_disk(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "a", FILE, b"old", expect=None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(VaultError, match="can't write"):
            await vault.write("demo", "a", FILE, b"n" * 2000, expect=b"old")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await vault.read("demo", "a", FILE) == b"old"


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV])
async def test_a_single_file_bind_mount_is_written_in_place(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    path = put(state_dir, b"a longer old content")
    inode = path.stat().st_ino
    monkeypatch.setattr(Path, "rename", failing(code))
    await vault.write("demo", "default", FILE, b"new", expect=b"a longer old content")
    await vault.write("demo", "default", FILE, b"newer", expect=b"new")
    assert path.read_bytes() == b"newer"
    assert path.stat().st_ino == inode
    assert caplog.text.count("mount the folder instead of the file") == 1


async def test_writing_in_place_restores_the_old_content_when_the_disk_is_full(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(state_dir, b"old")
    monkeypatch.setattr(Path, "rename", failing(errno.EBUSY))
    truncate = os.ftruncate

    def truncate_or_fail(fd: int, length: int) -> None:
        if length == 2000 and os.fstat(fd).st_ino == path.stat().st_ino:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        truncate(fd, length)

    monkeypatch.setattr(os, "ftruncate", truncate_or_fail)
    with pytest.raises(VaultError, match="free some space"):
        await vault.write("demo", "default", FILE, b"n" * 2000, expect=b"old")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
async def test_a_writable_file_in_a_read_only_folder(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = put(state_dir, b"old")
    monkeypatch.setattr(os, "open", opening(code, os.O_CREAT))
    await vault.write("demo", "default", FILE, b"new", expect=b"old")
    assert path.read_bytes() == b"new"
    with pytest.raises(VaultError, match=os.strerror(code)):
        await vault.write("demo", "other", FILE, b"new", expect=None)


async def test_a_read_only_file_in_a_read_only_folder_can_be_read_but_not_locked(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state_dir, b"old")
    monkeypatch.setattr(os, "open", read_only())
    assert await vault.read("demo", "default", FILE) == b"old"
    with pytest.raises(VaultError, match="mount it read-write"):
        async with vault.lock("demo", "default", FILE):
            pass


async def test_a_folder_that_cannot_be_read_is_said_and_not_taken_for_empty(
    vault: FileVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", failing(errno.EACCES))
    with pytest.raises(VaultError, match="Permission denied"):
        await vault.list("demo", FILE)
