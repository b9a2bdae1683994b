"""What waits on the disk for the database."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from aimux.metering.rows import KEY, Key
from aimux.metering.spill import Spill
from aimux.storage import Database
from tests.waiting import until

from .conftest import Make
from .support import NOON, ONE, Flaky, record, settled, times, total


def failing(number: int) -> Callable[[object], None]:
    """A call that the disk refuses with this errno."""

    def fail(_what: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


async def three_left(database: Database, make: Make, folder: Path) -> tuple[Flaky, Path]:
    """A database that was away, and the file in which a process has left three requests."""
    flaky = Flaky(database)
    first = make(flaky)
    flaky.away = True
    for _ in range(3):
        first.record(record())
    await first.close()
    (file,) = (folder / "ledger").iterdir()
    return flaky, file


async def test_half_a_line_is_what_a_crash_leaves_and_no_more_is_lost(
    database: Database, make: Make, tmp_path: Path
) -> None:
    _, file = await three_left(database, make, tmp_path)
    file.write_bytes(file.read_bytes()[:-40])
    second = make()
    await second.start()
    await until(lambda: not list((tmp_path / "ledger").iterdir()))
    await second.close()
    assert await total(database) == times(2)


async def test_lines_that_are_no_rows_are_told_of_once_and_the_others_are_written(
    database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flaky, file = await three_left(database, make, tmp_path)
    one, two, three = file.read_bytes().splitlines(keepends=True)
    monkeypatch.setattr(Spill, "READ", 4096)
    values, key = json.loads(one)
    others = [[values[:-1], key], [[*values, 0], key], [values, key[:-4]], [None, key], [values, None], 7]
    strange = b"".join(json.dumps(other).encode() + b"\n" for other in others)
    file.write_bytes(one + strange + bytes(10_000) + b"\n" + two + b'[["req' + three)
    second = make(flaky)
    await second.start()
    flaky.away = False
    await settled(second)
    assert await total(database) == times(2)
    told = [record.message for record in caplog.records if "can't be read" in record.message]
    assert told == [f"{file}: lines that can't be read are left out: {count}" for count in (len(others), 2)]
    assert not list((tmp_path / "ledger").iterdir())
    await second.close()


async def test_nobody_takes_over_a_file_that_is_in_use(database: Database, make: Make, tmp_path: Path) -> None:
    flaky = Flaky(database)
    first = make(flaky)
    flaky.away = True
    first.record(record())
    await first.flush()
    second = make()
    await second.start()
    await asyncio.sleep(0.1)
    assert list((tmp_path / "ledger").iterdir())
    await second.close()
    flaky.away = False
    await settled(first)
    assert await total(database) == ONE
    await first.close()


async def test_at_its_limit_the_spill_takes_no_more_and_says_so_before(
    database: Database, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    flaky = Flaky(database)
    ledger = make(flaky, spill_limit=8000)
    flaky.away = True
    filled = []
    for _ in range(60):
        ledger.record(record())
        await ledger.flush()
        status = ledger.status()
        assert status is not None
        filled.append((status["filled"], status["lost_requests"]))
        assert status["waiting_bytes"] <= 8000
    assert any(0.8 < part <= 1 and not lost for part, lost in filled)
    lost = filled[-1][1]
    assert 0 < lost < 50
    assert "`ledger.spill_limit` is used" in caplog.text
    flaky.away = False
    async with asyncio.timeout(10):
        while await total(database) != times(60 - lost):
            await asyncio.sleep(0.05)
            await ledger.flush()
    await ledger.close()


async def test_a_disk_that_takes_nothing_leaves_no_empty_file_open(
    database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky = Flaky(database)
    ledger = make(flaky)
    flaky.away = True
    with monkeypatch.context() as disk:
        disk.setattr(os, "fdatasync", failing(errno.ENOSPC))
        ledger.record(record())
        await ledger.flush()
    assert not list(tmp_path.rglob("*.rows"))
    await ledger.flush()
    assert list(tmp_path.rglob("*.rows"))
    flaky.away = False
    await settled(ledger)
    assert await total(database) == times(1)
    await ledger.close()


async def test_what_neither_takes_waits_in_memory_and_is_told(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flaky = Flaky(database)
    ledger = make(flaky)
    with monkeypatch.context() as disk:
        disk.setattr(os, "fdatasync", failing(errno.EROFS))
        flaky.away = True
        for _ in range(3):
            ledger.record(record())
        await ledger.flush()
        told = ledger.status()
        assert told is not None
        assert (told["unsaved_requests"], told["disk"]) == (3, "Read-only file system")
        flaky.away = False
        await settled(ledger)
        assert (ledger.status(), await total(database)) == (None, times(3))
        flaky.away = True
        ledger.record(record())
        await ledger.close()
    assert "1 of the requests are lost" in caplog.text


async def test_what_comes_while_a_slow_database_takes_what_the_disk_refuses_counts_too(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky = Flaky(database)
    ledger = make(flaky)
    ledger.record(record())
    await settled(ledger)
    monkeypatch.setattr(os, "fdatasync", failing(errno.ENOSPC))
    flaky.go_on.clear()
    for number in (1, 2):
        ledger.record(record(NOON + number))
        await ledger.flush()
    flaky.go_on.set()
    await settled(ledger)
    assert await total(database) == times(3)
    await ledger.close()


async def test_a_file_that_can_not_be_removed_takes_nothing_along(
    database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky = Flaky(database)
    ledger = make(flaky)

    async def spilt() -> None:
        flaky.away = True
        ledger.record(record())
        await ledger.flush()
        flaky.away = False
        await settled(ledger)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", failing(errno.EROFS))
        await spilt()
    assert len(list(tmp_path.rglob("*.rows"))) == 1
    await spilt()
    assert await total(database) == times(2), "what comes later is not put into it"
    await ledger.adopt()
    await settled(ledger)
    assert not list(tmp_path.rglob("*.rows"))
    assert await total(database) == times(2)
    await ledger.close()


async def test_an_empty_file_of_a_killed_process_is_removed(database: Database, make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    folder.mkdir()
    left = folder / "0123456789abcdef0123456789abcdef.rows"
    left.touch()
    ledger = make()
    await ledger.adopt()
    assert not left.exists()
    ledger.record(record())
    await settled(ledger)
    assert await total(database) == ONE
    await ledger.close()


async def test_nothing_waits_for_the_disk_while_the_database_is_opened(
    database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing what that needs takes half a second, and several on a busy machine."""
    opening, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        opening.set()
        go_on.wait(10)

    monkeypatch.setattr("aimux.metering.ledger.prepare", slowly)
    ledger = make()
    try:
        for count in (1, 2, 3):
            ledger.record(record())
            async with asyncio.timeout(5):
                await ledger.flush()
            assert opening.is_set()
            (file,) = (tmp_path / "ledger").iterdir()
            assert len(file.read_bytes().splitlines()) == count
    finally:
        go_on.set()
    await settled(ledger)
    assert await total(database) == times(3)
    await ledger.close()


def test_a_state_folder_that_was_removed_is_made_again_for_its_owner_alone(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "state" / "ledger", 1 << 20)
    before = os.umask(0o022)
    try:
        spill.append([(*["req_1"] * KEY, ("key",))])
    finally:
        os.umask(before)
        spill.close()
    assert [folder.stat().st_mode & 0o777 for folder in (tmp_path / "state", tmp_path / "state" / "ledger")] == [
        0o700
    ] * 2


def lines(spill: Spill) -> list[str]:
    """The ids of all that waits, which is written."""
    found: list[str] = []
    while rows := spill.read():
        assert not spill.untold(), "they were counted when they were put here"
        found += [row[0] for row in rows]
        spill.written()
    return found


def row(name: str) -> tuple[object, ...]:
    return (*[name] * KEY, Key("ann", "t1", ("team",), "claude", "default", "/claude", "m", "", ""))


def test_half_a_line_that_stays_on_the_disk_takes_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = Spill(tmp_path, 1 << 20)
    spill.append([row("req_1")])
    real = os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:-50])

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", half)
        disk.setattr(os, "ftruncate", lambda fd, _size: failing(errno.EIO)(fd))
        with pytest.raises(OSError, match="No space"):
            spill.append([row("req_2")])
    spill.append([row("req_2")])
    spill.append([row("req_3")])
    assert lines(spill) == ["req_1", "req_2", "req_3"]
    assert not list(tmp_path.iterdir())
    spill.close()


def test_what_can_not_be_read_lets_what_can_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill, real = Spill(tmp_path, 1 << 20), os.pread
    spill.append([row("req_1")])
    (bad,) = tmp_path.iterdir()

    def pread(fd: int, size: int, at: int) -> bytes:
        if os.path.sameopenfile(fd, broken):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, size, at)

    broken = os.open(bad, os.O_RDONLY)
    with monkeypatch.context() as disk:
        disk.setattr(os, "pread", pread)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                spill.read()
        spill.append([row("req_2")])
        with pytest.raises(OSError, match="Input/output"):
            spill.read()
        assert [found[0] for found in spill.read()] == ["req_2"]
        spill.written()
        assert [*tmp_path.iterdir()] == [bad]
    assert lines(spill) == ["req_1"]
    os.close(broken)
    spill.close()


async def test_a_file_of_somebody_elses_keeps_nobody_from_the_others(
    database: Database,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await three_left(database, make, tmp_path)
    theirs = tmp_path / "ledger" / f"{'0' * 32}.rows"
    theirs.write_text("left by root")
    real = os.open

    def open_(path: Path, *given: int, **named: int) -> int:
        if path == theirs:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *given, **named)

    monkeypatch.setattr(os, "open", open_)
    ledger = make()
    await ledger.start()
    await settled(ledger)
    assert await total(database) == times(3)
    assert [*theirs.parent.iterdir()] == [theirs]
    assert f"can't be taken over: {theirs}: Permission denied" in caplog.text
    await ledger.close()


def lowest_free() -> int:
    """The lowest descriptor that nothing has."""
    found = os.dup(0)
    os.close(found)
    return found


def test_a_disk_without_locks_is_not_filled_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(tmp_path, 1 << 20)
    monkeypatch.setattr("aimux.metering.spill.fcntl.flock", lambda fd, _how: failing(errno.ENOLCK)(fd))
    before = lowest_free()
    for _ in range(3):
        with pytest.raises(OSError, match="No locks"):
            spill.append([row("req_1")])
    assert not list(tmp_path.iterdir())
    assert lowest_free() == before
