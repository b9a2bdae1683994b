"""The file vault: layout, permissions, compare and swap, links, locks, and what goes wrong with disks."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.accounts import Conflict, FileVault, Missing, Unsafe, VaultError, files
from aimux.accounts.vault import ACCOUNT_NAME
from tests.accounts.support import put

FILE = "demo.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_layout_and_modes(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "default", FILE, b"one", expect=None)
    await vault.write("demo", "work", FILE, b"two", expect=None)
    assert (state_dir / "demo" / FILE).read_bytes() == b"one"
    assert (state_dir / "demo" / "work" / FILE).read_bytes() == b"two"
    assert mode(state_dir / "demo" / FILE) == mode(state_dir / "demo" / "work" / FILE) == 0o600
    assert mode(state_dir) == mode(state_dir / "demo") == mode(state_dir / "demo" / "work") == 0o700
    assert await vault.list("demo", FILE) == ["default", "work"]
    assert await vault.list("other", FILE) == []


async def test_compare_and_swap(vault: FileVault) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    for wrong in (None, b"", b"two"):
        with pytest.raises(Conflict):
            await vault.write("demo", "a", FILE, b"new", expect=wrong)
    assert await vault.read("demo", "a", FILE) == b"one"
    await vault.write("demo", "a", FILE, b"two", expect=b"one")
    assert await vault.read("demo", "a", FILE) == b"two"


async def test_missing(vault: FileVault) -> None:
    with pytest.raises(Missing, match="import a login"):
        await vault.read("demo", "a", FILE)
    with pytest.raises(Missing):
        await vault.delete("demo", "a", FILE)
    with pytest.raises(Missing):
        await vault.rename("demo", "a", "b", FILE)
    with pytest.raises(Conflict):
        await vault.write("demo", "a", FILE, b"new", expect=b"old")


async def test_delete_leaves_nothing_of_the_account(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "default", FILE, b"one", expect=None)
    await vault.write("demo", "a", FILE, b"two", expect=None)
    await vault.write("demo", "a", FILE + ".spare", b"three", expect=None)
    await vault.delete("demo", "a", FILE)
    assert not (state_dir / "demo" / "a").exists()
    await vault.delete("demo", "default", FILE)
    assert await vault.list("demo", FILE) == []


async def test_delete_keeps_files_that_are_not_ours(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "a", FILE, b"two", expect=None)
    notes = state_dir / "demo" / "a" / "notes.txt"
    notes.write_text("keep")
    await vault.delete("demo", "a", FILE)
    assert notes.read_text() == "keep"


async def test_rename(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "default", FILE, b"one", expect=None)
    await vault.write("demo", "b", FILE, b"two", expect=None)
    with pytest.raises(Conflict, match="there already"):
        await vault.rename("demo", "default", "b", FILE)
    with pytest.raises(Conflict):
        await vault.rename("demo", "b", "b", FILE)
    await vault.rename("demo", "default", "c", FILE)
    await vault.rename("demo", "b", "default", FILE)
    assert await vault.list("demo", FILE) == ["c", "default"]
    assert await vault.read("demo", "c", FILE) == b"one"
    assert await vault.read("demo", "default", FILE) == b"two"
    assert not (state_dir / "demo" / "b").exists()


async def test_two_renames_in_opposite_directions_do_not_wait_for_each_other(vault: FileVault) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    await vault.write("demo", "b", FILE, b"two", expect=None)
    results = await asyncio.gather(
        vault.rename("demo", "a", "b", FILE), vault.rename("demo", "b", "a", FILE), return_exceptions=True
    )
    assert all(isinstance(result, Conflict) for result in results)


@given(st.text(max_size=80))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    vault = FileVault(Path("/state"))
    try:
        path = vault._path("demo", name, FILE)
    except VaultError:
        assert not ACCOUNT_NAME.fullmatch(name)
    else:
        assert os.path.normpath(path) == str(path)
        assert path.parent in {Path("/state/demo"), Path("/state/demo") / name}


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\n", "x" * 65, "a b", "\0"])
async def test_bad_names_are_refused(vault: FileVault, name: str) -> None:
    with pytest.raises(VaultError, match="can't be a name"):
        await vault.read("demo", name, FILE)


# --- permissions ----------------------------------------------------------------------------------------------------


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
    with pytest.raises(VaultError, match="no credential file"):  # and does not wait for a writer
        await vault.read("demo", "default", FILE)
    (folder / FILE).unlink()
    (folder / FILE).mkdir()
    with pytest.raises(VaultError):
        await vault.read("demo", "default", FILE)
    (folder / FILE).rmdir()
    put(state_dir, b"x" * (1024 * 1024 + 1))
    with pytest.raises(VaultError, match="no credential file"):
        await vault.read("demo", "default", FILE)


async def test_a_folder_named_default_is_no_account(
    vault: FileVault, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state_dir / "demo" / "default").mkdir(parents=True)
    (state_dir / "demo" / "default" / FILE).write_bytes(b"x")
    put(state_dir, b"one", "a")
    assert await vault.list("demo", FILE) == ["a"]
    assert "is not used" in caplog.text


# --- links ----------------------------------------------------------------------------------------------------------


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


# --- locks ----------------------------------------------------------------------------------------------------------


async def test_the_lock_excludes_tasks_and_is_taken_by_writes(vault: FileVault) -> None:
    order: list[str] = []
    locked = asyncio.Event()

    async def holder() -> None:
        async with vault.lock("demo", "a", FILE):
            locked.set()
            for _ in range(20):
                await asyncio.sleep(0)
            await vault.write("demo", "a", FILE, b"first", expect=None)  # the task has the lock: no deadlock
            order.append("holder")

    async def writer() -> None:
        await locked.wait()
        await vault.write("demo", "a", FILE, b"second", expect=b"first")
        order.append("writer")

    async with asyncio.timeout(10):
        await asyncio.gather(holder(), writer())
    assert order == ["holder", "writer"]


async def test_the_lock_excludes_other_processes(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    other = os.open(state_dir / "demo" / "a" / ".aimux.lock", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)  # flock is between open files: this is what another process looks like
    waiting = asyncio.create_task(vault.write("demo", "a", FILE, b"two", expect=b"one"))
    try:
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        assert await vault.read("demo", "a", FILE) == b"one", "reading never waits"
    finally:
        os.close(other)
    async with asyncio.timeout(10):
        await waiting
    assert await vault.read("demo", "a", FILE) == b"two"


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, real = tmp_path / ".aimux.lock", fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if not removed:
            removed.append(True)
            lock.unlink()  # its holder deleted the account, between our open and our flock
        real(fd, operation)

    removed: list[bool] = []
    monkeypatch.setattr(fcntl, "flock", flock)
    grip = files.Grip(tmp_path / FILE)
    assert not grip.take()
    assert grip.take()
    assert not files.Grip(tmp_path / FILE).take()
    grip.release()
    grip.release()


async def test_a_cancelled_wait_and_a_cancelled_holder_leave_no_lock(vault: FileVault) -> None:
    async def hold(event: asyncio.Event) -> None:
        async with vault.lock("demo", "a", FILE):
            event.set()
            await asyncio.Event().wait()

    first, second = asyncio.Event(), asyncio.Event()
    holder = asyncio.create_task(hold(first))
    await first.wait()
    waiter = asyncio.create_task(hold(second))
    for _ in range(10):
        await asyncio.sleep(0)
    waiter.cancel()
    holder.cancel()
    await asyncio.gather(holder, waiter, return_exceptions=True)
    assert not second.is_set()
    async with asyncio.timeout(10), vault.lock("demo", "a", FILE):
        pass


async def test_cancelling_at_every_step_of_a_write_leaves_old_or_new_and_no_lock(vault: FileVault) -> None:
    current = b"0"
    await vault.write("demo", "a", FILE, current, expect=None)
    for steps in range(1, 40):
        fresh = str(steps).encode()
        task = asyncio.create_task(vault.write("demo", "a", FILE, fresh, expect=current))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found = await vault.read("demo", "a", FILE)
        assert found in {current, fresh}
        current = found
    async with asyncio.timeout(10), vault.lock("demo", "a", FILE):
        pass


async def test_a_cancellation_arrives_only_when_the_thread_is_done() -> None:
    import threading

    started, go, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        started.set()
        go.wait(10)
        ended.append(True)

    task = asyncio.create_task(files.in_thread(work))
    while not started.is_set():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


# --- disks ----------------------------------------------------------------------------------------------------------


def fail(code: int):  # type: ignore[no-untyped-def]
    def raising(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return raising


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
async def test_a_failing_disk_loses_nothing(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    await vault.write("demo", "a", FILE, b"old", expect=None)
    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "rename" else os, call, fail(code))
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
async def test_lesson_18_a_single_file_bind_mount_is_written_in_place(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    path = put(state_dir, b"a longer old content")
    inode = path.stat().st_ino
    monkeypatch.setattr(Path, "rename", fail(code))
    await vault.write("demo", "default", FILE, b"new", expect=b"a longer old content")
    await vault.write("demo", "default", FILE, b"newer", expect=b"new")
    assert path.read_bytes() == b"newer"
    assert path.stat().st_ino == inode
    assert caplog.text.count("mount the folder instead of the file") == 1


async def test_writing_in_place_restores_the_old_content_when_the_disk_is_full(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(state_dir, b"old")
    monkeypatch.setattr(Path, "rename", fail(errno.EBUSY))
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
    real_open = os.open

    def no_new_files(target: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return real_open(target, flags, *more, **named)

    monkeypatch.setattr(os, "open", no_new_files)
    await vault.write("demo", "default", FILE, b"new", expect=b"old")
    assert path.read_bytes() == b"new"
    with pytest.raises(VaultError, match=os.strerror(code)):
        await vault.write("demo", "other", FILE, b"new", expect=None)


async def test_a_read_only_file_in_a_read_only_folder_can_be_read_but_not_locked(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state_dir, b"old")
    real_open = os.open

    def read_only(target: str, flags: int, *more: int, **named: int) -> int:
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real_open(target, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    assert await vault.read("demo", "default", FILE) == b"old"
    with pytest.raises(VaultError, match="mount it read-write"):
        async with vault.lock("demo", "default", FILE):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_of_somebody_else(vault: FileVault, state_dir: Path) -> None:
    put(state_dir, b"x").chmod(0)
    with pytest.raises(VaultError, match="give the user that runs aimux access"):
        await vault.read("demo", "default", FILE)


async def test_what_a_killed_writer_left_is_swept(vault: FileVault, state_dir: Path) -> None:
    await vault.write("demo", "a", FILE, b"one", expect=None)
    left = state_dir / "demo" / "a" / ".aimux-123.tmp"
    left.write_bytes(b"half")
    await vault.write("demo", "a", FILE, b"two", expect=b"one")
    assert not left.exists()


async def test_a_changed_file_changes_its_tag(
    vault: FileVault, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state_dir, b"one", "a")
    put(state_dir, b"one", "b")
    moving = await vault.scan("demo", FILE)
    later = time.time_ns() + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    before = await vault.scan("demo", FILE)
    assert before["a"] != moving["a"], "a change within the same tick of the file system's clock would not show"
    assert await vault.scan("demo", FILE) == before
    put(state_dir, b"three", "a")
    after = await vault.scan("demo", FILE)
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]


async def test_a_folder_that_cannot_be_read_is_said_and_not_taken_for_empty(
    vault: FileVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", fail(errno.EACCES))
    with pytest.raises(VaultError, match="Permission denied"):
        await vault.list("demo", FILE)
