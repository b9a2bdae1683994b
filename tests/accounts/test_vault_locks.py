"""The file vault: one writer at a time, whatever is cancelled or killed."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from pathlib import Path
from threading import Event

import pytest

from aimux import atomic
from aimux.accounts import FileVault, VaultError, files
from aimux.accounts.vault import SPARE
from aimux.threads import in_thread
from tests.accounts.disks import failing
from tests.accounts.support import FILE


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


async def test_a_cancellation_arrives_only_when_the_thread_is_done() -> None:
    import threading

    started, go, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        started.set()
        go.wait(10)
        ended.append(True)

    task = asyncio.create_task(in_thread(work))
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


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO])
async def test_room_that_cannot_be_given_back_keeps_nobody_out(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    vault = FileVault(state_dir, lock_timeout=1)
    await vault.write("demo", "a", FILE, b"one", expect=None)
    async with vault.lock("demo", "a", FILE):
        await vault.reserve("demo", "a", FILE, 100)
        (state_dir / "demo" / "a" / f"{atomic.PREFIX}left{atomic.SUFFIX}").touch()
        monkeypatch.setattr(Path, "unlink", failing(code))
        with pytest.raises(VaultError, match=os.strerror(code)):  # what a killed writer left can't be removed either
            await vault.reserve("demo", "a", FILE + SPARE, 100)
    monkeypatch.undo()
    await vault.write("demo", "a", FILE, b"two", expect=b"one")
    assert {path.name for path in (state_dir / "demo" / "a").iterdir()} == {FILE, ".aimux.lock"}


async def test_whoever_is_cancelled_while_room_is_given_back_lets_go(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, inside, unlink, begun, go = FileVault(state_dir, lock_timeout=1), asyncio.Event(), Path.unlink, [], Event()
    await vault.write("demo", "a", FILE, b"one", expect=None)

    def slowly(path: Path, missing_ok: bool = False) -> None:
        begun.append(path)
        go.wait(10)
        unlink(path, missing_ok=missing_ok)

    async def hold() -> None:
        async with vault.lock("demo", "a", FILE):
            await vault.reserve("demo", "a", FILE, 100)
            monkeypatch.setattr(Path, "unlink", slowly)
            inside.set()

    task = asyncio.create_task(hold())
    await inside.wait()
    while not begun:
        await asyncio.sleep(0)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    await vault.write("demo", "a", FILE, b"two", expect=b"one")
