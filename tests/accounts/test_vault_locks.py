"""The file vault: one writer at a time, whatever is cancelled or killed."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from aimux.accounts import FileVault, files
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
