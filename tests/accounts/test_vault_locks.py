"""The file vault: one writer at a time, whatever is cancelled or killed."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from aimux.accounts import FileVault, files
from tests.accounts.support import FILE


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
